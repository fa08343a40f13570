//! The agent where the world is against it: clients that attack, descriptors that run out, a disk that is full, a clock
//! that jumps, and pids that are used again. Each time what it serves stays whole or is said to be missing, what it takes
//! up stays within bounds, and it gives it back.

use std::ffi::OsString;
use std::time::Duration;

mod clock;
mod descriptors;
mod disk;
mod floods;
mod pids;
#[path = "../support/mod.rs"]
mod support;

use support::agent::Agent;
use support::exposition::Page;
use support::host::Host;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

/// Flags, with more of them, that make each scrape a collection of its own.
fn eager(mut flags: Vec<OsString>, more: &[&str]) -> Vec<OsString> {
    flags.extend(["--max-age-secs", "0"].iter().chain(more).map(Into::into));
    flags
}

/// A node with so many pods of one container each.
fn node_with(pods: usize) -> Host {
    let host = Host::v2();
    for pod in 0..pods {
        host.v2_cgroup(&cgroup(pod));
    }
    host
}

fn cgroup(pod: usize) -> String {
    format!("kubepods/pod{pod:08x}-0000-4000-8000-000000000000")
}

/// Asserts that all pods are measured.
#[track_caller]
fn assert_whole(page: &Page, pods: usize, when: &str) {
    for pod in 0..pods {
        let id = format!("/{}", cgroup(pod));
        let usage = page.lookup("container_memory_usage_bytes", &[("id", &id)]);
        assert_eq!(usage, Some(33_554_432.0), "{when}: {id}");
    }
}

/// How many connections the agent says it has.
#[track_caller]
fn connections(agent: &Agent) -> f64 {
    agent.page("/metrics").value("kata_pulse_http_connections", &[])
}
