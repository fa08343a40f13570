//! Out-of-memory kills per container name, counted across the container's lives.
//!
//! A container's cgroup usually dies with the victim, and its counter with it, before anyone has scraped it. The ledger
//! therefore takes two witnesses, the cgroup's counter while it lives and the runtime's exit reason afterwards, and
//! adds to a total under the name that survives the restart: namespace, pod, container.

use std::collections::{BTreeMap, HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::model::identity::ContainerId;
use crate::model::inventory::{ContainerState, Inventory, Kind};
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
}

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
                if container.state == ContainerState::Exited && container.reason == OOM_REASON {
                    inner.count(&container.id, &sandbox.namespace, &sandbox.pod_name, &container.name, 1);
                }
            }
        }
        inner.totals.retain(|(namespace, pod, _), _| pods.contains(&(namespace.as_str(), pod.as_str())));
        inner.counted.retain(|id, _| ids.contains(id));
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
    use crate::model::inventory::{Container, Runtime, Sandbox, SandboxState, Subject};
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
