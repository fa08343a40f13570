//! What runs on the demo's node, as one table.

use kata_pulse_simulator::cgroup_tree::Limits;
use kata_pulse_simulator::cri::Qos;
use kata_pulse_simulator::kata::{Hypervisor, Runtime};

/// A pod to be.
#[derive(Debug)]
pub(crate) struct PodPlan {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) qos: Qos,
    pub(crate) containers: &'static [ContainerPlan],
}

/// A container to be.
#[derive(Debug)]
pub(crate) struct ContainerPlan {
    pub(crate) name: &'static str,
    pub(crate) image: &'static str,
    pub(crate) work: Work,
    pub(crate) limits: Limits,
    /// For the page.
    pub(crate) purpose: &'static str,
}

/// What a container does all day.
#[derive(Debug, Clone, Copy, PartialEq, Eq, clap::ValueEnum)]
pub(crate) enum Work {
    /// Holds the pod's network namespace. Never planned: every pod has one.
    Pause,
    /// Nothing.
    Sleep,
    /// A little computing and a datagram, twenty times a second.
    Web,
    /// Computing without end.
    Spin,
    /// Holds 48 MiB and writes files.
    Database,
    /// Computes for a moment and leaves.
    Job,
    /// Stands for a hypervisor: holds 32 MiB and does a little. Never planned: every Kata pod has one.
    Hypervisor,
}

/// The pod's own limits: a limit holds for the pod when every container has it.
pub(crate) fn limits_of_pod(containers: &[ContainerPlan]) -> Limits {
    let sum = |limit: fn(&Limits) -> Option<u32>| containers.iter().map(|one| limit(&one.limits)).sum();
    Limits {
        cpu_quota: sum(|limits| limits.cpu_quota),
        cpu_shares: containers.iter().map(|one| one.limits.cpu_shares).sum::<u32>().max(2),
        memory: sum(|limits| limits.memory),
    }
}

/// A Kata pod to be: its guest is simulated, the processes around the guest are real.
#[derive(Debug)]
pub(crate) struct KataPlan {
    pub(crate) namespace: &'static str,
    pub(crate) name: &'static str,
    pub(crate) runtime: Runtime,
    pub(crate) hypervisor: Hypervisor,
    /// Names and images.
    pub(crate) containers: &'static [(&'static str, &'static str)],
    /// It answers nothing.
    pub(crate) hung: bool,
    /// For the page.
    pub(crate) purpose: &'static str,
}

/// The limit of every container in a guest, in bytes: together they use less than stands for the guest's memory.
pub(crate) const GUEST_MEMORY_LIMIT: u64 = 12 << 20;

/// Their CPU limit, in microseconds per period of 100 ms.
pub(crate) const GUEST_CPU_QUOTA: u64 = 5_000;

/// Every Kata pod the demo runs: both runtimes, four hypervisors, and one that hangs.
pub(crate) const KATA_PODS: &[KataPlan] = &[
    KataPlan {
        namespace: "shop",
        name: "cart",
        runtime: Runtime::Go,
        hypervisor: Hypervisor::CloudHypervisor,
        containers: &[("cart", "registry.example/shop/cart:2.4"), ("cache", "docker.io/library/valkey:9")],
        hung: false,
        purpose: "Go runtime, Cloud Hypervisor; two containers in one guest",
    },
    KataPlan {
        namespace: "shop",
        name: "search",
        runtime: Runtime::Rust,
        hypervisor: Hypervisor::CloudHypervisor,
        containers: &[("search", "registry.example/shop/search:1.9")],
        hung: false,
        purpose: "runtime-rs, Cloud Hypervisor; all of it in one host cgroup",
    },
    KataPlan {
        namespace: "pay",
        name: "ledger",
        runtime: Runtime::Rust,
        hypervisor: Hypervisor::Qemu,
        containers: &[("ledger", "registry.example/pay/ledger:7")],
        hung: false,
        purpose: "runtime-rs, QEMU; one GET /metrics would kill it",
    },
    KataPlan {
        namespace: "pay",
        name: "vault",
        runtime: Runtime::Go,
        hypervisor: Hypervisor::Qemu,
        containers: &[("vault", "registry.example/pay/vault:7")],
        hung: false,
        purpose: "Go runtime, QEMU; its agent is out of reach here",
    },
    KataPlan {
        namespace: "edge",
        name: "resize",
        runtime: Runtime::Rust,
        hypervisor: Hypervisor::Dragonball,
        containers: &[("resize", "registry.example/edge/resize:3")],
        hung: false,
        purpose: "runtime-rs, Dragonball; the shim is the hypervisor",
    },
    KataPlan {
        namespace: "edge",
        name: "probe",
        runtime: Runtime::Go,
        hypervisor: Hypervisor::Firecracker,
        containers: &[("probe", "registry.example/edge/probe:3")],
        hung: false,
        purpose: "Go runtime, Firecracker",
    },
    KataPlan {
        namespace: "batch",
        name: "stuck",
        runtime: Runtime::Rust,
        hypervisor: Hypervisor::CloudHypervisor,
        containers: &[("stuck", "docker.io/library/busybox:1.37")],
        hung: true,
        purpose: "hangs: no door of it answers anything",
    },
];

const MIB: u32 = 1 << 20;

/// Everything the demo runs.
pub(crate) const PODS: &[PodPlan] = &[
    PodPlan {
        namespace: "shop",
        name: "web",
        qos: Qos::Burstable,
        containers: &[
            ContainerPlan {
                name: "nginx",
                image: "docker.io/library/nginx:1.29",
                work: Work::Web,
                limits: Limits { cpu_quota: None, cpu_shares: 102, memory: None },
                purpose: "a little work and a datagram, twenty times a second",
            },
            ContainerPlan {
                name: "sidecar",
                image: "docker.io/library/busybox:1.37",
                work: Work::Sleep,
                limits: Limits::NONE,
                purpose: "sleeps",
            },
        ],
    },
    PodPlan {
        namespace: "batch",
        name: "cruncher",
        qos: Qos::Guaranteed,
        containers: &[ContainerPlan {
            name: "spin",
            image: "docker.io/library/busybox:1.37",
            work: Work::Spin,
            limits: Limits { cpu_quota: Some(20_000), cpu_shares: 204, memory: Some(64 * MIB) },
            purpose: "wants a whole CPU, may use a fifth of one",
        }],
    },
    PodPlan {
        namespace: "shop",
        name: "db",
        qos: Qos::Burstable,
        containers: &[ContainerPlan {
            name: "postgres",
            image: "docker.io/library/postgres:18",
            work: Work::Database,
            limits: Limits { cpu_quota: None, cpu_shares: 51, memory: Some(128 * MIB) },
            purpose: "holds 48 MiB, writes 1 MiB a second, may have 128 MiB",
        }],
    },
    PodPlan {
        namespace: "batch",
        name: "finished",
        qos: Qos::BestEffort,
        containers: &[ContainerPlan {
            name: "job",
            image: "docker.io/library/busybox:1.37",
            work: Work::Job,
            limits: Limits::NONE,
            purpose: "has done its work and left",
        }],
    },
];

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_pod_is_limited_where_all_of_its_containers_are() {
        let plan = |name| PODS.iter().find(|pod| pod.name == name).expect("a planned pod");
        let limits = |name| limits_of_pod(plan(name).containers);
        assert_eq!(limits("web"), Limits { cpu_quota: None, cpu_shares: 104, memory: None });
        assert_eq!(limits("cruncher").cpu_quota, Some(20_000));
        assert_eq!(limits("db").memory, Some(128 << 20));
        assert_eq!(limits("finished"), Limits::NONE);
    }
}
