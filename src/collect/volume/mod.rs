//! The `volume` collector: what pods' volumes hold, as the kubelet tells it. Off unless asked for, because most clusters
//! have it from the kubelet already.
//!
//! The node's mount table says which volumes are mounted, the inventory whose they are, and each filesystem how full it
//! is. A volume on virtio-fs is a mount of the node like any other; one that a guest has mounted by itself is counted and
//! not measured. What has no filesystem of its own is for [`emptydir`].

mod beneath;
pub mod claims;
mod direct;
pub mod emptydir;
mod look;
pub mod table;
pub mod vol_data;

use std::cmp::Reverse;
use std::collections::{BTreeMap, HashMap, HashSet};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::asker::{Answer, Asker};
use crate::collect::mount_table::MountTable;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::inventory::{Inventory, Runtime, Sandbox, SandboxState};
use crate::model::units::Seconds;
use crate::model::volume::{Claim, Volume, VolumeState, VolumeUsage, Volumes as Facts};
use claims::{Claims, Key, Source, Wanted};
use look::Look;
use table::{Form, Place};

/// Its name in [`crate::collect::COLLECTORS`].
pub const NAME: &str = "volume";

/// A pod's volumes are mounted before it starts, so a new inventory is a reason to read the mount table again, and hardly
/// anything else is.
const TABLE_INTERVAL: Duration = Duration::from_secs(30);

/// How long all volumes of a collection together are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Most volumes told of. A node has at most a few hundred pods with a few volumes each.
const MOST: usize = 2048;

/// Plugins of the kubelet's own that persistent volumes still use, and the key of their specification. The others became
/// CSI drivers.
const IN_TREE: [(&str, &str); 4] = [("fc", "fc"), ("iscsi", "iscsi"), ("local-volume", "local"), ("nfs", "nfs")];

/// Where volumes are, and who knows whose they are.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// The kubelet's directory as this process sees it.
    pub kubelet: PathBuf,
    /// The node's run directory as this process sees it.
    pub run_dir: PathBuf,
    /// The claims; `None` when nobody may be asked for them.
    pub claims: Option<Arc<Claims>>,
}

/// Reads the mount table and asks every volume in it.
#[derive(Debug)]
pub struct Volumes {
    roots: Arc<Roots>,
    options: Options,
    asker: Asker<Look>,
    known: Option<Known>,
}

/// What the last look at the mount table gave.
#[derive(Debug)]
struct Known {
    at: Instant,
    generation: u64,
    volumes: Vec<Found>,
    left_out: u64,
}

/// A volume of a pod.
#[derive(Debug)]
struct Found {
    place: Place,
    form: Form,
    sandbox: Arc<Sandbox>,
    whose: Whose,
}

/// Whether there is a claim.
#[derive(Debug)]
enum Whose {
    Nobodys,
    Unknown,
    Of(Key),
}

impl Volumes {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, options: Options) -> Self {
        Self { roots, options, asker: Asker::default(), known: None }
    }

    fn pods(&self) -> PathBuf {
        self.options.kubelet.join("pods")
    }

    /// The kubelet's directory in the node's own words, which are those of the mount table.
    fn on_node(&self) -> PathBuf {
        let kubelet = &self.options.kubelet;
        kubelet.strip_prefix(&self.roots.host).map_or_else(|_| kubelet.clone(), |below| Path::new("/").join(below))
    }

    fn look_again(&mut self, inventory: &Inventory) -> Result<(), CollectError> {
        if self
            .known
            .as_ref()
            .is_some_and(|known| known.generation == inventory.generation && known.at.elapsed() < TABLE_INTERVAL)
        {
            return Ok(());
        }
        let table = MountTable::read(&self.roots.proc)?;
        let on_node = self.on_node();
        // Of mounts over each other the last is the one that is seen.
        let mut places: BTreeMap<Place, Form> =
            table.mounts()?.iter().filter_map(|mount| table::volume(mount, &on_node)).collect();
        let directory = self.options.run_dir.join(direct::DIRECTORY);
        let assigned = direct::list(&directory, &on_node.join("pods"), MOST)
            .map_err(|error| CollectError::Read(format!("{}: {error}", directory.display())))?;
        for (place, below) in assigned {
            places.entry(place).or_insert(Form::InGuest { below });
        }
        let (joined, left_out) = of_pods(places, inventory);
        let mut wanted = Vec::new();
        let mut volumes = Vec::with_capacity(joined.len());
        for (place, form, sandbox) in joined {
            let form = seen_from_outside(form, &place, &sandbox);
            let whose = self.whose(&place, &form, &sandbox, &mut wanted);
            volumes.push(Found { place, form, sandbox, whose });
        }
        if let Some(claims) = &self.options.claims {
            claims.want(wanted);
        }
        self.known = Some(Known { at: Instant::now(), generation: inventory.generation, volumes, left_out });
        Ok(())
    }

    /// Whether a volume can have a claim; what must be asked for that is added to `wanted`.
    fn whose(&self, place: &Place, form: &Form, sandbox: &Sandbox, wanted: &mut Vec<Wanted>) -> Whose {
        let Place { plugin, name, .. } = place;
        let (name, source) = match (plugin.as_str(), form) {
            (EMPTY_DIR, _) => return Whose::Nobodys,
            ("csi", Form::Block { .. }) => (name.clone(), Source::CsiDevice),
            ("csi", Form::Filesystem { below, .. } | Form::InGuest { below }) => {
                let Some(data) = self.vol_data(below) else { return Whose::Unknown };
                match data.is_persistent() {
                    Some(true) => (data.name, Source::Csi { driver: data.driver, handle: data.handle }),
                    Some(false) => return Whose::Nobodys,
                    None => return Whose::Unknown,
                }
            }
            (plugin, _) => match IN_TREE.iter().find(|(known, _)| *known == plugin) {
                Some((_, key)) => (name.clone(), Source::InTree(key)),
                None => return Whose::Unknown,
            },
        };
        let key = Key { uid: sandbox.uid.clone(), volume: name };
        wanted.push(Wanted { key: key.clone(), namespace: sandbox.namespace.clone(), source });
        Whose::Of(key)
    }

    /// The file beside the mount, which is on the kubelet's own filesystem.
    fn vol_data(&self, mount: &Path) -> Option<vol_data::VolData> {
        let file = mount.parent()?.join("vol_data.json");
        let bytes = beneath::pods(&self.pods()).and_then(|pods| beneath::read(pods, &file, vol_data::MAX_BYTES));
        vol_data::parse(&bytes.ok()?)
    }

    fn measure(&mut self) -> Facts {
        let pods = self.pods();
        let Some(known) = &self.known else { return Facts::default() };
        let mut answers = self.asker.ask(looks(&known.volumes, &pods), Instant::now() + PATIENCE).into_iter();
        let mut partitions = None;
        let mut all = Vec::with_capacity(known.volumes.len());
        for Found { place, form, sandbox, whose } in &known.volumes {
            let state = match form {
                Form::Filesystem { .. } => match answers.next() {
                    Some(Answer::Facts(usage)) => VolumeState::Measured(usage),
                    Some(Answer::Unseen) => VolumeState::Unseen,
                    Some(Answer::Silent) | None => VolumeState::Silent,
                },
                Form::Block { device } => {
                    let partitions = partitions
                        .get_or_insert_with(|| std::fs::read(self.roots.proc.join("partitions")).unwrap_or_default());
                    match table::device_size(partitions, device) {
                        Some(size) => {
                            VolumeState::Measured(VolumeUsage { capacity: Some(size), ..VolumeUsage::default() })
                        }
                        None => VolumeState::Unseen,
                    }
                }
                Form::InGuest { .. } => VolumeState::InGuest,
            };
            let claim = match (whose, &self.options.claims) {
                (Whose::Nobodys, _) => Claim::None,
                (Whose::Of(key), Some(claims)) => claims.of(key),
                (Whose::Of(_) | Whose::Unknown, _) => Claim::Unknown,
            };
            all.push(Volume {
                sandbox: sandbox.id.clone(),
                namespace: sandbox.namespace.clone(),
                pod: sandbox.pod_name.clone(),
                plugin: place.plugin.clone(),
                name: place.name.clone(),
                claim,
                state,
            });
        }
        Facts { all, left_out: known.left_out, walk: None }
    }
}

/// What is asked of the volumes that are filesystems, in their order.
fn looks(volumes: &[Found], pods: &Path) -> Vec<Look> {
    let looks = volumes.iter().filter_map(|volume| match &volume.form {
        Form::Filesystem { below, majmin, fstype } => {
            let (below, majmin, fstype) = (below.clone(), majmin.clone(), fstype.clone());
            Some(Look { pods: pods.to_owned(), below, majmin, fstype })
        }
        Form::Block { .. } | Form::InGuest { .. } => None,
    });
    looks.collect()
}

/// Kata puts `emptyDir`s into the guest: the node's is there, and stays empty.
fn seen_from_outside(form: Form, place: &Place, sandbox: &Sandbox) -> Form {
    match form {
        Form::Filesystem { below, .. } if place.plugin == EMPTY_DIR && sandbox.runtime == Runtime::Kata => {
            Form::InGuest { below }
        }
        form => form,
    }
}

/// A volume, what goes with it, and its pod.
type Joined<F> = (Place, F, Arc<Sandbox>);

/// The plugin of `emptyDir`s.
const EMPTY_DIR: &str = "empty-dir";

/// Joins volumes to pods; those of pods that are gone are dropped. Of two volumes with one name in pods of one name, the
/// newer pod's stays. Also how many there was no room for.
fn of_pods<F>(places: impl IntoIterator<Item = (Place, F)>, inventory: &Inventory) -> (Vec<Joined<F>>, u64) {
    let age = |sandbox: &Sandbox| (sandbox.state == SandboxState::Ready, sandbox.created_at.map_or(0, Seconds::whole));
    let mut pods: HashMap<&str, &Arc<Sandbox>> = HashMap::new();
    for sandbox in &inventory.sandboxes {
        let newest = pods.entry(sandbox.uid.as_str()).or_insert(sandbox);
        if age(sandbox) > age(newest) {
            *newest = sandbox;
        }
    }
    let places = places.into_iter();
    let mut joined: Vec<Joined<F>> = places
        .filter_map(|(place, fact)| {
            let sandbox = Arc::clone(pods.get(place.uid.as_str())?);
            Some((place, fact, sandbox))
        })
        .collect();
    joined.sort_by_key(|(_, _, sandbox)| Reverse(age(sandbox)));
    let mut seen = HashSet::new();
    joined.retain(|(place, _, sandbox)| {
        seen.insert((sandbox.namespace.clone(), sandbox.pod_name.clone(), place.plugin.clone(), place.name.clone()))
    });
    joined.sort_by(|(a, ..), (b, ..)| a.cmp(b));
    let left_out = joined.len().saturating_sub(MOST);
    joined.truncate(MOST);
    (joined, left_out as u64)
}

impl Collector for Volumes {
    fn name(&self) -> &'static str {
        NAME
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let pods = self.pods();
        beneath::pods(&pods).map_err(|error| CollectError::Source(format!("{}: {error}", pods.display())))?;
        self.look_again(&Arc::clone(&draft.inventory))?;
        draft.volumes = Some(Box::new(self.measure()));
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::{PodUid, SandboxId};

    fn sandbox(id: &str, uid: &str, runtime: Runtime, created: u64) -> Arc<Sandbox> {
        Arc::new(Sandbox {
            id: SandboxId::from(id),
            pod_name: "db".to_owned(),
            namespace: "shop".to_owned(),
            uid: PodUid::from(uid),
            runtime,
            runtime_handler: String::new(),
            kata: None,
            state: SandboxState::Ready,
            created_at: Some(Seconds::from_secs(created)),
            host_network: false,
            containers: Vec::new(),
        })
    }

    fn place(uid: &str, plugin: &str, name: &str) -> Place {
        Place { uid: uid.to_owned(), plugin: plugin.to_owned(), name: name.to_owned() }
    }

    #[test]
    fn volumes_are_of_the_newest_sandbox_and_pod_and_bounded() {
        let of = |id, uid, created| sandbox(id, uid, Runtime::Runc, created);
        let sandboxes = vec![of("a", "1", 10), of("b", "1", 20), of("c", "2", 30)];
        let inventory = Inventory { sandboxes, ..Inventory::default() };
        let found = |places: Vec<Place>| {
            let (joined, left_out) = of_pods(places.into_iter().map(|place| (place, ())), &inventory);
            let ids: Vec<String> = joined.iter().map(|(place, (), pod)| format!("{}/{}", pod.id, place.name)).collect();
            (ids, left_out)
        };
        let places =
            vec![place("1", "nfs", "x"), place("1", "nfs", "y"), place("2", "nfs", "x"), place("3", "nfs", "x")];
        assert_eq!(found(places), (vec!["b/y".to_owned(), "c/x".to_owned()], 0));
        let many = (0..MOST + 3).map(|number| place("1", "csi", &number.to_string())).collect();
        let (all, left_out) = found(many);
        assert_eq!((all.len(), left_out), (MOST, 3));
    }

    #[test]
    fn an_empty_directory_of_a_kata_pod_is_in_the_guest() {
        let form = || Form::Filesystem { below: "x".into(), majmin: "0:1".to_owned(), fstype: "tmpfs".to_owned() };
        let of = |plugin, runtime| seen_from_outside(form(), &place("1", plugin, "x"), &sandbox("a", "1", runtime, 1));
        assert_eq!(of(EMPTY_DIR, Runtime::Kata), Form::InGuest { below: "x".into() });
        assert_eq!(of(EMPTY_DIR, Runtime::Runc), form());
        assert_eq!(of("csi", Runtime::Kata), form());
    }
}
