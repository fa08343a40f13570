//! Kata sandboxes: the guest by its agent or its shim, the machine by its VMM, the cost by the host.
//!
//! A guest is not trusted and a shim must not be hurt: every exchange has a deadline and a size cap, every parser takes
//! any bytes, and what may be asked of a shim is decided in `gate` alone. Sandboxes are asked at the same time, each
//! one question after the other; one that hangs costs its own series.

pub mod agent;
mod allowance;
pub mod cloud_hypervisor;
mod devices;
pub mod exposition;
#[cfg(test)]
mod fixtures;
pub mod gate;
pub mod guest_text;
pub mod host;
mod host_pass;
mod json;
mod network_choice;
pub mod passthrough;
mod probe;
mod rest;
mod round;
pub mod shim;
mod site;
pub mod state_file;
pub mod stats;
pub mod task;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use futures_util::future::{BoxFuture, FutureExt};
use tokio::sync::{Mutex as AsyncMutex, Semaphore};
use tokio::task::JoinSet;
use tokio::time::timeout_at;

use crate::collect::Roots;
use crate::collect::exclude::Exclude;
use crate::collect::held::Budget;
use crate::cri::Cri;
use crate::model::guest::Hypervisor;
use crate::model::identity::SandboxId;
use crate::model::inventory::{Inventory, Runtime, Sandbox, SandboxState};
use crate::model::passthrough::{PassedSandbox, Passthrough};
use crate::model::snapshot::CollectorReport;
use gate::ShimScrape;
use host_pass::HostPass;
use network_choice::NetworkChoice;
use probe::{Passed, Probe, Target};
pub use round::{Measured, Round};
use site::{Site, Sites};

/// Sandboxes asked at the same time. More than the sandboxes of most nodes: those that hang keep their places for seconds,
/// and when they have all of them the others wait.
const CONCURRENT: usize = 64;

/// The longest a collection of all sandboxes may take. One sandbox may take half of it; this one holds when there are so
/// many hung sandboxes that they have to wait for each other.
const DEADLINE: Duration = Duration::from_secs(8);

/// How long one sandbox may take: time for two sources that hang, and less than scrapes usually wait.
const PATIENCE: Duration = Duration::from_secs(4);

/// What is kept back of a scrape's time for all that is not asking sandboxes.
const MARGIN: Duration = Duration::from_secs(1);

/// However short a scrape's time is, a sandbox that is well can answer within this.
const MIN_PATIENCE: Duration = Duration::from_secs(1);

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
    /// Interfaces without `container_network_*` samples.
    pub exclude_interfaces: Exclude,
}

type SharedProbe = Arc<AsyncMutex<Probe>>;

/// All Kata sandboxes of the node.
#[derive(Debug)]
pub struct Katas {
    options: Arc<Options>,
    cri: Arc<Cri>,
    sites: Arc<AsyncMutex<Sites>>,
    host: Arc<AsyncMutex<HostPass>>,
    probes: Mutex<HashMap<SandboxId, SharedProbe>>,
    remembered: Mutex<HashMap<SandboxId, Remembered>>,
}

/// What must not change while a sandbox lives, lest its series do.
#[derive(Debug, Default)]
struct Remembered {
    network: NetworkChoice,
    hypervisor: Option<Hypervisor>,
    /// The guest's disks, `/dev/vda`: names for numbers.
    disks: Vec<String>,
}

impl Katas {
    /// Nothing is connected yet.
    pub fn new(options: Options, roots: Arc<Roots>, budget: &Arc<Budget>, cri: Arc<Cri>) -> Arc<Self> {
        if options.shim_scrape == ShimScrape::All {
            tracing::warn!(
                "GET /metrics may be sent to every shim: released runtime-rs shims with QEMU or Firecracker abort on it \
                 and take their pods with them"
            );
        }
        let host = Arc::new(AsyncMutex::new(HostPass::new(roots, budget)));
        let (sites, probes, remembered) = Default::default();
        Arc::new(Self { options: Arc::new(options), cri, sites, probes, host, remembered })
    }

    /// Asks every ready Kata sandbox, all at the same time, for a scrape that waits this long.
    pub async fn collect(self: Arc<Self>, inventory: Arc<Inventory>, waits: Duration) -> Round {
        let started = Instant::now();
        let patience = waits.saturating_sub(MARGIN).clamp(MIN_PATIENCE, PATIENCE);
        let deadline = tokio::time::Instant::now() + DEADLINE.min(patience * 2);
        let sandboxes = ready(&inventory);
        let mut measured: HashMap<SandboxId, Measured> =
            sandboxes.iter().map(|sandbox| (sandbox.id.clone(), Measured::default())).collect();
        let mut error = None;
        if !sandboxes.is_empty()
            && let Err(problem) = self.measure_all(&sandboxes, deadline, patience, &mut measured).await
        {
            error = Some(problem.to_owned());
        }
        let report = CollectorReport { name: NAME, took: started.elapsed(), error };
        Round { measured, report }
    }

    /// Asks the shims of all ready Kata sandboxes for their own metrics, or that of one.
    pub async fn pass_on(self: Arc<Self>, inventory: Arc<Inventory>, only: Option<SandboxId>) -> Passthrough {
        let started = Instant::now();
        let deadline = tokio::time::Instant::now() + DEADLINE;
        let mut sandboxes = ready(&inventory);
        if let Some(only) = &only {
            sandboxes = sandboxes.iter().filter(|sandbox| sandbox.id == *only).cloned().collect();
        }
        let sites = self.look(&sandboxes, deadline).await.unwrap_or_default();
        let passed = self
            .ask_each(&sandboxes, &sites, (deadline, PATIENCE), |probe, target| probe.pass_on(target).boxed())
            .await;
        let mut passed: HashMap<SandboxId, Passed> = passed.into_iter().collect();
        let sandboxes = sandboxes.iter().map(|sandbox| {
            let Passed { families, dropped, shim } = passed.remove(&sandbox.id).unwrap_or_default();
            PassedSandbox { sandbox: Arc::clone(sandbox), families, shim, dropped }
        });
        Passthrough { sandboxes: sandboxes.collect(), took: started.elapsed() }
    }

    /// Looks at the sandboxes' files.
    async fn look(
        &self,
        sandboxes: &Arc<[Arc<Sandbox>]>,
        deadline: tokio::time::Instant,
    ) -> Result<Arc<[Arc<Site>]>, &'static str> {
        let (all, options) = (Arc::clone(sandboxes), Arc::clone(&self.options));
        match timeout_at(deadline, apart(&self.sites, move |sites| sites.look(&options, &all))).await {
            Ok(Some(sites)) => Ok(sites.into()),
            Ok(None) => Err("the sandboxes' files could not be looked at"),
            Err(_) => Err("the sandboxes' files were not read in time"),
        }
    }

    async fn measure_all(
        self: &Arc<Self>,
        sandboxes: &Arc<[Arc<Sandbox>]>,
        deadline: tokio::time::Instant,
        patience: Duration,
        measured: &mut HashMap<SandboxId, Measured>,
    ) -> Result<(), &'static str> {
        let sites = self.look(sandboxes, deadline).await?;
        for (sandbox, site) in sandboxes.iter().zip(sites.iter()) {
            if let Some(late) = measured.get_mut(&sandbox.id) {
                late.report.hypervisor = site.hypervisor();
            }
        }
        let (all, their) = (Arc::clone(sandboxes), Arc::clone(&sites));
        // At the same time, so that both sides are of the same moment.
        let (host, guests) = tokio::join!(
            timeout_at(deadline, apart(&self.host, move |host| host.read(&all, &their))),
            self.ask_each(sandboxes, &sites, (deadline, patience), |probe, target| probe.measure(target).boxed()),
        );
        measured.extend(guests);
        let outcome = match host {
            Ok(Some(sides)) => {
                for (id, side) in sides {
                    if let Some(measured) = measured.get_mut(&id) {
                        measured.add_host(&id, side);
                    }
                }
                Ok(())
            }
            Ok(None) => Err("the host side could not be read"),
            Err(_) => Err("the host side was not read in time"),
        };
        self.settle(measured);
        outcome
    }

    /// Asks the sandboxes, as many as [`CONCURRENT`] at a time. Whoever is still being asked at the deadline is given up.
    /// A sandbox's patience includes the wait for somebody else who is asking it.
    async fn ask_each<T: Send + 'static>(
        self: &Arc<Self>,
        sandboxes: &[Arc<Sandbox>],
        sites: &[Arc<Site>],
        (deadline, patience): (tokio::time::Instant, Duration),
        ask: for<'a> fn(&'a mut Probe, Target<'a>) -> BoxFuture<'a, T>,
    ) -> Vec<(SandboxId, T)> {
        let permits = Arc::new(Semaphore::new(CONCURRENT));
        let mut asking = JoinSet::new();
        for (sandbox, site) in sandboxes.iter().zip(sites) {
            let (katas, permits) = (Arc::clone(self), Arc::clone(&permits));
            let (sandbox, site) = (Arc::clone(sandbox), Arc::clone(site));
            asking.spawn(async move {
                // The semaphore is never closed.
                let _permit = permits.acquire().await;
                let until = tokio::time::Instant::now() + patience;
                let probe = katas.probe(&sandbox.id);
                let mut probe = timeout_at(until, probe.lock()).await.ok()?;
                let (options, cri) = (&katas.options, &katas.cri);
                let target = Target { options, sandbox: &sandbox, site: &site, cri, until, patience };
                Some((sandbox.id.clone(), ask(&mut probe, target).await))
            });
        }
        let mut answers = Vec::with_capacity(sandboxes.len());
        let gather = async {
            while let Some(joined) = asking.join_next().await {
                match joined {
                    Ok(answer) => answers.extend(answer),
                    Err(error) => tracing::error!(%error, "asking a sandbox failed"),
                }
            }
        };
        let _ = timeout_at(deadline, gather).await;
        // Dropping a half-finished exchange closes its connection.
        asking.shutdown().await;
        answers
    }

    /// What takes both sides of every sandbox.
    fn settle(&self, measured: &mut HashMap<SandboxId, Measured>) {
        let mut remembered = lock(&self.remembered);
        for (id, measured) in measured {
            let Remembered { network, hypervisor, disks } = remembered.entry(id.clone()).or_default();
            *hypervisor = measured.report.hypervisor.or(*hypervisor);
            measured.report.hypervisor = *hypervisor;
            if let Some(guest) = &measured.report.guest {
                *disks = guest.disks.iter().map(|disk| disk.device.clone()).collect();
            }
            let host = measured.report.host.as_ref().is_some_and(|host| !host.network.is_empty());
            let side = network.after(measured.heard, host);
            measured.settle(side, disks, &self.options.exclude_interfaces);
        }
    }

    fn probe(&self, id: &SandboxId) -> SharedProbe {
        let mut probes = lock(&self.probes);
        Arc::clone(probes.entry(id.clone()).or_default())
    }

    /// Drops the connections to sandboxes that are gone, and what is held of their host side. Blocks while a pass over
    /// the host side runs: call it off the async workers.
    pub fn forget(&self, inventory: &Inventory) {
        let is_gone = |id: &SandboxId| inventory.sandboxes.binary_search_by(|sandbox| sandbox.id.cmp(id)).is_err();
        lock(&self.probes).retain(|id, _| !is_gone(id));
        lock(&self.remembered).retain(|id, _| !is_gone(id));
        self.sites.blocking_lock().forget(is_gone);
        self.host.blocking_lock().forget(is_gone);
    }
}

/// The Kata sandboxes that may answer, sorted by id.
fn ready(inventory: &Inventory) -> Arc<[Arc<Sandbox>]> {
    let kata = |sandbox: &&Arc<Sandbox>| sandbox.runtime == Runtime::Kata && sandbox.state != SandboxState::NotReady;
    inventory.sandboxes.iter().filter(kata).cloned().collect()
}

/// Does something that blocks, one after the other for what is behind the mutex: work that hangs in the kernel holds up
/// one thread, however often more of it is asked for. `None` if it broke down, which is logged.
async fn apart<T, R>(mutex: &Arc<AsyncMutex<T>>, work: impl FnOnce(&mut T) -> R + Send + 'static) -> Option<R>
where
    T: Send + 'static,
    R: Send + 'static,
{
    let mut guard = Arc::clone(mutex).lock_owned().await;
    let done = tokio::task::spawn_blocking(move || work(&mut guard)).await;
    done.inspect_err(|error| tracing::error!(%error, "reading what the node knows of sandboxes failed")).ok()
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What is behind the locks is consistent between any two statements.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
