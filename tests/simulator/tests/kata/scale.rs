//! A thousand sandboxes in one process.

use std::fs;
use std::time::Instant;

use kata_pulse_simulator::kata::{Endpoint, Hypervisor, KataNode, Runtime};

use crate::client::{Rpc, Text, get};

/// What a thousand sandboxes may take of memory, in KiB.
const MEMORY_MAX: u64 = 200 << 10;

fn resident_kib() -> u64 {
    let status = fs::read_to_string("/proc/self/status").expect("procfs");
    let line = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).expect("a line");
    line.trim().trim_end_matches(" kB").trim().parse().expect("a number")
}

#[test]
fn a_thousand_sandboxes_answer_with_modest_means() -> anyhow::Result<()> {
    let before = resident_kib();
    let begun = Instant::now();
    let node = KataNode::builder()
        .sandbox(Runtime::Go, Hypervisor::CloudHypervisor)
        .containers(2)
        .times(500)
        .sandbox(Runtime::Rust, Hypervisor::CloudHypervisor)
        .containers(2)
        .times(500)
        .without_host_files()
        .start()?;
    let started = begun.elapsed();
    let mut open = Vec::new();
    for sandbox in node.sandboxes() {
        let mut agent = Rpc::to_agent(&sandbox.path(Endpoint::Agent))?;
        assert!(agent.ask::<Text>("grpc.AgentService/GetMetrics", "")?.text.len() > 10_000);
        open.push(agent);
    }
    let asked = begun.elapsed() - started;
    assert_eq!(node.counts().open, 1000);
    assert_eq!(get(&node.sandbox(999).path(Endpoint::Shim), "/metrics")?.status, 200);
    let grown = resident_kib().saturating_sub(before);
    println!("1000 sandboxes: started in {started:?}, asked in {asked:?}, {grown} KiB");
    assert!(grown < MEMORY_MAX, "{grown} KiB");
    Ok(())
}
