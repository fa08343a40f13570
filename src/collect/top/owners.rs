//! Whose a process is: by its cgroup, else by the id of a sandbox on its command line.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;

use crate::collect::kata::host::{command_line, ids_in, is_of_a_sandbox, shortened};
use crate::model::identity::SandboxId;
use crate::model::inventory::{Inventory, Kind, Sandbox, Subject};
use crate::model::top::Owner;

/// Owners by what gives them away, for one generation of the inventory.
#[derive(Debug, Default)]
pub(super) struct Owners {
    /// One of each kind, so that an owner is the same through generations.
    all: HashSet<Arc<Owner>>,
    node: Arc<Owner>,
    by_cgroup: HashMap<Arc<str>, Arc<Owner>>,
    by_id: HashMap<Box<str>, Arc<Owner>>,
}

impl Owners {
    /// Takes in an inventory.
    pub(super) fn learn(&mut self, inventory: &Inventory) {
        self.by_cgroup.clear();
        self.by_id.clear();
        let sandboxes: HashMap<&SandboxId, &Arc<Sandbox>> =
            inventory.sandboxes.iter().map(|sandbox| (&sandbox.id, sandbox)).collect();
        for sandbox in &inventory.sandboxes {
            let owner = self.one(owner(sandbox, ""));
            self.by_id.insert(shortened(sandbox.id.as_str()).into(), owner);
        }
        for subject in &inventory.subjects {
            let Subject {
                kind: Kind::Pod | Kind::Sandbox | Kind::Container,
                cgroup: Some(cgroup),
                sandbox: Some(id),
                ..
            } = &**subject
            else {
                continue;
            };
            if let Some(sandbox) = sandboxes.get(id) {
                let owner = self.one(owner(sandbox, &subject.labels.container));
                self.by_cgroup.insert(Arc::clone(&cgroup.0), owner);
            }
        }
        let (by_cgroup, by_id, node) = (&self.by_cgroup, &self.by_id, &self.node);
        let known: HashSet<&Arc<Owner>> = by_cgroup.values().chain(by_id.values()).chain([node]).collect();
        let kept = self.all.iter().filter(|owner| known.contains(owner)).cloned().collect();
        self.all = kept;
    }

    /// Whose a process in this cgroup is.
    pub(super) fn of(&self, cgroup: Option<&str>, proc: &Path, pid: u32, comm: &str) -> Arc<Owner> {
        let found = cgroup.and_then(|cgroup| self.of_cgroup(cgroup)).or_else(|| {
            let line = is_of_a_sandbox(comm.as_bytes()).then(|| command_line(proc, pid))?;
            self.of_id(ids_in(&line))
        });
        found.unwrap_or_else(|| self.node())
    }

    /// The owner of what is no pod's.
    pub(super) fn node(&self) -> Arc<Owner> {
        Arc::clone(&self.node)
    }

    /// The innermost cgroup that is somebody's, else one that a sandbox's id names: Kata's for overhead are in no pod's.
    fn of_cgroup(&self, cgroup: &str) -> Option<Arc<Owner>> {
        let mut path = cgroup;
        while !path.is_empty() {
            if let Some(owner) = self.by_cgroup.get(path) {
                return Some(Arc::clone(owner));
            }
            path = &path[..path.rfind('/').unwrap_or(0)];
        }
        self.of_id(ids_in(cgroup.as_bytes()))
    }

    fn of_id<'i>(&self, mut ids: impl Iterator<Item = &'i str>) -> Option<Arc<Owner>> {
        ids.find_map(|id| self.by_id.get(id)).cloned()
    }

    fn one(&mut self, owner: Owner) -> Arc<Owner> {
        if let Some(known) = self.all.get(&owner) {
            return Arc::clone(known);
        }
        let owner = Arc::new(owner);
        self.all.insert(Arc::clone(&owner));
        owner
    }
}

fn owner(sandbox: &Sandbox, container: &str) -> Owner {
    Owner {
        namespace: sandbox.namespace.clone(),
        pod: sandbox.pod_name.clone(),
        container: container.to_owned(),
        sandbox: Some(sandbox.id.clone()),
        runtime: Some(sandbox.runtime),
    }
}
