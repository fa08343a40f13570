//! One pass over the host side of all Kata sandboxes: finds their processes, reads what they and their cgroups use.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Roots;
use crate::collect::held::Budget;
use crate::collect::kata::Options;
use crate::collect::kata::host::{Hints, HostReader, ProcessTable, SandboxHost};
use crate::collect::kata::state_file;
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

    /// Reads the host side of these sandboxes.
    pub fn read(&mut self, options: &Options, sandboxes: &[Arc<Sandbox>]) -> HashMap<SandboxId, HostSide> {
        let now = Instant::now();
        let is_new = |sandbox: &Arc<Sandbox>| !self.hosts.contains_key(sandbox.id.as_str());
        let any_new = sandboxes.iter().any(is_new);
        for sandbox in sandboxes {
            self.hosts.entry(sandbox.id.clone()).or_insert_with(|| SandboxHost::new(sandbox.id.as_str()));
        }
        let waiting = self.scanned.is_none_or(|scanned| now.duration_since(scanned) >= SCAN_INTERVAL);
        if any_new || (waiting && self.hosts.values().any(|host| !host.is_complete())) {
            self.scanned = Some(now);
            self.locate(options, sandboxes);
        }
        let mut sides = HashMap::with_capacity(sandboxes.len());
        for sandbox in sandboxes {
            if let Some(host) = self.hosts.get_mut(sandbox.id.as_str()) {
                sides.insert(sandbox.id.clone(), host.read(&mut self.reader, now));
            }
        }
        if let Some(fault) = self.reader.take_fault() {
            tracing::debug!(fault, "host side not read in full");
        }
        sides
    }

    fn locate(&mut self, options: &Options, sandboxes: &[Arc<Sandbox>]) {
        let table = match ProcessTable::scan(&self.roots.proc) {
            Ok(table) => table,
            Err(error) => return tracing::debug!(%error, "processes cannot be listed"),
        };
        for sandbox in sandboxes {
            let Some(host) = self.hosts.get_mut(sandbox.id.as_str()).filter(|host| !host.is_complete()) else {
                continue;
            };
            let directory = sandbox.kata.as_ref();
            let notes = directory.and_then(|kata| state_file::read(kata.runtime, &kata.path).ok()).unwrap_or_default();
            let bundle = options.bundles.iter().map(|bundles| bundles.join(sandbox.id.as_str()));
            let pid_file = directory.map(|kata| kata.path.join("root/virtiofsd.sock.pid"));
            host.adopt(&table.locate(&Hints {
                sandbox: sandbox.id.as_str(),
                hypervisor: notes.hypervisor(),
                shim_pid: bundle.into_iter().find_map(|bundle| state_file::read_pid(&bundle.join("shim.pid"))),
                vmm_pid: notes.vmm_pid,
                virtiofsd_pid:
                    notes.virtiofsd_pid.or_else(|| state_file::read_pid(pid_file.as_deref().unwrap_or(Path::new("")))),
            }));
        }
    }

    /// Drops what is held for sandboxes that are gone: `net/dev` keeps a pod's network namespace alive.
    pub fn forget(&mut self, is_gone: impl Fn(&SandboxId) -> bool) {
        self.hosts.retain(|id, _| !is_gone(id));
    }
}
