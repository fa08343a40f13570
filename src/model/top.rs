//! Which processes of the node use most, and whose they are: facts behind `/processes` and `kata_pulse_top_process_*`.

use std::sync::Arc;

use crate::model::identity::SandboxId;
use crate::model::inventory::Runtime;
use crate::model::units::{Bytes, Seconds};

/// How many processes are listed by memory, and how many by CPU time, at most.
pub const LISTED: usize = 100;

/// The processes that use most.
#[derive(Clone, Debug, Default)]
pub struct Top {
    /// How many there are on the node, the kernel's threads included.
    pub processes: u64,
    /// Those with most memory, the largest first.
    pub by_memory: Vec<Arc<Process>>,
    /// Those that use most CPU time at present, the busiest first.
    pub by_cpu: Vec<Arc<Process>>,
    /// Processes of one name in one container together: those with most memory and those that use most CPU time. Empty
    /// unless their families are served.
    pub groups: Vec<Group>,
}

/// A process.
#[derive(Clone, Debug, PartialEq)]
pub struct Process {
    /// Its pid on the node.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name, by itself; control characters are replaced.
    pub comm: Arc<str>,
    /// `R`, `S`, `D` and so on, as in proc(5).
    pub state: char,
    /// How many threads it has.
    pub threads: u64,
    /// When it was started, Unix time.
    pub started_at: Option<Seconds>,
    /// CPU time of all its threads since then.
    pub cpu: Seconds,
    /// Cores that it uses at present.
    pub cores: Cores,
    /// Memory that is there.
    pub resident: Bytes,
    /// Whose it is.
    pub owner: Arc<Owner>,
}

/// CPU time for each second, over some time.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Cores {
    /// How many.
    pub used: f64,
    /// Seconds over which that was measured: since the last collection, or since the process was started.
    pub over: f64,
}

/// Processes of one name in one container.
#[derive(Clone, Debug, PartialEq)]
pub struct Group {
    /// Their name; `other` for all names beyond those that one container may have.
    pub comm: Arc<str>,
    /// Whose they are.
    pub owner: Arc<Owner>,
    /// CPU time of all of them, those that have ended included.
    pub cpu: Seconds,
    /// Memory of all of them; what they share is in it more than once.
    pub resident: Bytes,
}

/// Whose a process is. All is blank and absent for the node's own.
#[derive(Clone, Debug, Default, PartialEq, Eq, Hash)]
pub struct Owner {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Container name; blank for what holds a sandbox: the pause container, a shim, a virtual machine.
    pub container: String,
    /// The pod's sandbox.
    pub sandbox: Option<SandboxId>,
    /// Which kind of runtime holds that.
    pub runtime: Option<Runtime>,
}
