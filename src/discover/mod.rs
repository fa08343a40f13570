//! What is on this node? Publishes an inventory of pods, containers and the cgroups that account for them.
//!
//! Modelled as list-then-watch with one writer: a task syncs with the runtime every few seconds and whenever something
//! hints at a change (a container event, a cgroup that appeared or vanished), joins the answer with the cgroup tree and
//! swaps the published inventory. While the runtime does not answer, the last names stay.

pub mod assemble;
pub mod cgroup_path;
pub mod cgroups;
mod kata_roots;
pub mod runtime_view;

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::{mpsc, oneshot, watch};
use tokio::task::JoinHandle;

use crate::cri::{Cri, CriError};
use crate::model::inventory::{Inventory, KataDirectory};
use assemble::{Assembled, Assembler, Evidence, Scope};
use cgroups::{Found, Tree};
use kata_roots::KataRoots;
use runtime_view::RuntimeView;

/// Shortest pause between two syncs that hints asked for.
const HINT_PAUSE: Duration = Duration::from_millis(100);

/// First pause before syncing again when there is reason to: the runtime did not answer, or does not yet know a
/// cgroup. Doubles up to the interval.
const SOON: Duration = Duration::from_millis(200);

/// How long to wait before asking for the event stream again where the runtime has none.
const NO_EVENTS_PAUSE: Duration = Duration::from_secs(60);

/// What discovery is told.
#[derive(Clone, Debug)]
pub struct Options {
    /// Finds the root of the hierarchy that names all containers; `None` while cgroups are not mounted.
    pub cgroup_root: fn(&std::path::Path) -> Option<PathBuf>,
    /// The cgroup mount point.
    pub cgroup_mount: PathBuf,
    /// The node's run directory, which holds the roots of Kata sandboxes.
    pub run_dir: PathBuf,
    /// Time between full syncs.
    pub interval: Duration,
    /// Which pods get rows.
    pub scope: Scope,
}

/// How discovery fares, for readiness.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Health {
    /// The first sync is done.
    pub first_sync: bool,
    /// Why the runtime does not answer; `None` when it does.
    pub runtime_error: Option<String>,
    /// Why the cgroup tree could not be walked; `None` when it could.
    pub cgroup_error: Option<String>,
}

impl Health {
    fn runtime_answers(&self) -> bool {
        self.first_sync && self.runtime_error.is_none()
    }
}

/// A running discovery. Dropping it ends its tasks.
#[derive(Debug)]
pub struct Discovery {
    shared: Arc<Shared>,
    tasks: [JoinHandle<()>; 2],
}

#[derive(Debug)]
struct Shared {
    options: Options,
    cri: Arc<Cri>,
    tree: Mutex<TreeState>,
    hints: mpsc::UnboundedSender<Option<oneshot::Sender<()>>>,
    published: watch::Sender<Arc<Inventory>>,
    health: watch::Sender<Health>,
}

/// The tree and what the last published inventory was assembled from.
#[derive(Debug, Default)]
struct TreeState {
    tree: Option<Tree>,
    found: Arc<Vec<Found>>,
}

impl Discovery {
    /// Starts the tasks on the current tokio runtime.
    pub fn start(options: Options, cri: Arc<Cri>) -> Self {
        let (hints, requests) = mpsc::unbounded_channel();
        let shared = Arc::new(Shared {
            options,
            cri,
            tree: Mutex::default(),
            hints,
            published: watch::Sender::default(),
            health: watch::Sender::default(),
        });
        let tasks = [
            tokio::spawn(Writer::new(Arc::clone(&shared)).run(requests)),
            tokio::spawn(follow_events(Arc::clone(&shared))),
        ];
        Self { shared, tasks }
    }

    /// The inventory published last.
    pub fn inventory(&self) -> Arc<Inventory> {
        Arc::clone(&self.shared.published.borrow())
    }

    /// Told of each new inventory.
    pub fn subscribe(&self) -> watch::Receiver<Arc<Inventory>> {
        self.shared.published.subscribe()
    }

    /// How discovery fares.
    pub fn health(&self) -> Health {
        self.shared.health.borrow().clone()
    }

    /// Waits for the first sync.
    pub async fn ready(&self) {
        // The sender lives as long as `self`.
        let _ = self.shared.health.subscribe().wait_for(|health| health.first_sync).await;
    }

    /// Syncs now and waits until the result is published.
    pub async fn refresh(&self) {
        let (done, published) = oneshot::channel();
        if self.shared.hints.send(Some(done)).is_ok() {
            let _ = published.await;
        }
    }

    /// Whether cgroups have come or gone since the published inventory was assembled. Costs one `stat` per pod and
    /// blocks on it: the check is given as a function to call off the async workers.
    pub fn outdated_check(&self) -> impl FnOnce() -> bool + Send + 'static {
        let shared = Arc::clone(&self.shared);
        move || {
            let mut state = shared.tree.lock().unwrap_or_else(PoisonError::into_inner);
            let before = Arc::clone(&state.found);
            state.walk(&shared.options, false).is_ok_and(|found| found != *before)
        }
    }
}

impl Drop for Discovery {
    fn drop(&mut self) {
        for task in &self.tasks {
            task.abort();
        }
    }
}

impl TreeState {
    fn walk(&mut self, options: &Options, thorough: bool) -> std::io::Result<Vec<Found>> {
        if self.tree.is_none() {
            let root = (options.cgroup_root)(&options.cgroup_mount).ok_or_else(|| {
                std::io::Error::new(
                    std::io::ErrorKind::NotFound,
                    format!("{} is no cgroup mount; set --cgroupfs", options.cgroup_mount.display()),
                )
            })?;
            self.tree = Some(Tree::new(root));
        }
        match &mut self.tree {
            Some(tree) => tree.walk(thorough),
            None => Ok(Vec::new()),
        }
    }
}

/// The one task that publishes.
struct Writer {
    shared: Arc<Shared>,
    view: RuntimeView,
    kata_roots: KataRoots,
    kata: HashMap<String, KataDirectory>,
    assembler: Assembler,
    soon: Duration,
}

impl Writer {
    fn new(shared: Arc<Shared>) -> Self {
        let assembler = Assembler::new(shared.options.scope);
        let hints = shared.hints.clone();
        let kata_roots = KataRoots::new(&shared.options.run_dir, move || {
            // Nobody to hint to means that discovery is ending.
            let _ = hints.send(None);
        });
        let (view, kata) = (RuntimeView::default(), HashMap::new());
        Self { shared, view, kata_roots, kata, assembler, soon: SOON }
    }

    async fn run(mut self, mut requests: mpsc::UnboundedReceiver<Option<oneshot::Sender<()>>>) {
        loop {
            // Whoever asked before this sync begins is served by it.
            let mut waiting = Vec::new();
            while let Ok(request) = requests.try_recv() {
                waiting.extend(request);
            }
            let started = Instant::now();
            let again_soon = self.sync().await;
            for done in waiting {
                let _ = done.send(());
            }
            let interval = self.shared.options.interval;
            let pause = if again_soon { self.soon.min(interval) } else { interval };
            match tokio::time::timeout(pause, requests.recv()).await {
                Ok(Some(Some(done))) => {
                    // Someone waits: no pause, but back into the queue for the next round.
                    let _ = self.shared.hints.send(Some(done));
                }
                Ok(Some(None)) => {
                    // Something goes on, so whatever is missing may be there any moment.
                    self.soon = SOON;
                    tokio::time::sleep(HINT_PAUSE.saturating_sub(started.elapsed())).await;
                }
                Ok(None) => return,
                // Only a pause that was waited out in vain makes the next one longer.
                Err(_) => self.soon = if again_soon { pause * 2 } else { SOON },
            }
        }
    }

    /// One round; says whether there is reason for the next one before its time.
    async fn sync(&mut self) -> bool {
        let kata = self.kata_roots.list();
        if kata != self.kata {
            // A sandbox that came or went is published at once: the runtime may take its time, or not answer at all.
            self.kata = kata;
            let found = Arc::clone(&self.shared.tree.lock().unwrap_or_else(PoisonError::into_inner).found);
            let answers = self.shared.health.borrow().runtime_answers();
            self.publish(&found, answers);
        }
        let configured = self.shared.cri.is_configured();
        let mut runtime_error = None;
        if configured {
            match self.view.sync(&self.shared.cri).await {
                Ok(view) => self.view = view,
                Err(error) => runtime_error = Some(error),
            }
        }
        // The tree after the runtime: a container that starts in between is seen in the tree and waits for the next
        // round; the other way round it would be listed and seem to have no cgroup.
        let (found, cgroup_error) = self.walk().await;
        let held_back = self.publish(&found, configured && runtime_error.is_none());
        let silent = runtime_error.is_some();
        self.report(runtime_error, cgroup_error);
        held_back || silent
    }

    /// Joins what is known and publishes it if it is news; says whether some cgroups were held back.
    fn publish(&mut self, found: &[Found], runtime_answers: bool) -> bool {
        let evidence = Evidence { view: &self.view, runtime_answers, found, kata: &self.kata };
        let before = Arc::clone(&self.shared.published.borrow());
        let Assembled { mut inventory, held_back } = self.assembler.assemble(&evidence, &before, Instant::now());
        if before.generation == 0 || !assemble::same(&inventory, &before) {
            inventory.generation = before.generation + 1;
            tracing::debug!(
                generation = inventory.generation,
                subjects = inventory.subjects.len(),
                sandboxes = inventory.sandboxes.len(),
                "inventory changed"
            );
            self.shared.published.send_replace(Arc::new(inventory));
        }
        held_back
    }

    async fn walk(&self) -> (Arc<Vec<Found>>, Option<String>) {
        let shared = Arc::clone(&self.shared);
        let walked = tokio::task::spawn_blocking(move || {
            let mut state = shared.tree.lock().unwrap_or_else(PoisonError::into_inner);
            match state.walk(&shared.options, true) {
                Ok(found) => {
                    state.found = Arc::new(found);
                    (Arc::clone(&state.found), None)
                }
                // What was there a moment ago is the better guess; the collector finds out what is gone.
                Err(error) => (Arc::clone(&state.found), Some(error.to_string())),
            }
        });
        walked.await.unwrap_or_else(|error| (Arc::default(), Some(error.to_string())))
    }

    /// Publishes health and says once when it changes.
    fn report(&self, runtime_error: Option<CriError>, cgroup_error: Option<String>) {
        let before = self.shared.health.borrow().clone();
        let runtime_error = match runtime_error {
            None => None,
            // The pause between attempts is not news: keep the error that began it.
            Some(CriError::BackingOff(because)) => Some(before.runtime_error.clone().unwrap_or(because)),
            Some(error) => Some(error.chain()),
        };
        match (&before.runtime_error, &runtime_error) {
            _ if !self.shared.cri.is_configured() && !before.first_sync => {
                tracing::info!("no container runtime configured, names will be blank");
            }
            _ if !self.shared.cri.is_configured() => {}
            (Some(_), None) | (None, None) if !before.first_sync || before.runtime_error.is_some() => {
                let version = self.view.version.as_ref();
                let name = version.map_or("", |version| version.name.as_str());
                let number = version.map_or("", |version| version.version.as_str());
                tracing::info!(runtime = name, version = number, "container runtime answers");
            }
            (None, Some(error)) => tracing::warn!(%error, "container runtime does not answer, will retry"),
            _ => {}
        }
        match (&before.cgroup_error, &cgroup_error) {
            (None, Some(error)) => tracing::warn!(%error, "cgroup tree cannot be walked, will retry"),
            (Some(_), None) => tracing::info!("cgroup tree is there"),
            _ => {}
        }
        self.shared.health.send_replace(Health { first_sync: true, runtime_error, cgroup_error });
    }
}

/// Follows the runtime's event stream where it has one and hints at a sync for each event.
async fn follow_events(shared: Arc<Shared>) {
    if !shared.cri.is_configured() {
        return;
    }
    let mut health = shared.health.subscribe();
    loop {
        // The sender lives in `shared`.
        let _ = health.wait_for(|health| health.first_sync && health.runtime_error.is_none()).await;
        let pause = match shared.cri.events().await {
            Ok(mut stream) => {
                tracing::debug!("following container events");
                while let Ok(Some(_)) = stream.message().await {
                    if shared.hints.send(None).is_err() {
                        return;
                    }
                }
                shared.options.interval
            }
            Err(error) if error.is_unimplemented() => NO_EVENTS_PAUSE,
            Err(_) => shared.options.interval,
        };
        tokio::time::sleep(pause).await;
    }
}
