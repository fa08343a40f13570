//! A handle on one simulated sandbox.

use std::ops::Deref;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use anyhow::Context;
use tokio::runtime::Handle;
use tokio::task::AbortHandle;

use super::doors::DoorHandle;
use super::host;
use super::kind::{Hypervisor, Runtime, VmState};
use super::plan::ContainerPlan;
use super::say::lies::Lie;
use super::simulated::Simulated;
use super::truth::{Component, Truth};

/// A sandbox. Clones share it; its doors are used through it, see [`DoorHandle`].
#[derive(Debug, Clone)]
pub struct KataSandbox {
    pub(super) doors: DoorHandle,
    pub(super) simulated: Arc<Simulated>,
    pub(super) runtime: Handle,
    /// The task that lets the directory come and go.
    flapping: Arc<Mutex<Option<AbortHandle>>>,
}

impl Deref for KataSandbox {
    type Target = DoorHandle;

    fn deref(&self) -> &DoorHandle {
        &self.doors
    }
}

impl KataSandbox {
    pub(super) fn new(doors: DoorHandle, simulated: Arc<Simulated>, runtime: Handle) -> Self {
        Self { doors, simulated, runtime, flapping: Arc::default() }
    }

    /// The sandbox id.
    #[must_use]
    pub fn id(&self) -> &str {
        self.simulated.facts.id()
    }

    /// The ids of its containers, without the pause container, whose id is the sandbox's.
    #[must_use]
    pub fn containers(&self) -> Vec<String> {
        self.simulated.containers().into_iter().skip(1).map(|(id, _)| id).collect()
    }

    /// A container comes while the sandbox runs. Gives its id.
    ///
    /// # Errors
    /// When its files cannot be made.
    pub fn add_container(&self, plan: ContainerPlan) -> anyhow::Result<String> {
        let Simulated { facts, pod, node, .. } = &*self.simulated;
        let id = plan.id_in(pod);
        self.simulated.add_container(&id, plan.clone())?;
        if facts.plan.listed {
            node.add_container(&plan.listed(pod, &id, facts.pids.hypervisor));
        }
        // So that the runtime has usage to tell of it, too.
        self.simulated.advance(0)?;
        Ok(id)
    }

    /// A container goes, and the runtime forgets it. What it has used, the guest has still used.
    ///
    /// # Panics
    /// When there is none with this id, or it is the pause container, without which there is no sandbox.
    pub fn remove_container(&self, id: &str) {
        assert_ne!(id, self.id(), "a sandbox has its pause container as long as it lives");
        assert!(self.simulated.remove_container(id), "no container {id}");
        if self.simulated.facts.plan.listed {
            self.simulated.node.remove_container(id);
        }
    }

    /// Namespace and name of its pod.
    #[must_use]
    pub fn pod(&self) -> (&str, &str) {
        (self.simulated.pod.pod_namespace(), self.simulated.pod.pod_name())
    }

    /// Whose shim runs it.
    #[must_use]
    pub fn runtime(&self) -> Runtime {
        self.simulated.facts.plan.runtime
    }

    /// What runs its guest.
    #[must_use]
    pub fn hypervisor(&self) -> Hypervisor {
        self.simulated.facts.plan.hypervisor
    }

    /// The directory that says that there is a sandbox.
    #[must_use]
    pub fn directory(&self) -> PathBuf {
        self.simulated.run.path(&self.simulated.facts.layout.sandbox())
    }

    /// Everything that is true of it now.
    #[must_use]
    pub fn truth(&self) -> Truth {
        Truth::clone(&self.simulated.truth())
    }

    /// The tick its numbers are those of.
    #[must_use]
    pub fn tick(&self) -> u64 {
        self.simulated.tick()
    }

    /// Lets time pass. The guest's and the host's numbers are new when this returns; those of cgroups above the pod
    /// follow with the node's own [`advance`](super::KataNode::advance).
    ///
    /// # Panics
    /// When the host's files cannot be written.
    pub fn advance(&self, ticks: u64) {
        self.simulated.advance(ticks).expect("the node's files can be written");
    }

    /// The guest's kernel has killed a process for want of memory.
    pub fn add_oom_kill(&self) {
        self.simulated.add_oom_kill();
    }

    /// The same, of a process of this container: the shim hears of it and tells the runtime. Gives how many follow the
    /// runtime's events.
    pub fn add_oom_kill_in(&self, container: &str) -> usize {
        self.simulated.add_oom_kill();
        self.simulated.tell_oom(container)
    }

    /// Lets the guest lie, or no longer.
    pub fn lie(&self, lie: Option<Lie>) {
        self.simulated.set_lie(lie);
    }

    /// Sets what the hypervisor says of the VM.
    pub fn set_vm_state(&self, state: VmState) {
        self.simulated.set_vm_state(state);
    }

    /// Whether the shim hears the agent. While it does not, as during boot, `/metrics` has no agent section, and
    /// `/agent-url` is empty from a Rust shim and an error from a Go shim.
    pub fn set_agent_heard(&self, heard: bool) {
        self.simulated.set_agent_heard(heard);
    }

    /// Ends one of its processes: procfs knows it no longer, and nothing else happens.
    ///
    /// # Panics
    /// When the sandbox has no such process.
    pub fn end_process(&self, component: Component) {
        let pid = self.truth().process(component).pid;
        if let Some(root) = &self.simulated.root {
            host::proc::remove(root, pid);
        }
    }

    /// Takes sockets and directories away, as a clean end of the shim does. The runtime, procfs and cgroups go on as
    /// if nothing had happened.
    pub fn vanish(&self) {
        self.doors.0.close();
        self.simulated.remove_directories();
    }

    /// Brings sockets and directories back.
    ///
    /// # Panics
    /// When they cannot be made.
    pub fn appear(&self) {
        self.try_appear().expect("a sandbox that was there can be made again");
    }

    fn try_appear(&self) -> anyhow::Result<()> {
        self.simulated.make_directories()?;
        self.doors.0.open().with_context(|| format!("sandbox {}", self.id()))
    }

    /// Lets sockets and directories come and go, each for so long, until [`settle`](Self::settle).
    pub fn flap(&self, period: Duration) {
        self.settle();
        let sandbox = self.clone();
        let task = self.runtime.spawn(async move {
            loop {
                sandbox.vanish();
                tokio::time::sleep(period).await;
                // It may have been removed for good.
                sandbox.try_appear().ok();
                tokio::time::sleep(period).await;
            }
        });
        *self.flapping.lock().unwrap_or_else(PoisonError::into_inner) = Some(task.abort_handle());
    }

    /// Ends the coming and going; the sandbox is there when this returns.
    ///
    /// # Panics
    /// When it cannot be made again.
    pub fn settle(&self) {
        let task = self.flapping.lock().unwrap_or_else(PoisonError::into_inner).take();
        let Some(task) = task else { return };
        task.abort();
        while !task.is_finished() {
            std::thread::yield_now();
        }
        self.vanish();
        self.appear();
    }

    /// Ends it for good: everything it has on the host goes, and the runtime forgets it.
    pub(super) fn remove(&self) {
        if let Some(task) = self.flapping.lock().unwrap_or_else(PoisonError::into_inner).take() {
            task.abort();
        }
        self.doors.0.close();
        self.simulated.remove_files();
        let (node, id) = (&self.simulated.node, self.id());
        if node.pod(id).is_some() {
            node.remove_pod(id);
        }
    }
}
