//! What is served of a Kata sandbox when its first source is out of reach: by the shim's Task service, by the runtime,
//! by the node's side of the network; and what only one side can tell at all. Driven through the real binary.

use std::time::Duration;

use k8s_cri::v1::{FilesystemIdentifier, FilesystemUsage, UInt64Value};
use kata_pulse_simulator::cri::Method;
use kata_pulse_simulator::kata::{
    Endpoint, Fault, GuestCgroup, Hypervisor, KataNode, KataNodeBuilder, KataSandbox, Lie, Runtime,
};
use serde_json::Value;

mod support;

use support::agent::Agent;
use support::exposition::Page;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(builder: KataNodeBuilder) -> (KataNode, Agent) {
    let node = builder.start().expect("a simulated node");
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    let agent = Agent::start(flags);
    (node, agent)
}

fn one(runtime: Runtime, hypervisor: Hypervisor) -> KataNodeBuilder {
    KataNode::builder().sandbox(runtime, hypervisor).containers(1)
}

/// The first container that is not the pause container.
fn app(sandbox: &KataSandbox) -> String {
    let containers = sandbox.containers();
    containers.into_iter().find(|id| id != sandbox.id()).expect("a container")
}

fn up(page: &Page, sandbox: &KataSandbox) -> f64 {
    page.value("kata_pulse_sandbox_up", &[("sandbox_id", sandbox.id())])
}

/// The sandbox's entry in `/sandboxes`.
fn entry(agent: &Agent, sandbox: &KataSandbox) -> Value {
    let all: Vec<Value> = serde_json::from_slice(&agent.get("/sandboxes").body).expect("JSON");
    all.into_iter().find(|entry| entry["sandbox_id"] == sandbox.id()).expect("the sandbox is listed")
}

#[test]
fn each_level_serves_the_same_counters() {
    for runtime in [Runtime::Go, Runtime::Rust] {
        let (node, agent) = start(one(runtime, Hypervisor::CloudHypervisor));
        let sandbox = node.sandbox(0);
        let app = app(&sandbox);
        let cpu = || {
            let truth = sandbox.truth();
            let container = truth.container(&app);
            (container.cpu.total_ns(), container.memory.usage())
        };
        let check = |level: &str| {
            node.advance(3);
            let (nanos, memory) = cpu();
            node.registry().set_usage(&app, Duration::from_nanos(nanos), memory);
            let page = agent.page("/metrics");
            let name = [("name", app.as_str())];
            let served = page.value("container_cpu_usage_seconds_total", &name);
            assert_eq!(served, nanos as f64 / 1e9, "{runtime:?} by {level}");
            assert_eq!(page.value("container_memory_usage_bytes", &name), memory as f64, "{runtime:?} by {level}");
            assert_eq!(up(&page, &sandbox), 1.0, "{runtime:?} by {level}");
            assert_eq!(entry(&agent, &sandbox)["values_from"]["containers"], level);
            page
        };
        let by_agent = check("agent");
        assert!(by_agent.lookup("container_memory_working_set_bytes", &[("name", &app)]).is_some());
        sandbox.fail(Endpoint::Agent, Fault::Refuse);
        check("task");
        sandbox.fail(Endpoint::Task, Fault::Refuse);
        let by_runtime = check("cri");
        let working_set = by_runtime.lookup("container_memory_working_set_bytes", &[("name", &app)]);
        assert_eq!(working_set, None, "the runtime calls all of the usage the working set");
        let network = [("interface", "eth0"), ("name", sandbox.id())];
        let received = by_runtime.value("container_network_receive_bytes_total", &network);
        assert!(received > 0.0, "the pause container is not told of, the pod's network still is");
        sandbox.heal_all();
        check("agent");
        assert_eq!(node.violations(), []);
    }
}

#[test]
fn a_shim_that_hangs_is_not_asked_by_way_of_the_runtime() {
    let (node, agent) = start(one(Runtime::Rust, Hypervisor::CloudHypervisor));
    let sandbox = node.sandbox(0);
    sandbox.fail_all(&Fault::Hang);
    let before = node.runtime().calls(Method::ListContainerStats);
    for _ in 0..4 {
        assert_eq!(up(&agent.page("/metrics"), &sandbox), 0.0);
    }
    assert_eq!(node.runtime().calls(Method::ListContainerStats), before);
    let sources = &entry(&agent, &sandbox)["sources"];
    // When agent and shim have used up the sandbox's time, the runtime is not even considered.
    assert!(sources["cri"].as_str().is_none_or(|state| state.starts_with("skipped")), "{sources}");
}

#[test]
fn a_silent_runtime_is_not_taken_for_dead_because_of_one_sandbox() {
    let (node, agent) = start(one(Runtime::Rust, Hypervisor::CloudHypervisor));
    let sandbox = node.sandbox(0);
    sandbox.fail(Endpoint::Agent, Fault::Refuse);
    sandbox.fail(Endpoint::Task, Fault::Refuse);
    node.runtime().fail(Method::ListContainerStats, kata_pulse_simulator::cri::Fault::Hang);
    for _ in 0..3 {
        let page = agent.page("/metrics");
        assert_eq!(up(&page, &sandbox), 0.0);
        assert_eq!(page.value("kata_pulse_cri_up", &[]), 1.0);
    }
}

/// Bytes that the pod has received, as served.
fn received(page: &Page, sandbox: &KataSandbox) -> Option<f64> {
    let labels = [("interface", "eth0"), ("name", sandbox.id())];
    let all = page.matching("container_network_receive_bytes_total", &[("name", sandbox.id())]);
    assert!(all.len() <= 1, "neither lo nor the tap is a network of the pod: {all:?}");
    page.lookup("container_network_receive_bytes_total", &labels)
}

#[test]
fn the_nodes_side_tells_the_network_where_the_guest_must_not() {
    let confidential = |plan: kata_pulse_simulator::kata::SandboxPlan| plan.policy_denies_metrics();
    let (node, agent) = start(one(Runtime::Go, Hypervisor::CloudHypervisor).with(confidential));
    let sandbox = node.sandbox(0);
    for _ in 0..3 {
        node.advance(2);
        let page = agent.page("/metrics");
        let truth = sandbox.truth();
        let host = truth.host.network.iter().find(|interface| interface.name == "eth0").expect("eth0 on the host");
        assert_eq!(received(&page, &sandbox), Some(host.received.bytes as f64));
    }
    assert_eq!(entry(&agent, &sandbox)["values_from"]["network"], "host");
}

#[test]
fn a_network_never_goes_from_one_side_to_the_other() {
    let builder = one(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1).times(2);
    let node = builder.start().expect("a simulated node");
    // One is dumb from the beginning, the other becomes so.
    let (late, early) = (node.sandbox(0), node.sandbox(1));
    let silence = |sandbox: &KataSandbox| {
        sandbox.fail(Endpoint::Agent, Fault::Refuse);
        sandbox.fail(Endpoint::Shim, Fault::Refuse);
    };
    silence(&early);
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0"].map(Into::into));
    let agent = Agent::start(flags);
    let guest = |sandbox: &KataSandbox| sandbox.truth().guest.interface("eth0").received.bytes as f64;
    let host = |sandbox: &KataSandbox| {
        let truth = sandbox.truth();
        truth.host.network.iter().find(|interface| interface.name == "eth0").map(|eth0| eth0.received.bytes as f64)
    };
    assert_eq!(received(&agent.page("/metrics"), &late), Some(guest(&late)));
    agent.wait_until("the node's side is taken", PATIENCE, || {
        received(&agent.page("/metrics"), &early).is_some_and(|bytes| Some(bytes) == host(&early))
    });
    early.heal_all();
    silence(&late);
    for _ in 0..4 {
        node.advance(1);
        let page = agent.page("/metrics");
        assert_eq!(received(&page, &early), host(&early), "it stays with the node's side");
        assert_eq!(received(&page, &late), None, "a gap, and no other counter");
    }
    assert_eq!(entry(&agent, &early)["values_from"]["guest"], "agent", "although the guest speaks now");
}

#[test]
fn block_devices_of_a_guest_have_the_names_dashboards_look_for() {
    let builder = one(Runtime::Go, Hypervisor::CloudHypervisor)
        .with(|plan| plan.disks(2).guest_cgroup(GuestCgroup::V1).containers(1));
    let (node, agent) = start(builder);
    node.advance(5);
    let page = agent.page("/metrics");
    let sandbox = node.sandbox(0);
    let truth = sandbox.truth();
    let app = app(&sandbox);
    let io = &truth.container(&app).block_io;
    assert!(!io.is_empty());
    for one in io {
        let disk = truth.guest.disks.iter().find(|disk| (disk.major, disk.minor) == (one.major, one.minor));
        let device = format!("/dev/{}", disk.expect("the guest lists it").name);
        let labels = [("device", device.as_str()), ("name", app.as_str())];
        assert_eq!(page.value("container_fs_reads_bytes_total", &labels), one.read_bytes as f64, "{device}");
        assert_eq!(page.value("container_fs_writes_total", &labels), one.writes as f64, "{device}");
    }
    // Loop devices lie on another disk, partitions are part of one: adding them up would count twice.
    let whole = truth.guest.disks.iter().filter(|disk| !disk.partition && disk.name.starts_with("vd"));
    let whole: Vec<_> = whole.collect();
    assert_eq!(page.matching("kata_pulse_guest_disk_reads_total", &[]).len(), whole.len());
    assert_eq!(whole.len(), 2);
    for disk in whole {
        let device = format!("/dev/{}", disk.name);
        let labels = [("device", device.as_str()), ("sandbox_id", sandbox.id())];
        let bytes = page.value("kata_pulse_guest_disk_read_bytes_total", &labels);
        assert_eq!(bytes, (disk.sectors_read * 512) as f64, "{device}");
    }
}

#[test]
fn a_writable_layer_is_told_for_a_container_in_a_guest_too() {
    let (node, agent) = start(one(Runtime::Rust, Hypervisor::CloudHypervisor));
    let app = app(&node.sandbox(0));
    node.registry().set_usage(&app, Duration::from_secs(1), 1 << 20);
    node.registry().update_container(&app, |entry| {
        let stats = entry.stats.as_mut().expect("its usage is set");
        stats.writable_layer = Some(FilesystemUsage {
            timestamp: 1,
            fs_id: Some(FilesystemIdentifier { mountpoint: "/var/lib/containerd/snapshots".into() }),
            used_bytes: Some(UInt64Value { value: 123_456 }),
            inodes_used: Some(UInt64Value { value: 7 }),
        });
    });
    // The first scrape finds out that the sandbox answers; only then is the runtime asked about it.
    agent.wait_until("the layer's size is there", PATIENCE, || {
        agent.page("/metrics").lookup("container_fs_usage_bytes", &[("name", &app)]) == Some(123_456.0)
    });
}

#[test]
fn kills_inside_a_guest_are_counted_by_container() {
    let (node, agent) = start(one(Runtime::Rust, Hypervisor::CloudHypervisor));
    let sandbox = node.sandbox(0);
    let app = app(&sandbox);
    let name = node.registry().container(&app).and_then(|entry| entry.listed.metadata).expect("metadata").name;
    let counts = || {
        let page = agent.page("/metrics");
        let row = page.lookup("container_oom_events_total", &[("name", &app)]);
        let (namespace, pod) = sandbox.pod();
        let labels = [("container", name.as_str()), ("namespace", namespace), ("pod", pod)];
        (row, page.lookup("kata_pulse_container_oom_kills_total", &labels))
    };
    agent.wait_until("nothing has been killed so far", PATIENCE, || counts() == (Some(0.0), Some(0.0)));
    assert_eq!(sandbox.add_oom_kill_in(&app), 1, "one follows");
    agent.wait_until("the kill is counted", PATIENCE, || counts() == (Some(1.0), Some(1.0)));
    assert_eq!(sandbox.add_oom_kill_in(&app), 1);
    agent.wait_until("so is the next", PATIENCE, || counts() == (Some(2.0), Some(2.0)));
    // The runtime is restarted: what it tells then counts as well, and once. What it tells before somebody listens is
    // lost, so it is told until it is heard.
    node.runtime().cut_connections();
    let mut sent = 2.0;
    agent.wait_until("it is followed again", PATIENCE, || {
        sandbox.add_oom_kill_in(&app);
        sent += 1.0;
        let (row, total) = counts();
        assert_eq!(row, total);
        assert!(row.is_some_and(|kills| kills <= sent), "{row:?} of {sent}");
        row.is_some_and(|kills| kills > 2.0)
    });
}

#[test]
fn a_runtime_without_events_gives_no_count_of_kills() {
    let node = one(Runtime::Rust, Hypervisor::CloudHypervisor).start().expect("a simulated node");
    node.registry().set_runtime("cri-o", "1.34.0");
    let agent = Agent::start(node.flags());
    let sandbox = node.sandbox(0);
    let (_, pod) = sandbox.pod();
    let row = [("container", "app-0"), ("pod", pod)];
    // CRI-O gives rows other names than containerd.
    agent.wait_until("the container is served", PATIENCE, || {
        agent.page("/metrics").lookup("container_memory_usage_bytes", &row).is_some()
    });
    assert_eq!(agent.page("/metrics").lookup("container_oom_events_total", &row), None);
}

#[test]
fn what_a_guest_says_too_much_is_counted() {
    let (node, agent) = start(one(Runtime::Rust, Hypervisor::CloudHypervisor).times(2));
    let (liar, honest) = (node.sandbox(0), node.sandbox(1));
    liar.lie(Some(Lie::ManySeries(50_000)));
    let page = agent.page("/metrics");
    let dropped = page.matching("kata_pulse_sandbox_samples_dropped", &[("sandbox_id", liar.id())]);
    assert!(dropped.iter().any(|sample| sample.value >= 1.0), "{dropped:?}");
    assert!(page.matching("kata_pulse_sandbox_samples_dropped", &[("sandbox_id", honest.id())]).is_empty());
    assert_eq!(up(&page, &honest), 1.0);
}

#[test]
fn asking_every_shim_is_announced() {
    let node = one(Runtime::Rust, Hypervisor::CloudHypervisor).start().expect("a simulated node");
    for (mode, said) in [("all", true), ("safe", false)] {
        let mut flags = node.flags();
        flags.extend(["--shim-scrape", mode].map(Into::into));
        let agent = Agent::start(flags);
        let warned = agent.log().iter().any(|line| line.contains("level=warn") && line.contains("QEMU or Firecracker"));
        assert_eq!(warned, said, "{mode}: {:?}", agent.log());
    }
}
