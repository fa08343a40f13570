//! The `node` collector: beside Debian's node_exporter on this host, on a made-up node, and with a filesystem that hangs.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

mod beside;
mod hung;
mod made_up;
#[path = "../support/mod.rs"]
mod support;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: a filesystem that hangs is on the host for everybody.
static MOUNTS: Mutex<()> = Mutex::new(());

/// The agent with no runtime and this collector.
const FLAGS: [&str; 6] = ["--runtime-endpoint", "none", "--max-age-secs", "0", "--enable-collectors", "node"];

fn alone() -> std::sync::MutexGuard<'static, ()> {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}
