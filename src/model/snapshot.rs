//! One collection: every row's usage at about the same moment, and how the collecting went.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;

use crate::model::guest::{Guest, Hypervisor, Vmm};
use crate::model::host_side::HostSide;
use crate::model::identity::SandboxId;
use crate::model::inventory::{Inventory, Sandbox, Subject};
use crate::model::machine::Machine;
use crate::model::node::Node;
use crate::model::passthrough::Passthrough;
use crate::model::top::Top;
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Interface, Usage};
use crate::model::volume::Volumes;

/// One collection.
#[derive(Debug, Default)]
pub struct Snapshot {
    /// When it was taken, Unix time.
    pub taken_at: Option<Seconds>,
    /// The inventory it was taken of.
    pub inventory: Arc<Inventory>,
    /// One entry per subject that could be read, in the inventory's order.
    pub rows: Vec<Row>,
    /// What the node is.
    pub machine: Option<Arc<Machine>>,
    /// The node as a host; `None` unless the `node` collector is on.
    pub node: Option<Box<Node>>,
    /// Volumes of pods; `None` unless the `volume` collector is on.
    pub volumes: Option<Box<Volumes>>,
    /// The processes that use most; `None` unless the `top` collector is on.
    pub top: Option<Box<Top>>,
    /// Every sandbox and how its reading went.
    pub sandboxes: Vec<SandboxReport>,
    /// Out-of-memory kills per container name, over all its lives.
    pub oom_kills: Vec<OomKills>,
    /// How each collector fared.
    pub collectors: Vec<CollectorReport>,
}

/// A subject and what it used.
#[derive(Debug)]
pub struct Row {
    /// Who.
    pub subject: Arc<Subject>,
    /// How much.
    pub usage: Usage,
}

/// A sandbox in this collection.
#[derive(Debug)]
pub struct SandboxReport {
    /// Which.
    pub sandbox: Arc<Sandbox>,
    /// Whether its containers could be measured; `None` where nobody tried.
    pub up: Option<bool>,
    /// Why not; blank when up.
    pub last_error: String,
    /// What only a Kata sandbox has.
    pub kata: Option<Box<KataReport>>,
}

impl SandboxReport {
    /// Its hypervisor in Kata's own name; blank for runc, and where it is not known.
    pub fn hypervisor(&self) -> &'static str {
        self.kata.as_ref().and_then(|kata| kata.hypervisor).map_or("", Hypervisor::as_str)
    }
}

/// What was learnt of a Kata sandbox beside its containers.
#[derive(Debug, Default)]
pub struct KataReport {
    /// Its hypervisor.
    pub hypervisor: Option<Hypervisor>,
    /// How long it took.
    pub took: Duration,
    /// Every source that was considered, and what came of it.
    pub sources: BTreeMap<&'static str, SourceState>,
    /// Which source the values came from: of the containers, the guest, the network, the machine.
    pub values_from: BTreeMap<&'static str, &'static str>,
    /// What the guest said and is not served, by reason: samples, or series for `too_many`. Reasons with none are out.
    pub dropped: BTreeMap<&'static str, u64>,
    /// The pod's interfaces, by the side that was chosen for the sandbox's life.
    pub network: Vec<Interface>,
    /// The guest as a whole.
    pub guest: Option<Guest>,
    /// The machine as its VMM tells it.
    pub vmm: Option<Vmm>,
    /// What it costs the node.
    pub host: Option<HostSide>,
    /// Memory the node pays beyond what the containers use, both sides measured together; not below zero.
    pub overhead_memory: Option<Bytes>,
}

/// What came of a source in one collection.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum SourceState {
    /// It gave what it has.
    Up,
    /// It was not asked, for this reason.
    Skipped(&'static str),
    /// It was asked in vain.
    Failed(String),
}

impl SourceState {
    /// For people and JSON.
    pub fn describe(&self) -> String {
        match self {
            Self::Up => "up".to_owned(),
            Self::Skipped(reason) => format!("skipped: {reason}"),
            Self::Failed(problem) => format!("failed: {problem}"),
        }
    }
}

/// Out-of-memory kills of one container name.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OomKills {
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// Container name.
    pub container: String,
    /// Kills seen since the agent started, plus those its first look found.
    pub kills: u64,
}

/// How one collector fared in one collection.
#[derive(Clone, Debug)]
pub struct CollectorReport {
    /// Its name.
    pub name: &'static str,
    /// How long it took.
    pub took: Duration,
    /// What went wrong, if anything did.
    pub error: Option<String>,
}

/// Whoever can give snapshots: what the HTTP routes are handed.
pub trait SnapshotSource: Send + Sync + 'static {
    /// A snapshot that is recent enough, made now if need be.
    fn snapshot(&self, deadline: Duration) -> BoxFuture<'_, Result<Arc<Snapshot>, NoSnapshot>>;

    /// What is on the node, once it is known; nothing is measured.
    fn inventory(&self) -> BoxFuture<'_, Arc<Inventory>>;

    /// The metrics of Kata's shims, of all sandboxes or of one.
    fn passthrough(
        &self,
        sandbox: Option<SandboxId>,
        deadline: Duration,
    ) -> BoxFuture<'_, Result<Arc<Passthrough>, NoSnapshot>>;

    /// How the agent fares.
    fn health(&self) -> Health;
}

/// No snapshot could be had.
#[derive(Clone, Debug, thiserror::Error)]
pub enum NoSnapshot {
    /// It was not finished in time.
    #[error("the collection did not finish within {0:.1?}")]
    Late(Duration),
    /// The collection ended without a result.
    #[error("the collection was aborted")]
    Aborted,
}

/// How the agent fares.
#[derive(Clone, Debug, Default)]
pub struct Health {
    /// The event loop and the collectors are moving.
    pub live: bool,
    /// The first discovery is done.
    pub ready: bool,
    /// Single checks for people.
    pub checks: Vec<Check>,
}

/// One check.
#[derive(Clone, Debug)]
pub struct Check {
    /// What is checked.
    pub name: &'static str,
    /// What is wrong; `None` when nothing is.
    pub problem: Option<String>,
}
