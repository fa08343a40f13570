//! What is on this node: pod sandboxes, and the subjects that get a row in the exposition.
//!
//! Discovery publishes a new [`Inventory`] whole; readers hold an `Arc` of it for one collection.

use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use serde::{Serialize, Serializer};

use crate::model::identity::{CgroupPath, ContainerId, LabelBlock, Labels, PodUid, SandboxId};
use crate::model::units::Seconds;
use crate::model::usage::Spec;

/// One complete view of the node.
#[derive(Clone, Debug, Default)]
pub struct Inventory {
    /// Rises with every published change.
    pub generation: u64,
    /// Rows to measure, sorted by cgroup path.
    pub subjects: Vec<Arc<Subject>>,
    /// Pod sandboxes, sorted by id.
    pub sandboxes: Vec<Arc<Sandbox>>,
    /// Runtime name and version as CRI tells them, once it has.
    pub runtime: Option<RuntimeVersion>,
}

/// The container runtime behind the CRI socket.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct RuntimeVersion {
    /// `containerd`, `cri-o`, `docker`.
    pub name: String,
    /// Version text.
    pub version: String,
}

/// One row of the exposition: a cgroup, or a sandbox's network where the sandbox has no cgroup.
#[derive(Debug)]
pub struct Subject {
    /// What it is.
    pub kind: Kind,
    /// Identity labels.
    pub labels: Labels,
    /// The labels as exposition text.
    pub block: LabelBlock,
    /// Where the host accounts for it; `None` for what lives in a guest, and for a sandbox without a cgroup.
    pub cgroup: Option<CgroupPath>,
    /// It lives in the guest of a Kata sandbox and can only be measured there.
    pub in_guest: bool,
    /// The sandbox it belongs to; on a pod row the pod's current sandbox.
    pub sandbox: Option<SandboxId>,
    /// The container it is; on sandbox rows the sandbox's own id.
    pub container: Option<ContainerId>,
    /// Shares and limits the runtime was asked for; used where no cgroup tells them.
    pub spec: Option<Spec>,
    /// Start time known to the runtime.
    pub started_at: Option<Seconds>,
    /// Creation time known to the runtime.
    pub created_at: Option<Seconds>,
    /// Which network namespace this row reports.
    pub network: Network,
}

impl Subject {
    /// Identity of a row across inventories: the cgroup path, or the labels' `id` where there is no cgroup.
    pub fn key(&self) -> &str {
        &self.labels.id
    }
}

/// Kinds of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Kind {
    /// The root cgroup: the node.
    Root,
    /// `kubepods` and its QoS classes.
    Group,
    /// A pod's cgroup.
    Pod,
    /// A pod sandbox (the pause container).
    Sandbox,
    /// An application, init or ephemeral container.
    Container,
}

/// Which network namespace a row reports.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Network {
    /// None: containers share their pod's, and host-network pods share the node's.
    None,
    /// The node's, read through process 1.
    Node,
    /// The pod's, read through a process of one of these cgroups, the first that has one.
    Pod(Vec<CgroupPath>),
}

/// A pod sandbox, as served by `/sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Sandbox {
    /// CRI id.
    #[serde(rename = "sandbox_id", serialize_with = "as_text")]
    pub id: SandboxId,
    /// Pod name.
    pub pod_name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod uid.
    #[serde(serialize_with = "as_text")]
    pub uid: PodUid,
    /// Which kind of runtime holds it.
    pub runtime: Runtime,
    /// RuntimeClass handler; blank for the default one.
    pub runtime_handler: String,
    /// Where a Kata sandbox is kept; `None` for runc and for a Kata sandbox whose directory is not to be seen.
    #[serde(skip)]
    pub kata: Option<KataDirectory>,
    /// Readiness as CRI tells it.
    pub state: SandboxState,
    /// Creation time, Unix seconds.
    #[serde(serialize_with = "as_rfc3339")]
    pub created_at: Option<Seconds>,
    /// The pod uses the node's network namespace.
    pub host_network: bool,
    /// The pod's containers, running and not.
    pub containers: Vec<Container>,
}

/// A container of a sandbox, as served by `/sandboxes`.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Container {
    /// CRI id.
    #[serde(serialize_with = "as_text")]
    pub id: ContainerId,
    /// Name in the pod.
    pub name: String,
    /// Image reference.
    pub image: String,
    /// State as CRI tells it.
    pub state: ContainerState,
    /// Times the kubelet has restarted it.
    pub attempt: u32,
    /// Start time.
    #[serde(serialize_with = "as_rfc3339")]
    pub started_at: Option<Seconds>,
    /// Why it ended (`Completed`, `Error`, `OOMKilled`); blank while it has not.
    #[serde(skip_serializing_if = "String::is_empty")]
    pub reason: String,
}

/// Where a Kata runtime keeps a sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KataDirectory {
    /// Which runtime.
    pub runtime: KataRuntime,
    /// Its directory, as this process reaches it.
    pub path: PathBuf,
}

/// The two runtimes of Kata Containers, which differ in layout, units and what their shim survives.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KataRuntime {
    /// The Go runtime: sandboxes in `vc/sbs`.
    Go,
    /// runtime-rs, the default since Kata 4.0: sandboxes in `kata`.
    Rs,
}

/// How a pod is isolated.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum Runtime {
    /// Processes on the host, by runc or a runtime like it.
    Runc,
    /// A virtual machine, by Kata Containers.
    Kata,
}

impl Runtime {
    /// Label value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Runc => "runc",
            Self::Kata => "kata",
        }
    }
}

/// State of a sandbox.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum SandboxState {
    /// Running.
    Ready,
    /// Stopped, not yet removed.
    NotReady,
    /// Found without CRI.
    Unknown,
}

/// State of a container.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "lowercase")]
pub enum ContainerState {
    /// Made, not started.
    Created,
    /// Running.
    Running,
    /// Ended.
    Exited,
    /// Found without CRI, or unknown to it.
    Unknown,
}

fn as_text<S: Serializer>(id: &impl std::fmt::Display, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.collect_str(id)
}

/// A time for people, for `serialize_with`.
pub fn as_rfc3339<S: Serializer>(time: &Option<Seconds>, serializer: S) -> Result<S::Ok, S::Error> {
    match time {
        Some(time) => {
            let time = SystemTime::UNIX_EPOCH + Duration::from_secs(time.whole());
            serializer.collect_str(&humantime::format_rfc3339_seconds(time))
        }
        None => serializer.serialize_none(),
    }
}
