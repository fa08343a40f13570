//! What one more pod costs in a scrape, in counts that no machine changes: allocations, system calls, instructions.
//!
//! Each is measured at two sizes of a node and divided by the difference, so that what a scrape costs in any case is not
//! in it. `tests/golden/cost` keeps what it was; who changes it says so with `make golden`, and whoever reads the commit
//! sees the price. `make bench` has the seconds.
#![allow(
    clippy::unwrap_used,
    clippy::print_stdout,
    clippy::borrowed_box,
    reason = "whatever fails is the test's own failure, and says what it counted"
)]

mod allocations;
mod instructions;
mod kept;
mod loads;
#[path = "../support/mod.rs"]
mod support;
mod system_calls;

use std::alloc::System;
use std::sync::{PoisonError, RwLock, RwLockReadGuard, RwLockWriteGuard};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// Held for writing by who counts, because allocations are those of the whole process; for reading by who prepares.
static QUIET: RwLock<()> = RwLock::new(());

fn alone() -> RwLockWriteGuard<'static, ()> {
    QUIET.write().unwrap_or_else(PoisonError::into_inner)
}

fn beside() -> RwLockReadGuard<'static, ()> {
    QUIET.read().unwrap_or_else(PoisonError::into_inner)
}
