//! Every fault at every door of a sandbox, from the first collection on and again later. One sandbox per row of the
//! table, all in one node: what hangs, hangs at the same time.

use std::collections::BTreeMap;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan};

use crate::IN_TIME;
use crate::support::agent::Agent;
use crate::support::exposition::Page;
use crate::support::kata::{
    Fact, Listing, Series, assert_none, changes, differences, facts, facts_listed, false_values, flags, scrape,
    series_of, series_without, skipped, source, up,
};

/// What a fault does to the source behind a door.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Bite {
    /// Nothing that shows.
    None,
    /// Every question fails at once.
    Quick,
    /// Every question takes its deadline, so it is not asked twice in a row.
    Slow,
    /// It answers, and nobody can tell that the numbers are wrong.
    Unseen,
}

/// All of them, and what they do.
fn all_faults() -> Vec<Fault> {
    vec![
        Fault::Hang,
        Fault::Delay(Duration::from_millis(50)),
        Fault::Delay(Duration::from_secs(20)),
        Fault::Drip(Duration::from_secs(1)),
        Fault::CutShort,
        Fault::Close,
        Fault::Flood,
        Fault::InvalidUtf8,
        Fault::WrongUnits,
        Fault::Garbage,
        Fault::Oversize,
        Fault::Fail,
        Fault::Refuse,
        Fault::DenyHandshake,
        Fault::EndlessHandshake,
    ]
}

fn bite(fault: &Fault, endpoint: Endpoint) -> Bite {
    match (fault, endpoint) {
        (Fault::Hang | Fault::Drip(_), _) => Bite::Slow,
        (Fault::Delay(time), _) if *time > Duration::from_secs(3) => Bite::Slow,
        (Fault::Delay(_), _) => Bite::None,
        (Fault::DenyHandshake | Fault::EndlessHandshake, Endpoint::Agent) => Bite::Quick,
        (Fault::DenyHandshake | Fault::EndlessHandshake, _) => Bite::None,
        // As text they are not taken for numbers.
        (Fault::WrongUnits, Endpoint::Hypervisor) => Bite::None,
        (Fault::WrongUnits, _) => Bite::Unseen,
        // Hits a label of a family that nobody reads; the lines that are read are good.
        (Fault::InvalidUtf8, Endpoint::Shim) => Bite::None,
        (
            Fault::CutShort
            | Fault::Close
            | Fault::Flood
            | Fault::InvalidUtf8
            | Fault::Garbage
            | Fault::Oversize
            | Fault::Fail
            | Fault::Refuse,
            _,
        ) => Bite::Quick,
    }
}

/// A sandbox and what is wrong with it.
struct Row {
    name: String,
    doors: Vec<(Endpoint, Fault)>,
    /// The door whose fault the row is about; `None` when it is about all.
    about: Option<Endpoint>,
}

impl Row {
    fn bite(&self, endpoint: Endpoint) -> Bite {
        let fault = self.doors.iter().find(|(at, _)| *at == endpoint);
        fault.map_or(Bite::None, |(_, fault)| bite(fault, endpoint))
    }

    /// Whether containers can be measured all the same: by the agent, or else by the shim's Task service.
    fn is_up(&self, hypervisor: Hypervisor) -> bool {
        let answers = |endpoint| matches!(self.bite(endpoint), Bite::None | Bite::Unseen);
        answers(Endpoint::Task) || (hypervisor != Hypervisor::Qemu && answers(Endpoint::Agent))
    }

    fn is_unseen(&self) -> bool {
        self.doors.iter().any(|(endpoint, fault)| bite(fault, *endpoint) == Bite::Unseen)
    }

    fn begin(&self, sandbox: &KataSandbox) {
        for (endpoint, fault) in &self.doors {
            sandbox.fail(*endpoint, fault.clone());
            if matches!(fault, Fault::DenyHandshake | Fault::EndlessHandshake) {
                // Who is through already is not asked again.
                sandbox.cut_connections(Endpoint::Agent);
            }
        }
    }
}

/// The table. The Task service and the shim are asked only when the agent does not answer, so theirs is dead then; a
/// QEMU guest's cannot be reached anyway.
fn table(hypervisor: Hypervisor) -> Vec<Row> {
    let (agent, all) = match hypervisor {
        Hypervisor::Qemu => (vec![], vec![Endpoint::Task, Endpoint::Shim]),
        _ => (
            vec![(Endpoint::Agent, Fault::Refuse)],
            vec![Endpoint::Agent, Endpoint::Task, Endpoint::Shim, Endpoint::Hypervisor],
        ),
    };
    let mut rows = Vec::new();
    for fault in all_faults() {
        for endpoint in &all {
            let mut doors = if matches!(endpoint, Endpoint::Task | Endpoint::Shim) { agent.clone() } else { vec![] };
            doors.push((*endpoint, fault.clone()));
            rows.push(Row { name: format!("{fault:?} at {endpoint:?}"), doors, about: Some(*endpoint) });
        }
        let doors = all.iter().map(|endpoint| (*endpoint, fault.clone())).collect();
        rows.push(Row { name: format!("{fault:?} at all doors"), doors, about: None });
    }
    rows
}

/// Four collections while the faults last. What hangs is asked in the first and third of them.
struct Observed {
    pages: [Page; 2],
    listings: [Listing; 2],
    slowest: Duration,
}

fn observe(agent: &Agent) -> Observed {
    let mut slowest = Duration::ZERO;
    let mut timed = |what: &mut dyn FnMut()| {
        let started = Instant::now();
        what();
        slowest = slowest.max(started.elapsed());
    };
    let (mut first, mut second, mut third, mut fourth) = (None, None, None, None);
    timed(&mut || first = Some(scrape(agent)));
    timed(&mut || second = Some(Listing::of(agent)));
    timed(&mut || third = Some(Listing::of(agent)));
    timed(&mut || fourth = Some(scrape(agent)));
    let all = first.zip(fourth).zip(second.zip(third));
    let ((first, fourth), (second, third)) = all.expect("each was done");
    Observed { pages: [first, fourth], listings: [second, third], slowest }
}

struct Ward {
    runtime: Runtime,
    hypervisor: Hypervisor,
    node: KataNode,
    rows: Vec<Row>,
    /// One per row.
    patients: Vec<KataSandbox>,
    healthy: Vec<KataSandbox>,
}

impl Ward {
    fn new(runtime: Runtime, hypervisor: Hypervisor) -> Self {
        let rows = table(hypervisor);
        let builder = KataNode::builder().sandbox(runtime, hypervisor).containers(1);
        let builder = builder.with(SandboxPlan::unmeasured_by_runtime).times(rows.len());
        let builder = builder.sandbox(Runtime::Go, Hypervisor::CloudHypervisor).containers(2);
        let builder = builder.sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(2);
        let node = builder.start().expect("a simulated node");
        let mut patients = node.sandboxes();
        let healthy = patients.split_off(rows.len());
        Self { runtime, hypervisor, node, rows, patients, healthy }
    }

    fn begin(&self) {
        self.rows.iter().zip(&self.patients).for_each(|(row, sandbox)| row.begin(sandbox));
    }

    /// Everybody is well within two scrapes. Gives the page that says so.
    fn heal(&self, agent: &Agent) -> Page {
        self.patients.iter().for_each(|sandbox| sandbox.heal_all());
        let listing = Listing::of(agent);
        let page = scrape(agent);
        let all: Vec<Fact> = self.healthy.iter().flat_map(facts).collect();
        assert_none(&differences(&page, &all), "beside those that were ill");
        for (row, sandbox) in self.rows.iter().zip(&self.patients) {
            let facts = facts_listed(sandbox, &listing);
            assert_none(&differences(&page, &facts), &format!("two scrapes after {}", row.name));
        }
        page
    }

    /// Holds what was observed against the page that came after, of the same tick.
    fn check(&self, observed: &Observed, well: &Page) {
        let Observed { pages, listings, slowest } = observed;
        assert!(*slowest < IN_TIME, "a collection took {slowest:?}");
        let reference: Vec<Series> = self.patients.iter().map(|sandbox| series_of(well, sandbox)).collect();
        for (at, page) in pages.iter().enumerate() {
            let all: Vec<Fact> = self.healthy.iter().flat_map(facts).collect();
            assert_none(&differences(page, &all), &format!("beside those that are ill, page {at}"));
            let beside = [page, well].map(|page| series_without(page, &self.patients));
            assert_none(&changes(&beside[0], &beside[1]), &format!("everybody else, page {at}"));
            for ((row, sandbox), reference) in self.rows.iter().zip(&self.patients).zip(&reference) {
                self.check_page(row, sandbox, page, reference);
            }
        }
        for (row, sandbox) in self.rows.iter().zip(&self.patients) {
            self.check_words(row, sandbox, listings, &pages[1]);
        }
    }

    fn check_page(&self, row: &Row, sandbox: &KataSandbox, page: &Page, reference: &Series) {
        let name = &row.name;
        let served = series_of(page, sandbox);
        let mut wrong = false_values(&served, reference);
        if row.is_unseen() {
            // What the guest alone can know, and what is worked out from it.
            let told_by_guest = ["container_", "kata_pulse_guest_", "kata_pulse_sandbox_overhead_"];
            wrong.retain(|told| !told_by_guest.iter().any(|prefix| told.starts_with(prefix)));
        }
        assert_none(&wrong, name);
        let is_up = row.is_up(self.hypervisor);
        assert_eq!(up(page, sandbox), Some(if is_up { 1.0 } else { 0.0 }), "{name}");
        let has = |prefix: &str| served.keys().any(|(family, _)| family.starts_with(prefix));
        assert!(has("kata_pulse_sandbox_host_"), "{name}: the node's side needs nobody's answer");
        let of_containers = served.keys().any(|(family, labels)| {
            family == "container_memory_usage_bytes" && labels.get("container").is_some_and(|name| !name.is_empty())
        });
        assert_eq!(of_containers, is_up, "{name}: containers");
        if row.about == Some(Endpoint::Hypervisor) {
            assert_eq!(has("kata_pulse_vmm_"), row.bite(Endpoint::Hypervisor) == Bite::None || has_memory(&served));
        }
        assert!(served.len() <= reference.len(), "{name}");
    }

    /// What is said of the sources. Slow ones were asked in the third collection and not in the second and fourth.
    fn check_words(&self, row: &Row, sandbox: &KataSandbox, listings: &[Listing; 2], last: &Page) {
        let [resting, asking] = listings.each_ref().map(|listing| listing.sources(sandbox));
        let name = &row.name;
        if let Some(about) = row.about {
            let said = |sources: &BTreeMap<String, String>| {
                sources.get(source(about)).unwrap_or_else(|| panic!("{name}: {sources:?}")).clone()
            };
            let (resting, asking) = (said(&resting), said(&asking));
            // QEMU's shim in Rust is asked for the agent's address and no more, and for that until it has told it.
            let address_alone = (self.runtime, self.hypervisor, about)
                == (Runtime::Rust, Hypervisor::Qemu, Endpoint::Shim)
                && asking == "skipped: unsafe_qemu";
            match row.bite(about) {
                _ if address_alone => {}
                Bite::Quick => {
                    assert!(resting.starts_with("failed: "), "{name}: {resting}");
                    assert!(asking.starts_with("failed: "), "{name}: {asking}");
                }
                // Twice in one collection, and the second time it is known to hang.
                Bite::Slow if self.hypervisor == Hypervisor::Qemu && self.runtime == Runtime::Rust => {
                    assert_eq!(resting, "skipped: timeout_backoff", "{name}");
                }
                Bite::Slow => {
                    assert_eq!(resting, "skipped: timeout_backoff", "{name}");
                    assert!(asking.starts_with("failed: ") && asking.contains("within"), "{name}: {asking}");
                    assert!(skipped(last, sandbox).contains(&"timeout_backoff".to_owned()), "{name}");
                }
                Bite::None | Bite::Unseen => assert_eq!(asking, "up", "{name}"),
            }
        }
        let error = listings[1].last_error(sandbox);
        assert_eq!(error.is_none(), row.is_up(self.hypervisor), "{name}: {error:?}");
        if let Some(error) = error {
            assert!(error.len() < 1000 && !error.contains(char::is_control), "{name}: {error:?}");
        }
    }
}

fn has_memory(served: &Series) -> bool {
    served.keys().any(|(family, _)| family == "kata_pulse_vmm_memory_bytes")
}

fn ward(runtime: Runtime, hypervisor: Hypervisor) {
    let ward = Ward::new(runtime, hypervisor);
    // From the first collection on.
    ward.node.advance(5);
    ward.begin();
    let agent = Agent::start(flags(&ward.node));
    let observed = observe(&agent);
    let well = ward.heal(&agent);
    ward.check(&observed, &well);
    // Out of good health, with connections open and addresses known.
    ward.node.advance(7);
    ward.begin();
    let observed = observe(&agent);
    let well = ward.heal(&agent);
    ward.check(&observed, &well);
    for (row, sandbox) in ward.rows.iter().zip(&ward.patients) {
        for endpoint in Endpoint::ALL {
            let counts = sandbox.counts(endpoint);
            assert!(counts.most_in_flight <= 1 && counts.open <= 1, "{} {endpoint:?}: {counts:?}", row.name);
        }
        assert_eq!(sandbox.death(), None, "{}", row.name);
    }
    assert_eq!(ward.node.violations(), [], "nothing was asked that could hurt");
}

#[test]
fn cloud_hypervisor_under_go() {
    ward(Runtime::Go, Hypervisor::CloudHypervisor);
}

#[test]
fn cloud_hypervisor_under_rust() {
    ward(Runtime::Rust, Hypervisor::CloudHypervisor);
}

#[test]
fn qemu_under_go() {
    ward(Runtime::Go, Hypervisor::Qemu);
}

#[test]
fn qemu_under_rust() {
    ward(Runtime::Rust, Hypervisor::Qemu);
}
