//! Processes of one name in one container, counted together: what a series can be of. A process comes and goes.

use std::cmp::Reverse;
use std::collections::{HashMap, HashSet};
use std::hash::{Hash, Hasher};
use std::sync::Arc;

use crate::model::inventory::Inventory;
use crate::model::top::{Group, Owner};
use crate::model::units::{Bytes, Seconds};

/// How many groups are told by memory, and how many by CPU time.
pub const TOLD: usize = 10;

/// One that was told the last time is told again while it is among so many: a series with holes has no rate.
pub const TOLD_AGAIN: usize = 20;

/// Names that processes of one container may have over time. A process gives itself its name, as often as it likes.
pub const NAMES: usize = 16;

/// The same of the node's own processes.
const NAMES_OF_NODE: usize = 256;

/// The name of all others.
const OTHER: &str = "other";

/// What tells groups apart: their labels. Two sandboxes of one pod, of which one is on its way out, have the same.
#[derive(Debug)]
struct Key {
    owner: Arc<Owner>,
    comm: Arc<str>,
}

impl Key {
    fn labels(&self) -> [&str; 4] {
        let Owner { namespace, pod, container, .. } = &*self.owner;
        [namespace, pod, container, &self.comm]
    }
}

impl PartialEq for Key {
    fn eq(&self, other: &Self) -> bool {
        self.labels() == other.labels()
    }
}

impl Eq for Key {}

impl Hash for Key {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.labels().hash(state);
    }
}

/// All groups of the node.
#[derive(Debug)]
pub(super) struct Groups {
    all: HashMap<Key, Sum>,
    names: HashMap<Arc<Owner>, HashSet<Arc<str>>>,
    other: Arc<str>,
}

#[derive(Debug)]
struct Sum {
    owner: Arc<Owner>,
    /// What the group's processes have gained while they were in it. It does not fall when one ends.
    ticks: u64,
    resident: u64,
    cores: f64,
    alive: bool,
    told: bool,
}

impl Default for Groups {
    fn default() -> Self {
        Self { all: HashMap::new(), names: HashMap::new(), other: OTHER.into() }
    }
}

impl Groups {
    /// Counts a process of this pass, and what it has gained since the last one.
    pub(super) fn add(&mut self, owner: &Arc<Owner>, comm: &Arc<str>, gained: u64, resident: Bytes, cores: f64) {
        let comm = self.name(owner, comm);
        let key = Key { owner: Arc::clone(owner), comm };
        let new = || Sum { owner: Arc::clone(owner), ticks: 0, resident: 0, cores: 0.0, alive: false, told: false };
        let sum = self.all.entry(key).or_insert_with(new);
        if !Arc::ptr_eq(&sum.owner, owner) {
            sum.owner = Arc::clone(owner);
        }
        sum.ticks = sum.ticks.saturating_add(gained);
        sum.resident = sum.resident.saturating_add(resident.0);
        sum.cores += cores;
        sum.alive = true;
    }

    fn name(&mut self, owner: &Arc<Owner>, comm: &Arc<str>) -> Arc<str> {
        let most = if owner.sandbox.is_some() { NAMES } else { NAMES_OF_NODE };
        let names = self.names.entry(Arc::clone(owner)).or_default();
        if names.contains(comm) || (names.len() < most && names.insert(Arc::clone(comm))) {
            return Arc::clone(comm);
        }
        Arc::clone(&self.other)
    }

    /// Ends a pass: the first groups by memory and by CPU time, in the order of their names. A group without a process is
    /// forgotten.
    pub(super) fn take(&mut self) -> Vec<Group> {
        self.all.retain(|_, sum| std::mem::take(&mut sum.alive));
        let mut all: Vec<(&Key, &mut Sum)> = self.all.iter_mut().collect();
        all.sort_unstable_by(|one, other| one.0.labels().cmp(&other.0.labels()));
        let mut by_memory: Vec<usize> = (0..all.len()).collect();
        // Who does nothing is not among the busiest of a quiet node.
        let mut by_cores: Vec<usize> = by_memory.iter().copied().filter(|at| all[*at].1.cores > 0.0).collect();
        by_memory.sort_by_key(|at| Reverse(all[*at].1.resident));
        by_cores.sort_by(|one, other| all[*other].1.cores.total_cmp(&all[*one].1.cores));
        let mut told = HashSet::new();
        for order in [by_memory, by_cores] {
            let ranks = order.into_iter().take(TOLD_AGAIN).enumerate();
            told.extend(ranks.filter(|(rank, at)| *rank < TOLD || all[*at].1.told).map(|(_, at)| at));
        }
        let mut groups = Vec::with_capacity(told.len());
        for (at, (Key { comm, .. }, sum)) in all.into_iter().enumerate() {
            let resident = Bytes(std::mem::take(&mut sum.resident));
            sum.cores = 0.0;
            sum.told = told.contains(&at);
            if sum.told {
                let (comm, owner) = (Arc::clone(comm), Arc::clone(&sum.owner));
                groups.push(Group { comm, owner, cpu: Seconds::from_ticks(sum.ticks), resident });
            }
        }
        groups
    }

    /// Drops the names of containers whose sandboxes are gone.
    pub(super) fn forget(&mut self, inventory: &Inventory) {
        let sandboxes: HashSet<_> = inventory.sandboxes.iter().map(|sandbox| &sandbox.id).collect();
        self.names.retain(|owner, _| owner.sandbox.as_ref().is_none_or(|id| sandboxes.contains(id)));
    }
}
