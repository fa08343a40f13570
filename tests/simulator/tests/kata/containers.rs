//! Containers that come and go while their sandbox runs.

use kata_pulse_simulator::kata::{ContainerPlan, Endpoint, Hypervisor, KataNode, Runtime};

use crate::client::{Rpc, Stats};

const STATS: &str = "grpc.AgentService/StatsContainer";

#[test]
fn the_others_go_on_as_they_were_and_the_guest_forgets_nothing_it_has_done() -> anyhow::Result<()> {
    for runtime in [Runtime::Go, Runtime::Rust] {
        let builder = KataNode::builder().sandbox(runtime, Hypervisor::CloudHypervisor).containers(1);
        let node = builder.with(|plan| plan.capacity(3)).start()?;
        let sandbox = node.sandbox(0);
        sandbox.advance(20);
        let alone = sandbox.truth();

        let late = sandbox.add_container(ContainerPlan::new("late").memory_limit(64 << 20))?;
        let both = sandbox.truth();
        assert_eq!(sandbox.containers().last(), Some(&late));
        assert_eq!(both.containers[..2], alone.containers[..], "what the others have used");
        assert_eq!(both.container(&late).memory.limit, Some(64 << 20));
        assert!(both.guest.cpu_total().busy() > alone.guest.cpu_total().busy());
        assert!(both.guest.memory.free < alone.guest.memory.free);
        let bundle = node.run_directory().join("containerd/io.containerd.runtime.v2.task/k8s.io").join(&late);
        let notes = sandbox.directory().join(&late).join("persist.json");
        assert!(bundle.join("config.json").exists());
        assert_eq!(notes.exists(), runtime == Runtime::Go);
        assert!(node.registry().container(&late).is_some_and(|entry| entry.is_running()));
        let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
        let stats = agent.ask::<Stats>(STATS, &late)?;
        assert_eq!(stats.cgroup.cpu.usage.total, both.container(&late).cpu.total_ns());

        sandbox.remove_container(&late);
        let after = sandbox.truth();
        assert_eq!(after.containers, alone.containers);
        assert_eq!(after.guest.cpu_total(), both.guest.cpu_total(), "what is done stays done");
        assert_eq!(after.guest.vm_stat("pgfault"), both.guest.vm_stat("pgfault"));
        assert_eq!(after.guest.memory, alone.guest.memory, "its memory is free again");
        assert!(!bundle.exists() && !notes.exists());
        assert!(node.registry().container(&late).is_none());
        assert!(agent.ask::<Stats>(STATS, &late).is_err());
    }
    Ok(())
}
