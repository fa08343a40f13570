//! How the truth is told: the bytes of each protocol, with the units, gaps and defects of the programs that speak it.

pub(super) mod agent_stats;
pub(super) mod agent_text;
pub(super) mod exposition;
pub(super) mod hypervisor_json;
pub(super) mod lies;
pub(super) mod shim_text;
pub(super) mod task_stats;
