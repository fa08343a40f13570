//! What once went wrong, named after how it showed.

use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, Lie, Runtime};

use crate::support::agent::Agent;
use crate::support::kata::{assert_none, differences, facts, flags, page, scrape, up};

#[test]
fn a_sandbox_that_is_cut_off_is_not_renamed() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).start().expect("a node");
    let sandbox = node.sandbox(0);
    let agent = Agent::start(flags(&node));
    let info = |page: &crate::support::exposition::Page| {
        let samples = page.matching("kata_pulse_sandbox_info", &[("sandbox_id", sandbox.id())]);
        samples.iter().map(|sample| sample.labels.clone()).collect::<Vec<_>>()
    };
    let before = info(&scrape(&agent));
    assert_eq!(before[0]["hypervisor"], "clh");
    // All deadlines together are longer than a sandbox may take.
    sandbox.fail_all(&Fault::Hang);
    assert_eq!(info(&scrape(&agent)), before);
}

#[test]
fn an_agent_url_that_does_not_come_is_asked_for_every_other_time() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Qemu).start().expect("a node");
    let sandbox = node.sandbox(0);
    sandbox.fail(Endpoint::Shim, Fault::Hang);
    let agent = Agent::start(flags(&node));
    for asked in [1, 1, 2, 2] {
        scrape(&agent);
        assert_eq!(sandbox.requests(Endpoint::Shim, "GET /agent-url"), asked);
    }
}

#[test]
fn numbers_that_have_no_sum_do_not_cost_the_page() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).start().expect("a node");
    let sandbox = node.sandbox(0);
    let agent = Agent::start(flags(&node));
    // Two containers, the pause container among them, each of which claims to use all there can be.
    sandbox.lie(Some(Lie::HugeNumbers));
    let page = scrape(&agent);
    let id = [("sandbox_id", sandbox.id())];
    assert_eq!(page.lookup("kata_pulse_sandbox_overhead_memory_bytes", &id), None);
    assert_eq!(page.value("kata_pulse_sandbox_up", &id), 1.0);
    sandbox.lie(None);
    assert!(scrape(&agent).lookup("kata_pulse_sandbox_overhead_memory_bytes", &id).is_some());
}

#[test]
fn a_sandbox_that_hangs_does_not_make_a_hurried_scrape_late() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).times(3);
    let node = builder.start().expect("a node");
    let agent = Agent::start(flags(&node));
    node.sandbox(0).fail_all(&Fault::Hang);
    for _ in 0..4 {
        let started = Instant::now();
        let answer = agent.get_with("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "3")]);
        assert_eq!(answer.status, 200, "{}", answer.text());
        assert!(started.elapsed() < Duration::from_secs(3), "{:?}", started.elapsed());
        let page = page(&answer);
        for well in [node.sandbox(1), node.sandbox(2)] {
            assert_none(&differences(&page, &facts(&well)), "beside it");
        }
        assert_eq!(up(&page, &node.sandbox(0)), Some(0.0));
    }
}
