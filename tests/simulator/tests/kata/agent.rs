//! The kata-agent: handshake, frames, methods, and what a guest's cgroup version lets it tell.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;

use kata_pulse_simulator::kata::{
    Endpoint, Fault, GuestCgroup, Hypervisor, KataNode, KataNodeBuilder, Lie, Runtime, SandboxPlan,
};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};
use prost::Message;

use crate::client::{Id, PATIENCE, Rpc, Stats, Text, connect, read_some, samples, shake_hands};

const METRICS: &str = "grpc.AgentService/GetMetrics";
const STATS: &str = "grpc.AgentService/StatsContainer";

fn one(plan: SandboxPlan) -> KataNodeBuilder {
    KataNode::builder().plan(plan)
}

fn clh() -> SandboxPlan {
    SandboxPlan::new(Runtime::Rust, Hypervisor::CloudHypervisor).containers(2)
}

#[test]
fn the_handshake_is_any_case_and_one_line_and_other_ports_are_closed() -> anyhow::Result<()> {
    let node = one(clh()).without_host_files().start()?;
    let path = node.sandbox(0).path(Endpoint::Agent);
    for word in ["CONNECT", "connect", "Connect"] {
        let mut stream = connect(&path)?;
        let line = shake_hands(&mut stream, &format!("{word} 1024\n"))?;
        let port = line.strip_prefix("OK ").and_then(|rest| rest.strip_suffix('\n'));
        assert!(port.is_some_and(|port| port.parse::<u32>().is_ok()), "{line:?}");
    }
    for line in ["CONNECT 1028\n", "CONNECT\n", "HELO 1024\n", "CONNECT port\n"] {
        assert_eq!(shake_hands(&mut connect(&path)?, line)?, "", "{line:?}");
    }
    assert_eq!(node.violations(), []);
    // The guest would accept this one, and the shim would lose its log.
    assert_eq!(shake_hands(&mut connect(&path)?, "CONNECT 1025\n")?, "");
    assert_eq!(node.take_violations().len(), 1);
    Ok(())
}

#[test]
fn a_request_sent_together_with_the_handshake_is_answered() -> anyhow::Result<()> {
    let node = one(clh()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    for fault in [None, Some(Fault::Hang)] {
        for _ in 0..20 {
            fault.clone().into_iter().for_each(|fault| sandbox.fail(Endpoint::Agent, fault));
            let mut rpc = Rpc::connect(&sandbox.path(Endpoint::Agent))?;
            rpc.stream.write_all(b"CONNECT 1024\n")?;
            rpc.send("grpc.Health/Check", &[])?;
            sandbox.heal(Endpoint::Agent);
            assert!(shake_hands(&mut rpc.stream, "")?.starts_with("OK "));
            let (id, _) = rpc.receive()?;
            assert_eq!(id, 1);
        }
    }
    Ok(())
}

/// The crate's own client, so that the frames made by hand are known to be right.
#[tokio::test]
async fn ttrpc_s_own_client_is_understood() -> anyhow::Result<()> {
    use tokio::io::{AsyncReadExt, AsyncWriteExt};
    let node = one(clh()).without_host_files().start()?;
    let mut stream = tokio::net::UnixStream::connect(node.sandbox(0).path(Endpoint::Agent)).await?;
    stream.write_all(b"connect 1024\n").await?;
    while stream.read_u8().await? != b'\n' {}
    let client = ttrpc::r#async::Client::new(ttrpc::r#async::transport::Socket::new(stream));
    let call = |service: &str, method: &str| ttrpc::Request {
        service: service.to_owned(),
        method: method.to_owned(),
        timeout_nano: 5_000_000_000,
        ..Default::default()
    };
    let reply = client.request(call("grpc.Health", "Version")).await?;
    assert_eq!(Text::decode(reply.payload.as_slice())?.text, "0.0.1");
    let mut unknown = call("grpc.AgentService", "StatsContainer");
    unknown.payload = Id { id: "nobody".to_owned() }.encode_to_vec();
    let Err(ttrpc::Error::RpcStatus(status)) = client.request(unknown).await else { panic!("no such container") };
    assert_eq!((status.code(), status.message()), (ttrpc::Code::INVALID_ARGUMENT, "\"invalid container id\""));
    Ok(())
}

#[test]
fn health_and_details_are_told() -> anyhow::Result<()> {
    let node = one(clh().agent_version("3.9.0")).without_host_files().start()?;
    let mut rpc = Rpc::to_agent(&node.sandbox(0).path(Endpoint::Agent))?;
    // SERVING is 1.
    assert_eq!(rpc.call("grpc.Health/Check", &[])?, Ok(vec![8, 1]));
    let version = rpc.call("grpc.Health/Version", &[])?.expect("a version");
    assert!(version.windows(5).any(|window| window == b"3.9.0"));
    let details = rpc.call("grpc.AgentService/GetGuestDetails", &[])?.expect("details");
    assert!(details.windows(5).any(|window| window == b"3.9.0"));
    Ok(())
}

#[test]
fn the_text_tells_the_truth_in_the_agent_s_units() -> anyhow::Result<()> {
    let node = one(clh().disks(2)).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    for tick in 0..3 {
        let metrics = samples(&rpc.ask::<Text>(METRICS, "")?.text);
        let truth = sandbox.truth();
        let guest = &truth.guest;
        assert_eq!(truth.tick, tick);
        let is = |series: &str, value: u64| {
            let expected = value.to_string().parse::<f64>().expect("a number");
            assert_eq!(metrics.get(series), Some(&expected), "{series}");
        };
        is("kata_agent_scrape_count", tick + 1);
        is("kata_guest_cpu_time{cpu=\"total\",item=\"user\"}", guest.cpu_total().user);
        is("kata_guest_cpu_time{cpu=\"1\",item=\"softirq\"}", guest.cpus[1].softirq);
        assert_eq!(guest.cpu_total().user % 10, 0, "whole ticks");
        is("kata_guest_meminfo{item=\"mem_available\"}", guest.memory.available);
        is("kata_guest_netdev_stat{interface=\"eth0\",item=\"sent_bytes\"}", guest.interface("eth0").sent.bytes);
        is("kata_guest_vm_stat{item=\"pgfault\"}", guest.vm_stat("pgfault"));
        is("kata_guest_diskstat{disk=\"vda\",item=\"sectors_written\"}", guest.disks[0].sectors_written);
        let fs = &guest.filesystems[0];
        let series = format!("kata_guest_filesystem_bytes{{device=\"vdb\",item=\"used\",mount=\"{}\"}}", fs.mount);
        is(&series, fs.used_bytes);
        let load = metrics["kata_guest_load{item=\"load1\"}"];
        assert!((load - f64::from(guest.load[0])).abs() < 1e-12);
        sandbox.advance(1);
    }
    Ok(())
}

/// Everything but disks: the recorded guest had none.
#[test]
fn the_text_has_the_families_and_items_of_a_real_one() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let directory = recorded.capture(Capture::T0).join("kata");
    let real = fs::read_dir(directory)?.flatten().next().expect("a sandbox was recorded").path();
    let real = fs::read_to_string(real.join("agent/GetMetrics.txt"))?;
    let node = one(clh().vcpus(1).disks(0)).without_host_files().start()?;
    let ours = Rpc::to_agent(&node.sandbox(0).path(Endpoint::Agent))?.ask::<Text>(METRICS, "")?.text;
    let skeleton = |text: &str| -> BTreeSet<String> {
        text.lines()
            .map(|line| if line.starts_with('#') { line } else { line.rsplit_once(' ').unwrap().0 }.to_owned())
            .collect()
    };
    assert_eq!(skeleton(&ours), skeleton(&real));
    Ok(())
}

#[test]
fn a_v2_guest_tells_of_a_container_what_v2_and_its_defects_leave() -> anyhow::Result<()> {
    let node = one(clh()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    node.advance(20);
    let [quota, limited] = <[String; 2]>::try_from(sandbox.containers()).expect("two containers");
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    let truth = sandbox.truth();

    let stats = rpc.ask::<Stats>(STATS, &quota)?.cgroup;
    let expected = truth.container(&quota);
    assert_eq!(stats.cpu.usage.total, expected.cpu.total_ns());
    assert_eq!(stats.cpu.usage.total, stats.cpu.usage.user + stats.cpu.usage.kernel);
    assert!(stats.cpu.usage.per_cpu.is_empty());
    assert_eq!(stats.cpu.throttling.first, expected.cpu.periods);
    assert!(stats.cpu.throttling.second > 0 && expected.cpu.throttled_ns > 0);
    assert_eq!(stats.cpu.throttling.third, 0, "the key that is asked for does not exist");
    assert_eq!(stats.memory.usage.first, expected.memory.usage());
    assert_eq!(stats.memory.usage.fourth, u64::MAX, "no limit");
    assert_eq!(stats.memory.stats["anon"], expected.memory.anon());
    assert_eq!(stats.memory.stats["inactive_file"], expected.memory.inactive_file);
    assert_eq!((stats.memory.cache, stats.memory.use_hierarchy), (0, false));
    assert_eq!((stats.pids.current, stats.pids.limit), (expected.pids, 0));
    assert!(expected.block_io[0].write_bytes > 0);
    let ops: Vec<_> = stats.blkio.bytes.iter().map(|entry| (entry.op.as_str(), entry.value)).collect();
    assert_eq!(ops, [("read", 0), ("write", 0), ("rios", 0), ("wios", 0), ("dbytes", 0), ("dios", 0)]);
    assert!(stats.blkio.operations.is_empty());
    let mut sizes: Vec<_> = stats.hugetlb.keys().collect();
    sizes.sort();
    assert_eq!(sizes, ["1GB", "2MB"]);

    let stats = rpc.ask::<Stats>(STATS, &limited)?.cgroup;
    assert_eq!(stats.memory.usage.fourth, 64 << 20);
    assert_eq!(stats.cpu.throttling, Default::default());
    // The pause container goes by the sandbox's id.
    assert_eq!(rpc.ask::<Stats>(STATS, sandbox.id())?.cgroup.pids.current, 1);
    Ok(())
}

#[test]
fn a_v1_guest_fills_everything() -> anyhow::Result<()> {
    let node = one(clh().guest_cgroup(GuestCgroup::V1)).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    sandbox.advance(20);
    let id = &sandbox.containers()[0];
    let stats = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?.ask::<Stats>(STATS, id)?.cgroup;
    let truth = sandbox.truth();
    let expected = truth.container(id);
    assert_eq!(stats.cpu.usage.per_cpu, expected.cpu.per_cpu_ns);
    assert_eq!(stats.cpu.usage.per_cpu.iter().sum::<u64>(), stats.cpu.usage.total);
    assert_eq!(stats.cpu.usage.user % 10_000_000, 0, "whole ticks");
    assert_eq!(stats.cpu.throttling.third, expected.cpu.throttled_ns);
    assert_eq!(stats.memory.usage.fourth, 9_223_372_036_854_771_712);
    assert_eq!(stats.memory.cache, expected.memory.file());
    assert!(stats.memory.use_hierarchy);
    assert_eq!(stats.memory.swap.first, expected.memory.usage() + expected.memory.swap, "memory and swap");
    assert_eq!(stats.memory.kernel.first, expected.memory.kernel());
    assert_eq!(stats.memory.stats["total_inactive_file"], expected.memory.inactive_file);
    assert_eq!(stats.memory.stats["rss"], expected.memory.anon());
    assert!(!stats.memory.stats.contains_key("anon"));
    let written = stats.blkio.bytes.iter().find(|entry| entry.op == "write").expect("an entry");
    assert_eq!(written.value, expected.block_io[0].write_bytes);
    assert_eq!(stats.blkio.operations.len(), 5);
    Ok(())
}

#[test]
fn the_keys_of_a_container_are_a_real_one_s() -> anyhow::Result<()> {
    let recorded = RecordedNode::unpack()?;
    let pods = recorded.pods()?;
    let pod = pods.iter().find(|pod| pod.handler == "kata-clh").expect("a Kata pod was recorded");
    let path = recorded.capture(Capture::T0).join("kata").join(&pod.sandbox);
    let real = fs::read(path.join(format!("agent/StatsContainer-{}.pb", pod.sandbox)))?;
    let real = Stats::decode(real.as_slice())?.cgroup;
    let node = one(clh()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let ours = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?.ask::<Stats>(STATS, sandbox.id())?.cgroup;
    let keys = |stats: &crate::client::Cgroup| stats.memory.stats.keys().cloned().collect::<BTreeSet<_>>();
    let missing: Vec<_> = keys(&ours).difference(&keys(&real)).cloned().collect();
    assert_eq!(missing, Vec::<String>::new(), "keys no kernel has");
    for key in ["anon", "file", "kernel", "inactive_file", "pgfault", "slab", "shmem"] {
        assert!(keys(&ours).contains(key) && keys(&real).contains(key));
    }
    assert_eq!(real.memory.usage.fourth, ours.memory.usage.fourth);
    Ok(())
}

#[test]
fn a_policy_denies_the_text_and_nothing_else() -> anyhow::Result<()> {
    let node = one(clh().policy_denies_metrics()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    let (code, _) = rpc.call(METRICS, &[])?.expect_err("denied");
    assert_eq!(code, 7);
    rpc.ask::<Stats>(STATS, sandbox.id())?;
    Ok(())
}

#[test]
fn what_must_not_be_called_is_recorded() -> anyhow::Result<()> {
    let node = one(clh()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    let (code, _) = rpc.call("grpc.AgentService/DestroySandbox", &[])?.expect_err("unimplemented");
    assert_eq!(code, 12);
    // It waits for an event: the next answer is that of the call after it.
    rpc.send("grpc.AgentService/GetOOMEvent", &[])?;
    let check = rpc.send("grpc.Health/Check", &[])?;
    assert_eq!(rpc.receive()?.0, check);
    let calls: Vec<_> = node.take_violations().into_iter().map(|violation| violation.call).collect();
    assert_eq!(calls, ["grpc.AgentService/DestroySandbox", "grpc.AgentService/GetOOMEvent"]);
    Ok(())
}

#[test]
fn a_node_with_a_violation_panics_when_it_is_dropped() {
    let outcome = std::panic::catch_unwind(|| {
        let node = one(clh()).without_host_files().start().expect("a node");
        let mut rpc = Rpc::to_agent(&node.sandbox(0).path(Endpoint::Agent)).expect("an agent");
        rpc.send("grpc.AgentService/GetOOMEvent", &[]).expect("sent");
        assert!(node.sandbox(0).wait_for_requests(Endpoint::Agent, "grpc.AgentService/GetOOMEvent", 1, PATIENCE));
    });
    let text = outcome.expect_err("it panics").downcast::<String>().expect("a text");
    assert!(text.contains("GetOOMEvent"), "{text}");
}

#[test]
fn guests_lie_as_they_are_told() -> anyhow::Result<()> {
    let node = one(clh()).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    let mut rpc = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
    let id = sandbox.containers()[0].clone();
    let lies = [
        Lie::HostileLabels,
        Lie::HostileFamilies,
        Lie::HugeNumbers,
        Lie::OddNumbers,
        Lie::ManySeries(1000),
        Lie::ManyDevices(500),
        Lie::LongNames(1 << 20),
    ];
    for lie in lies {
        sandbox.lie(Some(lie));
        assert!(rpc.ask::<Text>(METRICS, "")?.text.len() > 19_000, "{lie:?}");
        rpc.ask::<Stats>(STATS, &id)?;
    }
    // As many as a message holds.
    sandbox.lie(Some(Lie::ManyFamilies(1_000_000)));
    let text = rpc.ask::<Text>(METRICS, "")?.text;
    assert!((4_000_000..4 << 20).contains(&text.len()), "{}", text.len());

    sandbox.lie(Some(Lie::Backwards));
    let before = rpc.ask::<Stats>(STATS, &id)?.cgroup.cpu.usage.total;
    sandbox.advance(1);
    assert!(rpc.ask::<Stats>(STATS, &id)?.cgroup.cpu.usage.total < before);
    sandbox.lie(None);
    assert_eq!(rpc.ask::<Stats>(STATS, &id)?.cgroup.cpu.usage.total, sandbox.truth().container(&id).cpu.total_ns());
    Ok(())
}

#[test]
fn a_qemu_guest_has_no_socket() -> anyhow::Result<()> {
    let plan = SandboxPlan::new(Runtime::Go, Hypervisor::Qemu);
    let node = one(plan).without_host_files().start()?;
    let sandbox = node.sandbox(0);
    assert!(!sandbox.has(Endpoint::Agent));
    // Its monitor has one client, and that is the shim.
    let mut stream = connect(&sandbox.path(Endpoint::Reserved))?;
    stream.write_all(b"{}")?;
    while node.violations().is_empty() {
        std::thread::yield_now();
    }
    sandbox.cut_connections(Endpoint::Reserved);
    assert_eq!(read_some(&mut stream, &mut [0])?, 0);
    assert_eq!(node.take_violations().len(), 1);
    Ok(())
}
