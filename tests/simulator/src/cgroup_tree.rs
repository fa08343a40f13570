//! Real cgroups for a node to play with: made, limited and removed in every hierarchy this host has, v1, hybrid or v2.
//!
//! A path such as `/kata-pulse-demo-7/kubepods/burstable/pod…/…` is made in all of them, as the runtime and
//! the kubelet do it. Processes go only into the leaves, which v2 demands and v1 allows.

use std::fs;
use std::path::{Path, PathBuf};

use crate::hierarchy::{Hierarchy, Version, mounted, remove_tree, words, write};

/// The CPU period of every limit, in microseconds.
const CPU_PERIOD: u32 = 100_000;

/// The controllers a v2 pod is measured by.
const WANTED: [&str; 5] = ["cpu", "memory", "io", "pids", "cpuset"];

/// The limits of a cgroup, as the kubelet sets them.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Limits {
    /// Microseconds of CPU time per period of 100 ms.
    pub cpu_quota: Option<u32>,
    /// Shares of 1024; 2 stands for no request.
    pub cpu_shares: u32,
    /// Bytes.
    pub memory: Option<u32>,
}

impl Limits {
    /// No request and no limit.
    pub const NONE: Self = Self { cpu_quota: None, cpu_shares: 2, memory: None };
}

/// A cgroup of its maker's own, in every hierarchy that lets it, with all that is made below it. Removed when dropped.
#[derive(Debug)]
pub struct Tree {
    name: String,
    hierarchies: Vec<Hierarchy>,
    /// What was switched on at the root of a v2 hierarchy, and is to be switched off again.
    enabled_at_root: Vec<(PathBuf, &'static str)>,
}

impl Tree {
    /// Makes the cgroup `/<name>`.
    ///
    /// # Errors
    /// When CPU or memory cannot be limited below it, with the reason in the text.
    pub fn make(name: &str) -> anyhow::Result<Self> {
        let mut tree = Self { name: name.to_owned(), hierarchies: Vec::new(), enabled_at_root: Vec::new() };
        let mut refusal = None;
        for hierarchy in mounted()? {
            tree.enable_below_root(&hierarchy);
            match hierarchy.make(&hierarchy.mount.join(name)) {
                Ok(()) => tree.hierarchies.push(hierarchy),
                // One read-only hierarchy need not end it: a hybrid host's v2 side is often not ours.
                Err(error) => drop(refusal.get_or_insert(error)),
            }
        }
        for controller in ["cpu", "memory"] {
            let controlled = |one: &Hierarchy| one.controls(&one.mount.join(name), controller);
            if !tree.hierarchies.iter().any(controlled) {
                let missing = format!("no {controller} controller in a cgroup hierarchy that can be written");
                return Err(
                    refusal.map_or_else(|| anyhow::anyhow!(missing.clone()), |why| why.context(missing.clone()))
                );
            }
        }
        Ok(tree)
    }

    /// `cgroup v1`, `cgroup v1 and v2 (hybrid)` or `cgroup v2`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        let v2 = self.hierarchies.iter().filter(|one| one.version == Version::V2).count();
        match (self.hierarchies.len() - v2, v2) {
            (0, _) => "cgroup v2",
            (_, 0) => "cgroup v1",
            _ => "cgroup v1 and v2 (hybrid)",
        }
    }

    /// Whether there is one hierarchy for all.
    #[must_use]
    pub fn is_v2(&self) -> bool {
        self.hierarchies.iter().all(|one| one.version == Version::V2)
    }

    /// Where the host's cgroup file systems are: the one v2 mount, or the directory above the v1 mounts.
    #[must_use]
    pub fn root(&self) -> PathBuf {
        let v1 = self.hierarchies.iter().find(|one| one.version != Version::V2);
        let directory = match v1 {
            Some(hierarchy) => hierarchy.mount.parent(),
            None => self.hierarchies.first().map(|hierarchy| hierarchy.mount.as_path()),
        };
        directory.unwrap_or(Path::new("/sys/fs/cgroup")).to_owned()
    }

    /// Makes the cgroup `path`, which begins with this tree's own name, and the cgroups above it.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn add(&self, path: &str, limits: &Limits) -> anyhow::Result<()> {
        for hierarchy in &self.hierarchies {
            let mut directory = hierarchy.mount.clone();
            for part in path.split('/').filter(|part| !part.is_empty()) {
                // The one at the root was taken care of when the tree was made.
                if hierarchy.version == Version::V2 && directory != hierarchy.mount {
                    enable(&directory);
                }
                directory.push(part);
                hierarchy.make(&directory)?;
            }
        }
        self.limit(path, limits)
    }

    /// The directories a process of the cgroup `path` has to join.
    #[must_use]
    pub fn directories(&self, path: &str) -> Vec<PathBuf> {
        self.hierarchies.iter().map(|one| one.directory(path)).collect()
    }

    /// Removes the cgroup `path`, as the runtime does when a container has ended.
    ///
    /// # Errors
    /// When a process in it does not die.
    pub fn remove(&self, path: &str) -> anyhow::Result<()> {
        self.directories(path).iter().try_for_each(|directory| remove_tree(directory))
    }

    /// A counter of the cgroup's `cpu.stat`, which both versions have: `nr_throttled`.
    #[must_use]
    pub fn cpu_stat(&self, path: &str, key: &str) -> Option<u64> {
        let controlled = |one: &&Hierarchy| one.controls(&one.directory(path), "cpu");
        let directory = self.hierarchies.iter().find(controlled)?.directory(path);
        let text = fs::read_to_string(directory.join("cpu.stat")).ok()?;
        text.lines().find_map(|line| line.strip_prefix(key)?.trim().parse().ok())
    }

    fn enable_below_root(&mut self, hierarchy: &Hierarchy) {
        if hierarchy.version == Version::V2 {
            let enabled = enable(&hierarchy.mount);
            self.enabled_at_root.extend(enabled.into_iter().map(|name| (hierarchy.mount.clone(), name)));
        }
    }

    fn limit(&self, path: &str, limits: &Limits) -> anyhow::Result<()> {
        let Limits { cpu_quota, cpu_shares, memory } = *limits;
        for hierarchy in &self.hierarchies {
            let directory = hierarchy.directory(path);
            let has = |controller| hierarchy.controls(&directory, controller);
            let set = |file: &str, value: String| write(&directory.join(file), &value);
            match hierarchy.version {
                Version::V1(_) => {
                    if has("cpu") {
                        set("cpu.shares", cpu_shares.to_string())?;
                    }
                    if let Some(quota) = cpu_quota.filter(|_| has("cpu")) {
                        set("cpu.cfs_period_us", CPU_PERIOD.to_string())?;
                        set("cpu.cfs_quota_us", quota.to_string())?;
                    }
                    if let Some(bytes) = memory.filter(|_| has("memory")) {
                        set("memory.limit_in_bytes", bytes.to_string())?;
                    }
                }
                Version::V2 => {
                    if has("cpu") {
                        set("cpu.weight", weight(cpu_shares).to_string())?;
                    }
                    if let Some(quota) = cpu_quota.filter(|_| has("cpu")) {
                        set("cpu.max", format!("{quota} {CPU_PERIOD}"))?;
                    }
                    if let Some(bytes) = memory.filter(|_| has("memory")) {
                        set("memory.max", bytes.to_string())?;
                    }
                }
            }
        }
        Ok(())
    }
}

impl Drop for Tree {
    fn drop(&mut self) {
        for hierarchy in &self.hierarchies {
            // What cannot be removed now is removed by the next sweep.
            remove_tree(&hierarchy.mount.join(&self.name)).ok();
        }
        for (root, controller) in &self.enabled_at_root {
            // Refused while somebody else has come to use it, and rightly so.
            write(&root.join("cgroup.subtree_control"), &format!("-{controller}")).ok();
        }
    }
}

/// Switches the wanted controllers on for the children of a v2 cgroup. Gives those that were off. One that
/// cannot be switched on is missed later, when a limit needs it.
fn enable(directory: &Path) -> Vec<&'static str> {
    let available = words(&directory.join("cgroup.controllers"));
    let control = directory.join("cgroup.subtree_control");
    let enabled = words(&control);
    let off = |name: &&str| available.iter().any(|word| word == name) && !enabled.iter().any(|word| word == name);
    // One by one: a write that names several switches on none when one is refused.
    WANTED.into_iter().filter(off).filter(|name| write(&control, &format!("+{name}")).is_ok()).collect()
}

/// The kubelet's translation of shares of 1024 (2 to 262144) into a weight of 100 (1 to 10000).
fn weight(shares: u32) -> u32 {
    1 + u32::try_from(u64::from(shares.saturating_sub(2)) * 9999 / 262_142).unwrap_or(9999)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A v2 host in a plain directory: every cgroup is there already, with the files the kernel would make.
    #[test]
    fn on_v2_controllers_are_switched_on_above_the_leaf_and_limits_are_v2_s() -> anyhow::Result<()> {
        let mount = tempfile::tempdir()?;
        let path = "/demo/kubepods/pod1/leaf";
        let mut directory = mount.path().to_owned();
        for part in ["", "demo", "kubepods", "pod1", "leaf"] {
            directory.push(part);
            fs::create_dir_all(&directory)?;
            fs::write(directory.join("cgroup.controllers"), "cpu memory\n")?;
            fs::write(directory.join("cgroup.subtree_control"), "cpu\n")?;
        }
        let hierarchy = Hierarchy { mount: mount.path().to_owned(), version: Version::V2 };
        let tree = Tree { name: "gone".to_owned(), hierarchies: vec![hierarchy], enabled_at_root: Vec::new() };
        tree.add(path, &Limits { cpu_quota: Some(20_000), cpu_shares: 1024, memory: Some(1 << 27) })?;

        let read = |file: &str| fs::read_to_string(mount.path().join(file));
        // A plain file keeps the last write, which is the one controller that was off.
        assert_eq!(read("demo/cgroup.subtree_control")?, "+memory");
        assert_eq!(read("demo/kubepods/pod1/cgroup.subtree_control")?, "+memory");
        assert_eq!(read("demo/kubepods/pod1/leaf/cgroup.subtree_control")?, "cpu\n");
        assert_eq!(read("demo/kubepods/pod1/leaf/cpu.max")?, "20000 100000");
        assert_eq!(read("demo/kubepods/pod1/leaf/cpu.weight")?, "39");
        assert_eq!(read("demo/kubepods/pod1/leaf/memory.max")?, "134217728");
        assert_eq!((tree.kind(), tree.root()), ("cgroup v2", mount.path().to_owned()));
        Ok(())
    }

    #[test]
    fn weights_are_the_kubelet_s() {
        assert_eq!([2, 102, 1024, 262_144].map(weight), [1, 4, 39, 10_000]);
    }
}
