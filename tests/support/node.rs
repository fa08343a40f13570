//! A made-up cgroup v2 node with a container runtime that names its pods.

use std::ffi::OsString;
use std::time::Duration;

use k8s_cri::v1;
use kata_pulse_simulator::cri::{Container, CriServer, Node, Pod};

use super::host::Host;

/// The node's files and its runtime.
pub struct NamedNode {
    pub host: Host,
    pub runtime: CriServer,
}

impl NamedNode {
    /// An empty node whose runtime answers.
    pub fn start() -> Self {
        let host = Host::v2();
        host.write("run/containerd/containerd.sock.lock", "");
        let runtime = CriServer::start(host.path("run/containerd/containerd.sock"), &Node::new());
        let runtime = runtime.expect("start the runtime");
        Self { host, runtime }
    }

    /// Starts a pod: the runtime knows it, it has cgroups, and the pause process `pid` has an interface `eth0` that
    /// has received `pid` thousand bytes.
    pub fn run(&self, pod: &Pod, pid: u32, containers: &[&Container]) {
        // The runtime first: a cgroup that it does not know would be held back.
        self.runtime.node().add_pod(pod);
        let cgroup = pod.cgroup();
        for container in containers {
            self.runtime.node().add_container(container);
            self.host.v2_cgroup(&format!("{cgroup}/{}", container.id()));
        }
        self.host.v2_cgroup(&cgroup);
        let sandbox = format!("{cgroup}/{}", pod.id());
        self.host.v2_cgroup(&sandbox);
        self.host.v2_process(&sandbox, pid, &[("lo", 1), ("eth0", u64::from(pid) * 1000)]);
    }

    /// Gives a container CPU time and memory by the runtime's word, and a writable layer of this size.
    pub fn set_writable_layer(&self, container: &Container, used: u64) {
        let node = self.runtime.node();
        node.set_usage(container.id(), Duration::from_secs(3), 1 << 20);
        node.update_container(container.id(), |entry| {
            let stats = entry.stats.as_mut().expect("usage was set");
            stats.writable_layer = Some(v1::FilesystemUsage {
                used_bytes: Some(v1::UInt64Value { value: used }),
                fs_id: Some(v1::FilesystemIdentifier { mountpoint: "/var/lib/containerd".into() }),
                ..Default::default()
            });
        });
    }

    /// The flags that make the agent read this node; it finds the runtime at a well-known place.
    pub fn flags(&self) -> Vec<OsString> {
        self.host.flags_but_runtime()
    }
}

/// The `id` label of a container's row.
pub fn row_of(pod: &Pod, id: &str) -> String {
    format!("{}/{id}", pod.cgroup())
}
