//! The processes of a cgroup, for collectors that look behind it.
//!
//! `cgroup.procs` tells pids in the namespace of whoever reads it. To an agent in a process namespace of its own, which is
//! what a pod without `hostPID` has, the kernel says 0 for the node's processes (cgroup v2) or nothing (v1). The node's
//! procfs shows them all the same, each with its cgroup: there they are looked up the other way round.

use std::collections::{HashMap, HashSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Roots;
use crate::collect::cgroup::layout::{Layout, directory};
use crate::collect::cgroup::membership::Membership;
use crate::collect::cgroup::parse;
use crate::collect::held::{Budget, HeldFile, Reader, Vanished, read_once};
use crate::model::identity::CgroupPath;
use crate::model::inventory::Inventory;

/// How long a list of all processes is good for. Reading one is three system calls for each of them.
const LIST_FOR: Duration = Duration::from_secs(1);

/// A cgroup's file.
const PROCS: &str = "cgroup.procs";

/// The processes of cgroups.
#[derive(Debug)]
pub struct Procs {
    roots: Arc<Roots>,
    layout: Option<Layout>,
    is_apart: bool,
    membership: Membership,
    buffer: Vec<u8>,
    held: Option<Held>,
    listed: Option<(Instant, HashMap<String, Vec<u32>>)>,
}

/// `cgroup.procs` of each cgroup that was asked about.
#[derive(Debug)]
struct Held {
    reader: Reader,
    files: HashMap<Arc<str>, HeldFile>,
}

impl Procs {
    /// Finds the cgroup mount when first asked.
    pub fn new(roots: Arc<Roots>) -> Self {
        let is_apart = is_apart(&roots.proc);
        Self {
            roots,
            layout: None,
            is_apart,
            membership: Membership::default(),
            buffer: Vec::new(),
            held: None,
            listed: None,
        }
    }

    /// The same, for who asks about the same cgroups at every collection.
    pub fn holding(roots: Arc<Roots>, budget: Arc<Budget>) -> Self {
        let held = Held { reader: Reader::new(budget), files: HashMap::new() };
        Self { held: Some(held), ..Self::new(roots) }
    }

    /// Drops what is held for cgroups that are no longer in the inventory.
    pub fn forget(&mut self, inventory: &Inventory) {
        if let Some(held) = &mut self.held {
            let live: HashSet<&str> = inventory
                .subjects
                .iter()
                .filter_map(|subject| subject.cgroup.as_ref())
                .map(CgroupPath::as_str)
                .collect();
            held.files.retain(|cgroup, _| live.contains(&**cgroup));
        }
    }

    /// `/proc`.
    pub fn proc(&self) -> &Path {
        &self.roots.proc
    }

    /// Whether this process is in another process namespace than the node's.
    pub const fn is_apart(&self) -> bool {
        self.is_apart
    }

    /// Pids in a cgroup, its children's not included. Empty when it is gone.
    pub fn of(&mut self, cgroup: &str) -> Vec<u32> {
        if self.layout.is_none() {
            self.layout = Layout::detect(&self.roots.cgroup).ok();
        }
        let Some(layout) = &self.layout else { return Vec::new() };
        if !self.is_apart {
            let Some(root) = layout.primary_root() else { return Vec::new() };
            let directory = directory(root, cgroup);
            if let Some(held) = &mut self.held {
                return held.pids(&directory, cgroup);
            }
            let procs = read_once(&directory.join(PROCS), &mut self.buffer).unwrap_or_default();
            return parse::pids(procs).flatten().collect();
        }
        let listed = self.listed.take().filter(|(at, _)| at.elapsed() < LIST_FOR);
        let listed = listed.unwrap_or_else(|| (Instant::now(), list(&self.roots.proc, layout, &mut self.membership)));
        let (_, by_cgroup) = self.listed.insert(listed);
        by_cgroup.get(cgroup).cloned().unwrap_or_default()
    }

    /// Whether a process is in a cgroup at this moment.
    pub fn holds(&mut self, cgroup: &str, pid: u32) -> bool {
        if !self.is_apart {
            return self.of(cgroup).contains(&pid);
        }
        let Some(layout) = &self.layout else { return false };
        self.membership.of_process(layout, &self.roots.proc, pid).is_some_and(|found| found == cgroup)
    }
}

impl Held {
    fn pids(&mut self, directory: &Path, cgroup: &str) -> Vec<u32> {
        let Self { reader, files } = self;
        if !files.contains_key(cgroup) {
            files.insert(cgroup.into(), HeldFile::default());
        }
        let Some(file) = files.get_mut(cgroup) else { return Vec::new() };
        let mut read = |file: &mut HeldFile| {
            reader.parse(file, directory, PROCS, |content| Ok(parse::pids(content).flatten().collect::<Vec<u32>>()))
        };
        // Another cgroup may be where this one was.
        let pids = read(file).or_else(|Vanished| {
            *file = HeldFile::default();
            read(file)
        });
        file.look_again();
        reader.take_fault();
        pids.ok().flatten().unwrap_or_default()
    }
}

/// Whether procfs shows another process namespace than this process is in: it calls this process by another pid, or
/// does not know it. Where nothing says so, it is the same.
fn is_apart(proc: &Path) -> bool {
    let own = std::fs::read_link(proc.join("self")).ok();
    let own = own.and_then(|own| own.to_str()?.parse::<u32>().ok());
    own.is_some_and(|own| own != std::process::id())
}

/// All processes by cgroup, ascending.
fn list(proc: &Path, layout: &Layout, membership: &mut Membership) -> HashMap<String, Vec<u32>> {
    let mut by_cgroup: HashMap<String, Vec<u32>> = HashMap::new();
    for entry in std::fs::read_dir(proc).into_iter().flatten().flatten() {
        let Some(pid) = entry.file_name().to_str().and_then(|name| name.parse().ok()) else { continue };
        if let Some(cgroup) = membership.of_process(layout, proc, pid) {
            by_cgroup.entry(cgroup).or_default().push(pid);
        }
    }
    by_cgroup.values_mut().for_each(|pids| pids.sort_unstable());
    by_cgroup
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::symlink;
    use std::path::PathBuf;

    use super::*;

    /// A procfs that calls this process by the given pid, with three processes, and a cgroup mount that tells none.
    fn node(own: u32) -> (tempfile::TempDir, Procs) {
        let dir = tempfile::tempdir().unwrap();
        let (proc, cgroup) = (dir.path().join("proc"), dir.path().join("cgroup"));
        for (pid, path) in [("7", "/pod/a"), ("30", "/pod/b"), ("4", "/pod/a"), ("5", "/gone (deleted)")] {
            fs::create_dir_all(proc.join(pid)).unwrap();
            fs::write(proc.join(pid).join("cgroup"), format!("0::{path}\n")).unwrap();
        }
        symlink(own.to_string(), proc.join("self")).unwrap();
        fs::create_dir_all(cgroup.join("pod/a")).unwrap();
        fs::write(cgroup.join("cgroup.controllers"), "").unwrap();
        fs::write(cgroup.join("pod/a/cgroup.procs"), "0\n0\n").unwrap();
        let sys = PathBuf::from("/nowhere");
        let roots = Roots { host: dir.path().to_owned(), proc, sys, cgroup };
        (dir, Procs::new(Arc::new(roots)))
    }

    #[test]
    fn in_a_namespace_of_our_own_processes_are_found_by_their_cgroup() {
        let (dir, mut procs) = node(std::process::id() + 1);
        assert!(procs.is_apart());
        assert_eq!(procs.of("/pod/a"), [4, 7]);
        assert_eq!(procs.of("/pod/b"), [30]);
        assert_eq!(procs.of("/pod"), [0; 0]);
        // The list may be old; the look at a single process is not.
        fs::write(dir.path().join("proc/7/cgroup"), "0::/pod/b\n").unwrap();
        assert_eq!(procs.of("/pod/a"), [4, 7]);
        assert!(procs.holds("/pod/a", 4) && procs.holds("/pod/b", 7));
        assert!(!procs.holds("/pod/a", 7) && !procs.holds("/pod/a", 99));
    }

    #[test]
    fn in_the_nodes_namespace_the_cgroup_itself_is_asked() {
        let (dir, mut procs) = node(std::process::id());
        assert!(!procs.is_apart());
        assert_eq!(procs.of("/pod/a"), [0; 0], "what cannot be looked up is left out");
        fs::write(dir.path().join("cgroup/pod/a/cgroup.procs"), "12\n11\n").unwrap();
        assert_eq!(procs.of("/pod/a"), [12, 11]);
        assert!(procs.holds("/pod/a", 11) && !procs.holds("/pod/a", 4));
    }

    #[test]
    fn what_is_held_is_read_anew_and_let_go_with_its_cgroup() {
        let (dir, procs) = node(std::process::id());
        let budget = Budget::new(8);
        let mut procs = Procs::holding(Arc::clone(&procs.roots), Arc::clone(&budget));
        for (content, expected) in [("12\n11\n", vec![12, 11]), ("7\n", vec![7]), ("", vec![])] {
            fs::write(dir.path().join("cgroup/pod/a/cgroup.procs"), content).unwrap();
            assert_eq!((procs.of("/pod/a"), budget.held()), (expected, 1));
        }
        assert_eq!((procs.of("/pod/none"), budget.held()), (vec![], 1));
        fs::create_dir_all(dir.path().join("cgroup/pod/none")).unwrap();
        fs::write(dir.path().join("cgroup/pod/none/cgroup.procs"), "5\n").unwrap();
        assert_eq!((procs.of("/pod/none"), budget.held()), (vec![5], 2), "it has come since");
        procs.forget(&Inventory::default());
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn a_cgroup_that_is_made_again_is_another() {
        let (dir, procs) = node(std::process::id());
        let mut procs = Procs::holding(Arc::clone(&procs.roots), Budget::new(8));
        // The file of an ended process says that it is gone, as that of a removed cgroup does.
        let mut sleeper = std::process::Command::new("sleep").arg("600").spawn().unwrap();
        let file = dir.path().join("cgroup/pod/a/cgroup.procs");
        fs::remove_file(&file).unwrap();
        symlink(format!("/proc/{}/oom_score", sleeper.id()), &file).unwrap();
        assert_eq!(procs.of("/pod/a").len(), 1);
        sleeper.kill().unwrap();
        sleeper.wait().unwrap();
        fs::remove_file(&file).unwrap();
        fs::write(&file, "7\n").unwrap();
        assert_eq!(procs.of("/pod/a"), [7], "at once");
    }
}
