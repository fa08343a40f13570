//! Kata sandboxes that speak the real protocols over real Unix sockets.
//!
//! A [`KataNode`] has a directory that stands for the host's `/`: sandboxes below `run/vc` or `run/kata`, bundles and
//! Task sockets below `run/containerd`, processes below `proc`, cgroups below `sys/fs/cgroup`, and a CRI server that
//! lists the same pods. Tests describe sandboxes, let time pass, ask for the truth and let things go wrong:
//!
//! ```no_run
//! use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, Runtime};
//!
//! # fn main() -> anyhow::Result<()> {
//! let node = KataNode::builder()
//!     .sandbox(Runtime::Go, Hypervisor::CloudHypervisor)
//!     .containers(2)
//!     .sandbox(Runtime::Rust, Hypervisor::Qemu)
//!     .with(|plan| plan.vcpus(4).sandbox_cgroup_only(false))
//!     .start()?;
//! let sandbox = node.sandbox(0);
//! node.advance(10);
//! let app = &sandbox.containers()[0];
//! let seconds = sandbox.truth().container(app).cpu.total_ns() / 1_000_000_000;
//!
//! sandbox.fail(Endpoint::Agent, Fault::Hang);
//! assert_eq!(sandbox.counts(Endpoint::Agent).most_in_flight, 1);
//! sandbox.heal(Endpoint::Agent);
//! # let _ = seconds;
//! # Ok(())
//! # }
//! ```
//!
//! Whatever an agent that only measures must never do is recorded as a [`Violation`], and a node that is dropped with
//! one panics. A shim that `GET /metrics` kills dies here, too.
//!
//! All numbers follow from the plan, its seed and the tick, see [`truth`]; the protocols add units, gaps and defects
//! of the programs that speak them, so a test compares what an agent serves with [`KataSandbox::truth`] and not with
//! what the sandbox said.
//!
//! [`ReplayedNode`] serves recorded replies in the same way. [`shim`] puts a sandbox under a real containerd.

mod builder;
mod dice;
mod doors;
mod fault;
mod host;
mod kind;
mod layout;
mod ledger;
mod model;
mod node;
mod plan;
mod replay;
mod sandbox;
mod say;
mod serve;
pub mod shim;
mod simulated;
pub mod truth;
mod wire;

pub use builder::KataNodeBuilder;
pub use doors::DoorHandle;
pub use fault::Fault;
pub use kind::{Endpoint, GuestCgroup, HostCgroup, Hypervisor, Runtime, VmState};
pub use ledger::{Counts, Violation};
pub use node::KataNode;
pub use plan::{ContainerPlan, RealProcesses, SandboxPlan};
pub use replay::{ReplayedNode, ReplayedSandbox};
pub use sandbox::KataSandbox;
pub use say::lies::Lie;
