//! The `volume` collector on real mounts below a kubelet-shaped directory, as root: held against `df`, with a filesystem
//! that hangs, volumes that vanish, links that lead out, and claims by the API server's word.

use std::sync::{Mutex, PoisonError};
use std::time::Duration;

mod claims;
mod hostile;
mod kubelet;
mod measured;
#[path = "../support/mod.rs"]
mod support;
mod walked;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// One test at a time: loop devices are taken from the whole host.
static MOUNTS: Mutex<()> = Mutex::new(());

fn alone() -> std::sync::MutexGuard<'static, ()> {
    MOUNTS.lock().unwrap_or_else(PoisonError::into_inner)
}
