//! Kata sandboxes that hang, break off, flood and lie, measured by the real binary: the sandboxes beside them are told
//! in full, nothing false is told of them, they are said to be ill, and they come back.

use std::time::Duration;

mod faults;
mod files;
mod lies;
#[path = "../support/mod.rs"]
mod support;
mod symptoms;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Prometheus gives up after ten seconds. Half a second of it is for a machine that has much else to do.
const IN_TIME: Duration = Duration::from_millis(9500);
