//! A wall clock that is set: what is served of ages, durations and counters does not depend on it. Debian's libfaketime
//! stands between the agent and the clock; the monotonic clock, which the kernel lets nobody set, stays as it is.

use std::ffi::OsString;
use std::path::{Path, PathBuf};

use kata_pulse_simulator::cri::Pod;

use crate::support::agent::Agent;
use crate::support::exposition::backward;
use crate::support::host::Host;
use crate::support::node::NamedNode;
use crate::{PATIENCE, assert_whole, eager, node_with};

const DAY: i64 = 86_400;

/// A clock that can be set.
struct Clock {
    directory: tempfile::TempDir,
}

impl Clock {
    fn new() -> Self {
        let clock = Self { directory: tempfile::tempdir().expect("a directory") };
        clock.set(0);
        clock
    }

    fn file(&self) -> PathBuf {
        self.directory.path().join("offset")
    }

    /// Sets the agent's clock so many seconds ahead of the right one.
    fn set(&self, seconds: i64) {
        // Replaced whole: the agent may read it at any moment.
        let new = self.directory.path().join("new");
        std::fs::write(&new, format!("{seconds:+}\n")).expect("write the offset");
        std::fs::rename(new, self.file()).expect("replace the offset");
    }

    #[track_caller]
    fn start(&self, flags: Vec<OsString>) -> Agent {
        let (library, file) = (library(), self.file());
        let agent = Agent::start_by(
            &[],
            &[
                ("LD_PRELOAD", library.to_str().expect("a path")),
                ("FAKETIME_TIMESTAMP_FILE", file.to_str().expect("a path")),
                ("FAKETIME_NO_CACHE", "1"),
                ("FAKETIME_DONT_FAKE_MONOTONIC", "1"),
                // Times of files stay what they are.
                ("NO_FAKE_STAT", "1"),
            ],
            flags,
        );
        assert!(ahead(&agent).abs() < 60.0, "the clock is right at first: {}", ahead(&agent));
        agent
    }
}

/// Where Debian has the library; its directory is named after the architecture.
fn library() -> PathBuf {
    let all = std::fs::read_dir("/usr/lib").expect("a directory").flatten();
    let mut found = all.map(|entry| entry.path().join("faketime/libfaketime.so.1"));
    found.find(|path| Path::exists(path)).expect("libfaketime is installed: make setup-test")
}

/// How far the agent's clock is ahead: the wall time at which it says a container was last seen.
fn ahead(agent: &Agent) -> f64 {
    let seen = agent.page("/metrics").value("container_last_seen", &[("id", "/")]);
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).expect("after 1970");
    seen - now.as_secs_f64()
}

#[test]
fn a_kept_collection_is_as_old_as_it_is_whatever_the_clock_says() {
    let (host, clock) = (node_with(1), Clock::new());
    let mut flags = host.flags();
    flags.extend(["--max-age-secs", "3600"].map(Into::into));
    let agent = clock.start(flags);
    let collections = || agent.page("/metrics").value("kata_pulse_collections_total", &[]);
    let kept = collections();
    for jump in [DAY, -DAY, 0, 10 * 365 * DAY, -10 * 365 * DAY] {
        clock.set(jump);
        assert_eq!(collections(), kept, "after {jump} s");
    }
    agent.stop(0);
}

/// Whoever is told a rate cannot tell over which time it is, so no clock may make one up.
#[test]
fn a_rate_is_over_the_time_between_two_readings_and_none_over_less_than_nothing() {
    let (host, clock) = (node_with(1), Clock::new());
    let mut flags = host.flags();
    flags.extend(["--max-age-secs", "0"].map(Into::into));
    let agent = clock.start(flags);
    let rate = || {
        let summary: serde_json::Value = serde_json::from_str(agent.get("/stats/summary").text()).expect("JSON");
        summary["node"]["cpu"]["usageNanoCores"].as_u64()
    };
    let used = |micros: u64| {
        let text = format!("usage_usec {micros}\nuser_usec 6000000\nsystem_usec 3000000\n");
        host.write("sys/fs/cgroup/cpu.stat", &text);
    };
    assert_eq!(rate(), None, "nothing is known of before");
    // 50 s in 100 s, and in what the test takes besides.
    used(59_000_000);
    clock.set(100);
    let half = rate().expect("a rate");
    assert!((300_000_000..=500_000_000).contains(&half), "{half}");
    assert_eq!(rate(), Some(half), "less than ten seconds later");
    used(69_000_000);
    clock.set(-DAY);
    assert_eq!(rate(), None);
    agent.stop(0);
}

/// An age by the wall clock would be negative for a day.
#[test]
fn a_clock_that_is_set_back_does_not_make_an_old_collection_new() {
    let (host, clock) = (node_with(1), Clock::new());
    let mut flags = host.flags();
    flags.extend(["--max-age-secs", "0.2"].map(Into::into));
    let agent = clock.start(flags);
    for jump in [-DAY, DAY, -10 * DAY] {
        clock.set(jump);
        let memory = |bytes: u64| {
            host.write(&format!("sys/fs/cgroup/{}/memory.current", crate::cgroup(0)), &format!("{bytes}\n"))
        };
        for bytes in [1_u64 << 20, 1 << 25] {
            memory(bytes);
            agent.wait_until(&format!("the next value after {jump} s"), PATIENCE, || {
                let id = format!("/{}", crate::cgroup(0));
                agent.page("/metrics").lookup("container_memory_usage_bytes", &[("id", &id)]) == Some(bytes as f64)
            });
        }
    }
    agent.stop(0);
}

#[test]
fn nothing_runs_backwards_and_everything_is_served_when_the_clock_jumps() {
    let (host, clock) = (node_with(2), Clock::new());
    let agent = clock.start(eager(host.flags(), &["--metrics-profile", "all"]));
    let mut before = agent.page("/metrics");
    let started = before.value("process_start_time_seconds", &[]);
    for jump in [DAY, -DAY, 3600, -3600, 0] {
        clock.set(jump);
        let page = agent.page("/metrics");
        assert_whole(&page, 2, &format!("after {jump} s"));
        assert_eq!(backward(&before, &page), [""; 0], "after {jump} s");
        assert!((ahead(&agent) - jump as f64).abs() < 60.0, "it is the agent's clock that was set");
        assert_eq!(page.value("process_start_time_seconds", &[]), started);
        assert_eq!((agent.get("/livez").status, agent.get("/readyz").status), (200, 200));
        before = page;
    }
    agent.stop(0);
}

#[test]
fn a_pause_before_the_next_attempt_ends_although_the_clock_was_set_back() {
    let clock = Clock::new();
    let mut node = NamedNode::start();
    let web = Pod::new("shop", "web");
    node.run(&web, 41, &[&web.container("app")]);
    let agent = clock.start(eager(node.flags(), &["--sync-interval-secs", "0.5"]));
    let up = || agent.page("/metrics").value("kata_pulse_cri_up", &[]);
    assert_eq!(up(), 1.0);
    for jump in [-DAY, DAY] {
        node.runtime.crash();
        agent.wait_until("the runtime is known to be down", PATIENCE, || up() == 0.0);
        clock.set(jump);
        node.runtime.restart().expect("the socket is ours");
        agent.wait_until(&format!("the runtime is found again after {jump} s"), PATIENCE, || up() == 1.0);
    }
    // Samples by interval go on as well.
    drop(agent);
    let host: Host = node_with(1);
    clock.set(0);
    let mut flags = host.flags();
    flags.extend(["--metrics-interval-secs", "0.2"].map(Into::into));
    let agent = clock.start(flags);
    for jump in [-DAY, DAY] {
        clock.set(jump);
        let collections = || agent.page("/metrics").value("kata_pulse_collections_total", &[]);
        let before = collections();
        agent.wait_until(&format!("collections go on after {jump} s"), PATIENCE, || collections() >= before + 2.0);
    }
    agent.stop(0);
}
