//! Joining what the runtime says with what the cgroup tree shows. Pure, but for remembering when a cgroup was first seen.

mod draft;
#[cfg(test)]
mod tests;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::discover::cgroup_path::{self, Class, Leaf};
use crate::discover::cgroups::Found;
use crate::discover::runtime_view::{KnownContainer, KnownSandbox, RuntimeView};
use crate::model::identity::{CgroupPath, ContainerId, PodUid, SandboxId};
use crate::model::inventory::{
    Container, ContainerState, Inventory, KataDirectory, Kind, Network, Runtime, RuntimeVersion, Sandbox, SandboxState,
    Subject,
};
use draft::Draft;

/// How long a cgroup may be unknown to an answering runtime before it gets a row with blank names. The runtime makes
/// a sandbox's cgroup before it lists the sandbox; a row served in between would become another series a moment later.
const GRACE: Duration = Duration::from_secs(10);

/// Which pods get rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Scope {
    /// All, and the node's own.
    All,
    /// Kata pods' containers and network only: an addition to the kubelet's own export.
    Kata,
}

impl Scope {
    /// As it is configured.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::All => "all",
            Self::Kata => "kata",
        }
    }
}

/// What is known at the time of assembling.
#[derive(Debug)]
pub struct Evidence<'a> {
    /// From the runtime; stale when it does not answer.
    pub view: &'a RuntimeView,
    /// The runtime answered just now.
    pub runtime_answers: bool,
    /// From the cgroup tree.
    pub found: &'a [Found],
    /// Sandbox directories under the Kata roots, by sandbox id.
    pub kata: &'a HashMap<String, KataDirectory>,
}

/// Makes inventories, remembering what must be remembered between them.
#[derive(Debug)]
pub struct Assembler {
    scope: Scope,
    first_seen: HashMap<CgroupPath, Instant>,
}

/// An inventory and whether it is expected to change soon.
#[derive(Debug)]
pub struct Assembled {
    /// The inventory; its generation is not set.
    pub inventory: Inventory,
    /// Some cgroups were held back until the runtime knows them.
    pub held_back: bool,
}

impl Assembler {
    /// For the scope.
    pub fn new(scope: Scope) -> Self {
        Self { scope, first_seen: HashMap::new() }
    }

    /// Joins the evidence. Subjects that have not changed since `before` are taken over from it.
    pub fn assemble(&mut self, evidence: &Evidence<'_>, before: &Inventory, now: Instant) -> Assembled {
        let index = Index::new(evidence);
        let mut subjects = Vec::with_capacity(evidence.found.len());
        let mut unknown = HashMap::new();
        let mut held_back = false;
        for found in evidence.found {
            match index.subject(found, self.scope) {
                Verdict::Subject(subject) => subjects.push(subject),
                Verdict::Nothing => {}
                Verdict::Unknown(subject) => {
                    let since = *self.first_seen.get(&found.path).unwrap_or(&now);
                    unknown.insert(found.path.clone(), since);
                    if evidence.runtime_answers && now.duration_since(since) < GRACE {
                        held_back = true;
                    } else {
                        subjects.push(subject);
                    }
                }
            }
        }
        self.first_seen = unknown;
        index.add_networks(&mut subjects);
        index.add_guests(&mut subjects);
        let taken: HashMap<&str, &Arc<Subject>> =
            before.subjects.iter().map(|subject| (subject.key(), subject)).collect();
        let mut subjects: Vec<Arc<Subject>> = subjects
            .into_iter()
            .map(|draft| match taken.get(draft.labels.id.as_str()) {
                Some(subject) if draft.is(subject) => Arc::clone(subject),
                _ => Arc::new(draft.finish()),
            })
            .collect();
        subjects.sort_by(|one, other| one.key().cmp(other.key()));
        subjects.dedup_by(|one, other| one.key() == other.key());
        let inventory = Inventory {
            generation: 0,
            subjects,
            sandboxes: index.sandboxes(&before.sandboxes),
            runtime: evidence.view.version.clone(),
        };
        Assembled { inventory, held_back }
    }
}

enum Verdict {
    Subject(Draft),
    /// A container or pod that the runtime does not know.
    Unknown(Draft),
    Nothing,
}

/// The evidence by id and uid.
struct Index<'a> {
    evidence: &'a Evidence<'a>,
    containers: HashMap<&'a str, (&'a SandboxId, &'a KnownSandbox, &'a KnownContainer)>,
    /// The sandbox that speaks for a pod: the ready one, and of several the newest.
    pods: HashMap<&'a PodUid, (&'a SandboxId, &'a KnownSandbox)>,
    /// Cgroups of pods that hold a Kata sandbox, known from the names below them.
    kata_pods: HashSet<&'a CgroupPath>,
}

impl<'a> Index<'a> {
    fn new(evidence: &'a Evidence<'a>) -> Self {
        let mut containers = HashMap::new();
        let mut pods: HashMap<&PodUid, (&SandboxId, &KnownSandbox)> = HashMap::new();
        for (id, sandbox) in &evidence.view.sandboxes {
            for container in &sandbox.containers {
                containers.insert(container.public.id.as_str(), (id, sandbox, container));
            }
            let rank = |sandbox: &KnownSandbox| {
                (sandbox.state == SandboxState::Ready, sandbox.created_at.map(|at| at.whole()), sandbox.attempt)
            };
            for uid in [Some(&sandbox.uid), sandbox.config_hash.as_ref()].into_iter().flatten() {
                let current = pods.get(uid);
                if current.is_none_or(|(other, known)| (rank(known), *other) < (rank(sandbox), id)) {
                    pods.insert(uid, (id, sandbox));
                }
            }
        }
        let mut index = Self { evidence, containers, pods, kata_pods: HashSet::new() };
        for found in evidence.found {
            let Some(pod) = &found.pod else { continue };
            let kata = match &found.class {
                Class::Leaf(Leaf::Kata { .. }) => true,
                Class::Leaf(Leaf::Container { id }) => index.is_kata(id.as_str()),
                _ => false,
            };
            if kata {
                index.kata_pods.insert(pod);
            }
        }
        index
    }

    /// Name of the container runtime.
    fn runtime(&self) -> Option<&'a str> {
        self.evidence.view.version.as_ref().map(|version| version.name.as_str())
    }

    /// Whether a sandbox is Kata's, by its directory, its handler or its runtime type.
    fn is_kata(&self, sandbox: &str) -> bool {
        self.evidence.kata.contains_key(sandbox)
            || self.evidence.view.sandboxes.get(sandbox).is_some_and(KnownSandbox::says_kata)
    }

    fn subject(&self, found: &Found, scope: Scope) -> Verdict {
        let path = &found.path;
        match &found.class {
            _ if scope == Scope::Kata => Verdict::Nothing,
            Class::Other if path.as_str() == "/" => Verdict::Subject(Draft::new(Kind::Root, path)),
            Class::Kubepods | Class::Qos => Verdict::Subject(Draft::new(Kind::Group, path)),
            Class::Pod(uid) => {
                let pod = self.pods.get(uid).copied();
                let draft = Draft::new(Kind::Pod, path).of_pod(pod);
                if pod.is_some() { Verdict::Subject(draft) } else { Verdict::Unknown(draft) }
            }
            Class::Leaf(Leaf::Container { id }) | Class::Stray(id) => self.leaf(found, id),
            Class::Leaf(_) | Class::Other => Verdict::Nothing,
        }
    }

    fn leaf(&self, found: &Found, id: &ContainerId) -> Verdict {
        let sandbox = self.evidence.view.sandboxes.get_key_value(id.as_str());
        let container = self.containers.get(id.as_str());
        let sandbox_id = sandbox.map(|(id, _)| id).or(container.map(|(id, _, _)| *id));
        // What lies below a Kata pod on the host is the machine, not its containers, whatever it is called.
        let kata = sandbox_id.is_some_and(|id| self.is_kata(id.as_str()))
            || found.pod.as_ref().is_some_and(|pod| self.kata_pods.contains(pod));
        if kata {
            return Verdict::Nothing;
        }
        match (sandbox, container) {
            (Some((sandbox_id, sandbox)), _) => {
                Verdict::Subject(self.sandbox_draft(&found.path, sandbox_id, sandbox, Some(found.path.clone())))
            }
            (None, Some((sandbox_id, sandbox, container))) => {
                Verdict::Subject(self.container_draft(&found.path, sandbox_id, sandbox, container))
            }
            (None, None) if found.pod.is_some() => {
                let mut draft = Draft::new(Kind::Container, &found.path);
                draft.container = Some(id.clone());
                Verdict::Unknown(draft)
            }
            // An id in the name of a cgroup outside of pods proves nothing unless the runtime knows it.
            (None, None) => Verdict::Nothing,
        }
    }

    fn container_draft(
        &self,
        path: &CgroupPath,
        sandbox_id: &SandboxId,
        sandbox: &KnownSandbox,
        container: &KnownContainer,
    ) -> Draft {
        let mut draft = Draft::new(Kind::Container, path).of_pod(Some((sandbox_id, sandbox)));
        let Container { id, name, image, attempt, started_at, .. } = &container.public;
        draft.labels.container.clone_from(name);
        draft.labels.image.clone_from(image);
        draft.labels.name = self.runtime_name(name, sandbox, *attempt, id.as_str());
        draft.container = Some(id.clone());
        draft.spec.clone_from(&container.spec);
        draft.started_at = *started_at;
        draft.created_at = container.created_at;
        draft
    }

    fn sandbox_draft(
        &self,
        id_label: &CgroupPath,
        id: &SandboxId,
        sandbox: &KnownSandbox,
        cgroup: Option<CgroupPath>,
    ) -> Draft {
        let mut draft = Draft::new(Kind::Sandbox, id_label).of_pod(Some((id, sandbox)));
        draft.cgroup = cgroup;
        draft.labels.image = sandbox.detail.as_ref().map(|detail| detail.image.clone()).unwrap_or_default();
        draft.labels.name = self.runtime_name("POD", sandbox, sandbox.attempt, id.as_str());
        draft.container = Some(ContainerId::from(id.as_str()));
        draft.started_at = sandbox.created_at;
        draft.created_at = sandbox.created_at;
        draft
    }

    /// The `name` label: the id with containerd, the name the kubelet once gave Docker containers with the others.
    fn runtime_name(&self, container: &str, sandbox: &KnownSandbox, attempt: u32, id: &str) -> String {
        match self.runtime() {
            Some("cri-o" | "docker") => {
                let KnownSandbox { name, namespace, uid, .. } = sandbox;
                format!("k8s_{container}_{name}_{namespace}_{uid}_{attempt}")
            }
            _ => id.to_owned(),
        }
    }

    /// Hangs each pod's network on its sandbox's row, made up if the sandbox has no cgroup; on the pod's row where
    /// no runtime tells the sandbox from its containers.
    fn add_networks(&self, drafts: &mut Vec<Draft>) {
        let mut members: HashMap<SandboxId, Vec<CgroupPath>> = HashMap::new();
        let mut nameless: HashMap<CgroupPath, Vec<CgroupPath>> = HashMap::new();
        let pods: HashMap<&CgroupPath, &CgroupPath> =
            self.evidence.found.iter().filter_map(|found| Some((&found.path, found.pod.as_ref()?))).collect();
        for draft in drafts.iter().filter(|draft| matches!(draft.kind, Kind::Sandbox | Kind::Container)) {
            let Some(cgroup) = &draft.cgroup else { continue };
            match &draft.sandbox {
                // The sandbox's own process first: it lives as long as the network does.
                Some(id) if draft.kind == Kind::Sandbox => {
                    members.entry(id.clone()).or_default().insert(0, cgroup.clone())
                }
                Some(id) => members.entry(id.clone()).or_default().push(cgroup.clone()),
                None => {
                    if let Some(pod) = pods.get(cgroup) {
                        nameless.entry((*pod).clone()).or_default().push(cgroup.clone());
                    }
                }
            }
        }
        for draft in drafts.iter_mut() {
            match (draft.kind, &draft.sandbox, &draft.cgroup) {
                (Kind::Sandbox, Some(id), _) => draft.network = self.network(id, members.remove(id)),
                (Kind::Pod, None, Some(pod)) => {
                    draft.network = nameless.remove(pod).map_or(Network::None, Network::Pod);
                }
                _ => {}
            }
        }
        for (id, cgroups) in members {
            let Some(sandbox) = self.evidence.view.sandboxes.get(id.as_str()) else { continue };
            let Some(pod) = cgroups.first().and_then(|sibling| pods.get(sibling)) else { continue };
            let label = CgroupPath::from(cgroup_path::below_pod(pod.as_str(), self.runtime(), id.as_str()));
            let mut draft = self.sandbox_draft(&label, &id, sandbox, None);
            draft.network = self.network(&id, Some(cgroups));
            drafts.push(draft);
        }
    }

    /// Rows of Kata pods' containers, which have no cgroup on the host. Their `id` is the path that runc would have
    /// given them below the pod's cgroup, so that whoever takes the pod from it goes on doing so.
    fn add_guests(&self, drafts: &mut Vec<Draft>) {
        let mut pods: HashMap<&PodUid, &CgroupPath> = HashMap::new();
        for found in self.evidence.found {
            if let Class::Pod(uid) = &found.class {
                pods.entry(uid).or_insert(&found.path);
            }
        }
        let kata = self.evidence.view.sandboxes.iter().filter(|(id, _)| self.is_kata(id.as_str()));
        for (id, sandbox) in kata.filter(|(_, sandbox)| sandbox.state == SandboxState::Ready) {
            let uids = [Some(&sandbox.uid), sandbox.config_hash.as_ref()];
            let pod = uids.into_iter().flatten().find_map(|uid| pods.get(uid));
            let pod = pod.map_or_else(|| format!("/kubepods/pod{}", sandbox.uid), ToString::to_string);
            let path = |id: &str| CgroupPath::from(cgroup_path::below_pod(&pod, self.runtime(), id));
            let running = sandbox.containers.iter().filter(|known| known.public.state == ContainerState::Running);
            let mut rows: Vec<Draft> = running
                .map(|known| self.container_draft(&path(known.public.id.as_str()), id, sandbox, known))
                .collect();
            rows.push(self.sandbox_draft(&path(id.as_str()), id, sandbox, None));
            drafts.extend(rows.into_iter().map(|draft| Draft { cgroup: None, in_guest: true, ..draft }));
        }
    }

    fn network(&self, id: &SandboxId, cgroups: Option<Vec<CgroupPath>>) -> Network {
        let detail = self.evidence.view.sandboxes.get(id.as_str()).and_then(|sandbox| sandbox.detail.as_ref());
        match cgroups {
            Some(cgroups) if !detail.is_some_and(|detail| detail.host_network) => Network::Pod(cgroups),
            _ => Network::None,
        }
    }

    fn sandboxes(&self, before: &[Arc<Sandbox>]) -> Vec<Arc<Sandbox>> {
        let view = &self.evidence.view.sandboxes;
        let mut sandboxes: Vec<Arc<Sandbox>> = view
            .iter()
            .map(|(id, known)| {
                let mut containers: Vec<_> =
                    known.containers.iter().map(|container| container.public.clone()).collect();
                containers.sort_by(|one, other| (&one.name, one.attempt).cmp(&(&other.name, other.attempt)));
                Sandbox {
                    id: id.clone(),
                    pod_name: known.name.clone(),
                    namespace: known.namespace.clone(),
                    uid: known.uid.clone(),
                    runtime: if self.is_kata(id.as_str()) { Runtime::Kata } else { Runtime::Runc },
                    runtime_handler: known.runtime_handler.clone(),
                    kata: self.evidence.kata.get(id.as_str()).cloned(),
                    state: known.state,
                    created_at: known.created_at,
                    host_network: known.detail.as_ref().is_some_and(|detail| detail.host_network),
                    containers,
                }
            })
            .chain(
                self.evidence
                    .kata
                    .iter()
                    .filter(|(id, _)| !view.contains_key(id.as_str()))
                    .map(|(id, directory)| nameless_kata(id, directory)),
            )
            .map(Arc::new)
            .collect();
        sandboxes.sort_by(|one, other| one.id.cmp(&other.id));
        let unchanged = sandboxes.len() == before.len() && sandboxes.iter().zip(before).all(|(a, b)| a == b);
        if unchanged { before.to_vec() } else { sandboxes }
    }
}

/// A Kata sandbox that no runtime has named.
fn nameless_kata(id: &str, directory: &KataDirectory) -> Sandbox {
    Sandbox {
        id: id.into(),
        pod_name: String::new(),
        namespace: String::new(),
        uid: PodUid::from(""),
        runtime: Runtime::Kata,
        runtime_handler: String::new(),
        kata: Some(directory.clone()),
        state: SandboxState::Unknown,
        created_at: None,
        host_network: false,
        containers: Vec::new(),
    }
}

/// Two inventories that nobody can tell apart.
pub fn same(one: &Inventory, other: &Inventory) -> bool {
    let version = |inventory: &Inventory| inventory.runtime.as_ref().map(|RuntimeVersion { name, .. }| name.clone());
    one.subjects.len() == other.subjects.len()
        && one.sandboxes.len() == other.sandboxes.len()
        && one.subjects.iter().zip(&other.subjects).all(|(a, b)| Arc::ptr_eq(a, b))
        && one.sandboxes.iter().zip(&other.sandboxes).all(|(a, b)| a == b)
        && version(one) == version(other)
}
