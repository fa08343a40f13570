//! Everything that is served of a Kata sandbox against what the simulator knows to be true, sample by sample and both
//! ways: nothing is served that is not expected, and nothing expected is missing. On every runtime and hypervisor, with
//! guests and nodes of both cgroup versions, and on every level of falling back.

use std::collections::BTreeSet;

use kata_pulse_simulator::kata::{
    Endpoint, Fault, GuestCgroup, HostCgroup, Hypervisor, KataNode, KataNodeBuilder, KataSandbox, Runtime,
};

#[path = "../support/mod.rs"]
mod support;

mod expected;

use expected::Expected;
use support::agent::Agent;
use support::exposition::{Page, Sample};

/// Families that say when, that, or how it was measured; what they say is not the simulator's.
const OF_THE_MEASURING: [&str; 8] = [
    "container_creation_time_seconds",
    "container_last_seen",
    "container_start_time_seconds",
    "kata_pulse_sandbox_info",
    "kata_pulse_sandbox_scrape_duration_seconds",
    "kata_pulse_sandbox_scrape_skipped",
    "kata_pulse_sandbox_up",
    // Limits are the runtime's to tell; other tests hold them against it.
    "container_spec_",
];

/// Labels that only say whose it is.
const IDENTITY: [&str; 4] = ["id", "image", "namespace", "pod"];

fn start(builder: KataNodeBuilder) -> (KataNode, Agent) {
    let node = builder.start().expect("a simulated node");
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    let agent = Agent::start(flags);
    (node, agent)
}

/// What is served of a sandbox, in the shape of [`Expected`].
fn served(page: &Page, sandbox: &KataSandbox) -> Expected {
    let containers: BTreeSet<String> = sandbox.containers().into_iter().chain([sandbox.id().to_owned()]).collect();
    let is_own = |sample: &&Sample| {
        let label = |name: &str| sample.labels.get(name).map(String::as_str);
        label("sandbox_id") == Some(sandbox.id()) || label("name").is_some_and(|name| containers.contains(name))
    };
    let counted = |sample: &&Sample| !OF_THE_MEASURING.iter().any(|family| sample.name.starts_with(family));
    let samples = page.samples().filter(is_own).filter(counted);
    samples
        .map(|sample| {
            let labels = sample.labels.iter().filter(|(name, _)| !IDENTITY.contains(&name.as_str()));
            // A sandbox's own families name it where rows name a container.
            let text: String = labels.map(|(name, value)| format!("{name}={value},")).collect();
            ((sample.name.clone(), text), sample.value)
        })
        .collect()
}

/// Nothing false, and if `whole` nothing missing.
fn compare(page: &Page, sandbox: &KataSandbox, guest: GuestCgroup, whole: bool) -> usize {
    let who = format!("{:?} {:?} {guest:?}", sandbox.runtime(), sandbox.hypervisor());
    let (served, expected) = (served(page, sandbox), expected::of(sandbox, guest));
    let mut faults = Vec::new();
    for (key, value) in &served {
        match expected.get(key) {
            None => faults.push(format!("{key:?} = {value} is served and nobody knows it")),
            Some(truth) if (truth - value).abs() > truth.abs() * 1e-12 => {
                faults.push(format!("{key:?} is served as {value}, the truth is {truth}"));
            }
            Some(_) => {}
        }
    }
    // That the runtime tells of kills is known a second after the start.
    let is_due = |family: &str| whole && family != "container_oom_events_total";
    let missing = expected.keys().filter(|key| is_due(&key.0) && !served.contains_key(*key));
    faults.extend(missing.map(|key| format!("{key:?} is missing")));
    assert!(faults.is_empty(), "{who}:\n{}", faults.join("\n"));
    served.len()
}

/// Every kind of sandbox, with disks where the hypervisor has some to tell of.
fn every_kind(host: HostCgroup) -> (KataNodeBuilder, Vec<GuestCgroup>) {
    let mut builder = KataNode::builder().host_cgroup(host);
    let mut guests = Vec::new();
    for guest in [GuestCgroup::V1, GuestCgroup::V2] {
        for (runtime, hypervisor) in [
            (Runtime::Go, Hypervisor::CloudHypervisor),
            (Runtime::Rust, Hypervisor::CloudHypervisor),
            (Runtime::Rust, Hypervisor::Dragonball),
            (Runtime::Rust, Hypervisor::Firecracker),
        ] {
            for split in [false, true] {
                // Dragonball's processes cannot be told apart by cgroup.
                if split && hypervisor == Hypervisor::Dragonball {
                    continue;
                }
                builder = builder.sandbox(runtime, hypervisor).containers(2);
                builder = builder.with(|plan| plan.guest_cgroup(guest).disks(2).sandbox_cgroup_only(!split));
                guests.push(guest);
            }
        }
    }
    (builder, guests)
}

#[test]
fn all_that_is_served_is_true_and_all_that_is_true_is_served() {
    for host in [HostCgroup::V2, HostCgroup::V1] {
        let (builder, guests) = every_kind(host);
        let (node, agent) = start(builder);
        for _ in 0..2 {
            node.advance(7);
            let page = agent.page("/metrics");
            let compared: usize = node
                .sandboxes()
                .iter()
                .zip(&guests)
                .map(|(sandbox, guest)| compare(&page, sandbox, *guest, true))
                .sum();
            assert!(compared > guests.len() * 120, "only {compared} samples compared");
        }
        assert_eq!(node.violations(), []);
    }
}

#[test]
fn every_level_of_falling_back_tells_nothing_false() {
    let mut builder = KataNode::builder();
    let mut guests = Vec::new();
    for guest in [GuestCgroup::V1, GuestCgroup::V2] {
        for runtime in [Runtime::Go, Runtime::Rust] {
            builder = builder.sandbox(runtime, Hypervisor::CloudHypervisor).containers(2);
            builder = builder.with(|plan| plan.guest_cgroup(guest).disks(1));
            guests.push(guest);
        }
        builder = builder.sandbox(Runtime::Rust, Hypervisor::Qemu).containers(1).with(|plan| plan.guest_cgroup(guest));
        guests.push(guest);
    }
    let (node, agent) = start(builder);
    let mut before = usize::MAX;
    for lost in [None, Some(Endpoint::Agent), Some(Endpoint::Shim), Some(Endpoint::Task), Some(Endpoint::Hypervisor)] {
        for sandbox in node.sandboxes() {
            if let Some(lost) = lost {
                sandbox.fail(lost, Fault::Refuse);
            }
        }
        node.advance(3);
        let page = agent.page("/metrics");
        let sandboxes = node.sandboxes();
        let each = sandboxes.iter().zip(&guests);
        let served: usize = each.map(|(sandbox, guest)| compare(&page, sandbox, *guest, false)).sum();
        assert!(served < before, "without {lost:?} there is less to tell: {served}");
        before = served;
    }
    // Host cost of every sandbox is what is left when nobody answers.
    assert!(before > guests.len() * 10, "{before}");
}
