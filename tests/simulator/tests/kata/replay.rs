//! The recorded sandboxes, behind real sockets.

use std::fs;

use kata_pulse_simulator::kata::{Endpoint, Fault, ReplayedNode};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};
use prost::Message;

use crate::client::{Id, Rpc, get, request};

#[test]
fn replies_are_the_recorded_bytes_of_the_moment() -> anyhow::Result<()> {
    let mut node = ReplayedNode::start(RecordedNode::unpack()?, Capture::T0)?;
    assert_eq!(node.sandboxes().len(), 2);
    for capture in [Capture::T0, Capture::T1, Capture::T0] {
        node.show(capture)?;
        for sandbox in node.sandboxes() {
            let id = &sandbox.pod().sandbox;
            let recorded = node.recorded().capture(capture);
            let read = |path: String| fs::read(recorded.join(path));
            for (endpoint, target, file) in [
                (Endpoint::Shim, "/metrics", "metrics.http"),
                (Endpoint::Shim, "/agent-url", "agent-url.http"),
                (Endpoint::Hypervisor, "/api/v1/vm.counters", "ch/vm.counters.http"),
                (Endpoint::Hypervisor, "/api/v1/vmm.ping", "ch/vmm.ping.http"),
            ] {
                let reply = get(&sandbox.path(endpoint), target)?;
                let raw = [reply.head.as_bytes(), b"\r\n\r\n", &reply.body].concat();
                assert_eq!(raw, read(format!("kata/{id}/{file}"))?, "{file}");
            }
            let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
            let text = agent.call("grpc.AgentService/GetMetrics", &[])?.expect("a text");
            assert_eq!(text, read(format!("kata/{id}/agent/GetMetrics.pb"))?);
            let mut task = Rpc::connect(&sandbox.path(Endpoint::Task))?;
            for container in sandbox.pod().containers.values().chain([id]) {
                let payload = Id { id: container.clone() }.encode_to_vec();
                let stats = agent.call("grpc.AgentService/StatsContainer", &payload)?.expect("stats");
                assert_eq!(stats, read(format!("kata/{id}/agent/StatsContainer-{container}.pb"))?);
                let stats = task.call("containerd.task.v2.Task/Stats", &payload)?.expect("stats");
                assert_eq!(stats, read(format!("task/{container}/Stats.pb"))?);
            }
            let unknown = Id { id: "no-such-container".to_owned() }.encode_to_vec();
            let refusal = agent.call("grpc.AgentService/StatsContainer", &unknown)?.expect_err("unknown");
            assert_eq!(refusal, (3, "\"invalid container id\"".to_owned()));
        }
    }
    Ok(())
}

#[test]
fn the_host_root_joins_recorded_files_and_live_sockets() -> anyhow::Result<()> {
    let node = ReplayedNode::start(RecordedNode::unpack()?, Capture::T0)?;
    let root = node.host_root();
    assert!(root.join("proc/283/stat").exists() && root.join("sys/fs/cgroup/kubepods").is_dir());
    for sandbox in node.sandboxes() {
        let directory = node.run_directory().join("kata").join(&sandbox.pod().sandbox);
        assert_eq!(sandbox.path(Endpoint::Shim), directory.join("shim-monitor.sock"));
        assert!(directory.join("state.json").exists());
    }
    assert!(node.runtime().path().starts_with(node.run_directory()));
    // Faults and counters are those of simulated sandboxes.
    let sandbox = &node.sandboxes()[0];
    sandbox.fail(Endpoint::Shim, Fault::Fail);
    assert_eq!(get(&sandbox.path(Endpoint::Shim), "/metrics")?.status, 500);
    assert_eq!(sandbox.requests(Endpoint::Shim, "GET /metrics"), 1);
    sandbox.heal_all();
    request(&sandbox.path(Endpoint::Shim), "PUT", "/policy")?;
    assert_eq!(node.take_violations().len(), 1);
    Ok(())
}
