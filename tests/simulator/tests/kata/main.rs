//! Drives the simulated sandboxes with clients of their own: plain sockets, frames and messages made by hand.

mod agent;
mod client;
mod containers;
mod faults;
mod host;
mod hypervisor;
mod ledger;
mod replay;
mod scale;
mod shim;
mod task;
