//! A real Kubernetes node for tests, without Kubernetes: containerd, runc and CNI as Debian packages them, with root,
//! state, socket and network of their own in one temporary directory, and this crate in the place of the kubelet.
//!
//! ```no_run
//! use kata_pulse_realnode::{ContainerSpec, Node, PodSpec};
//! # fn main() -> anyhow::Result<()> {
//! let node = Node::start()?;
//! let pod = node.run_pod(PodSpec::new("shop", "web").burstable())?;
//! let app = pod.run(ContainerSpec::new("app", ["sleep", "1000"]).cpu_quota(5_000, 100_000))?;
//! let used = app.cgroup().number("cpuacct", "cpuacct.usage")?;
//! # let _ = used;
//! app.stop()?;
//! app.remove()?;
//! pod.remove()?;
//! node.finish()
//! # }
//! ```
//!
//! | module | subject |
//! |---|---|
//! | [`Node`] | the containerd process: start, kill, start again, finish |
//! | [`Pod`], [`PodSpec`] | a pod sandbox and the pod's cgroup, which the kubelet makes |
//! | [`Container`], [`ContainerSpec`] | a container in it |
//! | [`Handler`] | a runtime besides runc, for pods that ask for it |
//! | [`Cgroup`] | the truth to compare with: cgroup v1 files by controller |
//! | `cri` | one blocking call per CRI method |
//! | `image` | the busybox images, made here, so that no registry is needed |
//! | `needs` | what the machine must have, by Debian package |
//! | `traces` | everything a run leaves on the machine, and its removal |
//!
//! Nothing may outlive a test, not even a failed or killed one: every trace carries the run's name, dropping the node
//! removes them, and a node that starts first removes the traces of runs whose process has ended.

mod cgroup;
mod container;
mod cri;
mod handler;
mod image;
mod needs;
mod node;
mod pod;
mod traces;

pub use cgroup::Cgroup;
pub use container::{Container, ContainerSpec, Exit};
pub use handler::Handler;
pub use image::{APP_IMAGE, PAUSE_IMAGE};
pub use node::Node;
pub use pod::{Pod, PodSpec};
