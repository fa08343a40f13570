//! The words in which a test describes a sandbox.

use crate::cri::{Container, Pod, Qos};

use super::kind::{GuestCgroup, HostCgroup, Hypervisor, Runtime};
use super::layout::Placement;

/// A container of a sandbox. Without further words: no limits.
#[derive(Debug, Clone)]
pub struct ContainerPlan {
    pub(super) name: String,
    pub(super) image: String,
    pub(super) id: Option<String>,
    pub(super) memory_limit: Option<u64>,
    pub(super) cpu_quota: Option<u64>,
}

impl ContainerPlan {
    /// A container with this name in the pod.
    #[must_use]
    pub fn new(name: &str) -> Self {
        Self {
            name: name.to_owned(),
            image: format!("docker.io/library/{name}:1"),
            id: None,
            memory_limit: None,
            cpu_quota: None,
        }
    }

    /// The image as the pod names it.
    #[must_use]
    pub fn image(mut self, image: &str) -> Self {
        self.image = image.to_owned();
        self
    }

    /// The container id, instead of one derived from the names.
    #[must_use]
    pub fn with_id(mut self, id: &str) -> Self {
        self.id = Some(id.to_owned());
        self
    }

    /// The memory limit in bytes.
    #[must_use]
    pub fn memory_limit(mut self, bytes: u64) -> Self {
        self.memory_limit = Some(bytes);
        self
    }

    /// The CPU limit, in microseconds per period of 100 ms.
    #[must_use]
    pub fn cpu_quota(mut self, micros: u64) -> Self {
        self.cpu_quota = Some(micros);
        self
    }
}

impl ContainerPlan {
    /// Its id in this pod.
    pub(super) fn id_in(&self, pod: &Pod) -> String {
        self.id.clone().unwrap_or_else(|| pod.container(&self.name).id().to_owned())
    }

    /// As the runtime lists it. Of every container of a Kata pod, the pid is the hypervisor's.
    pub(super) fn listed(&self, pod: &Pod, id: &str, hypervisor: u32) -> Container {
        let signed = |value: Option<u64>| i64::try_from(value.unwrap_or_default()).unwrap_or(i64::MAX);
        let container = pod.container(&self.name).with_id(id).image(&self.image).pid(hypervisor);
        container.cpu_shares(512).cpu_quota(signed(self.cpu_quota)).memory_limit(signed(self.memory_limit))
    }
}

/// Processes that are really there and stand for a sandbox's, where the node has no procfs of its own.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RealProcesses {
    /// The shim's pid.
    pub shim: u32,
    /// The hypervisor's.
    pub hypervisor: u32,
    /// virtiofsd's, if the sandbox has one.
    pub virtiofsd: Option<u32>,
}

/// A sandbox. Without further words: one container, two virtual CPUs, 2 GiB, a cgroup v2 guest with one disk,
/// placed as its runtime places sandboxes by default.
#[derive(Debug, Clone)]
pub struct SandboxPlan {
    pub(super) runtime: Runtime,
    pub(super) hypervisor: Hypervisor,
    pub(super) namespace: String,
    pub(super) name: Option<String>,
    pub(super) handler: String,
    pub(super) qos: Qos,
    pub(super) pod: Option<Pod>,
    pub(super) listed: bool,
    pub(super) bundled: bool,
    pub(super) containers: Vec<ContainerPlan>,
    pub(super) capacity: usize,
    pub(super) vcpus: u64,
    pub(super) memory_bytes: u64,
    pub(super) disks: u64,
    pub(super) guest_cgroup: GuestCgroup,
    pub(super) sandbox_cgroup_only: bool,
    pub(super) cgroup_root: String,
    pub(super) jailed: bool,
    pub(super) denies_metrics: bool,
    pub(super) runtime_measures: bool,
    pub(super) reports_throttled_time: bool,
    pub(super) agent_version: String,
    pub(super) seed: u64,
    pub(super) real: Option<RealProcesses>,
}

impl SandboxPlan {
    /// A sandbox of these kinds.
    ///
    /// # Panics
    /// When the runtime does not have the hypervisor.
    #[must_use]
    pub fn new(runtime: Runtime, hypervisor: Hypervisor) -> Self {
        assert!(hypervisor.runs_under(runtime), "no {hypervisor:?} under {runtime:?}");
        Self {
            runtime,
            hypervisor,
            namespace: "sim".to_owned(),
            name: None,
            handler: handler(runtime, hypervisor).to_owned(),
            qos: Qos::Burstable,
            pod: None,
            listed: true,
            bundled: true,
            containers: vec![ContainerPlan::new("app")],
            capacity: 0,
            vcpus: 2,
            memory_bytes: 2 << 30,
            disks: 1,
            guest_cgroup: GuestCgroup::V2,
            // runtime-rs ships it switched on, the Go runtime off.
            sandbox_cgroup_only: runtime == Runtime::Rust,
            cgroup_root: String::new(),
            jailed: false,
            denies_metrics: false,
            runtime_measures: true,
            reports_throttled_time: false,
            agent_version: "4.1.0".to_owned(),
            seed: 0,
            real: None,
        }
    }

    /// The pod's namespace and name, instead of `sim/kata-<number>`.
    #[must_use]
    pub fn named(mut self, namespace: &str, name: &str) -> Self {
        namespace.clone_into(&mut self.namespace);
        self.name = Some(name.to_owned());
        self
    }

    /// The runtime handler, instead of the one kata-deploy gives these kinds.
    #[must_use]
    pub fn handler(mut self, handler: &str) -> Self {
        handler.clone_into(&mut self.handler);
        self
    }

    /// The QoS class, which decides the pod's cgroup.
    #[must_use]
    pub fn qos(mut self, qos: Qos) -> Self {
        self.qos = qos;
        self
    }

    /// A pod described elsewhere: its names, ids and cgroup are taken, and its pid and handler set here.
    #[must_use]
    pub fn pod(mut self, pod: Pod) -> Self {
        self.pod = Some(pod);
        self
    }

    /// Leaves it out of what the container runtime lists.
    #[must_use]
    pub fn unlisted(mut self) -> Self {
        self.listed = false;
        self
    }

    /// This many containers `app-0`, `app-1`, …; the first has a CPU limit, the second a memory limit.
    #[must_use]
    pub fn containers(mut self, count: usize) -> Self {
        let plans = (0..count).map(|number| {
            let plan = ContainerPlan::new(&format!("app-{number}"));
            match number {
                0 => plan.cpu_quota(50_000),
                1 => plan.memory_limit(64 << 20),
                _ => plan,
            }
        });
        self.containers = plans.collect();
        self
    }

    /// These containers.
    #[must_use]
    pub fn with_containers(mut self, containers: impl IntoIterator<Item = ContainerPlan>) -> Self {
        self.containers = containers.into_iter().collect();
        self
    }

    /// How many containers the guest has room for, so that more can come while the sandbox runs. By default no more
    /// than there are from the beginning; beyond it, the guest is crowded and its sums no longer fit together.
    #[must_use]
    pub fn capacity(mut self, count: usize) -> Self {
        self.capacity = count;
        self
    }

    /// Leaves containerd's part to a real one: it lists the pod and makes the bundles, and the shim that it has started
    /// serves the Task API.
    #[must_use]
    pub fn under_containerd(mut self) -> Self {
        self.bundled = false;
        self.unlisted()
    }

    /// How many share the guest, the pause container among them. Not how many there are now: what a container has used
    /// must not change because others come and go.
    pub(super) fn heads(&self) -> u64 {
        u64::try_from(self.capacity.max(self.containers.len()) + 1).unwrap_or(u64::MAX)
    }

    /// How many virtual CPUs the guest has.
    #[must_use]
    pub fn vcpus(mut self, count: u64) -> Self {
        self.vcpus = count.max(1);
        self
    }

    /// The size of the VM, half a GiB at least.
    #[must_use]
    pub fn memory(mut self, bytes: u64) -> Self {
        self.memory_bytes = bytes.max(512 << 20);
        self
    }

    /// How many virtio disks the guest has. The first has a partition. Without any, the root filesystem comes
    /// through virtio-fs, and neither guest nor hypervisor has a block device to tell of.
    #[must_use]
    pub fn disks(mut self, count: u64) -> Self {
        self.disks = count.min(20);
        self
    }

    /// The cgroup version in the guest.
    #[must_use]
    pub fn guest_cgroup(mut self, version: GuestCgroup) -> Self {
        self.guest_cgroup = version;
        self
    }

    /// Whether everything is in the sandbox cgroup, or shim and virtiofsd are in an overhead cgroup of their own.
    /// Dragonball, which is the shim, has no choice.
    #[must_use]
    pub fn sandbox_cgroup_only(mut self, only: bool) -> Self {
        self.sandbox_cgroup_only = only || self.hypervisor == Hypervisor::Dragonball;
        self
    }

    /// The cgroup below which the overhead's lies, instead of the root: for a node that is a part of another.
    #[must_use]
    pub fn cgroup_root(mut self, path: &str) -> Self {
        path.clone_into(&mut self.cgroup_root);
        self
    }

    /// The cgroups of a sandbox of a [given](Self::pod) pod: its own, and that of its overhead if it has one.
    ///
    /// # Panics
    /// When no pod was given.
    #[must_use]
    pub fn cgroups(&self, host: HostCgroup) -> (String, Option<String>) {
        let Placement { sandbox, overhead, .. } = self.placement(host, self.pod.as_ref().expect("a pod was given"));
        (sandbox, overhead)
    }

    pub(super) fn placement(&self, host: HostCgroup, pod: &Pod) -> Placement {
        let mut placement = Placement::of(self.runtime, host, &pod.cgroup(), pod.id(), self.sandbox_cgroup_only);
        placement.overhead = placement.overhead.map(|path| format!("{}{path}", self.cgroup_root));
        placement
    }

    /// Firecracker under runtime-rs in a jail, which puts its sockets below `kata/firecracker/<id>/root`. The
    /// paths are so long that only a run directory of up to 8 bytes leaves room for them.
    #[must_use]
    pub fn jailed(mut self) -> Self {
        self.jailed = self.hypervisor == Hypervisor::Firecracker && self.runtime == Runtime::Rust;
        self
    }

    /// The agent's policy denies `GetMetrics`, as the stock one of confidential pods does.
    #[must_use]
    pub fn policy_denies_metrics(mut self) -> Self {
        self.denies_metrics = true;
        self
    }

    /// The runtime has no stats of its containers: to get them it asks the same shim, and a runtime whose stats stay
    /// well while the shim is ill would hide the illness.
    #[must_use]
    pub fn unmeasured_by_runtime(mut self) -> Self {
        self.runtime_measures = false;
        self
    }

    /// An agent young enough to read `throttled_usec`.
    #[must_use]
    pub fn reports_throttled_time(mut self) -> Self {
        self.reports_throttled_time = true;
        self
    }

    /// The agent's version.
    #[must_use]
    pub fn agent_version(mut self, version: &str) -> Self {
        version.clone_into(&mut self.agent_version);
        self
    }

    /// Makes the numbers other ones.
    #[must_use]
    pub fn seed(mut self, seed: u64) -> Self {
        self.seed = seed;
        self
    }

    /// Processes of this host that stand for the sandbox's; nothing is written about them.
    #[must_use]
    pub fn processes(mut self, real: RealProcesses) -> Self {
        self.real = Some(real);
        self
    }
}

/// The names kata-deploy gives the handlers.
fn handler(runtime: Runtime, hypervisor: Hypervisor) -> &'static str {
    match (runtime, hypervisor) {
        (Runtime::Go, Hypervisor::CloudHypervisor) => "kata-clh",
        (Runtime::Go, Hypervisor::Firecracker) => "kata-fc",
        (Runtime::Go, _) => "kata-qemu",
        (Runtime::Rust, Hypervisor::CloudHypervisor) => "kata-clh-runtime-rs",
        (Runtime::Rust, Hypervisor::Firecracker) => "kata-fc-runtime-rs",
        (Runtime::Rust, Hypervisor::Qemu) => "kata-qemu-runtime-rs",
        (Runtime::Rust, Hypervisor::Dragonball) => "kata-dragonball",
        (Runtime::Rust, Hypervisor::OpenVmm) => "kata-openvmm",
    }
}
