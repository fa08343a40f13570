//! The messages of the kata-agent, of the shim's Task service and of containerd, generated from proto files.

pub(super) use generated::{agent, cgroups_v1, cgroups_v2, control, task};

/// Written by a generator that follows its own rules.
#[allow(missing_docs, unsafe_code, dead_code, clippy::all, clippy::pedantic, clippy::unwrap_used)]
mod generated {
    include!(concat!(env!("OUT_DIR"), "/wire/mod.rs"));
}
