//! Kata sandboxes: the guest by its agent or its shim, the machine by its VMM, the cost by the host.
//!
//! A guest is not trusted and a shim must not be hurt: every exchange has a deadline and a size cap, every parser takes
//! any bytes, and what may be asked of a shim is decided in `gate` alone. Sandboxes are asked at the same time, each
//! one question after the other; one that hangs costs its own series.

pub mod agent;
pub mod cloud_hypervisor;
#[cfg(test)]
mod fixtures;
pub mod gate;
pub mod guest_text;
pub mod host;
mod host_pass;
mod json;
mod probe;
pub mod shim;
pub mod state_file;
pub mod stats;
pub mod task;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;
use tokio::task::JoinSet;

use crate::collect::Roots;
use crate::collect::held::Budget;
use crate::model::host_side::HostSide;
use crate::model::identity::{ContainerId, SandboxId};
use crate::model::inventory::{Inventory, Kind, Runtime, Sandbox, SandboxState};
use crate::model::snapshot::{CollectorReport, KataReport, Snapshot};
use crate::model::units::Bytes;
use crate::model::usage::{Spec, Usage};
use gate::ShimScrape;
use host_pass::HostPass;
use probe::Probe;

/// Sandboxes asked at the same time.
const CONCURRENT: usize = 64;

/// The longest a collection of all sandboxes may take. The single deadlines are shorter; this one holds when there are
/// so many hung sandboxes that they have to wait for each other.
const DEADLINE: Duration = Duration::from_secs(8);

/// Its name in `COLLECTORS`.
pub const NAME: &str = "kata";

/// Where things are and what may be asked.
#[derive(Clone, Debug)]
pub struct Options {
    /// The node's run directory.
    pub run_dir: PathBuf,
    /// Directories of containers' bundles, first to last choice.
    pub bundles: Vec<PathBuf>,
    /// What may be asked of shims.
    pub shim_scrape: ShimScrape,
}

/// What was learnt of one sandbox.
#[derive(Debug, Default)]
pub struct Measured {
    /// About the sandbox as a whole.
    pub report: KataReport,
    /// By container; under the sandbox's own id the pause container.
    pub containers: HashMap<ContainerId, Usage>,
    /// Every container was measured.
    pub up: bool,
    /// Why not; blank when up.
    pub error: String,
}

/// A finished round.
#[derive(Debug)]
pub struct Round {
    measured: HashMap<SandboxId, Measured>,
    report: CollectorReport,
}

type SharedProbe = Arc<tokio::sync::Mutex<Probe>>;

/// All Kata sandboxes of the node.
#[derive(Debug)]
pub struct Katas {
    options: Options,
    probes: Mutex<HashMap<SandboxId, SharedProbe>>,
    host: Mutex<HostPass>,
}

impl Katas {
    /// Nothing is connected yet.
    pub fn new(options: Options, roots: Arc<Roots>, budget: &Arc<Budget>) -> Arc<Self> {
        let host = Mutex::new(HostPass::new(roots, budget));
        Arc::new(Self { options, probes: Mutex::default(), host })
    }

    /// Asks every ready Kata sandbox, all at the same time.
    pub async fn collect(self: Arc<Self>, inventory: Arc<Inventory>) -> Round {
        let started = Instant::now();
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        let mut asking = JoinSet::new();
        let kata =
            |sandbox: &&Arc<Sandbox>| sandbox.runtime == Runtime::Kata && sandbox.state != SandboxState::NotReady;
        let sandboxes: Vec<Arc<Sandbox>> = inventory.sandboxes.iter().filter(kata).cloned().collect();
        if sandboxes.is_empty() {
            let report = CollectorReport { name: NAME, took: started.elapsed(), error: None };
            return Round { measured: HashMap::new(), report };
        }
        let katas = Arc::clone(&self);
        let of_host = sandboxes.clone();
        let host = tokio::task::spawn_blocking(move || lock(&katas.host).read(&katas.options, &of_host));
        let mut measured = HashMap::new();
        for sandbox in &sandboxes {
            let late = Measured { error: "not finished in time".to_owned(), ..Measured::default() };
            measured.insert(sandbox.id.clone(), late);
            let (katas, permits, sandbox) = (Arc::clone(&self), Arc::clone(&permits), Arc::clone(sandbox));
            asking.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                let probe = katas.probe(&sandbox.id);
                let mut probe = probe.lock().await;
                (sandbox.id.clone(), probe.measure(&katas.options, &sandbox).await)
            });
        }
        let gather = async {
            while let Some(joined) = asking.join_next().await {
                match joined {
                    Ok((id, one)) => drop(measured.insert(id, one)),
                    Err(error) => tracing::error!(%error, "measuring a sandbox failed"),
                }
            }
        };
        // Whoever is still being asked is given up; dropping a half-finished exchange closes its connection.
        let _ = tokio::time::timeout(DEADLINE, gather).await;
        asking.shutdown().await;
        let mut error = None;
        // Read while the guests were asked, so that both sides are of the same moment.
        match host.await {
            Ok(sides) => {
                for (id, side) in sides {
                    if let Some(measured) = measured.get_mut(&id) {
                        measured.add_host(side);
                    }
                }
            }
            Err(failure) => {
                tracing::error!(error = %failure, "reading the host side failed");
                error = Some("the host side could not be read".to_owned());
            }
        }
        let report = CollectorReport { name: NAME, took: started.elapsed(), error };
        Round { measured, report }
    }

    fn probe(&self, id: &SandboxId) -> SharedProbe {
        let mut probes = lock(&self.probes);
        Arc::clone(probes.entry(id.clone()).or_default())
    }

    /// Drops the connections to sandboxes that are gone, and what is held of their host side. Blocks while a pass over
    /// the host side runs.
    pub fn forget(&self, inventory: &Inventory) {
        let is_gone = |id: &SandboxId| inventory.sandboxes.binary_search_by(|sandbox| sandbox.id.cmp(id)).is_err();
        lock(&self.probes).retain(|id, _| !is_gone(id));
        lock(&self.host).forget(is_gone);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Measured {
    /// Adds what the node pays, and what of it the containers do not use. Both sides must be whole for that.
    fn add_host(&mut self, side: HostSide) {
        let used = self.containers.values().map(|usage| usage.memory.as_ref()?.usage.map(|bytes| bytes.0));
        let used: Option<u64> = used.sum();
        if let (true, Some(memory), Some(used)) = (self.up, side.memory, used) {
            self.report.overhead_memory = Some(Bytes(memory.0.saturating_sub(used)));
        }
        self.report.host = Some(side);
    }
}

impl Round {
    /// Puts what was learnt into the snapshot: rows in guests get their usage or go, sandboxes their report.
    pub fn merge_into(mut self, snapshot: &mut Snapshot) {
        snapshot.rows.retain_mut(|row| {
            if !row.subject.in_guest {
                return true;
            }
            let sandbox = row.subject.sandbox.as_ref().and_then(|id| self.measured.get_mut(id));
            let usage = sandbox.and_then(|sandbox| {
                let mut usage = sandbox.containers.remove(row.subject.container.as_ref()?.as_str())?;
                if row.subject.kind == Kind::Sandbox
                    && let Some(guest) = &sandbox.report.guest
                {
                    // The pod's network, on the row that carries it for every pod.
                    usage.network.clone_from(&guest.interfaces);
                }
                Some(usage)
            });
            let Some(usage) = usage else { return false };
            let Usage { measured_at, .. } = row.usage;
            let asked = row.subject.spec.clone().unwrap_or_default();
            row.usage = Usage {
                measured_at,
                start_time: row.subject.started_at,
                creation_time: row.subject.created_at,
                spec: Some(combine(asked, usage.spec.clone().unwrap_or_default())),
                ..usage
            };
            true
        });
        for report in &mut snapshot.sandboxes {
            let Some(measured) = self.measured.remove(report.sandbox.id.as_str()) else { continue };
            report.up = Some(measured.up);
            report.last_error = measured.error;
            report.kata = Some(Box::new(measured.report));
        }
        snapshot.collectors.push(self.report);
    }
}

/// What was asked for, with what the guest says where nobody was asked: the guest's limit may be rounded to pages.
fn combine(asked: Spec, guest: Spec) -> Spec {
    Spec {
        cpu_shares: asked.cpu_shares.or(guest.cpu_shares),
        cpu_period_micros: asked.cpu_period_micros.or(guest.cpu_period_micros),
        cpu_quota_micros: asked.cpu_quota_micros.or(guest.cpu_quota_micros),
        memory_limit: asked.memory_limit.or(guest.memory_limit),
        memory_reservation: asked.memory_reservation.or(guest.memory_reservation),
        memory_swap_limit: asked.memory_swap_limit.or(guest.memory_swap_limit),
    }
}
