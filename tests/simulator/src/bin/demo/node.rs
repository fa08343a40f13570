//! Builds the demo's node: cgroups, processes, networks, and the runtime that knows their names.
//!
//! Each pod is made in the order of a real one: its cgroup, the pause process with the pod's network, then
//! the containers, which share that network. Kata pods are made by [`sandboxes`](crate::sandboxes).

use std::ffi::OsString;
use std::fs::{self, DirBuilder};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use anyhow::{Context, bail};
use kata_pulse_simulator::cgroup_tree::{Limits, Tree};
use kata_pulse_simulator::cri::{CriServer, Exit, Node, Pod};

use crate::interrupt::Interrupt;
use crate::network::{self, Link};
use crate::plan::{ContainerPlan, KATA_PODS, PODS, PodPlan, Work, limits_of_pod};
use crate::process::{Network, Order, Workload};
use crate::sandboxes::Sandboxes;
use crate::sweep::sweep;

/// What the names of a demo's cgroup and directories begin with; its pid follows.
pub(crate) const NAME_PREFIX: &str = "kata-pulse-demo-";

/// Where a demo makes a directory, and what its name begins with: one for the runtime's socket and the log, one for
/// the database's files, which is usually on a disk, so that there is I/O to be seen, and one that stands for `/run`,
/// whose name is short because paths of sockets are not.
pub(crate) const DIRECTORIES: [(&str, &str); 3] =
    [(RUNTIME_PARENT, NAME_PREFIX), (VOLUME_PARENT, NAME_PREFIX), (RUNTIME_PARENT, network::LINK_PREFIX)];
const RUNTIME_PARENT: &str = "/run";
const VOLUME_PARENT: &str = "/var/tmp";

/// Why this demo cannot run here, and what would help.
pub(crate) fn unfit() -> Option<String> {
    if !rustix::process::geteuid().is_root() {
        return Some("it makes cgroups and network namespaces, so it needs root: run it with sudo".to_owned());
    }
    let there = |tool: &&str| {
        let mut command = Command::new(tool);
        command.arg("--version").stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok()
    };
    if let Some(tool) = ["unshare", "nsenter"].iter().find(|tool| !there(tool)) {
        return Some(format!("it needs {tool}: install util-linux"));
    }
    // A tree of another name, because the real one must not be made before the sweep.
    let probe = format!("{NAME_PREFIX}{}-probe", std::process::id());
    let error = Tree::make(&probe).err()?;
    Some(format!("{error:#}: run it on the host, or in a container with --privileged --cgroupns=host"))
}

/// A container that was made.
#[derive(Debug)]
pub(crate) struct DemoContainer {
    pub(crate) plan: &'static ContainerPlan,
    pub(crate) cgroup: String,
}

impl DemoContainer {
    /// Whether there is something to measure.
    pub(crate) fn runs(&self) -> bool {
        self.plan.work != Work::Job
    }
}

/// A pod that was made.
#[derive(Debug)]
pub(crate) struct DemoPod {
    pub(crate) plan: &'static PodPlan,
    pub(crate) sandbox: String,
    pub(crate) containers: Vec<DemoContainer>,
}

/// The node. Everything it made is removed when it is dropped: first the processes, then what held them.
#[derive(Debug)]
pub(crate) struct DemoNode {
    pub(crate) pods: Vec<DemoPod>,
    pub(crate) runtime: CriServer,
    /// Why pods have no `eth0`, if they have none.
    pub(crate) without_network: Option<String>,
    workloads: Vec<Workload>,
    /// The Kata pods. Gone before their processes are.
    pub(crate) sandboxes: Option<Sandboxes>,
    links: Vec<Link>,
    pub(crate) cgroups: Tree,
    directory: Directory,
    volume: Directory,
    run: Directory,
}

impl DemoNode {
    /// Sweeps left-overs and builds the node.
    pub(crate) fn build(interrupt: &Interrupt) -> anyhow::Result<Self> {
        sweep();
        let name = format!("{NAME_PREFIX}{}", std::process::id());
        let directory = Directory::make(Path::new(RUNTIME_PARENT).join(&name))?;
        let runtime = CriServer::start(directory.0.join("containerd.sock"), &Node::new())?;
        let without_network = (!network::available()).then(|| "ip is not there: install iproute2".to_owned());
        let mut node = Self {
            pods: Vec::new(),
            runtime,
            without_network,
            workloads: Vec::new(),
            sandboxes: None,
            links: Vec::new(),
            cgroups: Tree::make(&name)?,
            directory,
            volume: Directory::make(Path::new(VOLUME_PARENT).join(&name))?,
            run: Directory::make(Path::new(RUNTIME_PARENT).join(format!(
                "{}{}",
                network::LINK_PREFIX,
                std::process::id()
            )))?,
        };
        let root = format!("/{name}");
        let go_on = || if interrupt.wait(std::time::Duration::ZERO) { bail!("interrupted") } else { Ok(()) };
        for plan in PODS {
            node.add_pod(&root, plan)?;
            go_on()?;
        }
        let mut sandboxes = Sandboxes::new(&root, &node)?;
        for plan in KATA_PODS {
            sandboxes.add(plan, &mut node)?;
            go_on()?;
        }
        sandboxes.begin();
        node.sandboxes = Some(sandboxes);
        Ok(node)
    }

    /// What the agent takes for the host's `/run`: Kata sandboxes have their directories here.
    pub(crate) fn run_directory(&self) -> &Path {
        &self.run.0
    }

    /// Where the agent's log goes.
    pub(crate) fn agent_log(&self) -> PathBuf {
        self.directory.0.join("agent.log")
    }

    /// Fails when a process has ended that should not have, or the agent has done to a sandbox what it never must.
    /// Guests live on as far as time has.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        self.workloads.iter_mut().try_for_each(Workload::still_runs)?;
        self.sandboxes.as_mut().map_or(Ok(()), Sandboxes::still_run)
    }

    fn add_pod(&mut self, root: &str, plan: &'static PodPlan) -> anyhow::Result<()> {
        // New ids in every run, so that two demos on one host do not claim the same ones.
        let (uid, sandbox) = (random_uuid()?, random_hex_id()?);
        let cgroup = plan.qos.pod_cgroup(root, &uid);
        self.cgroups.add(&cgroup, &limits_of_pod(plan.containers))?;
        let order = Order { name: "pause", work: Work::Pause, network: Network::Own, extra: Vec::new() };
        let pause = self.start(&format!("{cgroup}/{sandbox}"), &Limits::NONE, &order)?;
        let pid = pause.pid();
        self.workloads.push(pause);
        let link = self.connect(pid);

        let mut pod = Pod::new(plan.namespace, plan.name)
            .uid(&uid)
            .with_id(&sandbox)
            .cgroup_parent(&cgroup)
            .pid(pid)
            .label("app", plan.name)
            .network_namespace(&format!("/proc/{pid}/ns/net"));
        if let Some(link) = &link {
            pod = pod.ip(&link.pod.to_string());
        }
        self.runtime.node().add_pod(&pod);
        let mut containers = Vec::new();
        for plan in plan.containers {
            containers.push(self.add_container(&pod, pid, link.as_ref(), plan)?);
        }
        self.links.extend(link);
        self.pods.push(DemoPod { plan, sandbox, containers });
        Ok(())
    }

    fn add_container(
        &mut self,
        pod: &Pod,
        pause: u32,
        link: Option<&Link>,
        plan: &'static ContainerPlan,
    ) -> anyhow::Result<DemoContainer> {
        let id = random_hex_id()?;
        let cgroup = format!("{}/{id}", pod.cgroup());
        let mut extra: Vec<OsString> = vec!["--directory".into(), self.volume.0.clone().into()];
        if let Some(link) = link {
            extra.extend(["--peer".into(), link.echo.to_string().into()]);
        }
        let order = Order { name: plan.name, work: plan.work, network: Network::Of(pause), extra };
        let mut workload = self.start(&cgroup, &plan.limits, &order)?;

        let container = pod
            .container(plan.name)
            .with_id(&id)
            .image(plan.image)
            .pid(workload.pid())
            .cpu_shares(plan.limits.cpu_shares.into())
            .cpu_quota(plan.limits.cpu_quota.unwrap_or_default().into())
            .memory_limit(plan.limits.memory.unwrap_or_default().into());
        self.runtime.node().add_container(&container);
        let container = DemoContainer { plan, cgroup };
        if container.runs() {
            self.workloads.push(workload);
        } else {
            let code = workload.wait()?.code().unwrap_or(137);
            self.cgroups.remove(&container.cgroup)?;
            let exit = if code == 0 { Exit::completed() } else { Exit::error(code) };
            self.runtime.node().exit_container(&id, &exit);
        }
        Ok(container)
    }

    /// Starts a process that belongs to no container.
    pub(crate) fn add_process(&mut self, cgroup: &str, order: &Order<'_>) -> anyhow::Result<u32> {
        let workload = self.start(cgroup, &Limits::NONE, order)?;
        let pid = workload.pid();
        self.workloads.push(workload);
        Ok(pid)
    }

    fn start(&self, cgroup: &str, limits: &Limits, order: &Order<'_>) -> anyhow::Result<Workload> {
        self.cgroups.add(cgroup, limits)?;
        Workload::start(order, &self.cgroups.directories(cgroup))
    }

    /// Gives the namespace of a process an `eth0`, and tells its address.
    pub(crate) fn add_network(&mut self, pid: u32) -> Option<std::net::Ipv4Addr> {
        let link = self.connect(pid)?;
        let address = link.pod;
        self.links.push(link);
        Some(address)
    }

    /// A pod without `eth0` still has everything else to show, so a failure is only told.
    fn connect(&mut self, pid: u32) -> Option<Link> {
        if self.without_network.is_some() {
            return None;
        }
        let number = u32::try_from(self.links.len()).unwrap_or_default();
        let link = Link::connect(pid, number);
        self.without_network = link.as_ref().err().map(|error| format!("{error:#}"));
        link.ok()
    }
}

/// A directory of the demo's own. Removed when dropped.
#[derive(Debug)]
struct Directory(PathBuf);

impl Directory {
    fn make(path: PathBuf) -> anyhow::Result<Self> {
        // Fails when it exists: it would be somebody else's.
        DirBuilder::new().mode(0o700).create(&path).with_context(|| format!("make {}", path.display()))?;
        Ok(Self(path))
    }
}

impl Drop for Directory {
    fn drop(&mut self) {
        // What cannot be removed now is removed by the next demo's sweep.
        fs::remove_dir_all(&self.0).ok();
    }
}

pub(crate) fn random_uuid() -> anyhow::Result<String> {
    let path = "/proc/sys/kernel/random/uuid";
    Ok(fs::read_to_string(path).with_context(|| format!("read {path}"))?.trim().to_owned())
}

pub(crate) fn random_hex_id() -> anyhow::Result<String> {
    Ok(format!("{}{}", random_uuid()?, random_uuid()?).replace('-', ""))
}
