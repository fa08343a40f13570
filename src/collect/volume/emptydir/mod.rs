//! The `emptydir` collector: what `emptyDir`s on the node's disk hold, by walking them. Off unless asked for, because it
//! looks at every file.
//!
//! A thread of its own makes a pass every five minutes, while somebody scrapes, and within a budget: what it does not come
//! to is first in the next pass, and a directory that no pass can finish has no figures. Those of Kata pods are in the
//! guest.

mod walk;

use std::collections::{BTreeMap, BTreeSet, HashSet};
use std::ffi::CString;
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use rustix::fs::{Dir, fstat};

use crate::collect::volume::table::Place;
use crate::collect::volume::{EMPTY_DIR, MOST, beneath, of_pods, table};
use crate::collect::{CollectError, Collector, Draft};
use crate::model::inventory::{Inventory, Runtime};
use crate::model::units::Seconds;
use crate::model::volume::{Claim, Volume, VolumeState, VolumeUsage, Walk};
use walk::{Budget, Cut, Sum};

/// Its name in [`crate::collect::COLLECTORS`].
pub const NAME: &str = "emptydir";

/// Pause between two passes.
const INTERVAL: Duration = Duration::from_secs(300);

/// Entries that a pass looks at, at most.
const ENTRIES: u64 = 200_000;

/// How long a pass takes, at most.
const TIME: Duration = Duration::from_secs(10);

/// A pass that takes longer than this hangs, in a file of a pod that another filesystem was mounted on.
const STUCK: Duration = Duration::from_secs(60);

/// Walks the `emptyDir`s of the node's pods.
#[derive(Debug)]
pub struct EmptyDirs {
    pods: PathBuf,
    passes: Arc<Mutex<Passes>>,
}

/// What passes have found.
#[derive(Debug, Default)]
struct Passes {
    /// When the one that is under way began.
    running: Option<Instant>,
    ended: Option<Instant>,
    /// Of directories that the last pass did not come to, what an earlier one found.
    found: BTreeMap<Place, Sum>,
    last: Option<Walk>,
    /// Where the next pass begins.
    next: Option<Place>,
}

impl EmptyDirs {
    /// A collector that has read nothing yet. `kubelet` is the kubelet's directory as this process sees it.
    pub fn new(kubelet: &Path) -> Self {
        Self { pods: kubelet.join("pods"), passes: Arc::default() }
    }

    /// Starts a pass if one is due.
    fn start(&self, inventory: &Inventory) {
        let mut passes = lock(&self.passes);
        if passes.running.is_some() || passes.ended.is_some_and(|ended| ended.elapsed() < INTERVAL) {
            return;
        }
        let of_node = inventory.sandboxes.iter().filter(|sandbox| sandbox.runtime == Runtime::Runc);
        let uids: BTreeSet<String> = of_node.map(|sandbox| sandbox.uid.as_str().to_owned()).collect();
        let (pods, from, running) = (self.pods.clone(), passes.next.clone(), Running(Arc::clone(&self.passes)));
        passes.running = Some(Instant::now());
        drop(passes);
        let work = move || {
            let pass = pass(&pods, &uids, from.as_ref(), Budget::new(ENTRIES, TIME));
            lock(&running.0).take(pass);
        };
        if let Err(error) = std::thread::Builder::new().name(NAME.to_owned()).spawn(work) {
            tracing::warn!(%error, "emptyDirs are not walked");
        }
    }
}

/// A pass that ends, however it does: with what it was given for, a thread that cannot be started drops it too.
struct Running(Arc<Mutex<Passes>>);

impl Drop for Running {
    fn drop(&mut self) {
        let mut passes = lock(&self.0);
        passes.running = None;
        passes.ended = Some(Instant::now());
    }
}

fn lock(passes: &Mutex<Passes>) -> MutexGuard<'_, Passes> {
    passes.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Passes {
    /// What was found may be of any age when a pass does not end.
    fn found(&self) -> Result<impl Iterator<Item = (Place, Sum)>, CollectError> {
        if self.running.is_some_and(|began| began.elapsed() > STUCK) {
            return Err(CollectError::Source("the walk over emptyDirs hangs in a filesystem".to_owned()));
        }
        Ok(self.found.iter().map(|(place, sum)| (place.clone(), *sum)))
    }

    fn take(&mut self, pass: Pass) {
        self.found.retain(|place, _| pass.there.contains(place));
        for (place, sum) in pass.sums {
            match sum {
                Ok(sum) => self.found.insert(place, sum),
                Err(_) => self.found.remove(&place),
            };
        }
        self.next = pass.next;
        self.last = Some(pass.walk);
    }
}

/// What one pass found.
#[derive(Debug)]
struct Pass {
    there: BTreeSet<Place>,
    sums: Vec<(Place, Result<Sum, Cut>)>,
    next: Option<Place>,
    walk: Walk,
}

/// Walks directories in their order, beginning with `from`, until the budget is spent.
fn pass(pods: &Path, uids: &BTreeSet<String>, from: Option<&Place>, mut budget: Budget) -> Pass {
    let began = Instant::now();
    let there = list(pods, uids);
    let (before, behind): (Vec<&Place>, Vec<&Place>) = there.iter().partition(|place| Some(*place) < from);
    let order: Vec<&Place> = behind.into_iter().chain(before).collect();
    let mut sums = Vec::new();
    let mut next = None;
    for (at, place) in order.iter().enumerate() {
        if budget.is_spent() {
            next = Some((*place).clone());
            break;
        }
        let Ok(Some(top)) = open(pods, place) else { continue };
        let sum = walk::sum(top, &mut budget);
        if sum == Err(Cut::Spent) {
            // With the whole budget it could not be finished, so it must not be first again; else it is begun anew.
            let again = if at == 0 { order.get(1) } else { Some(place) };
            next = again.map(|place| (*place).clone());
            sums.push(((*place).clone(), sum));
            break;
        }
        sums.push(((*place).clone(), sum));
    }
    let whole = sums.iter().filter(|(_, sum)| sum.is_ok()).count();
    let walk = Walk {
        took: Seconds::from_micros(u64::try_from(began.elapsed().as_micros()).unwrap_or(u64::MAX)),
        entries: budget.spent,
        incomplete: there.len().saturating_sub(whole) as u64,
    };
    Pass { there, sums, next, walk }
}

fn directory(uid: &str) -> PathBuf {
    Path::new(uid).join("volumes").join(format!("kubernetes.io~{EMPTY_DIR}"))
}

/// The `emptyDir`s of these pods that have no filesystem of their own.
fn list(pods: &Path, uids: &BTreeSet<String>) -> BTreeSet<Place> {
    let mut all = BTreeSet::new();
    for uid in uids {
        let parent = beneath::pods(pods).and_then(|pods| beneath::directory(pods, &directory(uid)));
        let Ok(mut dir) = parent.and_then(|parent| Ok(Dir::new(walk::open(parent, c".")?)?)) else { continue };
        while let Some(Ok(entry)) = walk::next(&mut dir) {
            let place = entry.file_name().to_str().ok().and_then(|name| table::new_place(uid, EMPTY_DIR, name));
            let Some(place) = place else { continue };
            if all.len() < MOST && matches!(open(pods, &place), Ok(Some(_))) {
                all.insert(place);
            }
        }
    }
    all
}

/// Opens an `emptyDir`; `None` when it is a mount.
fn open(pods: &Path, place: &Place) -> std::io::Result<Option<OwnedFd>> {
    let parent = beneath::directory(beneath::pods(pods)?, &directory(&place.uid))?;
    let name = CString::new(place.name.as_str())?;
    let top = walk::open(&parent, &name)?;
    Ok((device(&top)? == device(&parent)?).then_some(top))
}

fn device(directory: impl AsFd) -> std::io::Result<u64> {
    Ok(fstat(directory)?.st_dev)
}

impl Collector for EmptyDirs {
    fn name(&self) -> &'static str {
        NAME
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        beneath::pods(&self.pods).map_err(|error| CollectError::Source(format!("{}: {error}", self.pods.display())))?;
        self.start(&draft.inventory);
        let passes = lock(&self.passes);
        let (joined, left_out) = of_pods(passes.found()?, &draft.inventory);
        let volumes = draft.volumes.get_or_insert_default();
        let told: HashSet<(String, String, String)> = volumes
            .all
            .iter()
            .filter(|volume| volume.plugin == EMPTY_DIR)
            .map(|volume| (volume.namespace.clone(), volume.pod.clone(), volume.name.clone()))
            .collect();
        for (place, Sum { used, inodes }, sandbox) in joined {
            if told.contains(&(sandbox.namespace.clone(), sandbox.pod_name.clone(), place.name.clone())) {
                continue;
            }
            let usage = VolumeUsage { used: Some(used), inodes_used: Some(inodes), ..VolumeUsage::default() };
            volumes.all.push(Volume {
                sandbox: sandbox.id.clone(),
                namespace: sandbox.namespace.clone(),
                pod: sandbox.pod_name.clone(),
                plugin: place.plugin,
                name: place.name,
                claim: Claim::None,
                state: VolumeState::Measured(usage),
            });
        }
        volumes.left_out += left_out;
        volumes.walk = passes.last;
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::*;

    fn place(uid: &str, name: &str) -> Place {
        Place { uid: uid.to_owned(), plugin: EMPTY_DIR.to_owned(), name: name.to_owned() }
    }

    fn fill(pods: &Path, place: &Place, files: usize) {
        let directory = pods.join(directory(&place.uid)).join(&place.name);
        fs::create_dir_all(&directory).unwrap();
        for number in 0..files {
            fs::write(directory.join(number.to_string()), "").unwrap();
        }
    }

    fn names(pass: &Pass) -> Vec<(&str, Option<u64>)> {
        pass.sums.iter().map(|(place, sum)| (place.name.as_str(), sum.ok().map(|sum| sum.inodes))).collect()
    }

    #[test]
    fn a_pass_that_hangs_leaves_nothing_to_tell() {
        let mut passes = Passes { running: Some(Instant::now()), ..Passes::default() };
        passes.found.insert(place("1", "a"), Sum::default());
        assert_eq!(passes.found().unwrap().count(), 1, "the one before, while the next is under way");
        passes.running = Instant::now().checked_sub(STUCK + Duration::from_secs(1));
        let Err(error) = passes.found() else { panic!("it hangs") };
        assert_eq!(error.to_string(), "the walk over emptyDirs hangs in a filesystem");
    }

    #[test]
    fn a_pass_goes_on_where_the_last_one_stopped() {
        let pods = tempfile::tempdir().unwrap();
        for (uid, name, files) in [("1", "a", 3), ("1", "b", 5), ("2", "c", 40), ("3", "d", 4), ("4", "gone", 1)] {
            fill(pods.path(), &place(uid, name), files);
        }
        fs::write(pods.path().join(directory("1")).join("a file"), "").unwrap();
        let uids: BTreeSet<String> = ["1", "2", "3", "0"].map(str::to_owned).into();
        let run = |from: Option<&Place>| pass(pods.path(), &uids, from, Budget::new(10, Duration::from_secs(600)));
        let mut passes = Passes::default();
        let first = run(None);
        assert_eq!(names(&first), [("a", Some(4)), ("b", Some(6)), ("c", None)]);
        assert_eq!((first.next.as_ref(), first.walk.entries, first.walk.incomplete), (Some(&place("2", "c")), 10, 2));
        passes.take(first);
        // Too large for a whole budget: no figures, and the others get their turn.
        let second = run(passes.next.as_ref());
        assert_eq!((names(&second), second.next.as_ref()), (vec![("c", None)], Some(&place("3", "d"))));
        passes.take(second);
        let third = run(passes.next.as_ref());
        assert_eq!(names(&third), [("d", Some(5)), ("a", Some(4)), ("b", None)]);
        passes.take(third);
        let found: Vec<&str> = passes.found.keys().map(|place| place.name.as_str()).collect();
        assert_eq!(found, ["a", "d"], "what a pass began and did not finish is not told any more");
        fs::remove_dir_all(pods.path().join(directory("1"))).unwrap();
        passes.take(run(None));
        assert!(passes.found.keys().all(|place| place.uid != "1"));
    }
}
