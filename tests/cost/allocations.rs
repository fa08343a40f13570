//! Allocations of a collection and its encoding, counted in this process by an allocator that counts.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use kata_pulse::agent::AgentHandle;
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::inventory::Kind;
use kata_pulse::model::snapshot::{Snapshot, SnapshotSource};
use stats_alloc::Region;
use tokio::runtime::Runtime;

use crate::kept::{Cost, compare};
use crate::loads::{self, CONTAINERS, Load, SIZES, agent, each_more, grow_up};
use crate::{ALLOCATOR, alone, beside};

/// What counts is the cheapest of the counts that came this often. In other rounds a map has grown or a thread has come,
/// and once in a while two sandboxes were done at the same moment and shared what others have each for itself.
const TIMES: usize = 3;

/// Rounds, enough for the first few to be dearer.
const ROUNDS: usize = 40;

/// Less than one allocation more.
const MARGIN: f64 = 0.5;

#[test]
fn one_more_pod_allocates_what_it_did() {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    let preparing = beside();
    let loads = loads::all();
    let start = |load: &Box<dyn Load>| runtime.block_on(async { agent(&**load) });
    let agents = loads.each_ref().map(|(of, sizes)| (of, sizes.each_ref().map(start)));
    for (_, sizes) in &agents {
        sizes.iter().zip(SIZES).for_each(|(agent, pods)| scrape_until_listed(&runtime, agent, pods));
    }
    grow_up();
    drop(preparing);
    let _alone = alone();
    let costs = agents.each_ref().map(|(of, sizes)| {
        let measured = each_more(sizes.each_ref().map(|agent| least(&runtime, agent)));
        Cost { of: (**of).to_owned(), measured, margin: MARGIN }
    });
    compare("allocations.txt", &costs);
}

fn least(runtime: &Runtime, agent: &AgentHandle) -> f64 {
    let count = || {
        let region = Region::new(ALLOCATOR);
        drop(scrape(runtime, agent));
        let change = region.change();
        change.allocations + change.reallocations
    };
    let mut counts = BTreeMap::new();
    for _ in 0..ROUNDS {
        *counts.entry(count()).or_insert(0) += 1;
    }
    println!("{counts:?}");
    let settled = counts.iter().find(|(_, times)| **times >= TIMES);
    *settled.unwrap_or_else(|| panic!("no count of allocations came {TIMES} times: {counts:?}")).0 as f64
}

/// Pods that have just come may be held back from the first inventory, and are young from when they are in it.
fn scrape_until_listed(runtime: &Runtime, agent: &AgentHandle, pods: usize) {
    let deadline = Instant::now() + Duration::from_secs(30);
    loop {
        let snapshot = scrape(runtime, agent);
        let listed = snapshot.rows.iter().filter(|row| row.subject.kind == Kind::Container).count();
        if listed == pods * CONTAINERS {
            return;
        }
        assert!(Instant::now() < deadline, "{listed} containers of {pods} pods are listed");
    }
}

fn scrape(runtime: &Runtime, agent: &AgentHandle) -> Arc<Snapshot> {
    let snapshot = runtime.block_on(agent.snapshot(Duration::from_secs(30))).unwrap();
    let mut text = Text::new(Format::Prometheus, 4 << 20);
    walk(&snapshot, &View::All, Profile::Kubelet, &mut text);
    assert!(text.finish().len() > 10_000);
    snapshot
}
