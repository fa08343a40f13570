//! The processes of a cgroup, for collectors that look behind it.
//!
//! `cgroup.procs` tells pids in the namespace of whoever reads it. To an agent in a process namespace of its own, which is
//! what a pod without `hostPID` has, the kernel says 0 for the node's processes (cgroup v2) or nothing (v1). The node's
//! procfs shows them all the same, each with its cgroup: there they are looked up the other way round.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Roots;
use crate::collect::cgroup::layout::{Layout, directory};
use crate::collect::cgroup::membership::Membership;
use crate::collect::cgroup::parse;
use crate::collect::held::read_once;

/// How long a list of all processes is good for. Reading one takes about 10 µs for each of them.
const LIST_FOR: Duration = Duration::from_secs(1);

/// The processes of cgroups.
#[derive(Debug)]
pub struct Procs {
    roots: Arc<Roots>,
    layout: Option<Layout>,
    is_apart: bool,
    membership: Membership,
    buffer: Vec<u8>,
    listed: Option<(Instant, HashMap<String, Vec<u32>>)>,
}

impl Procs {
    /// Finds the cgroup mount when first asked.
    pub fn new(roots: Arc<Roots>) -> Self {
        let is_apart = is_apart(&roots.proc);
        Self { roots, layout: None, is_apart, membership: Membership::default(), buffer: Vec::new(), listed: None }
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
            let procs = read_once(&directory(root, cgroup).join("cgroup.procs"), &mut self.buffer).unwrap_or_default();
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
}
