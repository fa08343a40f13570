//! The directories of Kata sandboxes: one per sandbox below a root of each Kata runtime, watched.
//!
//! The watch only says that something may have changed; what is there is always listed. Roots may be missing until the
//! first sandbox, may vanish and be made again: every listing looks at them anew and watches what it finds, the nearest
//! existing ancestor where a root is missing.

use std::collections::HashMap;
use std::fs::DirEntry;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use notify::event::{EventKind, ModifyKind};
use notify::{RecommendedWatcher, RecursiveMode, Watcher};

use crate::discover::cgroup_path::is_container_id;
use crate::model::inventory::{KataDirectory, KataRuntime};

/// Name of the shim's socket: a directory that has one is a sandbox, whatever it is called.
const MONITOR_SOCKET: &str = "shim-monitor.sock";

/// How often the watch follows a path that is being made while it is armed: more parts than it has.
const MAX_STEPS: usize = 8;

/// Longest name taken for a sandbox id.
const MAX_ID: usize = 128;

/// The roots and their watch.
pub struct KataRoots {
    roots: [(KataRuntime, PathBuf); 2],
    watcher: Option<RecommendedWatcher>,
    /// Directories watched now, by inode: a directory made anew is another one.
    watched: HashMap<PathBuf, u64>,
    /// What was there at the last listing.
    last: HashMap<String, KataDirectory>,
    /// Roots that are there and cannot be listed.
    unlisted: Vec<PathBuf>,
}

impl std::fmt::Debug for KataRoots {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("KataRoots").field("roots", &self.roots).field("watched", &self.watched).finish_non_exhaustive()
    }
}

impl KataRoots {
    /// Roots below the node's run directory. `hint` is called, from a thread of the watch, when something may have
    /// changed; without a working watch, listings alone must do.
    pub fn new(run_dir: &Path, hint: impl Fn() + Send + 'static) -> Self {
        let watcher = notify::recommended_watcher(move |event: notify::Result<notify::Event>| {
            let relevant = event.map_or(true, |event| {
                event.need_rescan()
                    || matches!(
                        event.kind,
                        EventKind::Create(_) | EventKind::Remove(_) | EventKind::Modify(ModifyKind::Name(_))
                    )
            });
            if relevant {
                hint();
            }
        });
        let watcher = watcher
            .inspect_err(|error| tracing::warn!(%error, "Kata sandboxes are not watched, only listed now and then"))
            .ok();
        let roots = [(KataRuntime::Go, run_dir.join("vc/sbs")), (KataRuntime::Rs, run_dir.join("kata"))];
        let (watched, last, unlisted) = Default::default();
        Self { roots, watcher, watched, last, unlisted }
    }

    /// The sandboxes that are there now, by id. Arms the watch first, so that nothing slips in between.
    pub fn list(&mut self) -> HashMap<String, KataDirectory> {
        let mut wanted = self.nearest();
        for _ in 0..MAX_STEPS {
            self.watch(&wanted);
            // A part of the path that was made before its parent was watched has told nobody.
            let nearer = self.nearest();
            if nearer == wanted {
                break;
            }
            wanted = nearer;
        }
        let mut found = HashMap::new();
        for (runtime, root) in self.roots.clone() {
            match std::fs::read_dir(&root) {
                Ok(entries) => {
                    self.unlisted.retain(|unlisted| *unlisted != root);
                    found.extend(entries.flatten().filter_map(|entry| sandbox(runtime, &entry)));
                }
                Err(error) if is_absent(&error) => self.unlisted.retain(|unlisted| *unlisted != root),
                Err(error) => {
                    // Nothing says that the sandboxes are gone: what was there is the better guess.
                    let known = self.last.iter().filter(|(_, directory)| directory.runtime == runtime);
                    found.extend(known.map(|(id, directory)| (id.clone(), directory.clone())));
                    if !self.unlisted.contains(&root) {
                        tracing::warn!(root = %root.display(), %error, "Kata sandboxes cannot be listed, will retry");
                        self.unlisted.push(root);
                    }
                }
            }
        }
        self.last.clone_from(&found);
        found
    }

    /// Each root, or the nearest ancestor of it that is there.
    fn nearest(&self) -> Vec<PathBuf> {
        self.roots.iter().map(|(_, root)| nearest_existing(root)).collect()
    }

    fn watch(&mut self, wanted: &[PathBuf]) {
        let Some(watcher) = &mut self.watcher else { return };
        let inode = |path: &Path| std::fs::metadata(path).map(|metadata| metadata.ino()).ok();
        let stale: Vec<PathBuf> = self
            .watched
            .iter()
            .filter(|(path, known)| !wanted.contains(path) || inode(path) != Some(**known))
            .map(|(path, _)| path.clone())
            .collect();
        for path in stale {
            // The kernel drops the watch of a removed directory by itself; removing it again may fail and may.
            let _ = watcher.unwatch(&path);
            self.watched.remove(&path);
        }
        for path in wanted {
            if let (false, Some(inode)) = (self.watched.contains_key(path), inode(path)) {
                match watcher.watch(path, RecursiveMode::NonRecursive) {
                    Ok(()) => {
                        self.watched.insert(path.clone(), inode);
                    }
                    Err(error) => tracing::debug!(path = %path.display(), %error, "directory cannot be watched"),
                }
            }
        }
    }
}

/// The sandbox that a directory below a root is, if it is one.
fn sandbox(runtime: KataRuntime, entry: &DirEntry) -> Option<(String, KataDirectory)> {
    let id = entry.file_name().into_string().ok()?;
    let path = entry.path();
    let is_directory = entry.file_type().is_ok_and(|kind| kind.is_dir());
    let is_sandbox = is_directory && id.len() <= MAX_ID && (is_container_id(&id) || path.join(MONITOR_SOCKET).exists());
    is_sandbox.then_some((id, KataDirectory { runtime, path }))
}

/// There is no such directory: no sandbox of this runtime either.
fn is_absent(error: &std::io::Error) -> bool {
    matches!(error.kind(), std::io::ErrorKind::NotFound | std::io::ErrorKind::NotADirectory)
}

fn nearest_existing(path: &Path) -> PathBuf {
    path.ancestors().find(|ancestor| ancestor.is_dir()).unwrap_or(Path::new("/")).to_owned()
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;
    use std::time::Duration;

    use super::*;

    const ID: &str = "0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef";

    struct Watched {
        dir: tempfile::TempDir,
        roots: KataRoots,
        hints: mpsc::Receiver<()>,
    }

    impl Watched {
        fn new() -> Self {
            let dir = tempfile::tempdir().unwrap();
            let (hint, hints) = mpsc::channel();
            let roots = KataRoots::new(dir.path(), move || {
                let _ = hint.send(());
            });
            Self { dir, roots, hints }
        }

        fn make(&self, path: &str) {
            std::fs::create_dir_all(self.dir.path().join(path)).unwrap();
        }

        /// Lists after a hint that must come soon.
        fn list_after_hint(&mut self) -> Vec<(String, KataRuntime)> {
            self.hints.recv_timeout(Duration::from_secs(5)).expect("a hint");
            self.list()
        }

        fn list(&mut self) -> Vec<(String, KataRuntime)> {
            let mut listed: Vec<_> = self.roots.list().into_iter().map(|(id, found)| (id, found.runtime)).collect();
            listed.sort_by(|one, other| one.0.cmp(&other.0));
            listed
        }
    }

    #[test]
    fn roots_that_appear_later_vanish_and_come_again_are_followed() {
        let mut watched = Watched::new();
        assert!(watched.list().is_empty());
        watched.make("kata");
        assert!(watched.list_after_hint().is_empty());
        watched.make(&format!("kata/{ID}"));
        assert_eq!(watched.list_after_hint(), [(ID.to_owned(), KataRuntime::Rs)]);
        std::fs::remove_dir_all(watched.dir.path().join("kata")).unwrap();
        assert!(watched.list_after_hint().is_empty());
        while watched.hints.try_recv().is_ok() {}
        assert!(watched.list().is_empty());
        watched.make("kata");
        watched.list_after_hint();
        watched.make(&format!("kata/{ID}"));
        assert_eq!(watched.list_after_hint(), [(ID.to_owned(), KataRuntime::Rs)]);
    }

    #[test]
    fn only_sandboxes_are_taken_for_sandboxes() {
        let mut watched = Watched::new();
        watched.make(&format!("vc/sbs/{ID}"));
        watched.make("kata/firecracker/x/root");
        watched.make("kata/by-hand");
        std::fs::write(watched.dir.path().join("kata/by-hand").join(MONITOR_SOCKET), "").unwrap();
        std::fs::write(watched.dir.path().join("vc/sbs").join("f".repeat(64)), "a file").unwrap();
        assert_eq!(watched.list(), [(ID.to_owned(), KataRuntime::Go), ("by-hand".to_owned(), KataRuntime::Rs)]);
    }
}
