//! Descriptors that run out: those held give way, those who ask are answered, and what could not be read is said.

use std::process::Command;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Hypervisor, KataNode, Runtime, SandboxPlan};

use crate::support::agent::Agent;
use crate::support::exposition::Page;
use crate::support::kata::{Listing, assert_none, differences, facts, flags, scrape, up};
use crate::support::wire::{Wire, exchange};
use crate::{PATIENCE, assert_whole, eager, node_with};

/// A hard limit, so that the agent cannot raise it.
const FEW: &str = "64";

/// The limit that the agent has raised its own to.
fn limit_of(agent: &Agent) -> usize {
    let limits = std::fs::read_to_string(format!("/proc/{}/limits", agent.pid())).expect("the agent lives");
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).expect("a limit");
    line.split_whitespace().next().and_then(|soft| soft.parse().ok()).expect("a number")
}

/// Changes the soft limit of a running agent, from outside as nobody would.
fn set_limit(agent: &Agent, descriptors: usize) {
    let status = Command::new("prlimit")
        .args(["--pid", &agent.pid().to_string(), &format!("--nofile={descriptors}:")])
        .status()
        .expect("prlimit is there");
    assert!(status.success(), "{status}");
}

#[test]
fn with_few_descriptors_everything_is_measured_all_the_same() {
    let pods = 40;
    let host = node_with(pods);
    let limited = format!("ulimit -n {FEW}; exec \"$0\" \"$@\"");
    let agent = Agent::start_by(&["sh", "-c", &limited], &[], eager(host.flags(), &[]));
    for round in 0..3 {
        assert_whole(&agent.page("/metrics"), pods, &format!("round {round}"));
    }
    let page = agent.page("/metrics");
    for collector in ["cgroup", "network", "machine", "filesystem"] {
        assert_eq!(page.value("kata_pulse_collector_success", &[("collector", collector)]), 1.0, "{collector}");
    }
    assert_eq!(page.value("process_max_fds", &[]), 64.0);
    // Idle clients get their share and no more of it.
    let crowd: Vec<Wire> = (0..80).map(|_| Wire::connect(&agent)).collect();
    for _ in 0..3 {
        assert_eq!(exchange(&agent, "GET", "/livez", &[]).status, 200);
        // On a connection of its own: the one that was kept from the last request is among those that make way.
        let answer = exchange(&agent, "GET", "/metrics", &[]);
        let page = Page::parse(answer.text()).unwrap_or_else(|fault| panic!("beside a crowd: {fault}"));
        assert_whole(&page, pods, "beside a crowd");
    }
    drop(crowd);
    assert!(!agent.log().iter().any(|line| line.contains("Too many open files")), "{:#?}", agent.log());
    agent.stop(0);
}

#[test]
fn guests_that_get_no_socket_are_said_to_be_down_and_come_back() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1);
    let node = builder.with(SandboxPlan::unmeasured_by_runtime).times(60).start().expect("a simulated node");
    let agent = Agent::start(flags(&node));
    let usual = limit_of(&agent);
    let sandboxes = node.sandboxes();
    let all: Vec<_> = sandboxes.iter().flat_map(facts).collect();
    assert_none(&differences(&scrape(&agent), &all), "before");
    let before = node.counts();
    assert!(before.open > 0, "connections to guests are kept");
    // No more than are open now; every connection that breaks is one that cannot be made again.
    set_limit(&agent, 40);
    for sandbox in &sandboxes {
        sandbox.cut_connections(kata_pulse_simulator::kata::Endpoint::Agent);
    }
    agent.wait_until("some have no socket", PATIENCE, || {
        let page = scrape(&agent);
        sandboxes.iter().any(|sandbox| up(&page, sandbox) == Some(0.0))
    });
    let listing = Listing::of(&agent);
    let errors: Vec<String> = sandboxes.iter().filter_map(|sandbox| listing.last_error(sandbox)).collect();
    assert!(errors.iter().any(|error| error.contains("Too many open files")), "{errors:?}");
    assert_eq!(agent.get("/livez").status, 200);
    let lines = agent.log().len();
    for _ in 0..5 {
        scrape(&agent);
    }
    assert!(agent.log().len() <= lines + 4, "nothing is said anew in every scrape: {:#?}", &agent.log()[lines..]);
    set_limit(&agent, usual);
    agent.wait_until("all are well", PATIENCE, || differences(&scrape(&agent), &all).is_empty());
    assert_eq!(node.violations(), []);
}

/// The kernel goes on saying that somebody waits, and accepting goes on failing: a loop of both takes a whole core.
#[test]
fn a_connection_that_cannot_be_accepted_waits_and_takes_no_time() {
    let host = node_with(1);
    let agent = Agent::start(eager(host.flags(), &[]));
    let usual = limit_of(&agent);
    assert_eq!(agent.get("/livez").status, 200);
    let lines = agent.log().len();
    set_limit(&agent, 5);
    let mut waiting = Wire::connect(&agent);
    waiting.ask("GET", "/metrics", &[]);
    agent.wait_until("accepting fails", PATIENCE, || agent.log().iter().any(|line| line.contains("os error 24")));
    let (cpu, started) = (agent.cpu(), Instant::now());
    // Long enough for a core that is kept busy to show.
    while started.elapsed() < Duration::from_secs(2) {
        assert!(!waiting.is_closed());
        std::thread::sleep(Duration::from_millis(50));
    }
    let (used, wall) = (agent.cpu() - cpu, started.elapsed());
    assert!(used < wall / 4, "{used:?} of {wall:?}");
    let said = agent.log().len() - lines;
    assert!(said <= 3 + usize::try_from(3 * wall.as_secs()).expect("seconds"), "{said} lines in {wall:?}");
    set_limit(&agent, usual);
    let answer = waiting.answer();
    assert_eq!(answer.status, 200, "who has waited is answered");
    assert_whole(&Page::parse(answer.text()).expect("a page"), 1, "after");
    agent.stop(0);
}
