//! The words in which a test describes pods and containers.
//!
//! A description is turned into the runtime's own messages when it is added to a [`Node`](super::Node);
//! whatever it cannot say can be changed there, in the messages.

use std::collections::HashMap;
use std::time::{SystemTime, UNIX_EPOCH};

use super::identity;

/// Where the kubelet's cgroupfs driver puts a pod.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Qos {
    /// Directly below `kubepods`.
    Guaranteed,
    /// Below `kubepods/burstable`, where most pods are.
    Burstable,
    /// Below `kubepods/besteffort`.
    BestEffort,
}

impl Qos {
    /// The cgroup of a pod of this class, below `root` (`""` on a usual node):
    /// `/kubepods/burstable/pod3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201`.
    #[must_use]
    pub fn pod_cgroup(self, root: &str, uid: &str) -> String {
        let class = match self {
            Self::Guaranteed => "",
            Self::Burstable => "/burstable",
            Self::BestEffort => "/besteffort",
        };
        format!("{root}/kubepods{class}/pod{uid}")
    }
}

/// One pod sandbox. Without further words: ready, burstable, run by the default handler, with its own
/// network, ids derived from namespace and name.
#[derive(Debug, Clone)]
pub struct Pod {
    pub(super) namespace: String,
    pub(super) name: String,
    pub(super) uid: String,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) handler: String,
    pub(super) pid: u32,
    pub(super) image: String,
    pub(super) qos: Qos,
    pub(super) cgroup_parent: Option<String>,
    pub(super) ip: String,
    pub(super) host_network: bool,
    pub(super) network_namespace: String,
    pub(super) labels: HashMap<String, String>,
    pub(super) annotations: HashMap<String, String>,
    pub(super) created_at: i64,
    pub(super) ready: bool,
}

impl Pod {
    /// A pod of the given namespace and name.
    #[must_use]
    pub fn new(namespace: &str, name: &str) -> Self {
        let seed = format!("{namespace}/{name}");
        Self {
            namespace: namespace.to_owned(),
            name: name.to_owned(),
            uid: identity::uuid(&seed),
            id: identity::hex_id(&seed),
            attempt: 0,
            handler: String::new(),
            pid: 0,
            image: "registry.k8s.io/pause:3.9".to_owned(),
            qos: Qos::Burstable,
            cgroup_parent: None,
            ip: "10.244.0.2".to_owned(),
            host_network: false,
            network_namespace: "/var/run/netns/cni-6c4f8c99-f845-b338-0888-4280d3091108".to_owned(),
            labels: HashMap::new(),
            annotations: HashMap::new(),
            created_at: nanos_now(),
            ready: true,
        }
    }

    /// The uid the API server gave the pod.
    #[must_use]
    pub fn uid(mut self, uid: &str) -> Self {
        self.uid = uid.to_owned();
        self
    }

    /// The sandbox id, 64 hexadecimal digits.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// How many sandboxes of this pod came before; each attempt has an id of its own.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self.id = identity::hex_id(&format!("{}/{}/{attempt}", self.namespace, self.name));
        self
    }

    /// The runtime handler of the pod's runtime class, such as `kata-clh`. The default handler is `""`.
    #[must_use]
    pub fn handler(mut self, handler: &str) -> Self {
        self.handler = handler.to_owned();
        self
    }

    /// The pid in the verbose status: the pause process of a runc pod, the hypervisor of a Kata pod.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = pid;
        self
    }

    /// The pause image.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.image = image.to_owned();
        self
    }

    /// The QoS class, which decides the pod's cgroup.
    #[must_use]
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// The pod's cgroup as the kubelet tells it to the runtime: a path for the cgroupfs driver, a name
    /// ending in `.slice` for the systemd driver.
    #[must_use]
    pub fn cgroup_parent(mut self, parent: &str) -> Self {
        self.cgroup_parent = Some(parent.to_owned());
        self
    }

    /// The pod's address.
    #[must_use]
    pub fn ip(mut self, ip: &str) -> Self {
        self.ip = ip.to_owned();
        self
    }

    /// Puts the pod into the node's network namespace: no namespace of its own, no address from CNI.
    #[must_use]
    pub fn host_network(mut self) -> Self {
        self.host_network = true;
        self
    }

    /// Where the pod's network namespace is mounted.
    #[must_use]
    pub fn network_namespace(mut self, path: &str) -> Self {
        self.network_namespace = path.to_owned();
        self
    }

    /// A label besides the ones the kubelet sets.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation, such as `io.katacontainers.config.runtime.sandbox_cgroup_only`.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// When the sandbox was made, in nanoseconds since 1970. Without this word: now.
    #[must_use]
    pub fn created_at(mut self, nanos: i64) -> Self {
        self.created_at = nanos;
        self
    }

    /// Makes it a sandbox that has been stopped already.
    #[must_use]
    pub fn not_ready(mut self) -> Self {
        self.ready = false;
        self
    }

    /// A container of this pod as it is described so far; say everything about the pod first.
    #[must_use]
    pub fn container(&self, name: &str) -> Container {
        Container {
            pod: self.clone(),
            name: name.to_owned(),
            id: identity::hex_id(&format!("{}/{name}", self.id)),
            attempt: 0,
            image: format!("docker.io/library/{name}:latest"),
            pid: 0,
            cpu_quota: 0,
            cpu_shares: 0,
            memory_limit: 0,
            labels: HashMap::new(),
            annotations: HashMap::new(),
            created_at: self.created_at,
            life: Life::Running,
        }
    }

    /// The sandbox id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The pod's name.
    #[must_use]
    pub fn pod_name(&self) -> &str {
        &self.name
    }

    /// The pod's namespace.
    #[must_use]
    pub fn pod_namespace(&self) -> &str {
        &self.namespace
    }

    /// The pod's uid, given or derived.
    #[must_use]
    pub fn pod_uid(&self) -> &str {
        &self.uid
    }

    /// The pod's cgroup, given or that of its QoS class.
    #[must_use]
    pub fn cgroup(&self) -> String {
        self.cgroup_parent.clone().unwrap_or_else(|| self.qos.pod_cgroup("", &self.uid))
    }
}

/// One container of a [`Pod`], made by [`Pod::container`]. Without further words: running, no limits.
#[derive(Debug, Clone)]
pub struct Container {
    pub(super) pod: Pod,
    pub(super) name: String,
    pub(super) id: String,
    pub(super) attempt: u32,
    pub(super) image: String,
    pub(super) pid: u32,
    pub(super) cpu_quota: i64,
    pub(super) cpu_shares: i64,
    pub(super) memory_limit: i64,
    pub(super) labels: HashMap<String, String>,
    pub(super) annotations: HashMap<String, String>,
    pub(super) created_at: i64,
    pub(super) life: Life,
}

/// How far a container has come.
#[derive(Debug, Clone)]
pub(super) enum Life {
    Created,
    Running,
    Exited(Exit),
}

impl Container {
    /// The container id, 64 hexadecimal digits.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = id.to_owned();
        self
    }

    /// How often the container was restarted; each attempt has an id of its own.
    #[must_use]
    pub fn attempt(mut self, attempt: u32) -> Self {
        self.attempt = attempt;
        self.id = identity::hex_id(&format!("{}/{}/{attempt}", self.pod.id, self.name));
        self
    }

    /// The image by name, `docker.io/library/nginx:1.29`.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.image = image.to_owned();
        self
    }

    /// The pid in the verbose status: the container's first process, in a Kata pod the hypervisor.
    #[must_use]
    pub fn pid(mut self, pid: u32) -> Self {
        self.pid = pid;
        self
    }

    /// The CPU limit, in microseconds per period of 100 ms.
    #[must_use]
    pub fn cpu_quota(mut self, micros: i64) -> Self {
        self.cpu_quota = micros;
        self
    }

    /// The CPU request, in shares of 1024.
    #[must_use]
    pub fn cpu_shares(mut self, shares: i64) -> Self {
        self.cpu_shares = shares;
        self
    }

    /// The memory limit in bytes.
    #[must_use]
    pub fn memory_limit(mut self, bytes: i64) -> Self {
        self.memory_limit = bytes;
        self
    }

    /// A label besides the ones the kubelet sets.
    #[must_use]
    pub fn label(mut self, key: &str, value: &str) -> Self {
        self.labels.insert(key.to_owned(), value.to_owned());
        self
    }

    /// An annotation besides the ones the kubelet sets.
    #[must_use]
    pub fn annotation(mut self, key: &str, value: &str) -> Self {
        self.annotations.insert(key.to_owned(), value.to_owned());
        self
    }

    /// When the container was made, in nanoseconds since 1970. Without this word: with its sandbox.
    #[must_use]
    pub fn created_at(mut self, nanos: i64) -> Self {
        self.created_at = nanos;
        self
    }

    /// Makes it a container that was created and not yet started.
    #[must_use]
    pub fn not_started(mut self) -> Self {
        self.life = Life::Created;
        self
    }

    /// Makes it a container that has ended already.
    #[must_use]
    pub fn exited(mut self, exit: &Exit) -> Self {
        self.life = Life::Exited(exit.clone());
        self
    }

    /// The container id.
    #[must_use]
    pub fn id(&self) -> &str {
        &self.id
    }

    /// The name in the pod.
    #[must_use]
    pub fn name(&self) -> &str {
        &self.name
    }
}

/// How a container ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Exit {
    /// The exit code; 128 + n after signal n.
    pub code: i32,
    /// containerd's word for it: `Completed`, `Error` or `OOMKilled`.
    pub reason: String,
    /// When it ended, in nanoseconds since 1970.
    pub finished_at: i64,
}

impl Exit {
    /// It did its work and left.
    #[must_use]
    pub fn completed() -> Self {
        Self::now(0, "Completed")
    }

    /// It failed with an exit code of its own.
    #[must_use]
    pub fn error(code: i32) -> Self {
        Self::now(code, "Error")
    }

    /// The kernel killed it at its memory limit.
    #[must_use]
    pub fn oom_killed() -> Self {
        Self::now(137, "OOMKilled")
    }

    /// The same end at another time.
    #[must_use]
    pub fn at(mut self, nanos: i64) -> Self {
        self.finished_at = nanos;
        self
    }

    fn now(code: i32, reason: &str) -> Self {
        Self { code, reason: reason.to_owned(), finished_at: nanos_now() }
    }
}

/// The clock of the runtime: nanoseconds since 1970.
pub(super) fn nanos_now() -> i64 {
    let since_epoch = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    i64::try_from(since_epoch.as_nanos()).unwrap_or(i64::MAX)
}
