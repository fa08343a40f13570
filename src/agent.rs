//! Where the stages meet: discover, then collect, then hand the snapshot to whoever asked.
//!
//! A scrape asks for a snapshot no older than the configured age. One collection runs at a time and all who wait share
//! it. Before reading, the agent looks whether cgroups have come or gone since the inventory was made, and has it made
//! anew if so: a pod deleted a moment ago is not in the answer, and one started a moment ago is.

use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, RwLock};
use std::time::Duration;

use futures_util::future::{BoxFuture, FutureExt};
use tokio::runtime::Handle;
use tokio::task::JoinHandle;

use crate::collect::cgroup::{Wanted, layout::Layout};
use crate::collect::held::Budget;
use crate::collect::kata::{self, Katas};
use crate::collect::oom::Ledger;
use crate::collect::volume::claims::Claims;
use crate::collect::writable_layer::WritableLayers;
use crate::collect::{self, COLLECTORS, Collected, Collection, Roots, volume};
use crate::config::Config;
use crate::containerd;
use crate::cri::{Cri, CriError};
use crate::discover::{self, Discovery};
use crate::expose::catalog;
use crate::flight::Flight;
use crate::kubernetes::Api;
use crate::model::identity::SandboxId;
use crate::model::inventory::Inventory;
use crate::model::passthrough::Passthrough;
use crate::model::snapshot::{Check, Health, NoSnapshot, Snapshot, SnapshotSource};
use crate::telemetry::{Part, Telemetry};

/// How long a scrape waits for the inventory to be made anew before it goes on with the last one.
const REFRESH_DEADLINE: Duration = Duration::from_millis(1500);

/// The same while the runtime is known not to answer: only the cgroup tree can tell something new then.
const REFRESH_DEADLINE_ALONE: Duration = Duration::from_millis(250);

/// A round over the Kata sandboxes that took longer is not made twice in one scrape: somebody hangs, and the deadline is
/// near.
const REPEATABLE: Duration = Duration::from_secs(1);

/// How long nobody waits for a collection in the background.
const UNHURRIED: Duration = Duration::from_secs(10);

/// How long the first scrape waits for the sizes of writable layers.
const FIRST_LAYERS_DEADLINE: Duration = Duration::from_millis(500);

/// A collection that runs longer than this is stuck for good: liveness fails.
const STUCK: Duration = Duration::from_secs(120);

/// How soon a runtime without an event service says so.
const OOM_EVENTS_REFUSAL: Duration = Duration::from_secs(1);

/// Pause before a stream of out-of-memory kills that ended is opened again.
const OOM_EVENTS_PAUSE: Duration = Duration::from_secs(2);

/// The same when the runtime does not have one.
const NO_OOM_EVENTS_PAUSE: Duration = Duration::from_secs(600);

/// How long a reload waits for the new configuration's first discovery.
const RELOAD_DEADLINE: Duration = Duration::from_secs(5);

/// The agent under one configuration.
#[derive(Debug)]
struct Agent {
    discovery: Discovery,
    cri: Arc<Cri>,
    layers: Arc<WritableLayers>,
    oom: Arc<Ledger>,
    /// `None` when the collector is off.
    katas: Option<Arc<Katas>>,
    collection: Arc<Mutex<Collection>>,
    flight: Arc<Flight<Snapshot>>,
    passthrough: Arc<Flight<Passthrough>>,
    max_age: Duration,
    in_background: bool,
    telemetry: Arc<Telemetry>,
}

/// The agent, through reloads. Cheap to clone.
#[derive(Clone, Debug)]
pub struct AgentHandle {
    inner: Arc<HandleInner>,
}

#[derive(Debug)]
struct HandleInner {
    current: RwLock<Arc<Running>>,
    runtime: Handle,
    telemetry: Arc<Telemetry>,
    oom: Arc<Ledger>,
}

/// An agent and the tasks that work for it; they end when it is dropped.
#[derive(Debug)]
struct Running {
    agent: Arc<Agent>,
    tasks: Vec<JoinHandle<()>>,
}

impl Drop for Running {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl AgentHandle {
    /// Starts an agent on the current tokio runtime.
    pub fn start(config: &Config, telemetry: Arc<Telemetry>) -> Self {
        let runtime = Handle::current();
        let oom = Arc::new(Ledger::default());
        let running = Running::start(config, &telemetry, &oom);
        telemetry.note_reload(Part::Settings, true);
        set_now(&telemetry);
        let current = RwLock::new(Arc::new(running));
        Self { inner: Arc::new(HandleInner { current, runtime, telemetry, oom }) }
    }

    /// Puts an agent of another configuration in this one's place, once it has made its first discovery. The count of
    /// out-of-memory kills goes on.
    pub async fn reload(&self, config: &Config) {
        let running = Running::start(config, &self.inner.telemetry, &self.inner.oom);
        let _ = tokio::time::timeout(RELOAD_DEADLINE, running.agent.discovery.ready()).await;
        *self.inner.current.write().unwrap_or_else(PoisonError::into_inner) = Arc::new(running);
        self.inner.telemetry.note_reload(Part::Settings, true);
        set_now(&self.inner.telemetry);
    }

    /// Waits for the first discovery.
    pub async fn ready(&self) {
        self.agent().discovery.ready().await;
    }

    fn agent(&self) -> Arc<Agent> {
        Arc::clone(&self.inner.current.read().unwrap_or_else(PoisonError::into_inner).agent)
    }
}

fn set_now(telemetry: &Telemetry) {
    let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap_or_default();
    telemetry.reload_time.set(now.as_secs_f64());
}

impl SnapshotSource for AgentHandle {
    fn snapshot(&self, deadline: Duration) -> BoxFuture<'_, Result<Arc<Snapshot>, NoSnapshot>> {
        let agent = self.agent();
        async move { agent.snapshot(deadline, &self.inner.runtime).await }.boxed()
    }

    fn inventory(&self) -> BoxFuture<'_, Arc<Inventory>> {
        let agent = self.agent();
        async move {
            agent.discovery.ready().await;
            agent.discovery.inventory()
        }
        .boxed()
    }

    fn passthrough(
        &self,
        sandbox: Option<SandboxId>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Arc<Passthrough>, NoSnapshot>> {
        let agent = self.agent();
        async move { agent.passthrough(sandbox, deadline, &self.inner.runtime).await }.boxed()
    }

    fn health(&self) -> Health {
        self.agent().health()
    }
}

impl Running {
    fn start(config: &Config, telemetry: &Arc<Telemetry>, oom: &Arc<Ledger>) -> Self {
        let claims = config.claims().filter(|_| config.enabled_collectors().contains(&volume::NAME));
        let claims = claims.map(|server| (Arc::new(Claims::default()), Api::new(server)));
        let known = claims.as_ref().map(|(claims, _)| Arc::clone(claims));
        let agent = Arc::new(Agent::new(config, Arc::clone(telemetry), Arc::clone(oom), known));
        let mut tasks = vec![tokio::spawn(follow_inventory(Arc::clone(&agent), Arc::clone(oom)))];
        if agent.katas.is_some() && agent.cri.is_configured() {
            tasks.push(tokio::spawn(follow_oom_kills(Arc::clone(&agent.cri), Arc::clone(oom))));
        }
        if let Some((claims, api)) = claims {
            tasks.push(tokio::spawn(async move { claims.follow(&api).await }));
        }
        if let Some(interval) = config.metrics_interval() {
            tasks.push(tokio::spawn(collect_in_background(Arc::clone(&agent), interval)));
        }
        Self { agent, tasks }
    }
}

/// Lets go of what belonged to pods that are gone, whether or not anyone scrapes.
async fn follow_inventory(agent: Arc<Agent>, oom: Arc<Ledger>) {
    let mut inventories = agent.discovery.subscribe();
    while inventories.changed().await.is_ok() {
        let inventory = Arc::clone(&inventories.borrow_and_update());
        oom.observe_exits(&inventory);
        agent.let_go(inventory).await;
    }
}

/// Follows the out-of-memory kills that the runtime tells of, where it does.
async fn follow_oom_kills(cri: Arc<Cri>, oom: Arc<Ledger>) {
    loop {
        let pause = match follow_oom_stream(&cri, &oom).await {
            Err(error) if error.is_unimplemented() => NO_OOM_EVENTS_PAUSE,
            _ => OOM_EVENTS_PAUSE,
        };
        tokio::time::sleep(pause).await;
    }
}

async fn follow_oom_stream(cri: &Cri, oom: &Ledger) -> Result<(), CriError> {
    let opening = containerd::oom_kills(cri);
    tokio::pin!(opening);
    let mut kills = match tokio::time::timeout(OOM_EVENTS_REFUSAL, &mut opening).await {
        Ok(opened) => opened?,
        Err(_) => {
            // A refusal comes at once; silence is a stream that waits for its first event.
            oom.expect_events();
            opening.await?
        }
    };
    oom.expect_events();
    while let Some(kill) = kills.next().await {
        tracing::debug!(container = kill.container, "out-of-memory kill");
        oom.observe_event(&kill.container, kill.at);
    }
    Ok(())
}

async fn collect_in_background(agent: Arc<Agent>, interval: Duration) {
    agent.discovery.ready().await;
    let mut ticks = tokio::time::interval(interval);
    ticks.set_missed_tick_behavior(tokio::time::MissedTickBehavior::Delay);
    loop {
        ticks.tick().await;
        let mut landing = agent.flight.join_or_take_off(&Handle::current(), || Arc::clone(&agent).collect(UNHURRIED));
        // An aborted collection has been logged; the next tick tries again.
        let _ = landing.wait_for(Option::is_some).await;
    }
}

fn lock(collection: &Mutex<Collection>) -> MutexGuard<'_, Collection> {
    // A collector that panicked has at worst lost what it held; the next collection opens it again.
    collection.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Agent {
    fn new(config: &Config, telemetry: Arc<Telemetry>, oom: Arc<Ledger>, claims: Option<Arc<Claims>>) -> Self {
        let cri = Arc::new(Cri::new(config.runtime_endpoint.clone(), Arc::clone(&telemetry)));
        let discovery = Discovery::start(
            discover::Options {
                cgroup_root,
                cgroup_mount: config.cgroupfs.clone(),
                run_dir: config.run_dir.clone(),
                interval: config.sync_interval(),
                scope: config.scope,
            },
            Arc::clone(&cri),
        );
        let layers = Arc::new(WritableLayers::default());
        let roots = Arc::new(Roots {
            host: config.host_root.clone(),
            proc: config.procfs.clone(),
            sys: config.sysfs.clone(),
            cgroup: config.cgroupfs.clone(),
        });
        let budget = Budget::of_process();
        let collection = Collection::new(collect::Options {
            roots: Arc::clone(&roots),
            budget: Arc::clone(&budget),
            enabled: config.enabled_collectors(),
            wanted: wanted(config),
            layers: Arc::clone(&layers),
            oom: Arc::clone(&oom),
            process_groups: catalog::serves_any(config.metrics_profile, &["kata_pulse_top_process_"]),
            exclude_interfaces: config.exclude_interfaces.clone(),
            node: config.node.clone(),
            volume: volume::Options { kubelet: config.kubelet_dir.clone(), run_dir: config.run_dir.clone(), claims },
        });
        log_collectors(&config.enabled_collectors());
        let katas = config.enabled_collectors().contains(&kata::NAME).then(|| {
            let options = kata::Options {
                run_dir: config.run_dir.clone(),
                bundles: config.bundles(),
                shim_scrape: config.shim_scrape,
                exclude_interfaces: config.exclude_interfaces.clone(),
            };
            Katas::new(options, roots, &budget, Arc::clone(&cri))
        });
        Self {
            discovery,
            cri,
            layers,
            oom,
            katas,
            collection: Arc::new(Mutex::new(collection)),
            flight: Arc::default(),
            passthrough: Arc::default(),
            max_age: config.max_age(),
            in_background: config.metrics_interval().is_some(),
            telemetry,
        }
    }

    async fn snapshot(self: &Arc<Self>, deadline: Duration, runtime: &Handle) -> Result<Arc<Snapshot>, NoSnapshot> {
        let fresh = |age| self.in_background || age < self.max_age;
        self.flight.get(fresh, deadline, runtime, || Arc::clone(self).collect(deadline)).await
    }

    /// One collection, for a scrape that waits this long.
    async fn collect(self: Arc<Self>, waits: Duration) -> Option<Snapshot> {
        self.discovery.ready().await;
        self.refresh_layers().await;
        let mut snapshot = self.collect_host().await?;
        if let Some(katas) = &self.katas {
            self.add_guests(katas, &mut snapshot, waits).await?;
        }
        self.let_go_of_what_went(&Handle::current(), &snapshot.inventory);
        Some(snapshot)
    }

    /// Measures the Kata sandboxes of the snapshot.
    async fn add_guests(&self, katas: &Arc<Katas>, snapshot: &mut Snapshot, waits: Duration) -> Option<()> {
        let mut round = Arc::clone(katas).collect(Arc::clone(&snapshot.inventory), waits).await;
        if round.is_outdated() && round.took() < REPEATABLE {
            // Nothing on the host tells that a container in a guest has gone.
            self.refresh(REFRESH_DEADLINE).await;
            if self.discovery.inventory().generation != snapshot.inventory.generation {
                *snapshot = self.collect_host().await?;
                round = Arc::clone(katas).collect(Arc::clone(&snapshot.inventory), waits).await;
            }
        }
        round.count(&self.telemetry);
        round.merge_into(snapshot, &self.oom);
        Some(())
    }

    /// What went while it was read was let go of, and may have been opened again after that. Nobody waits for it: it may
    /// have to wait itself.
    fn let_go_of_what_went(&self, runtime: &Handle, read: &Inventory) {
        let inventory = self.discovery.inventory();
        if inventory.generation != read.generation {
            runtime.spawn(self.let_go(inventory));
        }
    }

    /// Drops what is held of pods that are not in the inventory.
    fn let_go(&self, inventory: Arc<Inventory>) -> impl Future<Output = ()> + use<> {
        let (collection, katas) = (Arc::clone(&self.collection), self.katas.clone());
        async move {
            let gone = tokio::task::spawn_blocking(move || {
                if let Some(katas) = katas {
                    katas.forget(&inventory);
                }
                lock(&collection).forget(&inventory);
            });
            if let Err(error) = gone.await {
                tracing::error!(%error, "dropping what was held for gone pods failed");
            }
        }
    }

    /// The shims' own metrics. All sandboxes together are asked once for all who wait; a single one is asked by itself,
    /// which leaves the others in peace.
    async fn passthrough(
        self: &Arc<Self>,
        sandbox: Option<SandboxId>,
        deadline: Duration,
        runtime: &Handle,
    ) -> Result<Arc<Passthrough>, NoSnapshot> {
        let Some(katas) = &self.katas else { return Ok(Arc::default()) };
        let alone = sandbox.is_some();
        let (agent, katas, handle) = (Arc::clone(self), Arc::clone(katas), runtime.clone());
        let inventory = self.discovery.inventory();
        let round = async move {
            let passed = katas.pass_on(Arc::clone(&inventory), sandbox).await;
            agent.let_go_of_what_went(&handle, &inventory);
            agent.count_passed(&passed, alone);
            passed
        };
        if alone {
            // On the agent's own threads: a connection that is made belongs to where it was made.
            let passed = tokio::time::timeout(deadline, runtime.spawn(round)).await;
            let passed = passed.map_err(|_| NoSnapshot::Late(deadline))?.map_err(|_| NoSnapshot::Aborted)?;
            return Ok(Arc::new(passed));
        }
        self.passthrough.get(|age| age < self.max_age, deadline, runtime, || round.map(Some)).await
    }

    /// Counts a round over the shims once, however many were waiting for it. One shim alone is none.
    fn count_passed(&self, passed: &Passthrough, alone: bool) {
        self.telemetry.passthrough_dropped.inc_by(passed.sandboxes.iter().map(|sandbox| sandbox.dropped).sum());
        if alone {
            return;
        }
        let failed = passed.sandboxes.iter().filter(|sandbox| sandbox.families.is_empty());
        let failed = failed.inspect(|sandbox| {
            let state = sandbox.shim.describe();
            tracing::debug!(sandbox = %sandbox.sandbox.id, state, "no metrics of this shim");
        });
        self.telemetry.monitor.count_round(passed.sandboxes.len(), failed.count(), passed.took);
    }

    /// Everything but what only a guest can tell.
    async fn collect_host(&self) -> Option<Snapshot> {
        let first = match self.read(true).await? {
            Some(collected) => collected,
            None => {
                self.refresh(REFRESH_DEADLINE).await;
                self.read(false).await??
            }
        };
        if !first.vanished {
            return Some(first.snapshot);
        }
        // Something went while it was read. What replaced it, if anything, must not wait for the next scrape.
        let generation = first.snapshot.inventory.generation;
        self.refresh(REFRESH_DEADLINE).await;
        if self.discovery.inventory().generation == generation {
            return Some(first.snapshot);
        }
        Some(self.read(false).await??.snapshot)
    }

    /// Reads everything in the inventory. `Some(None)`: the inventory is outdated and nothing was read, if `check`ed.
    /// `None`: the reading itself broke down.
    async fn read(&self, check: bool) -> Option<Option<Collected>> {
        let inventory = self.discovery.inventory();
        let collection = Arc::clone(&self.collection);
        let outdated = check.then(|| self.discovery.outdated_check());
        let done = tokio::task::spawn_blocking(move || {
            if outdated.is_some_and(|outdated| outdated()) {
                return None;
            }
            Some(lock(&collection).run(inventory))
        });
        match done.await {
            Ok(collected) => {
                self.telemetry.collections.inc_by(u64::from(collected.is_some()));
                Some(collected)
            }
            Err(error) => {
                tracing::error!(%error, "collection failed");
                None
            }
        }
    }

    async fn refresh(&self, deadline: Duration) {
        let silent = self.discovery.health().runtime_error.is_some();
        let deadline = if silent { deadline.min(REFRESH_DEADLINE_ALONE) } else { deadline };
        if tokio::time::timeout(deadline, self.discovery.refresh()).await.is_err() {
            tracing::debug!("going on with the last inventory");
        }
    }

    /// Has the sizes of writable layers asked for when they are due; waits only for the very first ones.
    async fn refresh_layers(&self) {
        let last = self.flight.last().unwrap_or_default();
        let Some(due) = self.layers.claim_if_due(&last.sandboxes) else { return };
        let (layers, cri, inventory) = (Arc::clone(&self.layers), Arc::clone(&self.cri), self.discovery.inventory());
        let first = layers.known().is_empty();
        let asked = tokio::spawn(async move { layers.refresh(due, &cri, &inventory, &last.sandboxes).await });
        if first {
            let _ = tokio::time::timeout(FIRST_LAYERS_DEADLINE, asked).await;
        }
    }

    fn health(&self) -> Health {
        let discovery = self.discovery.health();
        let stuck = self.flight.running_for().filter(|running| *running > STUCK);
        let last = self.flight.last();
        let failing = last.iter().flat_map(|snapshot| &snapshot.collectors);
        let mut checks = vec![
            Check {
                name: "collection",
                problem: stuck.map(|running| format!("one has been running for {} s", running.as_secs())),
            },
            Check { name: "discovery", problem: (!discovery.first_sync).then(|| "first sync not done".to_owned()) },
            Check { name: "runtime", problem: discovery.runtime_error },
            Check { name: "cgroups", problem: discovery.cgroup_error },
        ];
        checks.extend(failing.map(|report| Check { name: report.name, problem: report.error.clone() }));
        Health { live: stuck.is_none(), ready: discovery.first_sync, checks }
    }
}

/// The hierarchy whose tree names all containers.
fn cgroup_root(mount: &std::path::Path) -> Option<PathBuf> {
    Layout::detect(mount).ok()?.primary_root().map(std::path::Path::to_owned)
}

/// What the families of the profile need from cgroups.
fn wanted(config: &Config) -> Wanted {
    let serves = |names: &[&str]| catalog::serves_any(config.metrics_profile, names);
    Wanted {
        io: serves(&["container_fs_reads", "container_fs_writes", "container_blkio"]),
        memory_details: serves(&["container_memory_max_usage", "container_memory_failcnt", "container_memory_kernel"]),
        pressure: serves(&["container_pressure"]),
        hugetlb: serves(&["container_hugetlb"]),
        hugepages: Default::default(),
    }
}

fn log_collectors(enabled: &[&str]) {
    let off: Vec<&str> =
        COLLECTORS.iter().map(|collector| collector.name).filter(|name| !enabled.contains(name)).collect();
    tracing::info!(on = enabled.join(","), off = off.join(","), "collectors");
}
