//! Typed facts: what was found on the node and how much of it was used.
//!
//! A leaf of the import graph. `discover` fills an [`inventory::Inventory`], `collect` turns it into a
//! [`snapshot::Snapshot`], `expose` says the snapshot in words. Nothing here reads a file or a socket.

pub mod guest;
pub mod host_side;
pub mod identity;
pub mod inventory;
pub mod machine;
pub mod node;
pub mod passthrough;
pub mod snapshot;
pub mod top;
pub mod units;
pub mod usage;
pub mod volume;
