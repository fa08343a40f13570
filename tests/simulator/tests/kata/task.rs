//! The shim's Task service, with what both runtimes lose on the way from the agent.

use std::fs;
use std::path::Path;

use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{
    GuestCgroup, HostCgroup, Hypervisor, KataNode, KataNodeBuilder, KataSandbox, Runtime,
};
use prost::Message;

use crate::client::{Id, Rpc};

const STATS: &str = "containerd.task.v2.Task/Stats";

/// `StatsResponse`, down to the payload.
#[derive(Clone, PartialEq, Message)]
struct Reply {
    #[prost(message, required, tag = "1")]
    stats: Any,
}

#[derive(Clone, PartialEq, Message)]
struct Any {
    #[prost(string, tag = "1")]
    type_url: String,
    #[prost(bytes = "vec", tag = "2")]
    value: Vec<u8>,
}

/// The payload of v1.
#[derive(Clone, PartialEq, Message)]
struct Metrics {
    #[prost(message, required, tag = "3")]
    third: Group,
    #[prost(message, required, tag = "4")]
    fourth: Memory,
}

#[derive(Clone, PartialEq, Message)]
struct Group {
    #[prost(message, optional, tag = "1")]
    usage: Option<CpuUsage>,
}

#[derive(Clone, PartialEq, Message)]
struct CpuUsage {
    #[prost(uint64, tag = "1")]
    total: u64,
    #[prost(uint64, tag = "2")]
    kernel: u64,
    #[prost(uint64, tag = "3")]
    user: u64,
}

#[derive(Clone, PartialEq, Message)]
struct Memory {
    #[prost(uint64, tag = "1")]
    cache: u64,
    #[prost(uint64, tag = "2")]
    rss: u64,
    #[prost(uint64, tag = "13")]
    inactive_file: u64,
    #[prost(uint64, tag = "12")]
    active_anon: u64,
    #[prost(uint64, tag = "26")]
    total_faults: u64,
    #[prost(uint64, tag = "30")]
    total_inactive_file: u64,
    #[prost(message, optional, tag = "33")]
    usage: Option<Entry>,
}

#[derive(Clone, PartialEq, Message)]
struct Entry {
    #[prost(uint64, tag = "1")]
    limit: u64,
    #[prost(uint64, tag = "2")]
    usage: u64,
}

/// The payload of v2.
#[derive(Clone, PartialEq, Message)]
struct MetricsV2 {
    #[prost(message, required, tag = "2")]
    cpu: CpuV2,
    #[prost(message, required, tag = "4")]
    memory: MemoryV2,
    #[prost(message, required, tag = "6")]
    io: IoV2,
}

#[derive(Clone, PartialEq, Message)]
struct CpuV2 {
    #[prost(uint64, tag = "1")]
    usage: u64,
    #[prost(uint64, tag = "2")]
    user: u64,
    #[prost(uint64, tag = "3")]
    system: u64,
}

#[derive(Clone, PartialEq, Message)]
struct MemoryV2 {
    #[prost(uint64, tag = "1")]
    anon: u64,
    #[prost(uint64, tag = "13")]
    inactive_file: u64,
    #[prost(uint64, tag = "32")]
    usage: u64,
}

#[derive(Clone, PartialEq, Message)]
struct IoV2 {
    #[prost(message, repeated, tag = "1")]
    usage: Vec<Entry>,
}

/// `Connect`, `State` and `Pids`, as far as they are numbers.
#[derive(Clone, PartialEq, Message)]
struct Connected {
    #[prost(uint32, tag = "1")]
    shim: u32,
    #[prost(uint32, tag = "2")]
    task: u32,
}

#[derive(Clone, PartialEq, Message)]
struct State {
    #[prost(string, tag = "1")]
    id: String,
    #[prost(uint32, tag = "3")]
    pid: u32,
    #[prost(int32, tag = "4")]
    status: i32,
}

#[derive(Clone, PartialEq, Message)]
struct Pids {
    #[prost(message, repeated, tag = "1")]
    processes: Vec<Connected>,
}

fn one(runtime: Runtime) -> KataNodeBuilder {
    KataNode::builder().sandbox(runtime, Hypervisor::CloudHypervisor).containers(1)
}

/// Connects as an agent does: by the address in the bundle, below the directory that stands for `/run`.
fn connect(node: &KataNode, container: &str) -> anyhow::Result<Rpc> {
    let bundle = node.run_directory().join("containerd/io.containerd.runtime.v2.task/k8s.io").join(container);
    let address = fs::read_to_string(bundle.join("address"))?;
    let below = address.strip_prefix("unix:///run/").expect("the host's own path");
    Ok(Rpc::connect(&node.run_directory().join(below))?)
}

fn stats(node: &KataNode, sandbox: &KataSandbox) -> anyhow::Result<(String, Vec<u8>)> {
    let id = &sandbox.containers()[0];
    let Any { type_url, value } = connect(node, id)?.ask::<Reply>(STATS, id)?.stats;
    Ok((type_url, value))
}

#[test]
fn a_go_shim_on_a_v2_host_exchanges_user_and_system() -> anyhow::Result<()> {
    let node = one(Runtime::Go).start()?;
    let sandbox = node.sandbox(0);
    sandbox.advance(4);
    let (type_url, value) = stats(&node, &sandbox)?;
    assert_eq!(type_url, "io.containerd.cgroups.v2.Metrics");
    let metrics = MetricsV2::decode(value.as_slice())?;
    let truth = sandbox.truth();
    let container = truth.container(&sandbox.containers()[0]);
    assert_eq!(metrics.cpu.usage, container.cpu.total_ns() / 1000);
    assert_eq!(metrics.cpu.user, container.cpu.kernel_ns / 1000);
    assert_eq!(metrics.cpu.system, container.cpu.user_ns / 1000);
    assert_eq!(metrics.memory.anon, container.memory.anon());
    assert_eq!(metrics.memory.inactive_file, container.memory.inactive_file);
    assert_eq!(metrics.memory.usage, container.memory.usage());
    assert_eq!(metrics.io.usage.len(), 1, "all devices are one");
    Ok(())
}

#[test]
fn a_go_shim_loses_keys_where_host_and_guest_differ() -> anyhow::Result<()> {
    let node = one(Runtime::Go).host_cgroup(HostCgroup::V1).start()?;
    let (type_url, value) = stats(&node, &node.sandbox(0))?;
    assert_eq!(type_url, "io.containerd.cgroups.v1.Metrics");
    let memory = Metrics::decode(value.as_slice())?.fourth;
    assert_eq!((memory.cache, memory.rss, memory.total_inactive_file), (0, 0, 0));
    assert!(memory.usage.is_some_and(|entry| entry.usage > 0));

    let node = one(Runtime::Go).with(|plan| plan.guest_cgroup(GuestCgroup::V1)).start()?;
    let (_, value) = stats(&node, &node.sandbox(0))?;
    let memory = MetricsV2::decode(value.as_slice())?.memory;
    assert_eq!(memory.anon, 0);
    assert!(memory.usage > 0);
    Ok(())
}

#[test]
fn a_rust_shim_always_answers_in_v1_and_knows_few_keys() -> anyhow::Result<()> {
    let node = one(Runtime::Rust).start()?;
    let sandbox = node.sandbox(0);
    let (type_url, value) = stats(&node, &sandbox)?;
    assert_eq!(type_url, "io.containerd.cgroups.v1.Metrics");
    let metrics = Metrics::decode(value.as_slice())?;
    let truth = sandbox.truth();
    let container = truth.container(&sandbox.containers()[0]);
    let cpu = metrics.third.usage.expect("CPU time is told");
    assert_eq!((cpu.total, cpu.user), (container.cpu.total_ns(), container.cpu.user_ns), "nanoseconds, not exchanged");
    let memory = metrics.fourth;
    assert_eq!((memory.cache, memory.rss, memory.total_inactive_file, memory.active_anon), (0, 0, 0, 0));
    assert_eq!(memory.total_faults, 0);
    assert_eq!(memory.inactive_file, container.memory.inactive_file);
    assert_eq!(memory.usage, Some(Entry { limit: u64::MAX, usage: container.memory.usage() }));
    Ok(())
}

#[test]
fn every_pid_is_the_hypervisor_s() -> anyhow::Result<()> {
    let node = one(Runtime::Rust).start()?;
    let sandbox = node.sandbox(0);
    let truth = sandbox.truth();
    let (shim, vmm) = (truth.process(Component::Shim).pid, truth.process(Component::Hypervisor).pid);
    for id in [sandbox.id().to_owned(), sandbox.containers()[0].clone()] {
        let mut rpc = connect(&node, &id)?;
        let connected: Connected = rpc.ask("containerd.task.v2.Task/Connect", &id)?;
        assert_eq!((connected.shim, connected.task), (shim, vmm));
        let state: State = rpc.ask("containerd.task.v2.Task/State", &id)?;
        assert_eq!((state.id.as_str(), state.pid, state.status), (id.as_str(), vmm, 2));
        let pids: Pids = rpc.ask("containerd.task.v2.Task/Pids", &id)?;
        assert_eq!(pids.processes.iter().map(|process| process.shim).collect::<Vec<_>>(), [vmm]);
    }
    Ok(())
}

#[test]
fn unknown_ids_versions_and_changes_are_refused() -> anyhow::Result<()> {
    let node = one(Runtime::Go).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut rpc = connect(&node, sandbox.id())?;
    let id = Id { id: "nobody".to_owned() }.encode_to_vec();
    for method in ["Stats", "State", "Pids"] {
        let (code, _) = rpc.call(&format!("containerd.task.v2.Task/{method}"), &id)?.expect_err("not found");
        assert_eq!(code, 5, "{method}");
    }
    let (code, _) = rpc.call("containerd.task.v3.Task/Stats", &id)?.expect_err("unimplemented");
    assert_eq!(code, 12);
    assert_eq!(node.violations(), []);
    rpc.call("containerd.task.v2.Task/Kill", &id)?.expect_err("unimplemented");
    assert_eq!(node.take_violations().len(), 1);
    Ok(())
}

#[test]
fn bundles_have_what_each_runtime_writes() -> anyhow::Result<()> {
    for runtime in [Runtime::Go, Runtime::Rust] {
        let node = one(runtime).start()?;
        let sandbox = node.sandbox(0);
        let bundles = node.run_directory().join("containerd/io.containerd.runtime.v2.task/k8s.io");
        let (own, other) = (bundles.join(sandbox.id()), bundles.join(&sandbox.containers()[0]));
        let read = |bundle: &Path, name: &str| fs::read_to_string(bundle.join(name));
        assert_eq!(read(&own, "address")?, read(&other, "address")?);
        let hash = read(&own, "address")?.rsplit('/').next().map(str::to_owned).expect("a path");
        let upper = runtime == Runtime::Rust;
        assert!(
            hash.len() == 64 && hash.chars().all(|digit| digit.is_ascii_digit() || digit.is_ascii_uppercase() == upper)
        );
        assert_eq!(read(&own, "shim.pid")?, sandbox.truth().process(Component::Shim).pid.to_string());
        assert!(!other.join("shim.pid").exists());
        assert_eq!(own.join("monitor_address").exists(), runtime == Runtime::Go);
        let config: serde_json::Value = serde_json::from_str(&read(&other, "config.json")?)?;
        assert_eq!(config["annotations"]["io.kubernetes.cri.sandbox-id"], sandbox.id());
        assert_eq!(config["annotations"]["io.kubernetes.cri.container-name"], "app-0");
    }
    Ok(())
}
