//! How much does everything use? Turns an inventory into a snapshot.
//!
//! A collector is one source: it goes once over the rows of a [`Draft`] and fills its own part of each row's usage.
//! [`Collection::run`] alone times and grades collectors; one that fails leaves the others' facts in place. To add one:
//! a file or folder here, an entry in [`COLLECTORS`] and a line in [`Collection::new`].

mod asker;
mod block_devices;
pub mod cgroup;
mod descriptors;
pub mod exclude;
mod filesystem;
pub mod held;
pub mod kata;
mod machine;
pub mod meminfo;
pub mod mount_table;
mod mounted;
pub mod network;
pub mod node;
pub mod oom;
pub mod pid_stat;
pub mod process;
mod procs;
pub mod top;
pub mod volume;
pub mod writable_layer;

use std::collections::HashMap;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::model::inventory::{Inventory, Kind, Runtime, Subject};
use crate::model::machine::Machine;
use crate::model::node::Node;
use crate::model::snapshot::{CollectorReport, Row, SandboxReport, Snapshot};
use crate::model::top::Top;
use crate::model::units::Seconds;
use crate::model::usage::Usage;
use crate::model::volume::Volumes;

/// Where the node's files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Roots {
    /// The node's root directory as this process sees it.
    pub host: PathBuf,
    /// The node's procfs.
    pub proc: PathBuf,
    /// The node's sysfs.
    pub sys: PathBuf,
    /// The cgroup mount point.
    pub cgroup: PathBuf,
}

impl Roots {
    /// When the node was booted: `btime` of `/proc/stat`, Unix time.
    pub fn boot_time(&self) -> Option<Seconds> {
        let stat = std::fs::read(self.proc.join("stat")).ok()?;
        let (_, btime) = cgroup::parse::keyed(&stat).find(|(key, _)| *key == b"btime")?;
        cgroup::parse::number(btime).map(Seconds::from_secs)
    }
}

/// A collector's name, what it reads, and whether it runs when nobody says otherwise.
#[derive(Debug)]
pub struct Description {
    /// Its name in flags, logs and metrics.
    pub name: &'static str,
    /// On by default.
    pub default: bool,
    /// One line for people.
    pub summary: &'static str,
}

/// Every collector there is.
pub const COLLECTORS: &[Description] = &[
    Description {
        name: "cgroup",
        default: true,
        summary: "CPU, memory, tasks, block I/O, pressure and limits from cgroup v1, v2 or hybrid",
    },
    Description { name: "network", default: true, summary: "pod and node network counters from /proc/<pid>/net/dev" },
    Description { name: "process", default: true, summary: "open-file limit of each container's first process" },
    Description {
        name: "fd",
        default: false,
        summary: "open descriptors and sockets, by walking /proc/<pid>/fd of every process: expensive",
    },
    Description {
        name: "filesystem",
        default: true,
        summary: "node filesystems (statfs) and disks; writable layers from CRI once a minute",
    },
    Description {
        name: kata::NAME,
        default: true,
        summary: "Kata pods: containers and guest through the kata-agent or the shim, the machine through its VMM",
    },
    Description { name: "machine", default: true, summary: "CPU topology, memory and identity of the node" },
    Description {
        name: "node",
        default: false,
        summary: "the node as a host, under node_exporter's names: CPU, load, memory, disks, filesystems, network, pressure",
    },
    Description {
        name: volume::NAME,
        default: false,
        summary: "pods' volumes: capacity, space and inodes of claims under the kubelet's names, and of all others",
    },
    Description {
        name: volume::emptydir::NAME,
        default: false,
        summary: "emptyDirs on the node's disk, by walking them every five minutes: expensive",
    },
    Description {
        name: top::NAME,
        default: false,
        summary: "the processes that use most memory and CPU time with pod and container, on /processes",
    },
];

/// Facts filled in by collectors, row by row.
#[derive(Debug)]
pub struct Draft {
    /// The inventory being measured.
    pub inventory: Arc<Inventory>,
    /// One per subject, in the inventory's order.
    pub rows: Vec<DraftRow>,
    /// What the node is.
    pub machine: Option<Arc<Machine>>,
    /// The node as a host.
    pub node: Option<Box<Node>>,
    /// Volumes of pods.
    pub volumes: Option<Box<Volumes>>,
    /// The processes that use most.
    pub top: Option<Box<Top>>,
}

/// A row being filled.
#[derive(Debug)]
pub struct DraftRow {
    /// Who.
    pub subject: Arc<Subject>,
    /// How much.
    pub usage: Usage,
    /// Its cgroup vanished while it was read: the row is dropped.
    pub gone: bool,
}

/// Why a collector gave less than it should.
#[derive(Debug, thiserror::Error)]
pub enum CollectError {
    /// Its source as a whole is missing.
    #[error("{0}")]
    Source(String),
    /// Some values could not be read.
    #[error("read {0}")]
    Read(String),
}

impl CollectError {
    /// A file of procfs that the `procfs` crate could not read. Its own words for a file it does not understand name a
    /// place in its source, over several lines.
    pub fn procfs(path: &std::path::Path, error: &procfs::ProcError) -> Self {
        let problem = match error {
            procfs::ProcError::NotFound(_) => "not found".to_owned(),
            procfs::ProcError::PermissionDenied(_) => "permission denied".to_owned(),
            procfs::ProcError::Io(error, _) => error.to_string(),
            _ => "malformed".to_owned(),
        };
        Self::Read(format!("{}: {problem}", path.display()))
    }

    /// The source is missing because of `error`, whose causes are put into the text.
    pub fn source(error: impl std::error::Error) -> Self {
        Self::Source(chain(&error))
    }
}

/// An error and its causes in one line.
fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(error) = cause {
        text.push_str(&format!(": {error}"));
        cause = error.source();
    }
    text
}

/// One source of facts.
pub trait Collector: Send + std::fmt::Debug {
    /// Its name in [`COLLECTORS`].
    fn name(&self) -> &'static str;

    /// Fills its part of the draft. An error is reported; what was filled before it stays.
    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError>;

    /// Drops what it holds for subjects that are no longer in the inventory, without reading anything.
    fn forget(&mut self, _inventory: &Inventory) {}
}

/// What a [`Collection`] is made of.
#[derive(Debug)]
pub struct Options {
    /// Where to read.
    pub roots: Arc<Roots>,
    /// How many descriptors may be held.
    pub budget: Arc<held::Budget>,
    /// Names of the collectors to run.
    pub enabled: Vec<&'static str>,
    /// What cgroup facts the enabled families need.
    pub wanted: cgroup::Wanted,
    /// Writable-layer sizes, refreshed on their own interval.
    pub layers: Arc<writable_layer::WritableLayers>,
    /// The count of out-of-memory kills, which outlives containers and configurations.
    pub oom: Arc<oom::Ledger>,
    /// Where volumes are.
    pub volume: volume::Options,
    /// Whether families of processes are served.
    pub process_groups: bool,
    /// Interfaces that are not told of.
    pub exclude_interfaces: exclude::Exclude,
    /// What the node collector leaves out.
    pub node: node::Options,
}

/// The collectors of one configuration and what they hold between collections.
#[derive(Debug)]
pub struct Collection {
    collectors: Vec<Box<dyn Collector>>,
    oom: Arc<oom::Ledger>,
    failing: HashMap<&'static str, String>,
}

impl Collection {
    /// Makes the enabled collectors. Nothing is read yet.
    pub fn new(options: Options) -> Self {
        let Options { roots, budget, enabled, wanted, layers, oom, volume, process_groups, exclude_interfaces, node } =
            options;
        tracing::debug!(descriptors = budget.max(), "files held open at most");
        let all: [Box<dyn Collector>; COLLECTORS.len() - 1] = [
            Box::new(cgroup::Cgroups::new(Arc::clone(&roots), wanted, Arc::clone(&budget))),
            Box::new(network::Networks::new(Arc::clone(&roots), Arc::clone(&budget), exclude_interfaces)),
            Box::new(process::Processes::new(Arc::clone(&roots))),
            Box::new(descriptors::DescriptorWalk::new(Arc::clone(&roots), Arc::clone(&budget))),
            Box::new(filesystem::Filesystems::new(Arc::clone(&roots), layers)),
            Box::new(machine::Machines::new(Arc::clone(&roots))),
            Box::new(node::Nodes::new(Arc::clone(&roots), Arc::clone(&budget), node)),
            Box::new(volume::Volumes::new(Arc::clone(&roots), volume.clone())),
            Box::new(volume::emptydir::EmptyDirs::new(&volume.kubelet)),
            Box::new(top::Tops::new(Arc::clone(&roots), process_groups)),
        ];
        let collectors = all.into_iter().filter(|collector| enabled.contains(&collector.name())).collect();
        Self { collectors, oom, failing: HashMap::new() }
    }

    /// Measures everything in the inventory. Blocks on file reads; call it off the async workers.
    pub fn run(&mut self, inventory: Arc<Inventory>) -> Collected {
        let rows = inventory
            .subjects
            .iter()
            .map(|subject| DraftRow { subject: Arc::clone(subject), usage: Usage::default(), gone: false })
            .collect();
        // Before anything is read: cgroups are read first, and how long the others take must not show in the time
        // between two readings of a counter.
        let began = now();
        let mut draft = Draft { inventory, rows, machine: None, node: None, volumes: None, top: None };
        let mut reports = Vec::with_capacity(self.collectors.len());
        for collector in &mut self.collectors {
            let started = Instant::now();
            // A defect in one collector must not cost the others their facts.
            let error = catch_unwind(AssertUnwindSafe(|| collector.collect(&mut draft)))
                .unwrap_or_else(|_| Err(CollectError::Source("the collector panicked".to_owned())))
                .err()
                .map(|error| error.to_string());
            reports.push(CollectorReport { name: collector.name(), took: started.elapsed(), error });
        }
        self.log_changes(&reports);
        let vanished = draft.rows.iter().any(|row| row.gone);
        let snapshot = self.finish(draft, reports, began);
        Collected { snapshot, vanished }
    }

    fn finish(&self, draft: Draft, collectors: Vec<CollectorReport>, began: Seconds) -> Snapshot {
        let Draft { inventory, rows, machine, node, volumes, top } = draft;
        let rows: Vec<Row> = rows
            .into_iter()
            .filter(|row| !row.gone)
            .map(|DraftRow { subject, mut usage, .. }| {
                usage.measured_at = Some(began);
                Row { subject, usage }
            })
            .collect();
        self.oom.observe_rows(&rows);
        self.oom.observe_exits(&inventory);
        let measured: std::collections::HashSet<&str> = rows
            .iter()
            .filter(|row| matches!(row.subject.kind, Kind::Sandbox | Kind::Container | Kind::Pod))
            .filter_map(|row| row.subject.sandbox.as_ref().map(|id| id.as_str()))
            .collect();
        let sandboxes = inventory
            .sandboxes
            .iter()
            .map(|sandbox| {
                let found = measured.contains(sandbox.id.as_str());
                // A Kata pod's cgroup on the host says nothing about the guest.
                let up = (sandbox.runtime == Runtime::Runc).then_some(found);
                let last_error = if up == Some(false) {
                    "no cgroup of this sandbox could be read".to_owned()
                } else {
                    String::new()
                };
                SandboxReport { sandbox: Arc::clone(sandbox), up, last_error, kata: None }
            })
            .collect();
        Snapshot {
            taken_at: Some(began),
            oom_kills: self.oom.totals(),
            inventory,
            rows,
            machine,
            node,
            volumes,
            top,
            sandboxes,
            collectors,
        }
    }

    /// Says once when a collector begins to fail and once when it is well again.
    fn log_changes(&mut self, reports: &[CollectorReport]) {
        for report in reports {
            match &report.error {
                Some(error) => {
                    if self.failing.insert(report.name, error.clone()).is_none() {
                        tracing::warn!(collector = report.name, %error, "collector is failing");
                    }
                }
                None => {
                    if self.failing.remove(report.name).is_some() {
                        tracing::info!(collector = report.name, "collector is well again");
                    }
                }
            }
        }
    }

    /// Drops what is held for subjects that are gone, even when nobody scrapes: a held `net/dev` keeps a dead pod's
    /// network namespace alive.
    pub fn forget(&mut self, inventory: &Inventory) {
        for collector in &mut self.collectors {
            collector.forget(inventory);
        }
    }
}

/// The time, to the millisecond: finer is no sample's time.
fn now() -> Seconds {
    let now = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or(Duration::ZERO);
    Seconds::from_millis(u64::try_from(now.as_millis()).unwrap_or(u64::MAX))
}

/// A finished collection.
#[derive(Debug)]
pub struct Collected {
    /// The facts.
    pub snapshot: Snapshot,
    /// Some subject was gone: the inventory is out of date.
    pub vanished: bool,
}
