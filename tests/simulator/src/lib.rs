//! A simulated node for tests, demo and benchmarks.
//!
//! Nothing here is a mock inside the agent's process: every part speaks the real protocol over a real
//! Unix socket, or is a real file at the path where a node has it, so that the agent under test is the
//! agent that ships.
//!
//! - [`cri`]: a container runtime. Tests describe pods with [`cri::Pod`], change them while the server
//!   runs, and make single methods fail, hang or cut the connection.
//! - [`kata`]: Kata sandboxes of every kind: agent, shim, Task service, hypervisor, and what they cost the host.
//! - [`recorded`]: a node that was recorded once, unpacked from `tests/fixtures/`; its CRI replies are
//!   served by [`cri`], those of its sandboxes by [`kata`].
//! - [`hierarchy`], [`cgroup_tree`]: this host's own cgroups, for what is to be real.
//!
//! The binary `demo` builds a third kind of node: real cgroups and processes on this host, named by [`cri`]. The binary
//! `containerd-shim-kata-v2` puts simulated sandboxes under a real containerd: [`kata::shim`].

pub mod cgroup_tree;
pub mod cri;
pub mod hierarchy;
pub mod kata;
pub mod recorded;
