//! The Kata pods: a simulated guest each, behind real sockets, and real processes that stand for shim, hypervisor and
//! virtiofsd in real cgroups, so that what a sandbox costs the host can be measured.

use std::time::Instant;

use anyhow::{Context, ensure};
use kata_pulse_simulator::cgroup_tree::Limits;
use kata_pulse_simulator::cri::{Pod, Qos};
use kata_pulse_simulator::kata::{
    ContainerPlan, Fault, HostCgroup, Hypervisor, KataNode, KataSandbox, RealProcesses, SandboxPlan,
};

use crate::node::{DemoNode, random_hex_id, random_uuid};
use crate::plan::{GUEST_CPU_QUOTA, GUEST_MEMORY_LIMIT, KataPlan, Work};
use crate::process::{Network, Order};

/// How long guests have run when the demo begins, in seconds.
const AGE: u64 = 60;

/// The Kata pods of a demo.
#[derive(Debug)]
pub(crate) struct Sandboxes {
    /// The cgroup of the demo.
    root: String,
    host: HostCgroup,
    pub(crate) pods: Vec<(&'static KataPlan, KataSandbox)>,
    node: KataNode,
    begun: Instant,
    lived: u64,
}

impl Sandboxes {
    /// None yet; they will be below the node's run directory and be listed by its runtime.
    pub(crate) fn new(root: &str, node: &DemoNode) -> anyhow::Result<Self> {
        let host = if node.cgroups.is_v2() { HostCgroup::V2 } else { HostCgroup::V1 };
        let builder = KataNode::builder().run_directory(node.run_directory()).registered_with(node.runtime.node());
        let sandboxes = builder.host_cgroup(host).start().context("start the simulated sandboxes")?;
        Ok(Self { root: root.to_owned(), host, pods: Vec::new(), node: sandboxes, begun: Instant::now(), lived: 0 })
    }

    /// Adds a pod: cgroups, processes, network, and then the guest.
    pub(crate) fn add(&mut self, plan: &'static KataPlan, node: &mut DemoNode) -> anyhow::Result<()> {
        let (uid, id) = (random_uuid()?, random_hex_id()?);
        let cgroup = Qos::Burstable.pod_cgroup(&self.root, &uid);
        node.cgroups.add(&cgroup, &Limits::NONE)?;
        let pod =
            Pod::new(plan.namespace, plan.name).uid(&uid).with_id(&id).cgroup_parent(&cgroup).label("app", plan.name);
        let mut containers = Vec::new();
        for (name, image) in plan.containers {
            let container = ContainerPlan::new(name).image(image).with_id(&random_hex_id()?);
            containers.push(container.memory_limit(GUEST_MEMORY_LIMIT).cpu_quota(GUEST_CPU_QUOTA));
        }
        let sandbox = SandboxPlan::new(plan.runtime, plan.hypervisor)
            .cgroup_root(&self.root)
            .with_containers(containers)
            .pod(pod.clone());
        let processes = self.start(plan, &id, &sandbox, node)?;
        let mut pod = pod.network_namespace(&format!("/proc/{}/ns/net", processes.hypervisor));
        if let Some(address) = node.add_network(processes.hypervisor) {
            pod = pod.ip(&address.to_string());
        }
        let sandbox = self.node.add(sandbox.pod(pod).processes(processes))?;
        if plan.hung {
            sandbox.fail_all(&Fault::Hang);
        }
        self.pods.push((plan, sandbox));
        Ok(())
    }

    /// Lets the guests grow up; from here on they live as fast as the clock.
    pub(crate) fn begin(&mut self) {
        self.node.advance(AGE);
        self.begun = Instant::now();
    }

    /// Lets the guests live on. Fails when the agent has done what it never must.
    pub(crate) fn still_run(&mut self) -> anyhow::Result<()> {
        let age = self.begun.elapsed().as_secs();
        self.node.advance(age.saturating_sub(self.lived));
        self.lived = age;
        self.unharmed()
    }

    /// Fails when the agent has called what it must never call.
    pub(crate) fn unharmed(&self) -> anyhow::Result<()> {
        let calls: Vec<_> = self.node.take_violations().iter().map(ToString::to_string).collect();
        ensure!(calls.is_empty(), "the agent has made calls that it must never make: {}", calls.join("; "));
        Ok(())
    }

    /// Starts what is around the guest.
    fn start(
        &self,
        plan: &KataPlan,
        id: &str,
        sandbox: &SandboxPlan,
        node: &mut DemoNode,
    ) -> anyhow::Result<RealProcesses> {
        let (own, overhead) = sandbox.cgroups(self.host);
        let beside = overhead.as_ref().unwrap_or(&own);
        let mut process = |name, work, network, cgroup: &str| {
            // A shim, a hypervisor and a virtiofsd all name their sandbox.
            let extra = vec!["--sandbox".into(), id.into()];
            node.add_process(cgroup, &Order { name, work, network, extra })
        };
        let hypervisor = match plan.hypervisor {
            // The shim is the hypervisor, and a thread of it is in the pod's network.
            Hypervisor::Dragonball => {
                let shim = process("containerd-shim", Work::Hypervisor, Network::Own, &own)?;
                return Ok(RealProcesses { shim, hypervisor: shim, virtiofsd: None });
            }
            Hypervisor::Qemu => "qemu-system-x86",
            Hypervisor::Firecracker => "firecracker",
            Hypervisor::CloudHypervisor => "cloud-hyperviso",
            Hypervisor::OpenVmm => "openvmm",
        };
        let shim = process("containerd-shim", Work::Sleep, Network::Host, beside)?;
        let virtiofsd = match plan.hypervisor {
            Hypervisor::Firecracker => None,
            _ => Some(process("virtiofsd", Work::Sleep, Network::Host, beside)?),
        };
        // On v1 only threads of virtual CPUs are moved out of the overhead's cgroup, and this one has none.
        let place = if self.host == HostCgroup::V1 { beside } else { &own };
        let hypervisor = process(hypervisor, Work::Hypervisor, Network::Own, place)?;
        node.cgroups.add(&own, &Limits::NONE)?;
        Ok(RealProcesses { shim, hypervisor, virtiofsd })
    }
}

impl Drop for Sandboxes {
    fn drop(&mut self) {
        // Whoever wanted to know has asked; the node itself would panic, and leave the rest of the demo behind.
        drop(self.node.take_violations());
    }
}
