//! One pass over the host side of all Kata sandboxes: finds their processes, reads what they and their cgroups use.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Roots;
use crate::collect::held::Budget;
use crate::collect::kata::host::{Hints, HostReader, ProcessTable, SandboxHost};
use crate::collect::kata::site::Site;
use crate::model::host_side::HostSide;
use crate::model::identity::SandboxId;
use crate::model::inventory::Sandbox;

/// Processes that have not been found are looked for again at this pace: a scan of all processes costs 5 µs each.
const SCAN_INTERVAL: Duration = Duration::from_secs(5);

/// What is known of every sandbox's host side. Blocks on file reads.
#[derive(Debug)]
pub struct HostPass {
    roots: Arc<Roots>,
    reader: HostReader,
    hosts: HashMap<SandboxId, SandboxHost>,
    scanned: Option<Instant>,
}

impl HostPass {
    /// Knows nothing yet.
    pub fn new(roots: Arc<Roots>, budget: &Arc<Budget>) -> Self {
        let reader = HostReader::new(&roots, budget);
        Self { roots, reader, hosts: HashMap::new(), scanned: None }
    }

    /// Reads the host side of these sandboxes, whose files are in the same order.
    pub fn read(&mut self, sandboxes: &[Arc<Sandbox>], sites: &[Arc<Site>]) -> HashMap<SandboxId, HostSide> {
        let now = Instant::now();
        let is_new = |sandbox: &Arc<Sandbox>| !self.hosts.contains_key(sandbox.id.as_str());
        let any_new = sandboxes.iter().any(is_new);
        for sandbox in sandboxes {
            self.hosts.entry(sandbox.id.clone()).or_insert_with(|| SandboxHost::new(sandbox.id.as_str()));
        }
        let waiting = self.scanned.is_none_or(|scanned| now.duration_since(scanned) >= SCAN_INTERVAL);
        if any_new || (waiting && self.hosts.values().any(|host| !host.is_complete())) {
            self.scanned = Some(now);
            self.locate(sandboxes, sites);
        }
        let mut sides = HashMap::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            if let Some(host) = self.hosts.get_mut(sandbox.id.as_str()) {
                let side = HostSide { measured_at: Some(crate::collect::now()), ..host.read(&mut self.reader, now) };
                sides.insert(sandbox.id.clone(), side);
            }
        }
        if let Some(fault) = self.reader.take_fault() {
            tracing::debug!(fault, "host side not read in full");
        }
        sides
    }

    fn locate(&mut self, sandboxes: &[Arc<Sandbox>], sites: &[Arc<Site>]) {
        let table = match ProcessTable::scan(&self.roots.proc) {
            Ok(table) => table,
            Err(error) => return tracing::debug!(%error, "processes cannot be listed"),
        };
        for (sandbox, site) in sandboxes.iter().zip(sites) {
            let Some(host) = self.hosts.get_mut(sandbox.id.as_str()).filter(|host| !host.is_complete()) else {
                continue;
            };
            host.adopt(&table.locate(&Hints {
                sandbox: sandbox.id.as_str(),
                hypervisor: site.hypervisor(),
                shim_pid: site.shim_pid,
                vmm_pid: site.notes.as_ref().and_then(|notes| notes.vmm_pid),
                virtiofsd_pid: site.virtiofsd_pid,
            }));
        }
    }

    /// Drops what is held for sandboxes that are gone: `net/dev` keeps a pod's network namespace alive.
    pub fn forget(&mut self, is_gone: impl Fn(&SandboxId) -> bool) {
        self.hosts.retain(|id, _| !is_gone(id));
    }
}
