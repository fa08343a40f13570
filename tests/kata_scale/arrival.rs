//! How soon a sandbox is seen whose directory appears.

use std::sync::PoisonError;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Hypervisor, KataNode, Runtime, SandboxPlan};

use crate::support::agent::Agent;
use crate::support::kata::{Listing, flags};
use crate::{PATIENCE, QUIET};

/// What is promised. The median has to keep it; single ones share the machine with others.
const PROMISED: Duration = Duration::from_millis(200);
const AT_MOST: Duration = Duration::from_secs(2);

#[test]
fn a_sandbox_is_listed_within_200_ms_of_its_directory() {
    let _quiet = QUIET.write().unwrap_or_else(PoisonError::into_inner);
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).times(20);
    let node = builder.start().expect("a simulated node");
    // The runtime never hears of it: its directory is all there is to see.
    let plan = || SandboxPlan::new(Runtime::Rust, Hypervisor::CloudHypervisor).unlisted();
    let newcomers: Vec<_> = (0..11).map(|_| node.add(plan()).expect("a sandbox")).collect();
    newcomers.iter().for_each(kata_pulse_simulator::kata::KataSandbox::vanish);
    let agent = Agent::start(flags(&node));
    let mut took = Vec::new();
    for sandbox in &newcomers {
        agent.wait_until("it is not there", PATIENCE, || !Listing::of(&agent).has(sandbox));
        let started = Instant::now();
        sandbox.appear();
        while !Listing::of(&agent).has(sandbox) {
            assert!(started.elapsed() < PATIENCE, "never listed");
        }
        took.push(started.elapsed());
        sandbox.vanish();
    }
    took.sort_unstable();
    println!("listed after: median {:?}, longest {:?}", took[took.len() / 2], took[took.len() - 1]);
    assert!(took[took.len() / 2] < PROMISED, "{took:?}");
    assert!(took[took.len() - 1] < AT_MOST, "{took:?}");
}
