//! Out-of-memory kills per container name, counted across the container's lives.
//!
//! A container's cgroup usually dies with the victim, and its counter with it, before anyone has scraped it. The ledger
//! therefore takes two witnesses, the cgroup's counter while it lives and the runtime's exit reason afterwards, and
//! adds to a total under the name that survives the restart: namespace, pod, container. A container in a guest has no
//! cgroup here; the runtime's events stand in for it, where the runtime has them.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::identity::ContainerId;
use crate::model::inventory::{ContainerState, Inventory, Kind, Runtime};
use crate::model::snapshot::{OomKills, Row};

/// The exit reason that containerd, CRI-O and cri-dockerd give.
const OOM_REASON: &str = "OOMKilled";

/// Kills so far. Shared: collections and inventory changes both feed it.
#[derive(Debug, Default)]
pub struct Ledger {
    inner: Mutex<Inner>,
}

type Name = (String, String, String);

#[derive(Debug, Default)]
struct Inner {
    totals: BTreeMap<Name, u64>,
    /// Kills already added to the totals, per container id.
    counted: HashMap<ContainerId, u64>,
    /// Kills that the runtime's events told of, per container id; `None` while there are no events.
    told: Option<HashMap<ContainerId, Told>>,
}

/// Kills of one container by events.
#[derive(Debug, Default)]
struct Told {
    kills: u64,
    /// When the last one was: an event that came by two streams is one kill.
    last: (i64, i32),
}

/// Containers that events may speak of before the runtime lists them.
const MAX_UNLISTED: usize = 1024;

impl Ledger {
    /// Takes the counters of living cgroups.
    pub fn observe_rows(&self, rows: &[Row]) {
        let mut inner = self.lock();
        for row in rows.iter().filter(|row| row.subject.kind == Kind::Container) {
            let labels = &row.subject.labels;
            let (Some(id), Some(kills)) = (&row.subject.container, row.usage.oom_kills) else { continue };
            if labels.pod.is_empty() || labels.container.is_empty() {
                continue;
            }
            inner.count(id, &labels.namespace, &labels.pod, &labels.container, kills);
        }
    }

    /// The runtime has events: a container of which none has come was not hit.
    pub fn expect_events(&self) {
        self.lock().told.get_or_insert_default();
    }

    /// Takes an event: a process of the container was killed at this time.
    pub fn observe_event(&self, container: &str, at: (i64, i32)) {
        let mut inner = self.lock();
        let told = inner.told.get_or_insert_default();
        if told.len() >= MAX_UNLISTED && !told.contains_key(container) {
            return;
        }
        let told = told.entry(ContainerId::from(container)).or_default();
        if at > told.last {
            told.kills += 1;
            told.last = at;
        }
    }

    /// Kills of a container in a guest since the agent started; `None` when nobody would tell.
    pub fn in_guest(&self, container: &ContainerId) -> Option<u64> {
        let inner = self.lock();
        let told = inner.told.as_ref()?;
        Some(told.get(container).map_or(0, |told| told.kills))
    }

    /// Takes the runtime's word on containers that have ended, and drops names whose pod is gone.
    ///
    /// A container that ended by a kill had at least one, whatever its cgroup was last seen to say; it may be the one
    /// the cgroup has already told of, so the two witnesses are not added up.
    pub fn observe_exits(&self, inventory: &Inventory) {
        let mut inner = self.lock();
        let mut pods = HashSet::new();
        let mut ids = HashSet::new();
        for sandbox in &inventory.sandboxes {
            pods.insert((sandbox.namespace.as_str(), sandbox.pod_name.as_str()));
            for container in &sandbox.containers {
                ids.insert(&container.id);
                let ended = container.state == ContainerState::Exited && container.reason == OOM_REASON;
                let told = inner.told.as_ref().filter(|_| sandbox.runtime == Runtime::Kata);
                let told = told.map(|told| told.get(&container.id).map_or(0, |told| told.kills));
                if ended || told.is_some() {
                    let kills = told.unwrap_or(0).max(u64::from(ended));
                    inner.count(&container.id, &sandbox.namespace, &sandbox.pod_name, &container.name, kills);
                }
            }
        }
        inner.totals.retain(|(namespace, pod, _), _| pods.contains(&(namespace.as_str(), pod.as_str())));
        inner.counted.retain(|id, _| ids.contains(id));
        if let Some(told) = &mut inner.told {
            let crowded = told.len() > MAX_UNLISTED / 2;
            told.retain(|id, _| ids.contains(id) || !crowded);
        }
    }

    /// The totals, sorted by name.
    pub fn totals(&self) -> Vec<OomKills> {
        let inner = self.lock();
        let totals = inner.totals.iter();
        totals
            .map(|((namespace, pod, container), kills)| OomKills {
                namespace: namespace.clone(),
                pod: pod.clone(),
                container: container.clone(),
                kills: *kills,
            })
            .collect()
    }

    fn lock(&self) -> MutexGuard<'_, Inner> {
        // Every change leaves the maps consistent, so a panic elsewhere does not spoil them.
        self.inner.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl Inner {
    /// Adds what `kills` of one container id exceed what was counted of it before.
    fn count(&mut self, id: &ContainerId, namespace: &str, pod: &str, container: &str, kills: u64) {
        let counted = self.counted.entry(id.clone()).or_default();
        let new = kills.saturating_sub(*counted);
        *counted = kills.max(*counted);
        *self.totals.entry((namespace.to_owned(), pod.to_owned(), container.to_owned())).or_default() += new;
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::model::identity::{LabelBlock, Labels};
    use crate::model::inventory::Network;
    use crate::model::inventory::{Container, Sandbox, SandboxState, Subject};
    use crate::model::usage::Usage;

    fn living(id: &str, kills: u64) -> Row {
        let labels =
            Labels { container: "app".into(), namespace: "shop".into(), pod: "web".into(), ..Labels::default() };
        let subject = Subject {
            kind: Kind::Container,
            block: LabelBlock::render(&labels),
            labels,
            cgroup: None,
            in_guest: false,
            sandbox: None,
            container: Some(id.into()),
            spec: None,
            started_at: None,
            created_at: None,
            network: Network::None,
        };
        Row { subject: Arc::new(subject), usage: Usage { oom_kills: Some(kills), ..Usage::default() } }
    }

    fn node(containers: &[(&str, &str)]) -> Inventory {
        let containers = containers
            .iter()
            .map(|(id, reason)| Container {
                id: (*id).into(),
                name: "app".into(),
                image: String::new(),
                state: if reason.is_empty() { ContainerState::Running } else { ContainerState::Exited },
                attempt: 0,
                started_at: None,
                reason: (*reason).to_owned(),
            })
            .collect();
        let sandbox = Sandbox {
            id: "s".into(),
            pod_name: "web".into(),
            namespace: "shop".into(),
            uid: "u".into(),
            runtime: Runtime::Runc,
            runtime_handler: String::new(),
            kata: None,
            state: SandboxState::Ready,
            created_at: None,
            host_network: false,
            containers,
        };
        Inventory { sandboxes: vec![Arc::new(sandbox)], ..Inventory::default() }
    }

    fn kata(containers: &[(&str, &str)]) -> Inventory {
        let mut node = node(containers);
        node.sandboxes = node
            .sandboxes
            .iter()
            .map(|sandbox| Arc::new(Sandbox { runtime: Runtime::Kata, ..(**sandbox).clone() }))
            .collect();
        node
    }

    #[test]
    fn events_count_for_containers_in_guests_alone() {
        let ledger = Ledger::default();
        ledger.observe_exits(&kata(&[("a", "")]));
        assert_eq!(ledger.totals(), [], "nobody would tell");
        assert_eq!(ledger.in_guest(&"a".into()), None);
        ledger.expect_events();
        ledger.observe_exits(&kata(&[("a", "")]));
        assert_eq!((ledger.totals().len(), total(&ledger)), (1, 0), "a true zero is a sample");
        ledger.observe_event("a", (5, 0));
        ledger.observe_event("a", (5, 0));
        ledger.observe_event("a", (5, 1));
        assert_eq!(ledger.in_guest(&"a".into()), Some(2), "one of them came twice");
        // The second one ended it.
        ledger.observe_exits(&kata(&[("a", "OOMKilled"), ("b", "")]));
        assert_eq!(total(&ledger), 2);
        ledger.observe_event("b", (9, 0));
        ledger.observe_exits(&kata(&[("b", "")]));
        assert_eq!(total(&ledger), 3);
        let runc = Ledger::default();
        runc.observe_event("a", (5, 0));
        runc.observe_exits(&node(&[("a", "")]));
        assert_eq!(total(&runc), 0, "its cgroup tells");
    }

    #[test]
    fn events_of_strangers_are_bounded() {
        let ledger = Ledger::default();
        for stranger in 0..10_000 {
            ledger.observe_event(&stranger.to_string(), (1, 0));
        }
        assert_eq!(ledger.lock().told.as_ref().map(HashMap::len), Some(MAX_UNLISTED));
        ledger.observe_exits(&kata(&[("a", "")]));
        assert_eq!(ledger.lock().told.as_ref().map(HashMap::len), Some(0));
    }

    fn total(ledger: &Ledger) -> u64 {
        ledger.totals().iter().map(|kills| kills.kills).sum()
    }

    #[test]
    fn one_kill_seen_by_both_witnesses_counts_once() {
        let ledger = Ledger::default();
        ledger.observe_rows(&[living("a", 0)]);
        assert_eq!(total(&ledger), 0, "a true zero is a sample");
        assert_eq!(ledger.totals().len(), 1);
        ledger.observe_rows(&[living("a", 1)]);
        ledger.observe_exits(&node(&[("a", "OOMKilled")]));
        ledger.observe_exits(&node(&[("a", "OOMKilled")]));
        assert_eq!(total(&ledger), 1);
    }

    #[test]
    fn a_kill_only_the_runtime_saw_counts_and_survives_the_restart() {
        let ledger = Ledger::default();
        ledger.observe_rows(&[living("a", 0)]);
        ledger.observe_exits(&node(&[("a", "OOMKilled"), ("b", "")]));
        ledger.observe_rows(&[living("b", 0)]);
        assert_eq!(total(&ledger), 1);
        ledger.observe_exits(&node(&[("b", "OOMKilled")]));
        assert_eq!(total(&ledger), 2, "the next life's kill is another kill");
    }

    #[test]
    fn kills_of_child_processes_count_while_the_container_lives() {
        let ledger = Ledger::default();
        ledger.observe_rows(&[living("a", 3)]);
        ledger.observe_rows(&[living("a", 5)]);
        ledger.observe_exits(&node(&[("a", "Error")]));
        assert_eq!(total(&ledger), 5);
    }

    #[test]
    fn a_name_goes_with_its_pod() {
        let ledger = Ledger::default();
        ledger.observe_rows(&[living("a", 1)]);
        ledger.observe_exits(&Inventory::default());
        assert!(ledger.totals().is_empty());
    }
}
