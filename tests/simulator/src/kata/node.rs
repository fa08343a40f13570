//! A node of simulated sandboxes: a fake host root, a run directory, a container runtime that knows them.

use std::ffi::OsString;
use std::path::Path;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;

use anyhow::Context;
use tempfile::TempDir;

use crate::cri::{self, CriServer, Pod, identity};

use super::builder::KataNodeBuilder;
use super::dice::Dice;
use super::doors::DoorHandle;
use super::host::{self, Tree};
use super::kind::{Endpoint, HostCgroup, Hypervisor, Runtime};
use super::layout::Layout;
use super::ledger::{Counts, Ledger, NodeLedger, Violation};
use super::model::{Facts, PAUSE, Pids};
use super::plan::{ContainerPlan, SandboxPlan};
use super::sandbox::KataSandbox;
use super::serve::{Doors, ServingThread, raise_descriptor_limit};
use super::simulated::Simulated;
use super::truth::Truth;

/// The first pid of the first sandbox, and how many pids and thread ids each sandbox has to itself.
const FIRST_PID: u32 = 10_000;
const PIDS: u32 = 128;

/// The most virtual CPUs those pids suffice for.
const VCPUS_MAX: u64 = 64;

/// A running node. Dropping it ends its sandboxes and removes its files, and panics if a violation was recorded that
/// nobody has [taken](Self::take_violations).
#[derive(Debug)]
pub struct KataNode {
    pub(super) sandboxes: Mutex<Vec<KataSandbox>>,
    pub(super) ledger: Arc<NodeLedger>,
    pub(super) registry: cri::Node,
    pub(super) server: Option<CriServer>,
    pub(super) thread: ServingThread,
    pub(super) host: HostCgroup,
    pub(super) systemd: bool,
    pub(super) host_files: bool,
    pub(super) run: Tree,
    pub(super) root: Option<Tree>,
    /// How many sandboxes were ever made.
    pub(super) made: Mutex<u32>,
    /// Removed with the node.
    #[expect(dead_code, reason = "held for what its end does")]
    pub(super) directory: Option<TempDir>,
}

impl KataNode {
    /// An empty node to be described.
    #[must_use]
    pub fn builder() -> KataNodeBuilder {
        KataNodeBuilder::new()
    }

    /// The directory that stands for `/`.
    ///
    /// # Panics
    /// When the node was given a run directory and has no other files.
    #[must_use]
    pub fn host_root(&self) -> &Path {
        self.root.as_ref().expect("a node without a given run directory").root()
    }

    /// The directory that stands for `/run`.
    #[must_use]
    pub fn run_directory(&self) -> &Path {
        self.run.root()
    }

    /// The runtime's socket.
    ///
    /// # Panics
    /// When the runtime is served by somebody else.
    #[must_use]
    pub fn cri_socket(&self) -> &Path {
        self.runtime().path()
    }

    /// The runtime, to be stopped or to go wrong.
    ///
    /// # Panics
    /// When it is served by somebody else.
    #[must_use]
    pub fn runtime(&self) -> &CriServer {
        self.server.as_ref().expect("a node that serves its own runtime")
    }

    /// What the runtime knows.
    #[must_use]
    pub fn registry(&self) -> &cri::Node {
        &self.registry
    }

    /// The flags that make the agent read this node.
    #[must_use]
    pub fn flags(&self) -> Vec<OsString> {
        vec!["--host-root".into(), self.host_root().into(), "--runtime-endpoint".into(), self.cri_socket().into()]
    }

    /// All sandboxes, in the order in which they were added.
    #[must_use]
    pub fn sandboxes(&self) -> Vec<KataSandbox> {
        self.lock().clone()
    }

    /// The sandbox at this place of the order.
    ///
    /// # Panics
    /// When there are not so many.
    #[must_use]
    pub fn sandbox(&self, index: usize) -> KataSandbox {
        self.lock()[index].clone()
    }

    /// Adds a sandbox while the node runs.
    ///
    /// # Errors
    /// As [`start`](KataNodeBuilder::start).
    pub fn add(&self, plan: SandboxPlan) -> anyhow::Result<KataSandbox> {
        raise_descriptor_limit(self.lock().len() + 1)?;
        let sandbox = self.add_quietly(plan)?;
        self.write_classes()?;
        Ok(sandbox)
    }

    /// Ends a sandbox for good: everything it has on the host goes, and the runtime forgets it.
    pub fn remove(&self, sandbox: &KataSandbox) {
        self.lock().retain(|other| other.id() != sandbox.id());
        sandbox.remove();
    }

    /// Lets time pass in every sandbox.
    ///
    /// # Panics
    /// When the host's files cannot be written.
    pub fn advance(&self, ticks: u64) {
        for sandbox in self.sandboxes() {
            sandbox.advance(ticks);
        }
        self.write_classes().expect("the node's files can be written");
    }

    /// What all endpoints of all sandboxes have seen.
    #[must_use]
    pub fn counts(&self) -> Counts {
        self.ledger.total()
    }

    /// The calls that nobody may make and somebody has made.
    #[must_use]
    pub fn violations(&self) -> Vec<Violation> {
        self.ledger.violations()
    }

    /// The same, and forgets them.
    #[must_use]
    pub fn take_violations(&self) -> Vec<Violation> {
        self.ledger.take_violations()
    }

    pub(super) fn add_quietly(&self, plan: SandboxPlan) -> anyhow::Result<KataSandbox> {
        let index = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            *made += 1;
            *made - 1
        };
        let (facts, pod) = self.facts(plan, index);
        let id = facts.id().to_owned();
        let root = self.root.clone().filter(|_| self.host_files);
        let mut containers = vec![(id.clone(), ContainerPlan::new(PAUSE))];
        containers.extend(facts.plan.containers.iter().map(|container| (container.id_in(&pod), container.clone())));
        if facts.plan.listed {
            self.registry.add_pod(&pod);
            for (id, plan) in containers.iter().skip(1) {
                self.registry.add_container(&plan.listed(&pod, id, facts.pids.hypervisor));
            }
        }
        let life = facts.begin(containers);
        let trees = (self.run.clone(), root);
        let simulated = Arc::new(Simulated::new(facts, life, pod, self.registry.clone(), trees));
        simulated.make_files().with_context(|| format!("files of sandbox {id}"))?;
        let layout = &simulated.facts.layout;
        let bundled = simulated.facts.plan.bundled;
        let served = |endpoint: &Endpoint| bundled || *endpoint != Endpoint::Task;
        let socket = |endpoint| layout.socket(endpoint).map(|path| (endpoint, self.run.path(&path)));
        let sockets = Endpoint::ALL.into_iter().filter(served).filter_map(socket).collect();
        let ledger = Arc::new(Ledger::new(&id, &self.ledger));
        let doors = Doors::new(sockets, simulated.clone(), ledger, self.thread.handle.clone());
        doors.open().with_context(|| format!("sandbox {id}"))?;
        let sandbox = KataSandbox::new(DoorHandle(doors), simulated, self.thread.handle.clone());
        // So that the runtime has usage to tell from the beginning.
        sandbox.simulated.advance(0)?;
        self.lock().push(sandbox.clone());
        Ok(sandbox)
    }

    fn facts(&self, mut plan: SandboxPlan, index: u32) -> (Facts, Pod) {
        plan.vcpus = plan.vcpus.min(VCPUS_MAX);
        let name = plan.name.clone().unwrap_or_else(|| format!("kata-{index}"));
        let pids = pids(&plan, FIRST_PID + index * PIDS);
        let pod = plan.pod.clone().unwrap_or_else(|| {
            let pod = Pod::new(&plan.namespace, &name).qos(plan.qos);
            match self.systemd.then(|| slice(plan.qos, pod.pod_uid())) {
                Some(slice) => pod.cgroup_parent(&slice),
                None => pod,
            }
        });
        let pod = pod.handler(&plan.handler).pid(pids.hypervisor);
        let id = pod.id().to_owned();
        let dice = Dice::new(plan.seed, &id);
        let hash = identity::hex_id(&format!("/run/containerd/containerd.sock/k8s.io/{id}"));
        let layout = Layout {
            runtime: plan.runtime,
            hypervisor: plan.hypervisor,
            jailed: plan.jailed,
            hash: if plan.runtime == Runtime::Rust { hash.to_uppercase() } else { hash },
            cid: u32::try_from(3 + dice.roll("cid", 1 << 31)).unwrap_or(3),
            id,
        };
        let placement = plan.placement(self.host, &pod);
        (Facts { plan, layout, placement, host: self.host, pids, dice }, pod)
    }

    pub(super) fn write_classes(&self) -> anyhow::Result<()> {
        let Some(root) = self.root.as_ref().filter(|_| self.host_files) else { return Ok(()) };
        let truths: Vec<Arc<Truth>> = self.lock().iter().map(|sandbox| sandbox.simulated.truth()).collect();
        host::cgroup::write_classes(root, self.host, truths.iter().map(|truth| &**truth))
    }

    fn lock(&self) -> MutexGuard<'_, Vec<KataSandbox>> {
        self.sandboxes.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Drop for KataNode {
    fn drop(&mut self) {
        for sandbox in self.sandboxes() {
            if self.root.is_some() {
                // The files go with their directory.
                sandbox.doors.0.close();
            } else {
                sandbox.remove();
            }
        }
        self.thread.stop();
        let violations = self.take_violations();
        if !thread::panicking() {
            let told: Vec<_> = violations.iter().map(ToString::to_string).collect();
            assert!(told.is_empty(), "calls that an agent must never make: {}", told.join("; "));
        }
    }
}

/// The processes of a sandbox: given, or numbered from `first`.
fn pids(plan: &SandboxPlan, first: u32) -> Pids {
    if let Some(real) = plan.real {
        return Pids {
            shim: real.shim,
            hypervisor: real.hypervisor,
            virtiofsd: real.virtiofsd,
            virtiofsd_child: None,
            kernel_thread: None,
        };
    }
    // Neither Firecracker nor Dragonball has it: one has no virtio-fs, the other serves it itself.
    let virtiofsd = !matches!(plan.hypervisor, Hypervisor::Firecracker | Hypervisor::Dragonball);
    Pids {
        shim: first,
        hypervisor: first + 40,
        virtiofsd: virtiofsd.then_some(first + 16),
        virtiofsd_child: virtiofsd.then_some(first + 24),
        kernel_thread: Some(first + 32),
    }
}

/// The pod's slice, as the kubelet's systemd driver names it.
fn slice(qos: cri::Qos, uid: &str) -> String {
    let class = match qos {
        cri::Qos::Guaranteed => "",
        cri::Qos::Burstable => "-burstable",
        cri::Qos::BestEffort => "-besteffort",
    };
    format!("kubepods{class}-pod{}.slice", uid.replace('-', "_"))
}
