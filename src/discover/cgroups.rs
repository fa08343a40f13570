//! The cgroup tree: which pods and containers have cgroups, without asking anyone.
//!
//! A walk costs one `stat` per directory that can have children. A cgroup directory's link count is two plus its
//! children, so a directory that has not gained or lost any need not be listed again.

use std::collections::HashMap;
use std::os::fd::OwnedFd;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rustix::fs::{AtFlags, CWD, Mode, OFlags, fstat, openat, statat};

use crate::discover::cgroup_path::{Class, Leaf, classify};
use crate::model::identity::CgroupPath;

/// Directories below this depth are not looked at.
const MAX_DEPTH: usize = 16;

/// Most directories in a walk: a process that makes cgroups without end must not make discovery endless.
const MAX_DIRECTORIES: usize = 50_000;

/// A cgroup that may get a row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Found {
    /// Where.
    pub path: CgroupPath,
    /// What its name says.
    pub class: Class,
    /// The pod directory it lies in, for leaves of pods.
    pub pod: Option<CgroupPath>,
}

/// Remembers the tree between walks.
#[derive(Debug)]
pub struct Tree {
    root: PathBuf,
    directories: HashMap<Arc<str>, Directory>,
}

#[derive(Debug)]
struct Directory {
    inode: u64,
    links: u64,
    children: Vec<Child>,
}

#[derive(Clone, Debug)]
struct Child {
    path: CgroupPath,
    class: Class,
}

impl Tree {
    /// A tree below the root of a hierarchy; not walked yet.
    pub fn new(root: PathBuf) -> Self {
        Self { root, directories: HashMap::new() }
    }

    /// Walks the tree; gives the cgroups of interest sorted by path, the root first.
    ///
    /// `thorough` lists every directory again. Otherwise those whose link count is unchanged are trusted, which
    /// misses a container that replaced another between two walks; whoever reads the old one's files notices.
    ///
    /// # Errors
    /// When the root cannot be read. Directories that vanish during the walk are not errors.
    pub fn walk(&mut self, thorough: bool) -> std::io::Result<Vec<Found>> {
        let mut seen = HashMap::new();
        let root = CgroupPath::from("/");
        let mut found = vec![Found { path: root.clone(), class: Class::Other, pod: None }];
        // Each directory is looked up from here, and not from the root of all.
        let top = openat(CWD, &self.root, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?;
        let mut queue = vec![(Child { path: root, class: Class::Other }, 0)];
        while let Some((parent, depth)) = queue.pop() {
            let Some(directory) = self.look(&top, &parent, thorough) else { continue };
            for child in &directory.children {
                let pod = matches!(parent.class, Class::Pod(_)).then(|| parent.path.clone());
                let leads_on = depth < MAX_DEPTH && pod.is_none();
                if leads_on && seen.len() + queue.len() < MAX_DIRECTORIES {
                    queue.push((child.clone(), depth + 1));
                }
                let interesting = !matches!(child.class, Class::Other | Class::Leaf(Leaf::Other));
                if interesting {
                    found.push(Found { path: child.path.clone(), class: child.class.clone(), pod });
                }
            }
            seen.insert(Arc::clone(&parent.path.0), directory);
        }
        self.directories = seen;
        found.sort_by(|one, other| one.path.cmp(&other.path));
        Ok(found)
    }

    /// The directory as it is now, from memory where that is sure to be right.
    fn look(&mut self, top: &OwnedFd, parent: &Child, thorough: bool) -> Option<Directory> {
        let below = parent.path.as_str().trim_start_matches('/');
        let stat = if below.is_empty() { fstat(top) } else { statat(top, below, AtFlags::empty()) }.ok()?;
        #[allow(clippy::useless_conversion, reason = "32 bits on arm64, 64 on x86-64")]
        let (inode, links) = (stat.st_ino, u64::from(stat.st_nlink));
        if let Some(known) = self.directories.remove(&*parent.path.0)
            && !thorough
            && links > 1
            && (known.inode, known.links) == (inode, links)
        {
            return Some(known);
        }
        // Exactly two links is a directory without children. One link is a filesystem that does not count them.
        let children = if links == 2 { Vec::new() } else { list(&self.root.join(below), parent) };
        Some(Directory { inode, links, children })
    }
}

fn list(path: &Path, parent: &Child) -> Vec<Child> {
    let mut children = Vec::new();
    for entry in std::fs::read_dir(path).into_iter().flatten().flatten() {
        if !entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            continue;
        }
        // A name that is not text cannot be one of Kubernetes' and could not be a label.
        let Ok(name) = entry.file_name().into_string() else { continue };
        let base = parent.path.as_str().trim_end_matches('/');
        let class = classify(&parent.class, &name);
        children.push(Child { path: CgroupPath::from(format!("{base}/{name}")), class });
    }
    children
}

#[cfg(test)]
mod tests {
    use super::*;

    fn paths(tree: &mut Tree, thorough: bool) -> Vec<String> {
        tree.walk(thorough).unwrap().into_iter().map(|found| found.path.to_string()).collect()
    }

    #[test]
    fn pods_and_containers_are_found_and_lost() {
        let dir = tempfile::tempdir().unwrap();
        let id = "a".repeat(64);
        let pod = "kubepods/burstable/pod1";
        std::fs::create_dir_all(dir.path().join(format!("{pod}/{id}/inner"))).unwrap();
        std::fs::create_dir_all(dir.path().join("system.slice/x.service")).unwrap();
        let mut tree = Tree::new(dir.path().to_owned());
        let all = ["/", "/kubepods", "/kubepods/burstable", "/kubepods/burstable/pod1"];
        let mut expected: Vec<String> = all.iter().map(ToString::to_string).collect();
        expected.push(format!("/{pod}/{id}"));
        assert_eq!(paths(&mut tree, false), expected);
        assert_eq!(paths(&mut tree, false), expected, "from memory");

        let second = "b".repeat(64);
        std::fs::create_dir(dir.path().join(format!("{pod}/{second}"))).unwrap();
        expected.push(format!("/{pod}/{second}"));
        assert_eq!(paths(&mut tree, false), expected);

        std::fs::remove_dir_all(dir.path().join(format!("{pod}/{id}"))).unwrap();
        std::fs::create_dir(dir.path().join(format!("{pod}/{}", "c".repeat(64)))).unwrap();
        let replaced = paths(&mut tree, true);
        assert!(replaced.iter().any(|path| path.ends_with("ccc")) && !replaced.iter().any(|p| p.ends_with("aaa")));

        std::fs::remove_dir_all(dir.path().join("kubepods")).unwrap();
        assert_eq!(paths(&mut tree, false), ["/"]);
        assert!(Tree::new(dir.path().join("none")).walk(false).is_err());
    }

    #[test]
    fn nodes_nested_in_a_container_are_walked() {
        let dir = tempfile::tempdir().unwrap();
        let (node, id) = ("e".repeat(64), "f".repeat(64));
        let pod = format!("docker/{node}/kubepods/pod1");
        std::fs::create_dir_all(dir.path().join(format!("{pod}/{id}"))).unwrap();
        let found = Tree::new(dir.path().to_owned()).walk(false).unwrap();
        let container = found.last().unwrap();
        assert_eq!(container.path.as_str(), format!("/{pod}/{id}"));
        assert_eq!(container.pod.as_ref().unwrap().as_str(), format!("/{pod}"));
    }
}
