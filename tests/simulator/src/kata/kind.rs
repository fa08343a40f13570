//! What kinds of sandboxes, hosts and guests there are, and the doors into a sandbox.

use serde::{Deserialize, Serialize};

/// Whose shim runs the sandbox.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// The Go shim: sandboxes below `vc/sbs`.
    Go,
    /// The Rust shim, runtime-rs: sandboxes below `kata`.
    Rust,
}

/// What runs the guest.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Hypervisor {
    /// Cloud Hypervisor: agent over hybrid vsock, and an HTTP API of its own.
    CloudHypervisor,
    /// QEMU: the agent is behind AF_VSOCK, which no Unix socket can stand for, so it cannot be reached here.
    Qemu,
    /// Firecracker: agent over hybrid vsock.
    Firecracker,
    /// Dragonball, inside the shim's process; there is none under the Go runtime.
    Dragonball,
    /// OpenVMM; there is none under the Go runtime.
    OpenVmm,
}

impl Hypervisor {
    /// The word in `persist.json` and `state.json`.
    #[must_use]
    pub fn state_name(self) -> &'static str {
        match self {
            Self::CloudHypervisor => "clh",
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::Dragonball => "dragonball",
            Self::OpenVmm => "openvmm",
        }
    }

    /// Whether this runtime has it.
    #[must_use]
    pub fn runs_under(self, runtime: Runtime) -> bool {
        runtime == Runtime::Rust || !matches!(self, Self::Dragonball | Self::OpenVmm)
    }

    /// Whether the shim of a sandbox of these kinds dies of `GET /metrics`, and the sandbox with it.
    #[must_use]
    pub fn dies_of_metrics(self, runtime: Runtime) -> bool {
        runtime == Runtime::Rust && matches!(self, Self::Qemu | Self::Firecracker)
    }
}

/// The cgroup version inside the guest, which decides what the agent can tell of a container.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum GuestCgroup {
    /// Every list filled, but older guests only.
    V1,
    /// The default: throttled time and block I/O are zero whatever happened.
    V2,
}

/// The cgroup version of the node.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum HostCgroup {
    /// One hierarchy per controller.
    V1,
    /// One hierarchy for all.
    V2,
}

/// A door into a sandbox: one Unix socket each.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Endpoint {
    /// The kata-agent: ttrpc behind a hybrid-vsock handshake.
    Agent,
    /// The shim's management server: HTTP.
    Shim,
    /// The shim's Task API: ttrpc.
    Task,
    /// The API of Cloud Hypervisor: HTTP. Firecracker's is there to be left alone.
    Hypervisor,
    /// Sockets nobody but the shim may open, such as QEMU's monitor: a connection is a violation.
    Reserved,
}

impl Endpoint {
    /// All of them.
    pub const ALL: [Self; 5] = [Self::Agent, Self::Shim, Self::Task, Self::Hypervisor, Self::Reserved];

    pub(super) fn index(self) -> usize {
        match self {
            Self::Agent => 0,
            Self::Shim => 1,
            Self::Task => 2,
            Self::Hypervisor => 3,
            Self::Reserved => 4,
        }
    }
}

/// What the hypervisor says of its VM.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum VmState {
    /// It runs.
    Running,
    /// It stands still: counters are frozen, and the state says `Paused`.
    Paused,
    /// It was made and not booted: 500.
    NotBooted,
    /// It was not made yet: 500.
    NotCreated,
}
