//! What the runtime knows about the node, and the ways in which it changes.
//!
//! The state is kept as the runtime's own messages, so that a recorded reply goes in and comes out
//! unchanged. A [`Node`] is a handle: clones share the state, and a change is served by the next answer.

use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use k8s_cri::v1;
use serde_json::json;
use tokio::sync::broadcast;

use super::containerd;
use super::pod::{Container, Exit, Pod, nanos_now};
use super::task_events::Envelope;

/// Events a slow reader may fall behind before its stream is ended.
const EVENT_BACKLOG: usize = 1024;

/// A sandbox in the runtime's words.
#[derive(Debug, Clone, PartialEq)]
pub struct SandboxEntry {
    /// As `ListPodSandbox` tells it.
    pub listed: v1::PodSandbox,
    /// As the verbose `PodSandboxStatus` tells it; `info` is left out of an answer that is not verbose.
    pub status: v1::PodSandboxStatusResponse,
    /// As `PodSandboxStats` tells it.
    pub stats: Option<v1::PodSandboxStats>,
}

/// A container in the runtime's words.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerEntry {
    /// As `ListContainers` tells it.
    pub listed: v1::Container,
    /// As the verbose `ContainerStatus` tells it; `info` is left out of an answer that is not verbose.
    pub status: v1::ContainerStatusResponse,
    /// As `ContainerStats` tells it.
    pub stats: Option<v1::ContainerStats>,
}

impl ContainerEntry {
    /// Whether it runs.
    #[must_use]
    pub fn is_running(&self) -> bool {
        self.listed.state() == v1::ContainerState::ContainerRunning
    }

    pub(super) fn start(&mut self, started_at: i64) {
        self.set_state(v1::ContainerState::ContainerRunning);
        if let Some(status) = &mut self.status.status {
            status.started_at = started_at;
        }
    }

    pub(super) fn exit(&mut self, exit: &Exit) {
        self.set_state(v1::ContainerState::ContainerExited);
        if let Some(status) = &mut self.status.status {
            status.exit_code = exit.code;
            status.reason.clone_from(&exit.reason);
            status.finished_at = exit.finished_at;
        }
        containerd::set_info(&mut self.status.info, "pid", json!(0));
        // The task is gone, so there is nothing left to measure.
        self.stats = None;
    }

    fn set_state(&mut self, state: v1::ContainerState) {
        self.listed.state = state.into();
        if let Some(status) = &mut self.status.status {
            status.state = state.into();
        }
    }
}

/// The state behind a [`Node`].
#[derive(Debug)]
pub(super) struct State {
    pub(super) version: v1::VersionResponse,
    pub(super) status: v1::StatusResponse,
    pub(super) sandboxes: Vec<SandboxEntry>,
    pub(super) containers: Vec<ContainerEntry>,
    pub(super) event_stream: bool,
}

/// A handle on the node's state. Cloning it is cheap and shares the state.
#[derive(Debug, Clone)]
pub struct Node {
    state: Arc<Mutex<State>>,
    events: broadcast::Sender<v1::ContainerEventResponse>,
    task_events: broadcast::Sender<Envelope>,
}

impl Default for Node {
    fn default() -> Self {
        Self::new()
    }
}

impl Node {
    /// An empty node under containerd 1.7, which has the event stream.
    #[must_use]
    pub fn new() -> Self {
        let ready = |kind: &str| v1::RuntimeCondition { r#type: kind.to_owned(), status: true, ..Default::default() };
        let state = State {
            version: v1::VersionResponse {
                version: "0.1.0".to_owned(),
                runtime_name: "containerd".to_owned(),
                runtime_version: "v1.7.28".to_owned(),
                runtime_api_version: "v1".to_owned(),
            },
            status: v1::StatusResponse {
                status: Some(v1::RuntimeStatus { conditions: vec![ready("RuntimeReady"), ready("NetworkReady")] }),
                ..Default::default()
            },
            sandboxes: Vec::new(),
            containers: Vec::new(),
            event_stream: true,
        };
        Self {
            state: Arc::new(Mutex::new(state)),
            events: broadcast::channel(EVENT_BACKLOG).0,
            task_events: broadcast::channel(EVENT_BACKLOG).0,
        }
    }

    /// Calls itself another runtime: `set_runtime("cri-o", "1.34.0")`.
    pub fn set_runtime(&self, name: &str, version: &str) {
        let mut state = self.lock();
        name.clone_into(&mut state.version.runtime_name);
        version.clone_into(&mut state.version.runtime_version);
    }

    /// Replaces the whole answer to `Version`.
    pub fn set_version(&self, version: v1::VersionResponse) {
        self.lock().version = version;
    }

    /// Replaces the whole answer to `Status`.
    pub fn set_status(&self, status: v1::StatusResponse) {
        self.lock().status = status;
    }

    /// Whether `GetContainerEvents` exists. containerd 1.6 answers UNIMPLEMENTED. A stream that is open
    /// already goes on; cut it with [`CriServer::cut_connections`](super::CriServer::cut_connections).
    pub fn set_event_stream(&self, supported: bool) {
        self.lock().event_stream = supported;
    }

    /// Adds a sandbox, started.
    ///
    /// # Panics
    /// When the id is there already.
    pub fn add_pod(&self, pod: &Pod) {
        self.add_sandbox_entry(containerd::sandbox(pod));
        self.tell(v1::ContainerEventType::ContainerCreatedEvent, pod.id(), pod.id());
        self.tell(v1::ContainerEventType::ContainerStartedEvent, pod.id(), pod.id());
    }

    /// Adds a container in the state its description says.
    ///
    /// # Panics
    /// When the id is there already or its pod is not.
    pub fn add_container(&self, container: &Container) {
        let entry = containerd::container(container);
        let (id, pod) = (entry.listed.id.clone(), entry.listed.pod_sandbox_id.clone());
        let state = entry.listed.state();
        assert!(self.pod(&pod).is_some(), "container {id}: no sandbox {pod}");
        self.add_container_entry(entry);
        self.tell(v1::ContainerEventType::ContainerCreatedEvent, &id, &pod);
        if state != v1::ContainerState::ContainerCreated {
            self.tell(v1::ContainerEventType::ContainerStartedEvent, &id, &pod);
        }
        if state == v1::ContainerState::ContainerExited {
            self.tell(v1::ContainerEventType::ContainerStoppedEvent, &id, &pod);
        }
    }

    /// Adds a sandbox in the runtime's words, without events.
    ///
    /// # Panics
    /// When the id is there already.
    pub fn add_sandbox_entry(&self, entry: SandboxEntry) {
        let mut state = self.lock();
        let id = &entry.listed.id;
        assert!(state.sandboxes.iter().all(|other| other.listed.id != *id), "sandbox {id} is there already");
        state.sandboxes.push(entry);
    }

    /// Adds a container in the runtime's words, without events.
    ///
    /// # Panics
    /// When the id is there already.
    pub fn add_container_entry(&self, entry: ContainerEntry) {
        let mut state = self.lock();
        let id = &entry.listed.id;
        assert!(state.containers.iter().all(|other| other.listed.id != *id), "container {id} is there already");
        state.containers.push(entry);
    }

    /// Starts a container that was created and not started.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn start_container(&self, id: &str) {
        self.update_container(id, |entry| entry.start(nanos_now()));
        self.tell_container(v1::ContainerEventType::ContainerStartedEvent, id);
    }

    /// Ends a container.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn exit_container(&self, id: &str, exit: &Exit) {
        self.update_container(id, |entry| entry.exit(exit));
        self.tell_container(v1::ContainerEventType::ContainerStoppedEvent, id);
    }

    /// Forgets a container.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn remove_container(&self, id: &str) {
        let removed = {
            let mut state = self.lock();
            let at = state.containers.iter().position(|entry| entry.listed.id == id);
            at.map(|at| state.containers.remove(at))
        };
        let Some(removed) = removed else { panic!("no container {id}") };
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, id, &removed.listed.pod_sandbox_id);
    }

    /// Stops a sandbox: its containers end, its network goes, it stays listed as not ready.
    ///
    /// # Panics
    /// When there is no such sandbox.
    pub fn stop_pod(&self, id: &str) {
        for container in self.containers_of(id) {
            if container.is_running() {
                self.exit_container(&container.listed.id, &Exit::error(137));
            }
        }
        self.update_pod(id, |entry| {
            entry.listed.state = v1::PodSandboxState::SandboxNotready.into();
            if let Some(status) = &mut entry.status.status {
                status.state = v1::PodSandboxState::SandboxNotready.into();
                status.network = Some(v1::PodSandboxNetworkStatus::default());
            }
            containerd::set_info(&mut entry.status.info, "pid", json!(0));
            containerd::set_info(&mut entry.status.info, "processStatus", json!("deleted"));
            containerd::set_info(&mut entry.status.info, "netNamespaceClosed", json!(true));
            entry.stats = None;
        });
        self.tell(v1::ContainerEventType::ContainerStoppedEvent, id, id);
    }

    /// Forgets a sandbox and its containers.
    ///
    /// # Panics
    /// When there is no such sandbox.
    pub fn remove_pod(&self, id: &str) {
        for container in self.containers_of(id) {
            self.remove_container(&container.listed.id);
        }
        let removed = {
            let mut state = self.lock();
            let before = state.sandboxes.len();
            state.sandboxes.retain(|entry| entry.listed.id != id);
            state.sandboxes.len() < before
        };
        assert!(removed, "no sandbox {id}");
        self.tell(v1::ContainerEventType::ContainerDeletedEvent, id, id);
    }

    /// Sets what the runtime measured of a container: CPU time used so far, and memory, of which containerd
    /// knows for a Kata container only the sum and calls it the working set, too.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn set_usage(&self, id: &str, cpu: Duration, memory_bytes: u64) {
        let timestamp = nanos_now();
        let value = |value| Some(v1::UInt64Value { value });
        self.update_container(id, |entry| {
            entry.stats = Some(v1::ContainerStats {
                attributes: Some(v1::ContainerAttributes {
                    id: entry.listed.id.clone(),
                    metadata: entry.listed.metadata.clone(),
                    labels: entry.listed.labels.clone(),
                    annotations: entry.listed.annotations.clone(),
                }),
                cpu: Some(v1::CpuUsage {
                    timestamp,
                    usage_core_nano_seconds: value(u64::try_from(cpu.as_nanos()).unwrap_or(u64::MAX)),
                    usage_nano_cores: value(0),
                }),
                memory: Some(v1::MemoryUsage {
                    timestamp,
                    working_set_bytes: value(memory_bytes),
                    usage_bytes: value(memory_bytes),
                    ..Default::default()
                }),
                ..Default::default()
            });
        });
    }

    /// Changes a sandbox in the runtime's words, without events.
    ///
    /// # Panics
    /// When there is no such sandbox.
    pub fn update_pod(&self, id: &str, change: impl FnOnce(&mut SandboxEntry)) {
        let mut state = self.lock();
        let Some(entry) = state.sandboxes.iter_mut().find(|entry| entry.listed.id == id) else {
            panic!("no sandbox {id}")
        };
        change(entry);
    }

    /// Changes a container in the runtime's words, without events.
    ///
    /// # Panics
    /// When there is no such container.
    pub fn update_container(&self, id: &str, change: impl FnOnce(&mut ContainerEntry)) {
        let mut state = self.lock();
        let Some(entry) = state.containers.iter_mut().find(|entry| entry.listed.id == id) else {
            panic!("no container {id}")
        };
        change(entry);
    }

    /// The sandbox with this id.
    #[must_use]
    pub fn pod(&self, id: &str) -> Option<SandboxEntry> {
        self.lock().sandboxes.iter().find(|entry| entry.listed.id == id).cloned()
    }

    /// The container with this id.
    #[must_use]
    pub fn container(&self, id: &str) -> Option<ContainerEntry> {
        self.lock().containers.iter().find(|entry| entry.listed.id == id).cloned()
    }

    /// All sandboxes, in the order in which they were added.
    #[must_use]
    pub fn pods(&self) -> Vec<SandboxEntry> {
        self.lock().sandboxes.clone()
    }

    /// All containers, in the order in which they were added.
    #[must_use]
    pub fn containers(&self) -> Vec<ContainerEntry> {
        self.lock().containers.clone()
    }

    fn containers_of(&self, pod: &str) -> Vec<ContainerEntry> {
        let of_it = |entry: &&ContainerEntry| entry.listed.pod_sandbox_id == pod;
        self.lock().containers.iter().filter(of_it).cloned().collect()
    }

    /// A panic in a test's closure must not turn every later answer into one.
    pub(super) fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) fn subscribe(&self) -> broadcast::Receiver<v1::ContainerEventResponse> {
        self.events.subscribe()
    }

    /// containerd has an event service of its own beside CRI; others do not.
    pub(super) fn has_task_events(&self) -> bool {
        self.lock().version.runtime_name == "containerd"
    }

    pub(super) fn subscribe_to_tasks(&self) -> broadcast::Receiver<Envelope> {
        self.task_events.subscribe()
    }

    /// Sends word of an out-of-memory kill in a container to every subscriber of containerd's events. Gives how many
    /// there are.
    pub fn tell_oom(&self, container: &str) -> usize {
        self.task_events.send(Envelope::oom(container)).unwrap_or(0)
    }

    fn tell_container(&self, kind: v1::ContainerEventType, id: &str) {
        let pod = self
            .lock()
            .containers
            .iter()
            .find(|entry| entry.listed.id == id)
            .map(|entry| entry.listed.pod_sandbox_id.clone());
        self.tell(kind, id, &pod.unwrap_or_default());
    }

    /// Sends an event to every open stream. The event of a sandbox carries the sandbox's id as its container
    /// id, as containerd does it.
    fn tell(&self, kind: v1::ContainerEventType, id: &str, pod: &str) {
        if self.events.receiver_count() == 0 {
            return;
        }
        let event = v1::ContainerEventResponse {
            container_id: id.to_owned(),
            container_event_type: kind.into(),
            created_at: nanos_now(),
            pod_sandbox_status: self.pod(pod).and_then(|entry| entry.status.status),
            containers_statuses: self.containers_of(pod).into_iter().filter_map(|entry| entry.status.status).collect(),
        };
        // An error only means that nobody listens.
        self.events.send(event).ok();
    }
}
