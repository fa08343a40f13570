//! The cgroups that a shim makes on the host for itself and the processes of its sandbox.

use std::fs;

use anyhow::Context;

use crate::hierarchy::{self, Hierarchy, Version};
use crate::kata::kind::HostCgroup;

/// The host's hierarchies and what was made in them. What is in there is killed, and the cgroups removed, when it is
/// dropped.
#[derive(Debug)]
pub(super) struct Cgroups {
    hierarchies: Vec<Hierarchy>,
    made: Vec<String>,
}

impl Cgroups {
    /// Nothing is made yet.
    pub(super) fn new() -> anyhow::Result<Self> {
        Ok(Self { hierarchies: hierarchy::mounted()?, made: Vec::new() })
    }

    /// The version by which the host accounts for memory, which is what counts.
    pub(super) fn version(&self) -> HostCgroup {
        let v1 = |one: &Hierarchy| matches!(one.version, Version::V1(_)) && one.controls(&one.mount, "memory");
        if self.hierarchies.iter().any(v1) { HostCgroup::V1 } else { HostCgroup::V2 }
    }

    /// Makes a cgroup and those above it that are not there.
    pub(super) fn make(&mut self, path: &str) -> anyhow::Result<()> {
        self.made.push(path.to_owned());
        for hierarchy in &self.hierarchies {
            let ends = path.match_indices('/').map(|(at, _)| at).filter(|at| *at > 0).chain([path.len()]);
            for part in ends.filter_map(|end| path.get(..end)) {
                hierarchy.make(&hierarchy.directory(part))?;
            }
        }
        Ok(())
    }

    /// Takes over cgroups that another process has made.
    pub(super) fn adopt(&mut self, made: impl IntoIterator<Item = String>) {
        self.made.extend(made);
    }

    /// Moves a process; its children from now on follow it.
    pub(super) fn enter(&self, path: &str, pid: u32) -> anyhow::Result<()> {
        for hierarchy in &self.hierarchies {
            hierarchy::write(&hierarchy.directory(path).join("cgroup.procs"), &pid.to_string())?;
        }
        Ok(())
    }

    /// Removes cgroups, and kills what is in them but this process, which leaves them.
    fn remove(&self) -> anyhow::Result<()> {
        self.enter("/", std::process::id()).context("leave the sandbox's cgroups")?;
        for hierarchy in &self.hierarchies {
            for path in &self.made {
                hierarchy::remove_tree(&hierarchy.directory(path))?;
            }
            // Its parent is there for overheads alone, and others may have theirs in it still.
            fs::remove_dir(hierarchy.directory(self.overheads())).ok();
        }
        Ok(())
    }

    /// The cgroup of all overheads: `/kata_overhead` for `/kata_overhead/<id>`, none where there is none.
    fn overheads(&self) -> &str {
        let parents = self.made.iter().filter_map(|path| path.rsplit_once('/'));
        parents.map(|(parent, _)| parent).find(|parent| parent.ends_with("/kata_overhead")).unwrap_or("/nowhere")
    }
}

impl Drop for Cgroups {
    fn drop(&mut self) {
        if let Err(error) = self.remove() {
            super::say(&format!("cgroups stay: {error:#}"));
        }
    }
}
