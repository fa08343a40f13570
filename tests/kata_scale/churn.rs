//! A thousand sandboxes that come and go in waves while they are measured.

use std::collections::HashMap;
use std::sync::PoisonError;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan};

use crate::glance::Glance;
use crate::held::Held;
use crate::support::agent::Agent;
use crate::support::kata::{SCRAPE, flags};
use crate::{ONE_HEAP, PATIENCE, QUIET};

const WAVES: usize = 20;
const WAVE: usize = 50;

/// How long after its removal a sandbox may still be told of. Usually it is the next scrape that does not; the bound is
/// what a scrape waits for discovery at most, and what a collection that was under way takes.
const SEEN_WITHIN: Duration = Duration::from_secs(5);

/// How long something may be held of a sandbox that is not told of any more.
const LET_GO: Duration = Duration::from_secs(2);

const KINDS: [(Runtime, Hypervisor); 4] = [
    (Runtime::Go, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::Dragonball),
    (Runtime::Rust, Hypervisor::Firecracker),
];

struct Sea {
    node: KataNode,
    agent: Agent,
    /// When each sandbox was removed, by the name of its pod, and when it was first not told of.
    removed: HashMap<String, (Instant, Option<Instant>)>,
}

impl Sea {
    /// Scrapes; nobody is told of who was removed a while ago, or once was not told of.
    fn look(&mut self) -> Glance {
        let started = Instant::now();
        let answer = self.agent.get_with("/metrics", &SCRAPE);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let glance = Glance::at(answer.text());
        for (pod, (removed, gone)) in &mut self.removed {
            if glance.pods.contains_key(pod) {
                let since = started.saturating_duration_since(*removed);
                assert!(since < SEEN_WITHIN, "{pod} was removed {since:?} before this scrape");
                assert!(gone.is_none(), "{pod} is back");
            } else if gone.is_none() {
                *gone = Some(Instant::now());
            }
        }
        glance
    }

    fn rise(&mut self) -> Vec<KataSandbox> {
        let mut wave = Vec::new();
        for (at, (runtime, hypervisor)) in KINDS.into_iter().cycle().take(WAVE).enumerate() {
            let sandbox = self
                .node
                .add(SandboxPlan::new(runtime, hypervisor).containers(1).unmeasured_by_runtime())
                .expect("a sandbox");
            // Some are never well.
            match at {
                7 => sandbox.fail(Endpoint::Agent, Fault::Flood),
                8 => sandbox.fail_all(&Fault::Close),
                _ => {}
            }
            wave.push(sandbox);
            if at % 10 == 0 {
                self.look();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        loop {
            let glance = self.look();
            let up = wave.iter().filter(|sandbox| glance.up.get(sandbox.id()) == Some(&true)).count();
            if up == WAVE - 1 {
                return wave;
            }
            assert!(Instant::now() < deadline, "only {up} of a wave are up");
        }
    }

    fn fall(&mut self, wave: &[KataSandbox]) {
        for (at, sandbox) in wave.iter().enumerate() {
            self.node.remove(sandbox);
            self.removed.insert(sandbox.pod().1.to_owned(), (Instant::now(), None));
            if at % 10 == 9 {
                self.look();
            }
        }
        let deadline = Instant::now() + PATIENCE;
        while self.removed.values().any(|(_, gone)| gone.is_none()) {
            self.look();
            assert!(Instant::now() < deadline, "somebody is told of for ever");
        }
    }
}

#[test]
fn a_thousand_sandboxes_come_and_go_and_leave_nothing() {
    let _busy = QUIET.read().unwrap_or_else(PoisonError::into_inner);
    // One that stays, so that there is always something to measure.
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
    let node = builder.start().expect("a simulated node");
    let agent = Agent::start_in(&ONE_HEAP, flags(&node));
    let mut sea = Sea { node, agent, removed: HashMap::new() };
    sea.look();
    sea.look();
    let before = Held::by(&sea.agent);
    let mut held = Vec::new();
    for _ in 0..WAVES {
        let wave = sea.rise();
        sea.fall(&wave);
        // Nobody scrapes, and nothing happens on the node: what is held of those that went is let go of all the same.
        sea.agent.wait_until("nothing is held of those that went", LET_GO, || {
            Held::by(&sea.agent).descriptors <= before.descriptors
        });
        held.push(Held::by(&sea.agent));
    }
    let latency = |(removed, gone): &(Instant, Option<Instant>)| gone.map(|gone| gone.duration_since(*removed));
    let mut latencies: Vec<Duration> = sea.removed.values().filter_map(latency).collect();
    latencies.sort_unstable();
    assert_eq!(latencies.len(), WAVES * WAVE);
    println!("told of after removal: median {:?}, longest {:?}", latencies[latencies.len() / 2], latencies.last());
    let (early, late) = (Held::mean(&held[WAVES / 4..WAVES / 2]), Held::mean(&held[WAVES - WAVES / 4..]));
    println!("held early {early:?}, late {late:?}");
    // 500 sandboxes lie between the two. One of them is worth more than 8 KB, with its connections, open files and
    // names, so 500 that are not forgotten are more than 4 MB. The allocator's arenas, one for every few threads,
    // spread by up to 3 MB meanwhile; with a single one it is 0.8 MB.
    assert!(late.rss_kib < early.rss_kib + 4096.0, "memory grew from {early:?} to {late:?}");
    assert!((late.descriptors - early.descriptors).abs() < 5.0, "descriptors: {early:?} to {late:?}");
    assert!(late.threads < early.threads + 10.0, "threads: {early:?} to {late:?}");
    assert_eq!(sea.node.violations(), []);
}
