//! A node of simulated sandboxes: a fake host root, a run directory, a container runtime that knows them.

use std::ffi::OsString;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread::{self, JoinHandle};

use anyhow::Context;
use tempfile::TempDir;
use tokio::runtime::Handle;
use tokio::sync::oneshot;

use crate::cri::{self, CriServer, Pod, identity};

use super::dice::Dice;
use super::doors::DoorHandle;
use super::host::{self, Tree};
use super::kind::{Endpoint, HostCgroup, Hypervisor, Runtime};
use super::layout::Layout;
use super::ledger::{Counts, Ledger, NodeLedger, Violation};
use super::model::{Facts, Pids};
use super::plan::{ContainerPlan, SandboxPlan};
use super::sandbox::KataSandbox;
use super::serve::{Doors, raise_descriptor_limit};
use super::simulated::Simulated;
use super::truth::Truth;

/// The first pid of the first sandbox, and how many pids and thread ids each sandbox has to itself.
const FIRST_PID: u32 = 10_000;
const PIDS: u32 = 128;

/// The most virtual CPUs those pids suffice for.
const VCPUS_MAX: u64 = 64;

/// Describes a node.
#[derive(Debug)]
pub struct KataNodeBuilder {
    plans: Vec<SandboxPlan>,
    host: HostCgroup,
    systemd: bool,
    host_files: bool,
    run: Option<PathBuf>,
    registry: Option<cri::Node>,
}

impl KataNodeBuilder {
    /// One more sandbox of these kinds. What follows says more about it.
    ///
    /// # Panics
    /// When the runtime does not have the hypervisor.
    #[must_use]
    pub fn sandbox(self, runtime: Runtime, hypervisor: Hypervisor) -> Self {
        self.plan(SandboxPlan::new(runtime, hypervisor))
    }

    /// One more sandbox.
    #[must_use]
    pub fn plan(mut self, plan: SandboxPlan) -> Self {
        self.plans.push(plan);
        self
    }

    /// Says more about the last sandbox: `.with(|plan| plan.vcpus(4).policy_denies_metrics())`.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn with(mut self, more: impl FnOnce(SandboxPlan) -> SandboxPlan) -> Self {
        let last = self.plans.pop().expect("a sandbox was named before more is said about it");
        self.plan(more(last))
    }

    /// The last sandbox has this many containers.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn containers(self, count: usize) -> Self {
        self.with(|plan| plan.containers(count))
    }

    /// The last sandbox, so many times in all.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn times(mut self, count: usize) -> Self {
        let last = self.plans.pop().expect("a sandbox was named before it is multiplied");
        self.plans.extend(std::iter::repeat_n(last, count));
        self
    }

    /// The cgroup version of the node, instead of v2.
    #[must_use]
    pub fn host_cgroup(mut self, version: HostCgroup) -> Self {
        self.host = version;
        self
    }

    /// Cgroups as the systemd driver names them, instead of the cgroupfs driver.
    #[must_use]
    pub fn systemd(mut self) -> Self {
        self.systemd = true;
        self
    }

    /// Neither procfs nor cgroups: only the run directory. A hundred files less per sandbox.
    #[must_use]
    pub fn without_host_files(mut self) -> Self {
        self.host_files = false;
        self
    }

    /// An existing directory that stands for `/run`, instead of a host root of its own; there are no host files then.
    /// Sockets in it have up to 90 bytes more, and may have 107 in all.
    #[must_use]
    pub fn run_directory(mut self, path: impl Into<PathBuf>) -> Self {
        self.run = Some(path.into());
        self.without_host_files()
    }

    /// A runtime that somebody else serves, to be told of the sandboxes.
    #[must_use]
    pub fn registered_with(mut self, node: &cri::Node) -> Self {
        self.registry = Some(node.clone());
        self
    }

    /// Makes the node. When this returns, every socket accepts connections and the runtime lists every sandbox.
    ///
    /// # Errors
    /// When files or sockets cannot be made: a path is too long, or this process may not hold so many descriptors.
    pub fn start(self) -> anyhow::Result<KataNode> {
        raise_descriptor_limit(self.plans.len())?;
        let directory = if self.run.is_none() { Some(short_directory()?) } else { None };
        let root = directory.as_ref().map(|directory| Tree::new(directory.path()));
        let run = match (&self.run, &root) {
            (Some(run), _) => run.clone(),
            (None, Some(root)) => root.path("run"),
            (None, None) => unreachable!("a node has a run directory or makes one"),
        };
        if let Some(root) = &root {
            host::node::make(root, self.host)?;
        }
        let run = Tree::new(run);
        run.directory("containerd/io.containerd.runtime.v2.task/k8s.io")?;
        let (registry, server) = match self.registry {
            Some(node) => (node, None),
            None => {
                let node = cri::Node::new();
                let server = CriServer::start(run.path("containerd/containerd.sock"), &node)?;
                (node, Some(server))
            }
        };
        let node = KataNode {
            sandboxes: Mutex::default(),
            ledger: Arc::default(),
            registry,
            server,
            thread: ServingThread::start()?,
            host: self.host,
            systemd: self.systemd,
            host_files: self.host_files,
            run,
            root,
            made: Mutex::default(),
            _directory: directory,
        };
        for plan in self.plans {
            node.add_quietly(plan)?;
        }
        node.write_classes()?;
        Ok(node)
    }
}

/// A running node. Dropping it ends its sandboxes and removes its files, and panics if a violation was recorded that
/// nobody has [taken](Self::take_violations).
#[derive(Debug)]
pub struct KataNode {
    sandboxes: Mutex<Vec<KataSandbox>>,
    ledger: Arc<NodeLedger>,
    registry: cri::Node,
    server: Option<CriServer>,
    thread: ServingThread,
    host: HostCgroup,
    systemd: bool,
    host_files: bool,
    run: Tree,
    root: Option<Tree>,
    /// How many sandboxes were ever made.
    made: Mutex<u32>,
    _directory: Option<TempDir>,
}

impl KataNode {
    /// An empty node to be described.
    #[must_use]
    pub fn builder() -> KataNodeBuilder {
        KataNodeBuilder {
            plans: Vec::new(),
            host: HostCgroup::V2,
            systemd: false,
            host_files: true,
            run: None,
            registry: None,
        }
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

    fn add_quietly(&self, plan: SandboxPlan) -> anyhow::Result<KataSandbox> {
        let index = {
            let mut made = self.made.lock().unwrap_or_else(PoisonError::into_inner);
            *made += 1;
            *made - 1
        };
        let (facts, pod) = self.facts(plan, index);
        let id = facts.id().to_owned();
        let root = self.root.clone().filter(|_| self.host_files);
        let listed = facts.plan.listed;
        if listed {
            self.list(&facts, &pod);
        }
        let simulated = Arc::new(Simulated::new(facts, pod, self.registry.clone(), self.run.clone(), root));
        simulated.make_files().with_context(|| format!("files of sandbox {id}"))?;
        let layout = &simulated.facts.layout;
        let socket = |endpoint| layout.socket(endpoint).map(|path| (endpoint, self.run.path(&path)));
        let sockets = Endpoint::ALL.into_iter().filter_map(socket).collect();
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
            id: id.clone(),
        };
        let placement = plan.placement(self.host, &pod);
        let mut containers = vec![(id, ContainerPlan::new("POD"))];
        for container in &plan.containers {
            let id = container.id.clone().unwrap_or_else(|| pod.container(&container.name).id().to_owned());
            containers.push((id, container.clone()));
        }
        (Facts { plan, layout, placement, host: self.host, containers, pids, dice }, pod)
    }

    /// Tells the runtime of the pod and its containers.
    fn list(&self, facts: &Facts, pod: &Pod) {
        self.registry.add_pod(pod);
        for (id, plan) in facts.containers.iter().skip(1) {
            let signed = |value: Option<u64>| i64::try_from(value.unwrap_or_default()).unwrap_or(i64::MAX);
            let container = pod
                .container(&plan.name)
                .with_id(id)
                .image(&plan.image)
                // Of every container of a Kata pod, the pid is the hypervisor's.
                .pid(facts.pids.hypervisor)
                .cpu_shares(512)
                .cpu_quota(signed(plan.cpu_quota))
                .memory_limit(signed(plan.memory_limit));
            self.registry.add_container(&container);
        }
    }

    fn write_classes(&self) -> anyhow::Result<()> {
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

/// A directory with as short a path as can be had, because the paths of sockets in it are long.
pub(super) fn short_directory() -> anyhow::Result<TempDir> {
    let builder = || {
        let mut builder = tempfile::Builder::new();
        builder.prefix("k").rand_bytes(5);
        builder
    };
    let short = builder().tempdir_in("/tmp");
    short.or_else(|_| builder().tempdir()).context("make a temporary directory")
}

/// The thread on which every door of a node is served.
#[derive(Debug)]
pub(super) struct ServingThread {
    pub(super) handle: Handle,
    running: Option<(oneshot::Sender<()>, JoinHandle<()>)>,
}

impl ServingThread {
    pub(super) fn start() -> anyhow::Result<Self> {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().context("start a runtime")?;
        let handle = runtime.handle().clone();
        let (stop, stopped) = oneshot::channel();
        // The runtime is dropped at the end of the thread, and with it every connection.
        let serve = move || {
            // Either way it is the end.
            runtime.block_on(stopped).ok();
        };
        let thread = thread::Builder::new().name("kata".to_owned()).spawn(serve).context("start a thread")?;
        Ok(Self { handle, running: Some((stop, thread)) })
    }

    pub(super) fn stop(&mut self) {
        if let Some((stop, thread)) = self.running.take() {
            drop(stop);
            // A panic there has been reported by the thread.
            thread.join().ok();
        }
    }
}

impl Drop for ServingThread {
    fn drop(&mut self) {
        self.stop();
    }
}
