//! What the container runtime says: lists and statuses of CRI, its stats, containerd's events.

use std::collections::{BTreeMap, HashMap};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Instant;

use k8s_cri::v1::{
    ContainerStatusResponse, ListContainerStatsResponse, ListContainersResponse, ListPodSandboxResponse,
    PodSandboxStatusResponse, VersionResponse,
};
use kata_pulse::collect::kata::stats::of_cri;
use kata_pulse::containerd::{Envelope, read};
use kata_pulse::discover::assemble::{Assembler, Evidence, Scope};
use kata_pulse::discover::cgroup_path::{Class, Leaf, classify};
use kata_pulse::discover::cgroups::Found;
use kata_pulse::discover::runtime_view::{RuntimeView, SandboxDetail};
use kata_pulse::expose::sandboxes;
use kata_pulse::model::identity::CgroupPath;
use kata_pulse::model::inventory::{Inventory, KataDirectory, KataRuntime, RuntimeVersion};
use kata_pulse::model::snapshot::{Row, SandboxReport, Snapshot};
use kata_pulse::model::usage::Usage;
use prost::Message;

use crate::memory::within;
use crate::page;

/// Everything a runtime says of a node, in one message.
#[derive(Clone, PartialEq, Message)]
struct Node {
    #[prost(message, optional, tag = "1")]
    version: Option<VersionResponse>,
    #[prost(message, optional, tag = "2")]
    sandboxes: Option<ListPodSandboxResponse>,
    #[prost(message, optional, tag = "3")]
    containers: Option<ListContainersResponse>,
    #[prost(message, repeated, tag = "4")]
    sandbox_statuses: Vec<PodSandboxStatusResponse>,
    #[prost(message, repeated, tag = "5")]
    container_statuses: Vec<ContainerStatusResponse>,
    #[prost(message, optional, tag = "6")]
    stats: Option<ListContainerStatsResponse>,
    /// Beside it: paths below the cgroup mount.
    #[prost(string, repeated, tag = "7")]
    cgroups: Vec<String>,
    /// And names in the directory of Kata's sandboxes.
    #[prost(string, repeated, tag = "8")]
    kata: Vec<String>,
    #[prost(bool, tag = "9")]
    scope_kata: bool,
    #[prost(message, repeated, tag = "10")]
    events: Vec<Envelope>,
}

/// A node as its runtime tells it, to the page.
pub fn cri(bytes: &[u8]) {
    let Ok(node) = Node::decode(bytes) else { return };
    for event in &node.events {
        if let Some(kill) = read(event) {
            assert!(!kill.container.is_empty());
        }
    }
    let view = view(&node);
    let found = found(&node.cgroups);
    let directory =
        |name: &String| KataDirectory { runtime: KataRuntime::Rs, path: PathBuf::from("/run/kata").join(name) };
    let kata: HashMap<String, KataDirectory> = node.kata.iter().map(|name| (name.clone(), directory(name))).collect();
    let evidence = Evidence { view: &view, runtime_answers: false, found: &found, kata: &kata };
    let scope = if node.scope_kata { Scope::Kata } else { Scope::All };
    let mut assembler = Assembler::new(scope);
    let now = Instant::now();
    let assembled =
        within(bytes.len(), 2000, 256 << 10, || assembler.assemble(&evidence, &Inventory::default(), now).inventory);
    assert!(assembled.subjects.is_sorted_by(|one, other| one.key() < other.key()), "a row is there twice");
    assert!(assembled.sandboxes.is_sorted_by(|one, other| one.id < other.id), "a sandbox is there twice");
    let again = assembler.assemble(&evidence, &assembled, now).inventory;
    let same = assembled.subjects.len() == again.subjects.len()
        && assembled.subjects.iter().zip(&again.subjects).all(|(one, other)| Arc::ptr_eq(one, other));
    assert!(same, "a subject that did not change is another one");
    serve(Arc::new(assembled), node.stats.unwrap_or_default());
}

/// The runtime's word, statuses taken as the answers to the questions that are asked.
fn view(node: &Node) -> RuntimeView {
    let version = node.version.clone().unwrap_or_default();
    let version = RuntimeVersion { name: version.runtime_name, version: version.runtime_version };
    let listed = |before: &RuntimeView| {
        let sandboxes = node.sandboxes.clone().unwrap_or_default().items;
        before.listed(version.clone(), sandboxes, node.containers.clone().unwrap_or_default().containers)
    };
    let mut view = listed(&RuntimeView::default());
    for status in &node.sandbox_statuses {
        let id = status.status.as_ref().map(|status| status.id.as_str()).unwrap_or_default();
        if let Some(sandbox) = view.sandboxes.get_mut(id) {
            sandbox.detail = Some(SandboxDetail::from_status(status));
        }
    }
    for status in node.container_statuses.iter().filter_map(|reply| reply.status.as_ref()) {
        let containers = view.sandboxes.values_mut().flat_map(|sandbox| &mut sandbox.containers);
        let asked = containers.filter(|container| container.public.id.as_str() == status.id);
        asked.for_each(|container| container.detail(status.clone()));
    }
    // The next sync takes details over.
    listed(&view)
}

/// What a walk over the cgroup tree finds, as the kernel would let it be.
fn found(paths: &[String]) -> Vec<Found> {
    let mut found = BTreeMap::from([("/".to_owned(), Found { path: "/".into(), class: Class::Other, pod: None })]);
    for path in paths.iter().filter(|path| !path.contains('\0')) {
        let names: Vec<&str> = path.split('/').filter(|name| !name.is_empty()).take(16).collect();
        let mut parent = Class::Other;
        let mut place = String::new();
        for name in names.into_iter().take_while(|name| name.len() < 256) {
            let class = classify(&parent, name);
            let pod = matches!(parent, Class::Pod(_)).then(|| CgroupPath::from(place.as_str()));
            place = format!("{place}/{name}");
            if !matches!(class, Class::Other | Class::Leaf(Leaf::Other)) {
                let path = CgroupPath::from(place.as_str());
                found.insert(place.clone(), Found { path, class: class.clone(), pod });
            }
            parent = class;
        }
    }
    found.into_values().collect()
}

/// Page, JSON, HTML and plain text.
fn serve(inventory: Arc<Inventory>, stats: ListContainerStatsResponse) {
    let by_id: HashMap<String, Usage> = stats
        .stats
        .into_iter()
        .map(|stats| (stats.attributes.clone().unwrap_or_default().id, of_cri(&stats)))
        .collect();
    let rows = inventory.subjects.iter().map(|subject| {
        let usage = subject.container.as_ref().and_then(|id| by_id.get(id.as_str()));
        Row { subject: Arc::clone(subject), usage: usage.cloned().unwrap_or_default() }
    });
    let reports = inventory.sandboxes.iter().map(|sandbox| SandboxReport {
        sandbox: Arc::clone(sandbox),
        up: Some(false),
        last_error: "<&>".to_owned(),
        kata: None,
    });
    let snapshot = Snapshot {
        rows: rows.collect(),
        sandboxes: reports.collect(),
        inventory: Arc::clone(&inventory),
        ..Snapshot::default()
    };
    page::of(&snapshot);
    let entries = sandboxes::entries(&snapshot, &snapshot.inventory, None);
    let tags = |html: &str| html.matches('<').count();
    let nothing = tags(&sandboxes::html(&[]));
    // A table row has nine elements, each opened and closed.
    assert_eq!(tags(&sandboxes::html(&entries)), nothing + 18 * entries.len(), "a name became a tag");
    let json = serde_json::to_string(&entries).expect("a list can be written");
    let read: Vec<serde_json::Value> = serde_json::from_str(&json).expect("what was written");
    assert_eq!(read.len(), inventory.sandboxes.len());
    let _ = sandboxes::plain(&entries);
}
