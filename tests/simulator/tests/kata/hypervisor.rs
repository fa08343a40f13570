//! Cloud Hypervisor's API, and Firecracker's that is to be left alone.

use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{Endpoint, Hypervisor, KataNode, Runtime, VmState};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};
use serde_json::Value;

use crate::client::{get, parse, request};

const COUNTERS: &str = "/api/v1/vm.counters";

#[test]
fn counters_begin_with_sentinels_and_follow_the_guest() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).start()?;
    let sandbox = node.sandbox(0);
    let path = sandbox.path(Endpoint::Hypervisor);
    let ask = |target: &str| -> anyhow::Result<Value> { Ok(serde_json::from_slice(&get(&path, target)?.body)?) };
    let before = ask(COUNTERS)?;
    assert_eq!(before["_disk0"]["read_ops"], 0);
    assert_eq!(before["_disk0"]["read_latency_min"], u64::MAX);
    assert_eq!(before["_disk0"]["write_latency_avg"], u64::MAX / 10_000);
    sandbox.advance(3);
    let after = ask(COUNTERS)?;
    let truth = sandbox.truth();
    assert_eq!(after["_net0"]["tx_bytes"], truth.guest.interface("eth0").sent.bytes);
    assert_eq!(after["_disk0"]["write_bytes"], truth.vmm.disks[0].write_bytes);
    assert!(after["_disk0"]["read_latency_max"].as_u64().is_some_and(|micros| micros < 100_000));
    assert_eq!(ask("/api/v1/vmm.ping")?["pid"], truth.process(Component::Hypervisor).pid);
    let info = ask("/api/v1/vm.info")?;
    assert_eq!((&info["state"], &info["memory_actual_size"]), (&"Running".into(), &truth.vmm.memory_bytes.into()));
    Ok(())
}

#[test]
fn heads_are_the_recorded_ones_and_a_vm_without_disks_has_one_net() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let pods = recorded.pods()?;
    let pod = pods.iter().find(|pod| pod.handler == "kata-clh").expect("a Kata pod was recorded");
    let raw = std::fs::read(recorded.capture(Capture::T0).join("kata").join(&pod.sandbox).join("ch/vm.counters.http"))?;
    let real = parse(&raw).expect("an answer was recorded");
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
    let node = builder.with(|plan| plan.disks(0)).without_host_files().start()?;
    let ours = get(&node.sandbox(0).path(Endpoint::Hypervisor), COUNTERS)?;
    let without_length = |head: &str| head.split("Content-Length").next().map(str::to_owned);
    assert_eq!(without_length(&ours.head), without_length(&real.head));
    let keys = |body: &[u8]| {
        serde_json::from_slice::<serde_json::Map<_, Value>>(body).map(|map| map.keys().cloned().collect::<Vec<_>>())
    };
    assert_eq!(keys(&ours.body)?, keys(&real.body)?);
    Ok(())
}

#[test]
fn a_vm_that_does_not_run_says_so() -> anyhow::Result<()> {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let path = sandbox.path(Endpoint::Hypervisor);
    sandbox.set_vm_state(VmState::NotBooted);
    let reply = get(&path, COUNTERS)?;
    assert_eq!(reply.status, 500);
    assert!(serde_json::from_slice::<Vec<String>>(&reply.body)?.iter().any(|line| line == "VM is not running"));
    assert_eq!(get(&path, "/api/v1/vmm.ping")?.status, 200);
    assert_eq!(get(&path, "/api/v1/vm.info")?.status, 200);
    sandbox.set_vm_state(VmState::NotCreated);
    assert_eq!(get(&path, "/api/v1/vm.info")?.status, 500);

    sandbox.advance(1);
    sandbox.set_vm_state(VmState::Paused);
    let read = || -> anyhow::Result<Value> { Ok(serde_json::from_slice(&get(&path, COUNTERS)?.body)?) };
    let paused = read()?;
    sandbox.advance(5);
    assert_eq!(read()?, paused, "frozen");
    sandbox.set_vm_state(VmState::Running);
    assert_ne!(read()?, paused);
    Ok(())
}

#[test]
fn what_changes_a_vm_is_recorded() -> anyhow::Result<()> {
    let node = KataNode::builder()
        .sandbox(Runtime::Rust, Hypervisor::CloudHypervisor)
        .sandbox(Runtime::Go, Hypervisor::Firecracker)
        .without_host_files()
        .start()?;
    request(&node.sandbox(0).path(Endpoint::Hypervisor), "PUT", "/api/v1/vm.shutdown")?;
    get(&node.sandbox(1).path(Endpoint::Hypervisor), "/")?;
    let calls: Vec<_> = node.take_violations().into_iter().map(|violation| violation.call).collect();
    assert_eq!(calls, ["PUT /api/v1/vm.shutdown", "GET /"]);
    Ok(())
}
