//! What the container runtime says is on the node, kept up to date with as few calls as will do.
//!
//! Every sync lists sandboxes and containers. A status is asked once for each sandbox, and for each container when it
//! is new and when its state has changed: that is where image name, start time and exit reason are.

use std::collections::HashMap;

use futures_util::stream::{self, StreamExt};
use k8s_cri::v1::{
    Container as CriContainer, ContainerState as CriContainerState, ContainerStatus, LinuxContainerResources,
    NamespaceMode, PodSandbox, PodSandboxState, PodSandboxStatusResponse,
};
use serde::Deserialize;

use crate::cri::{Cri, CriError};
use crate::model::identity::{ContainerId, PodUid, SandboxId};
use crate::model::inventory::{Container, ContainerState, RuntimeVersion, SandboxState};
use crate::model::units::{Limit, Seconds};
use crate::model::usage::Spec;

/// Status calls under way at once.
const CONCURRENT_STATUS: usize = 8;

/// Annotation of static pods: the uid that the kubelet uses for their cgroup.
const CONFIG_HASH: &str = "kubernetes.io/config.hash";

/// What the runtime said last.
#[derive(Clone, Debug, Default)]
pub struct RuntimeView {
    /// Name and version.
    pub version: Option<RuntimeVersion>,
    /// Sandboxes by id.
    pub sandboxes: HashMap<SandboxId, KnownSandbox>,
}

/// One sandbox.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownSandbox {
    /// Pod name.
    pub name: String,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod uid.
    pub uid: PodUid,
    /// The uid in the cgroup's name, where it is another: static pods.
    pub config_hash: Option<PodUid>,
    /// Handler.
    pub runtime_handler: String,
    /// Readiness.
    pub state: SandboxState,
    /// Times the kubelet has made a sandbox for this pod before.
    pub attempt: u32,
    /// Creation time.
    pub created_at: Option<Seconds>,
    /// From its status; `None` until the call has succeeded.
    pub detail: Option<SandboxDetail>,
    /// Its containers.
    pub containers: Vec<KnownContainer>,
}

/// What only a sandbox's status tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct SandboxDetail {
    /// Uses the node's network namespace.
    pub host_network: bool,
    /// Reference of the pause image.
    pub image: String,
    /// The runtime's type, `io.containerd.kata.v2`; blank with CRI-O.
    pub runtime_type: String,
}

/// One container.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KnownContainer {
    /// What `/sandboxes` shows.
    pub public: Container,
    /// Creation time.
    pub created_at: Option<Seconds>,
    /// What it was asked to get; runtimes from containerd 1.6.9 and CRI-O 1.26 tell.
    pub spec: Option<Spec>,
    /// Its status was asked in this state and answered.
    detailed_in: Option<ContainerState>,
}

/// The part of a sandbox's verbose status that is used. Both containerd and CRI-O put it under the key `info`.
#[derive(Debug, Default, Deserialize)]
#[serde(rename_all = "camelCase", default)]
struct VerboseInfo {
    image: String,
    runtime_type: String,
}

impl RuntimeView {
    /// Asks the runtime and gives the view as it is now. Statuses that could not be had are asked again next time.
    pub async fn sync(&self, cri: &Cri) -> Result<Self, CriError> {
        let version = match &self.version {
            Some(version) => version.clone(),
            None => {
                let reply = cri.version().await?;
                RuntimeVersion { name: reply.runtime_name, version: reply.runtime_version }
            }
        };
        let mut view = self.listed(version, cri.sandboxes().await?, cri.containers().await?);
        view.fill_details(cri).await;
        Ok(view)
    }

    /// The view by what the runtime lists now, details taken over from this one. A container of a sandbox that is not
    /// listed is left out.
    pub fn listed(&self, version: RuntimeVersion, listed: Vec<PodSandbox>, containers: Vec<CriContainer>) -> Self {
        let mut sandboxes: HashMap<SandboxId, KnownSandbox> = HashMap::with_capacity(listed.len());
        for listed in listed {
            let id = SandboxId::from(listed.id.as_str());
            let detail = self.sandboxes.get(&id).and_then(|known| known.detail.clone());
            sandboxes.insert(id, KnownSandbox::from_list(listed, detail));
        }
        for listed in containers {
            let Some(sandbox) = sandboxes.get_mut(listed.pod_sandbox_id.as_str()) else { continue };
            let known = self.sandboxes.get(listed.pod_sandbox_id.as_str());
            let before = known.and_then(|known| known.containers.iter().find(|c| c.public.id.as_str() == listed.id));
            sandbox.containers.push(KnownContainer::from_list(listed, before));
        }
        Self { version: Some(version), sandboxes }
    }

    /// Asks for every status that is missing or out of date.
    async fn fill_details(&mut self, cri: &Cri) {
        let undetailed = self.sandboxes.iter_mut().filter(|(_, sandbox)| sandbox.detail.is_none());
        stream::iter(undetailed)
            .for_each_concurrent(CONCURRENT_STATUS, async |(id, sandbox)| match cri.sandbox_status(id.as_str()).await {
                Ok(reply) => sandbox.detail = Some(SandboxDetail::from_status(&reply)),
                Err(error) => tracing::debug!(sandbox = %id, error = error.chain(), "no sandbox status"),
            })
            .await;
        let outdated = self
            .sandboxes
            .values_mut()
            .flat_map(|sandbox| &mut sandbox.containers)
            .filter(|container| container.detailed_in != Some(container.public.state));
        stream::iter(outdated)
            .for_each_concurrent(CONCURRENT_STATUS, async |container| container.fill_detail(cri).await)
            .await;
    }
}

impl KnownSandbox {
    fn from_list(listed: PodSandbox, detail: Option<SandboxDetail>) -> Self {
        let metadata = listed.metadata.unwrap_or_default();
        let state = match PodSandboxState::try_from(listed.state) {
            Ok(PodSandboxState::SandboxReady) => SandboxState::Ready,
            _ => SandboxState::NotReady,
        };
        Self {
            name: metadata.name,
            namespace: metadata.namespace,
            attempt: metadata.attempt,
            uid: metadata.uid.into(),
            config_hash: listed.annotations.get(CONFIG_HASH).map(|hash| PodUid::from(hash.as_str())),
            runtime_handler: listed.runtime_handler,
            state,
            created_at: nanos(listed.created_at),
            detail,
            containers: Vec::new(),
        }
    }

    /// The runtime or its handler says that this is a Kata sandbox.
    pub fn says_kata(&self) -> bool {
        let kata = |text: &str| text.to_ascii_lowercase().contains("kata");
        kata(&self.runtime_handler) || self.detail.as_ref().is_some_and(|detail| kata(&detail.runtime_type))
    }
}

impl SandboxDetail {
    /// From the answer to a verbose status call.
    pub fn from_status(reply: &PodSandboxStatusResponse) -> Self {
        let info: VerboseInfo =
            reply.info.get("info").and_then(|info| serde_json::from_str(info).ok()).unwrap_or_default();
        let namespaces =
            reply.status.as_ref().and_then(|status| status.linux.as_ref()?.namespaces.as_ref()?.options.as_ref());
        Self {
            host_network: namespaces.is_some_and(|options| options.network == i32::from(NamespaceMode::Node)),
            image: info.image,
            runtime_type: info.runtime_type,
        }
    }
}

impl KnownContainer {
    fn from_list(listed: CriContainer, before: Option<&Self>) -> Self {
        let metadata = listed.metadata.unwrap_or_default();
        let state = match CriContainerState::try_from(listed.state) {
            Ok(CriContainerState::ContainerCreated) => ContainerState::Created,
            Ok(CriContainerState::ContainerRunning) => ContainerState::Running,
            Ok(CriContainerState::ContainerExited) => ContainerState::Exited,
            Ok(CriContainerState::ContainerUnknown) | Err(_) => ContainerState::Unknown,
        };
        let image = listed.image.map(|image| image.image).unwrap_or_default();
        let public = Container {
            id: ContainerId::from(listed.id),
            name: metadata.name,
            image: before.map_or(image, |before| before.public.image.clone()),
            state,
            attempt: metadata.attempt,
            started_at: before.and_then(|before| before.public.started_at),
            reason: before.map(|before| before.public.reason.clone()).unwrap_or_default(),
        };
        Self {
            public,
            created_at: nanos(listed.created_at),
            spec: before.and_then(|before| before.spec.clone()),
            detailed_in: before.and_then(|before| before.detailed_in),
        }
    }

    /// A container whose status needs no asking.
    #[cfg(test)]
    pub fn running(public: Container) -> Self {
        Self { detailed_in: Some(public.state), public, created_at: None, spec: None }
    }

    async fn fill_detail(&mut self, cri: &Cri) {
        let reply = match cri.container_status(self.public.id.as_str()).await {
            Ok(reply) => reply,
            Err(error) => {
                tracing::debug!(container = %self.public.id, error = error.chain(), "no container status");
                return;
            }
        };
        if let Some(status) = reply.status {
            self.detail(status);
        }
    }

    /// Takes what only its status tells.
    pub fn detail(&mut self, status: ContainerStatus) {
        // The list names the image by digest; the status has the reference that the pod asked for.
        let reference = status.image.map(|image| image.image).unwrap_or_default();
        if !reference.is_empty() {
            self.public.image = reference;
        }
        self.public.started_at = nanos(status.started_at);
        self.public.reason = status.reason;
        self.spec = status.resources.and_then(|resources| resources.linux).map(|linux| spec(&linux));
        // Asked in the listed state: had it changed meanwhile, the next list says so and it is asked again.
        self.detailed_in = Some(self.public.state);
    }
}

/// What the kubelet asked for; 0 where it did not.
fn spec(linux: &LinuxContainerResources) -> Spec {
    let asked = |number: i64| u64::try_from(number).ok().filter(|number| *number > 0);
    Spec {
        cpu_shares: asked(linux.cpu_shares),
        cpu_period_micros: asked(linux.cpu_period),
        cpu_quota_micros: Some(asked(linux.cpu_quota).map_or(Limit::Max, Limit::At)),
        memory_limit: Some(asked(linux.memory_limit_in_bytes).map_or(Limit::Max, Limit::At)),
        memory_reservation: None,
        memory_swap_limit: None,
        swap_limit: None,
    }
}

/// CRI times are nanoseconds since 1970, 0 (or, from containerd, year 1) when there is none.
fn nanos(time: i64) -> Option<Seconds> {
    u64::try_from(time).ok().filter(|nanos| *nanos > 0).map(Seconds::from_nanos)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn verbose_status_gives_image_type_and_network() {
        let info =
            r#"{"pid":356,"image":"registry.k8s.io/pause:3.9","runtimeType":"io.containerd.kata-clh.v2","x":{}}"#;
        let reply = PodSandboxStatusResponse {
            info: HashMap::from([("info".to_owned(), info.to_owned())]),
            ..PodSandboxStatusResponse::default()
        };
        let detail = SandboxDetail::from_status(&reply);
        assert_eq!(detail.image, "registry.k8s.io/pause:3.9");
        assert_eq!(detail.runtime_type, "io.containerd.kata-clh.v2");
        assert!(!detail.host_network);
        let broken = PodSandboxStatusResponse {
            info: HashMap::from([("info".to_owned(), "not json".to_owned())]),
            ..PodSandboxStatusResponse::default()
        };
        assert_eq!(SandboxDetail::from_status(&broken), SandboxDetail::default());
    }

    #[test]
    fn absent_times_are_absent() {
        assert_eq!(nanos(0), None);
        assert_eq!(nanos(-62_135_596_800_000_000), None);
        assert_eq!(nanos(1_795_230_771_158_330_170), Some(Seconds::from_nanos(1_795_230_771_158_330_170)));
    }
}
