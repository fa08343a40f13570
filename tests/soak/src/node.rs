//! The node: real cgroups with real processes, simulated guests in some of them, and the runtime that knows the names.

use std::fs;
use std::path::PathBuf;
use std::sync::{Mutex, MutexGuard, PoisonError};

use anyhow::Context;
use kata_pulse_simulator::cgroup_tree::{Limits, Tree};
use kata_pulse_simulator::cri::{self, CriServer, Exit, Pod, Qos};
use kata_pulse_simulator::hierarchy;
use kata_pulse_simulator::kata::{
    ContainerPlan, HostCgroup, Hypervisor, KataNode, KataSandbox, RealProcesses, Runtime, SandboxPlan,
};
use tempfile::TempDir;

use crate::workload::Workload;

/// What the name of a soak's cgroup begins with; its pid follows.
const PREFIX: &str = "kata-pulse-soak-";

/// Kinds of sandboxes, in turn. With QEMU the agent would be out of reach, and so little to be seen.
const KINDS: [(Runtime, Hypervisor); 5] = [
    (Runtime::Go, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::Dragonball),
    (Runtime::Go, Hypervisor::Firecracker),
    (Runtime::Rust, Hypervisor::Firecracker),
];

/// The node. Everything it made is removed when it is dropped.
#[derive(Debug)]
pub struct Node {
    pub guests: KataNode,
    pub registry: cri::Node,
    runtime: Mutex<CriServer>,
    host: HostCgroup,
    cgroups: Tree,
    root: String,
    run: TempDir,
}

/// A pod that runs.
#[derive(Debug)]
pub struct RunningPod {
    pub pod: Pod,
    /// Names of its containers.
    pub containers: Vec<String>,
    /// Without one it is a runc pod.
    pub guest: Option<KataSandbox>,
    processes: Vec<Workload>,
    /// What it has in the cgroup tree.
    cgroups: Vec<String>,
}

impl Node {
    /// An empty node. Sweeps what soaks left that were killed.
    pub fn start() -> anyhow::Result<Self> {
        sweep();
        let name = format!("{PREFIX}{}", std::process::id());
        let cgroups = Tree::make(&name)?;
        // Paths of sockets in it are long, so its own is short.
        let run = tempfile::Builder::new().prefix("ks").rand_bytes(4).tempdir_in("/tmp")?;
        fs::create_dir_all(run.path().join("containerd/io.containerd.runtime.v2.task/k8s.io"))?;
        let registry = cri::Node::new();
        let runtime = CriServer::start(run.path().join("containerd/containerd.sock"), &registry)?;
        let host = if cgroups.is_v2() { HostCgroup::V2 } else { HostCgroup::V1 };
        let guests = KataNode::builder().run_directory(run.path()).registered_with(&registry).host_cgroup(host);
        let guests = guests.start().context("start the simulated guests")?;
        Ok(Self { guests, registry, runtime: Mutex::new(runtime), host, cgroups, root: format!("/{name}"), run })
    }

    /// The runtime, to go wrong.
    pub fn runtime(&self) -> MutexGuard<'_, CriServer> {
        self.runtime.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// The flags that make the agent read this node.
    pub fn flags(&self) -> Vec<PathBuf> {
        let socket = self.runtime().path().to_owned();
        vec![
            "--runtime-endpoint".into(),
            socket,
            "--cgroupfs".into(),
            self.cgroups.root(),
            "--run-dir".into(),
            self.run.path().to_owned(),
        ]
    }

    /// A description whose ids no other run has: the node's cgroups are seen by whoever reads the host's.
    fn describe(&self, kind: &str, number: usize) -> Pod {
        let pod = Pod::new(&format!("soak-{}", std::process::id()), &format!("{kind}-{number}"));
        let cgroup = Qos::Burstable.pod_cgroup(&self.root, pod.pod_uid());
        pod.cgroup_parent(&cgroup).label("app", "soak")
    }

    /// Starts a runc pod: cgroups, a pause process with a network namespace of its own, and the containers.
    pub fn add_runc(&self, number: usize) -> anyhow::Result<RunningPod> {
        let pod = self.describe("runc", number);
        let mut running = RunningPod::new(&pod);
        let sandbox = format!("{}/{}", pod.cgroup(), pod.id());
        let pause = self.run(&mut running, "pause", true, &sandbox)?;
        let pod = pod.pid(pause);
        self.registry.add_pod(&pod);
        for name in ["app", "sidecar"].iter().take(1 + number % 2) {
            let container = pod.container(name);
            let pid = self.run(&mut running, name, false, &format!("{}/{}", pod.cgroup(), container.id()))?;
            self.registry.add_container(&container.pid(pid));
            running.containers.push((*name).to_owned());
        }
        Ok(running)
    }

    /// Starts a Kata pod: cgroups, shim and hypervisor, and the guest.
    pub fn add_kata(&self, number: usize) -> anyhow::Result<RunningPod> {
        let pod = self.describe("kata", number);
        let mut running = RunningPod::new(&pod);
        let (runtime, hypervisor) = KINDS[number % KINDS.len()];
        running.containers = ["app", "sidecar"].iter().take(1 + number % 2).map(|name| (*name).to_owned()).collect();
        let plan = SandboxPlan::new(runtime, hypervisor)
            .cgroup_root(&self.root)
            .with_containers(running.containers.iter().map(|name| ContainerPlan::new(name)))
            .pod(pod.clone());
        let (own, overhead) = plan.cgroups(self.host);
        let beside = overhead.unwrap_or_else(|| own.clone());
        let shim = self.run(&mut running, "containerd-shim", hypervisor == Hypervisor::Dragonball, &beside)?;
        let name = match hypervisor {
            Hypervisor::Dragonball => None,
            Hypervisor::Firecracker => Some("firecracker"),
            _ => Some("cloud-hyperviso"),
        };
        // On v1 only threads of virtual CPUs are moved out of the overhead's cgroup, and this one has none.
        let place = if self.host == HostCgroup::V1 { &beside } else { &own };
        let hypervisor = name.map(|name| self.run(&mut running, name, true, place)).transpose()?.unwrap_or(shim);
        self.make(&mut running, &own)?;
        let real = RealProcesses { shim, hypervisor, virtiofsd: None };
        running.guest = Some(self.guests.add(plan.processes(real))?);
        Ok(running)
    }

    /// Ends a pod, in the order of a real one: guest or processes, cgroups, and then the runtime forgets it.
    pub fn remove(&self, mut running: RunningPod) -> anyhow::Result<()> {
        if let Some(guest) = &running.guest {
            self.guests.remove(guest);
        } else {
            let id = running.pod.id();
            for name in &running.containers {
                self.registry.exit_container(running.pod.container(name).id(), &Exit::completed());
            }
            self.registry.stop_pod(id);
        }
        running.processes.clear();
        for cgroup in running.cgroups.iter().rev() {
            self.cgroups.remove(cgroup)?;
        }
        self.cgroups.remove(&running.pod.cgroup())?;
        if running.guest.is_none() {
            self.registry.remove_pod(running.pod.id());
        }
        Ok(())
    }

    fn make(&self, running: &mut RunningPod, cgroup: &str) -> anyhow::Result<()> {
        self.cgroups.add(cgroup, &Limits { cpu_shares: 102, ..Limits::NONE })?;
        running.cgroups.push(cgroup.to_owned());
        Ok(())
    }

    fn run(&self, running: &mut RunningPod, name: &str, apart: bool, cgroup: &str) -> anyhow::Result<u32> {
        self.make(running, cgroup)?;
        let process = Workload::start(name, running.pod.id(), apart, &self.cgroups.directories(cgroup))?;
        let pid = process.pid();
        running.processes.push(process);
        Ok(pid)
    }
}

impl RunningPod {
    fn new(pod: &Pod) -> Self {
        Self { pod: pod.clone(), containers: Vec::new(), guest: None, processes: Vec::new(), cgroups: Vec::new() }
    }
}

/// Removes cgroups of soaks whose process has ended.
fn sweep() {
    let dead = |name: &str| {
        let pid = name.strip_prefix(PREFIX).and_then(|pid| pid.parse::<u32>().ok());
        pid.is_some_and(|pid| !PathBuf::from(format!("/proc/{pid}")).exists())
    };
    for hierarchy in hierarchy::mounted().unwrap_or_default() {
        let entries = fs::read_dir(&hierarchy.mount).into_iter().flatten().flatten();
        for name in entries.filter_map(|entry| entry.file_name().into_string().ok()).filter(|name| dead(name)) {
            // What cannot be removed now is removed by the next.
            hierarchy::remove_tree(&hierarchy.mount.join(name)).ok();
        }
    }
}
