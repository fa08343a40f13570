//! What the sandboxes count, and what time and the runtime have to do with it.

use std::io::Write;
use std::time::Duration;

use k8s_cri::v1;
use kata_pulse_simulator::cri;
use kata_pulse_simulator::kata::{ContainerPlan, Counts, Endpoint, Fault, Hypervisor, KataNode, Runtime, SandboxPlan};

use crate::client::{PATIENCE, Rpc, Text, connect, get};

const METRICS: &str = "grpc.AgentService/GetMetrics";

#[test]
fn connections_requests_and_their_most_are_counted() -> anyhow::Result<()> {
    let node =
        KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).times(2).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    assert_eq!(sandbox.all_counts(), Counts::default());
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    for _ in 0..3 {
        rpc.ask::<Text>(METRICS, "")?;
    }
    let counts = sandbox.counts(Endpoint::Agent);
    assert_eq!((counts.connections, counts.requests, counts.most_in_flight), (1, 3, 1), "one, used again");
    assert_eq!(sandbox.requests(Endpoint::Agent, METRICS), 3);

    sandbox.fail(Endpoint::Agent, Fault::Hang);
    rpc.send(METRICS, &[])?;
    rpc.send(METRICS, &[])?;
    assert!(sandbox.wait_for_requests(Endpoint::Agent, METRICS, 5, PATIENCE));
    get(&sandbox.path(Endpoint::Shim), "/agent-url")?;
    assert_eq!(sandbox.counts(Endpoint::Agent).in_flight, 2);
    assert_eq!(sandbox.all_counts().most_in_flight, 3, "two of the agent and one of the shim");
    get(&node.sandbox(1).path(Endpoint::Shim), "/agent-url")?;
    assert_eq!(node.counts().requests, 7);
    assert_eq!(node.counts().most_in_flight, 3);
    assert!(!sandbox.wait_for_requests(Endpoint::Agent, METRICS, 6, Duration::from_millis(50)));
    sandbox.heal(Endpoint::Agent);
    rpc.receive()?;
    rpc.receive()?;
    sandbox.cut_connections(Endpoint::Agent);
    assert!(rpc.receive().is_err());
    Ok(())
}

/// A request on a kept connection counts as one, and so does the connection.
#[test]
fn http_connections_are_kept() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut stream = connect(&sandbox.path(Endpoint::Hypervisor))?;
    for _ in 0..2 {
        stream.write_all(b"GET /api/v1/vmm.ping HTTP/1.1\r\nHost: x\r\n\r\n")?;
    }
    assert!(sandbox.wait_for_requests(Endpoint::Hypervisor, "GET /api/v1/vmm.ping", 2, PATIENCE));
    assert_eq!(sandbox.counts(Endpoint::Hypervisor).connections, 1);
    assert_eq!(sandbox.counts(Endpoint::Hypervisor).most_in_flight, 1);
    Ok(())
}

#[tokio::test]
async fn the_runtime_lists_the_same_pods_and_tells_their_usage() -> anyhow::Result<()> {
    let plan = SandboxPlan::new(Runtime::Rust, Hypervisor::Qemu)
        .named("shop", "web")
        .with_containers([ContainerPlan::new("nginx").image("docker.io/library/nginx:1.29").memory_limit(128 << 20)]);
    let node = KataNode::builder().plan(plan).sandbox(Runtime::Go, Hypervisor::CloudHypervisor).start()?;
    let sandbox = node.sandbox(0);
    node.advance(3);
    let mut client = cri::connect(node.cri_socket()).await?;
    let pods = client.list_pod_sandbox(v1::ListPodSandboxRequest { filter: None }).await?.into_inner().items;
    let handlers: Vec<_> = pods.iter().map(|pod| pod.runtime_handler.as_str()).collect();
    assert_eq!(handlers, ["kata-qemu-runtime-rs", "kata-clh"]);
    assert_eq!(pods[0].id, sandbox.id());
    assert_eq!(sandbox.pod(), ("shop", "web"));
    let id = sandbox.containers()[0].clone();
    let request = v1::ContainerStatsRequest { container_id: id.clone() };
    let stats = client.container_stats(request).await?.into_inner().stats.expect("it runs");
    let truth = sandbox.truth();
    let cpu = stats.cpu.and_then(|cpu| cpu.usage_core_nano_seconds).map(|value| value.value);
    assert_eq!(cpu, Some(truth.container(&id).cpu.total_ns()));

    let added = node.add(SandboxPlan::new(Runtime::Rust, Hypervisor::Dragonball))?;
    assert!(added.directory().is_dir() && node.registry().pod(added.id()).is_some());
    node.remove(&added);
    assert!(!added.directory().exists() && node.registry().pod(added.id()).is_none());
    assert_eq!(node.sandboxes().len(), 2);
    Ok(())
}

#[test]
fn numbers_follow_from_seed_and_tick_alone() -> anyhow::Result<()> {
    let start = |seed| {
        let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
        builder.with(|plan| plan.seed(seed)).without_host_files().start()
    };
    let (one, same, other) = (start(1)?, start(1)?, start(2)?);
    one.advance(7);
    (0..7).for_each(|_| same.advance(1));
    other.advance(7);
    assert_eq!(one.sandbox(0).truth(), same.sandbox(0).truth());
    assert_ne!(one.sandbox(0).truth().guest, other.sandbox(0).truth().guest);
    Ok(())
}
