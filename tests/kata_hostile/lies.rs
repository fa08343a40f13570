//! Guests that lie: names meant to break the exposition or to speak for somebody else, more devices than a page can
//! take, numbers that are none. Each lie is told by a guest whose agent is asked, and by one behind its shim.

use std::time::Instant;

use kata_pulse::expose::catalog::families;
use kata_pulse::expose::family;
use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataSandbox, Lie, Runtime};

use crate::IN_TIME;
use crate::support::agent::Agent;
use crate::support::exposition::{Family, Kind, Page};
use crate::support::kata::{
    Fact, Listing, assert_none, changes, differences, facts, flags, scrape, series_of, series_without, up,
};

/// Series of one sandbox with one container, whatever its guest says: 2000 that a guest may name, and 256 devices of the
/// hypervisor × 8. Fewer than 400 are not to be multiplied by anybody.
const MOST_SERIES: usize = 2000 + 256 * 8 + 400;

/// The longest name of a device that is passed on, with the `/dev/` before it.
const LONGEST_NAME: usize = 1024 + 5;

/// All lies, and whether what the guest says beside them stays true. What it does not is told as it says it: nobody
/// else can know.
const LIES: [(Lie, bool); 15] = [
    (Lie::HostileLabels, true),
    (Lie::HostileFamilies, false),
    (Lie::LongNames(1), true),
    (Lie::LongNames(1024), true),
    (Lie::LongNames(1025), true),
    (Lie::LongNames(8000), true),
    (Lie::LongNames(1 << 20), true),
    (Lie::ManyFamilies(10_000), true),
    (Lie::ManyFamilies(1_000_000), true),
    (Lie::ManySeries(10_000), true),
    (Lie::ManySeries(1_000_000), true),
    (Lie::ManyDevices(300), true),
    (Lie::ManyDevices(1_000_000), true),
    (Lie::OddNumbers, false),
    (Lie::HugeNumbers, false),
];

struct Court {
    node: KataNode,
    /// Two per lie: asked by the agent, and by the shim.
    liars: Vec<(Lie, bool, KataSandbox)>,
    honest: Vec<KataSandbox>,
}

impl Court {
    fn new(runtime: Runtime) -> Self {
        let builder = KataNode::builder().sandbox(runtime, Hypervisor::CloudHypervisor).containers(1);
        let builder = builder.times(LIES.len() * 2 + 3);
        let node = builder.start().expect("a simulated node");
        let mut sandboxes = node.sandboxes();
        let honest = sandboxes.split_off(LIES.len() * 2);
        for behind_shim in sandboxes.iter().skip(LIES.len()) {
            behind_shim.fail(Endpoint::Agent, Fault::Refuse);
        }
        let lies = LIES.iter().chain(&LIES);
        let liars = lies.zip(sandboxes).map(|((lie, others_true), sandbox)| (*lie, *others_true, sandbox)).collect();
        node.advance(5);
        Self { node, liars, honest }
    }

    fn sandboxes(&self) -> Vec<KataSandbox> {
        self.liars.iter().map(|(_, _, sandbox)| sandbox.clone()).collect()
    }
}

/// What the node says of a sandbox without asking its guest.
fn of_node(sandbox: &KataSandbox) -> Vec<Fact> {
    let mut facts = facts(sandbox);
    facts.retain(|fact| fact.family.starts_with("kata_pulse_sandbox_host_"));
    assert_eq!(facts.len(), 2);
    facts
}

/// Names, numbers and how many there are, whatever the lie.
fn check_bounds(what: &str, page: &Page, sandbox: &KataSandbox) {
    let served = series_of(page, sandbox);
    assert!(served.len() <= MOST_SERIES, "{what}: {} series", served.len());
    for ((family, labels), value) in &served {
        assert!(value.is_finite() && *value >= 0.0, "{what}: {family} {labels:?} {value}");
        assert!(labels.values().all(|text| text.len() <= LONGEST_NAME + 1), "{what}: {family} has an endless label");
        let id = labels.get("sandbox_id");
        assert!(id.is_none_or(|id| id == sandbox.id()), "{what}: {family} {labels:?}");
    }
}

/// Families of the page that are not in the documentation, or have another type or text there.
fn made_up(page: &Page) -> Vec<String> {
    let known: Vec<(&str, Option<Kind>, Option<&str>)> = families()
        .into_iter()
        .map(|(meta, _)| {
            let kind = match meta.kind {
                family::Kind::Counter => Kind::Counter,
                family::Kind::Gauge => Kind::Gauge,
                family::Kind::Untyped => Kind::Untyped,
            };
            (meta.name, Some(kind), Some(meta.help))
        })
        .collect();
    // What the agent says of itself is not among them.
    let own = |name: &str| name.starts_with("kata_pulse_") || name.starts_with("process_");
    let about_pods = |family: &Family| family.samples.iter().any(|sample| sample.label("pod").is_some());
    let strange = page.families.iter().filter(|family| {
        let told = (family.name.as_str(), family.kind, family.help.as_deref());
        (about_pods(family) || !own(&family.name)) && !known.contains(&told)
    });
    strange.map(|family| format!("{} {:?} {:?}", family.name, family.kind, family.help)).collect()
}

fn lies_are_told_of_the_liar_alone(runtime: Runtime) {
    let court = Court::new(runtime);
    let agent = Agent::start(flags(&court.node));
    let liars = court.sandboxes();
    let before = scrape(&agent);
    let beside = series_without(&before, &liars);
    for (lie, _, sandbox) in &court.liars {
        sandbox.lie(Some(*lie));
    }
    for round in 0..3 {
        let started = Instant::now();
        let page = scrape(&agent);
        assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
        assert_none(&changes(&series_without(&page, &liars), &beside), &format!("beside the liars, round {round}"));
        assert_none(&made_up(&page), "families, or types for them, that somebody made up");
        for (lie, others_true, sandbox) in &court.liars {
            let way = if sandbox.counts(Endpoint::Shim).requests > 0 { "by the shim" } else { "by the agent" };
            let what = format!("{lie:?} {way}");
            check_bounds(&what, &page, sandbox);
            assert_none(&differences(&page, &of_node(sandbox)), &what);
            assert_eq!(up(&page, sandbox), Some(1.0), "{what}: its containers answer by some way");
            if *others_true {
                // Served or not: a flood may cost the whole answer, and then nothing of it is served.
                let truth = facts(sandbox);
                let served: Vec<&Fact> = truth.iter().filter(|fact| is_served(&page, fact)).collect();
                assert!(served.len() > 12, "{what}: only {} facts", served.len());
                assert_none(&differences(&page, served), &what);
            }
        }
    }
    // The other ways to be told.
    let open_metrics = agent.get_with("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert!(open_metrics.text().ends_with("\n# EOF\n"));
    assert_eq!(open_metrics.text().lines().filter(|line| line.starts_with("# EOF")).count(), 1);
    let listing = Listing::of(&agent);
    for sandbox in liars.iter().chain(&court.honest) {
        assert!(listing.has(sandbox));
    }
    let html = agent.get_with("/sandboxes", &[("Accept", "text/html")]);
    assert!(!html.text().contains("<script>"));
    for (_, _, sandbox) in &court.liars {
        sandbox.lie(None);
        sandbox.heal_all();
    }
    scrape(&agent);
    let page = scrape(&agent);
    let all: Vec<Fact> = liars.iter().chain(&court.honest).flat_map(facts).collect();
    assert_none(&differences(&page, &all), "when everybody says the truth");
    assert_eq!(court.node.violations(), []);
}

fn is_served(page: &Page, fact: &Fact) -> bool {
    let labels: Vec<(&str, &str)> = fact.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
    !page.matching(fact.family, &labels).is_empty()
}

#[test]
fn behind_a_shim_in_go() {
    lies_are_told_of_the_liar_alone(Runtime::Go);
}

#[test]
fn behind_a_shim_in_rust() {
    lies_are_told_of_the_liar_alone(Runtime::Rust);
}
