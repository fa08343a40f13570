//! A pod: its cgroup, which the kubelet makes and removes, and its sandbox, which the container runtime does.

use std::collections::HashMap;
use std::fs;
use std::net::IpAddr;
use std::time::Duration;

use anyhow::{Context, Result};
use k8s_cri::v1::{
    LinuxPodSandboxConfig, LinuxSandboxSecurityContext, NamespaceMode, NamespaceOption, PodSandboxConfig,
    PodSandboxMetadata,
};

use crate::cgroup::Cgroup;
use crate::container::{Container, ContainerSpec};
use crate::node::Node;

/// How long the last processes of a pod may take to leave its cgroup.
const CGROUP_PATIENCE: Duration = Duration::from_secs(10);

/// What to ask for. A pod is guaranteed if nothing else is said.
#[derive(Clone, Debug)]
pub struct PodSpec {
    namespace: String,
    name: String,
    class: Option<&'static str>,
    host_network: bool,
    memory_limit: Option<i64>,
    cpu_quota: Option<(i64, i64)>,
    handler: String,
}

impl PodSpec {
    /// A guaranteed pod of this namespace and name.
    pub fn new(namespace: &str, name: &str) -> Self {
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            class: None,
            host_network: false,
            memory_limit: None,
            cpu_quota: None,
            handler: String::new(),
        }
    }

    /// Puts the pod's cgroup under `kubepods/burstable`.
    pub fn burstable(mut self) -> Self {
        self.class = Some("burstable");
        self
    }

    /// Puts the pod's cgroup under `kubepods/besteffort`.
    pub fn best_effort(mut self) -> Self {
        self.class = Some("besteffort");
        self
    }

    /// Has the pod run by the handler of this name, which the node was [started with](Node::start_with), and not by runc.
    pub fn handler(mut self, name: &str) -> Self {
        self.handler = name.to_owned();
        self
    }

    /// Leaves the pod in the network namespace of the node.
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Limits the memory of the pod's cgroup, in bytes.
    pub fn memory_limit(mut self, bytes: i64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// Limits the CPU time of the pod's cgroup to `quota` in every `period`, in microseconds.
    pub fn cpu_quota(mut self, quota: i64, period: i64) -> Self {
        self.cpu_quota = Some((quota, period));
        self
    }
}

/// A pod with a running sandbox.
pub struct Pod<'node> {
    node: &'node Node,
    spec: PodSpec,
    uid: String,
    id: String,
    pause_pid: u32,
    cgroup: Cgroup,
    config: PodSandboxConfig,
}

impl<'node> Pod<'node> {
    pub(crate) fn run_on(node: &'node Node, spec: PodSpec) -> Result<Self> {
        let uid = fs::read_to_string("/proc/sys/kernel/random/uuid").context("make a pod UID")?.trim().to_owned();
        let class = spec.class.map(|class| format!("/{class}")).unwrap_or_default();
        let cgroup = Cgroup::new(format!("{}/kubepods{class}/pod{uid}", node.cgroup_root()));
        cgroup.create()?;
        if let Some(bytes) = spec.memory_limit {
            cgroup.write("memory", "memory.limit_in_bytes", bytes)?;
        }
        if let Some((quota, period)) = spec.cpu_quota {
            cgroup.write("cpu", "cpu.cfs_period_us", period)?;
            cgroup.write("cpu", "cpu.cfs_quota_us", quota)?;
        }
        let config = sandbox_config(node, &spec, &uid, &cgroup)?;
        let id = node.cri().run_sandbox(config.clone(), &spec.handler)?;
        let (_, details) = node.cri().sandbox_status(&id)?;
        let pause_pid = details["pid"]
            .as_u64()
            .and_then(|pid| u32::try_from(pid).ok())
            .context("the sandbox's status has no pid")?;
        Ok(Self { node, spec, uid, id, pause_pid, cgroup, config })
    }

    /// Runs a container in the pod.
    pub fn run(&self, spec: ContainerSpec) -> Result<Container<'node>> {
        Container::run_in(self.node, self, spec)
    }

    /// The sandbox id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pod's name.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// The pod's namespace.
    pub fn namespace(&self) -> &str {
        &self.spec.namespace
    }

    /// The pod's UID.
    pub fn uid(&self) -> &str {
        &self.uid
    }

    /// Whether the pod is in the node's network namespace.
    pub fn uses_host_network(&self) -> bool {
        self.spec.host_network
    }

    /// The process of the sandbox container, whose `/proc/<pid>/net/dev` shows the pod's network. With a handler it is
    /// whatever process that one's shim names.
    pub fn pause_pid(&self) -> u32 {
        self.pause_pid
    }

    /// The cgroup of the pod: `…/kubepods/burstable/pod<uid>`.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The cgroup of the sandbox container: the pod's, then the sandbox id.
    pub fn sandbox_cgroup(&self) -> Cgroup {
        Cgroup::new(format!("{}/{}", self.cgroup.path(), self.id))
    }

    /// The pod's address on the bridge.
    pub fn address(&self) -> Result<IpAddr> {
        let (status, _) = self.node.cri().sandbox_status(&self.id)?;
        let network = status.network.context("the sandbox's status has no network")?;
        network.ip.parse().with_context(|| format!("address of pod {}", self.name()))
    }

    /// Stops the sandbox and whatever runs in it and removes the pod's cgroup, as the kubelet does with a pod that has
    /// completed. The runtime still lists the sandbox, as not ready.
    pub fn stop(&self) -> Result<()> {
        self.node.cri().stop_sandbox(&self.id)?;
        self.cgroup.remove(CGROUP_PATIENCE)
    }

    /// Stops the pod and removes the sandbox with its containers, as the kubelet does with a pod that was deleted.
    pub fn remove(self) -> Result<()> {
        self.stop()?;
        self.node.cri().remove_sandbox(&self.id)
    }

    pub(crate) fn config(&self) -> &PodSandboxConfig {
        &self.config
    }
}

/// The labels by which the kubelet finds its pods and containers again.
pub(crate) fn pod_labels(namespace: &str, name: &str, uid: &str) -> HashMap<String, String> {
    HashMap::from([
        ("io.kubernetes.pod.name".to_owned(), name.to_owned()),
        ("io.kubernetes.pod.namespace".to_owned(), namespace.to_owned()),
        ("io.kubernetes.pod.uid".to_owned(), uid.to_owned()),
    ])
}

fn sandbox_config(node: &Node, spec: &PodSpec, uid: &str, cgroup: &Cgroup) -> Result<PodSandboxConfig> {
    let logs = node.log_directory().join(format!("{}_{}_{uid}", spec.namespace, spec.name));
    fs::create_dir_all(&logs).with_context(|| format!("make {}", logs.display()))?;
    let network = if spec.host_network { NamespaceMode::Node } else { NamespaceMode::Pod };
    Ok(PodSandboxConfig {
        metadata: Some(PodSandboxMetadata {
            name: spec.name.clone(),
            uid: uid.to_owned(),
            namespace: spec.namespace.clone(),
            attempt: 0,
        }),
        // A pod in the node's namespaces has the node's host name.
        hostname: if spec.host_network { String::new() } else { spec.name.clone() },
        log_directory: logs.display().to_string(),
        labels: pod_labels(&spec.namespace, &spec.name, uid),
        annotations: HashMap::from([("kubernetes.io/config.source".to_owned(), "api".to_owned())]),
        linux: Some(LinuxPodSandboxConfig {
            cgroup_parent: cgroup.path().to_owned(),
            security_context: Some(LinuxSandboxSecurityContext {
                namespace_options: Some(namespaces(network)),
                ..LinuxSandboxSecurityContext::default()
            }),
            ..LinuxPodSandboxConfig::default()
        }),
        ..PodSandboxConfig::default()
    })
}

/// A network as given, a process namespace for each container, the pod's for the rest.
pub(crate) fn namespaces(network: NamespaceMode) -> NamespaceOption {
    NamespaceOption {
        network: network.into(),
        pid: NamespaceMode::Container.into(),
        ipc: NamespaceMode::Pod.into(),
        ..NamespaceOption::default()
    }
}
