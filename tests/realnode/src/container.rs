//! A container in a pod.

use std::collections::HashMap;
use std::fs;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use k8s_cri::v1::{
    ContainerConfig, ContainerMetadata, ContainerState, ImageSpec, LinuxContainerConfig, LinuxContainerResources,
    LinuxContainerSecurityContext, NamespaceMode,
};

use crate::cgroup::Cgroup;
use crate::image::APP_IMAGE;
use crate::node::Node;
use crate::pod::{Pod, namespaces, pod_labels};

/// What to ask for. The image is always [`APP_IMAGE`]; there are no limits if none are given.
#[derive(Clone, Debug)]
pub struct ContainerSpec {
    name: String,
    command: Vec<String>,
    attempt: u32,
    resources: LinuxContainerResources,
}

impl ContainerSpec {
    /// A first attempt at a container of this name.
    pub fn new<'a>(name: &str, command: impl IntoIterator<Item = &'a str>) -> Self {
        Self {
            name: name.to_owned(),
            command: command.into_iter().map(str::to_owned).collect(),
            attempt: 0,
            // The kubelet says these for containers without requests.
            resources: LinuxContainerResources {
                cpu_period: 100_000,
                cpu_shares: 2,
                ..LinuxContainerResources::default()
            },
        }
    }

    /// Limits the CPU time to `quota` in every `period`, in microseconds.
    pub fn cpu_quota(mut self, quota: i64, period: i64) -> Self {
        self.resources.cpu_quota = quota;
        self.resources.cpu_period = period;
        self
    }

    /// Sets the share of CPU time under contention; a whole CPU is 1024.
    pub fn cpu_shares(mut self, shares: i64) -> Self {
        self.resources.cpu_shares = shares;
        self
    }

    /// Limits the memory, in bytes.
    pub fn memory_limit(mut self, bytes: i64) -> Self {
        self.resources.memory_limit_in_bytes = bytes;
        self
    }

    /// Says which start of the container this is: the kubelet counts up from 0 with every restart.
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self
    }
}

/// How a container ended.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Exit {
    /// The exit code: 128 and the signal's number for a killed one.
    pub code: i32,
    /// The runtime's word for it: `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
}

/// A container that was started.
pub struct Container<'node> {
    node: &'node Node,
    spec: ContainerSpec,
    id: String,
    pid: u32,
    started_at: Duration,
    cgroup: Cgroup,
    log: PathBuf,
}

impl<'node> Container<'node> {
    pub(crate) fn run_in(node: &'node Node, pod: &Pod<'node>, spec: ContainerSpec) -> Result<Self> {
        let log_path = format!("{}/{}.log", spec.name, spec.attempt);
        let log = PathBuf::from(&pod.config().log_directory).join(&log_path);
        fs::create_dir_all(log.with_file_name("")).context("make the log directory")?;
        let config = container_config(node, pod, &spec, log_path)?;
        let id = node.cri().run_container(pod.id(), config, pod.config().clone())?;
        let (status, details) = node.cri().container_status(&id)?;
        // A container that exits at once may have no process any more.
        let pid = details["pid"].as_u64().and_then(|pid| u32::try_from(pid).ok()).unwrap_or(0);
        let started_at = Duration::from_nanos(u64::try_from(status.started_at)?);
        let cgroup = Cgroup::new(format!("{}/{id}", pod.cgroup().path()));
        Ok(Self { node, spec, id, pid, started_at, cgroup, log })
    }

    /// The container id: 64 hexadecimal digits.
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The container's name in its pod.
    pub fn name(&self) -> &str {
        &self.spec.name
    }

    /// Which start of the container this is.
    pub fn attempt(&self) -> u32 {
        self.spec.attempt
    }

    /// The memory limit in bytes, if one was asked for.
    pub fn memory_limit(&self) -> Option<u64> {
        positive(self.spec.resources.memory_limit_in_bytes)
    }

    /// The CPU quota and its period in microseconds, if a quota was asked for.
    pub fn cpu_quota(&self) -> Option<(u64, u64)> {
        positive(self.spec.resources.cpu_quota).zip(positive(self.spec.resources.cpu_period))
    }

    /// The first process as the node sees it, or 0 for a container that ended before it could be asked.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// When the runtime started it, since the epoch.
    pub fn started_at(&self) -> Duration {
        self.started_at
    }

    /// The container's cgroup: the pod's, then the container id.
    pub fn cgroup(&self) -> &Cgroup {
        &self.cgroup
    }

    /// The container's root directory as the node sees it, for a running container.
    pub fn root(&self) -> PathBuf {
        PathBuf::from(format!("/proc/{}/root", self.pid))
    }

    /// What the container has written so far, in the runtime's log format.
    pub fn log(&self) -> String {
        fs::read_to_string(&self.log).unwrap_or_default()
    }

    /// Waits until the runtime says that the container has exited.
    pub fn wait_exit(&self, patience: Duration) -> Result<Exit> {
        let deadline = Instant::now() + patience;
        loop {
            let (status, _) = self.node.cri().container_status(&self.id)?;
            if status.state() == ContainerState::ContainerExited {
                return Ok(Exit { code: status.exit_code, reason: status.reason });
            }
            ensure!(
                Instant::now() < deadline,
                "container {} has not exited after {patience:?}; it wrote:\n{}",
                self.spec.name,
                self.log()
            );
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// Kills the container. The runtime still lists it, as exited.
    pub fn stop(&self) -> Result<()> {
        self.node.cri().stop_container(&self.id)
    }

    /// Removes the container, which must have been stopped or have exited.
    pub fn remove(self) -> Result<()> {
        self.node.cri().remove_container(&self.id)
    }
}

/// CRI says 0 for what is not asked for.
fn positive(number: i64) -> Option<u64> {
    u64::try_from(number).ok().filter(|number| *number > 0)
}

fn container_config(node: &Node, pod: &Pod<'_>, spec: &ContainerSpec, log_path: String) -> Result<ContainerConfig> {
    let mut labels = pod_labels(pod.namespace(), pod.name(), pod.uid());
    labels.insert("io.kubernetes.container.name".to_owned(), spec.name.clone());
    let network = if pod.uses_host_network() { NamespaceMode::Node } else { NamespaceMode::Pod };
    Ok(ContainerConfig {
        metadata: Some(ContainerMetadata { name: spec.name.clone(), attempt: spec.attempt }),
        // Kubelets ask by digest and say the pod's own words beside it.
        image: Some(ImageSpec {
            image: node.image_id(APP_IMAGE)?,
            user_specified_image: APP_IMAGE.to_owned(),
            ..ImageSpec::default()
        }),
        command: spec.command.clone(),
        labels,
        annotations: HashMap::from([("io.kubernetes.container.restartCount".to_owned(), spec.attempt.to_string())]),
        log_path,
        linux: Some(LinuxContainerConfig {
            resources: Some(spec.resources.clone()),
            security_context: Some(LinuxContainerSecurityContext {
                namespace_options: Some(namespaces(network)),
                ..LinuxContainerSecurityContext::default()
            }),
        }),
        ..ContainerConfig::default()
    })
}
