//! Many Kata sandboxes, some of them ill: the others are told in full and in time, what the agent holds stays the same
//! however long it goes on, those that come are seen at once, and those that go leave nothing behind.

use std::sync::RwLock;
use std::time::Duration;

mod arrival;
mod churn;
mod glance;
mod held;
mod hundred;
#[path = "../support/mod.rs"]
mod support;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// glibc gives every few threads a heap of their own, and memory wanders between them for hundreds of scrapes: with one
/// heap, what grows is what the agent holds.
const ONE_HEAP: [(&str, &str); 1] = [("MALLOC_ARENA_MAX", "1")];

/// Held for writing by a test that measures milliseconds, for reading by those that keep the machine busy for minutes.
static QUIET: RwLock<()> = RwLock::new(());
