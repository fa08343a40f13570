//! Real cgroups with a sleeping process each, in every hierarchy of this host that a container is measured by.
//!
//! All of it is below one cgroup whose name has this process's id. A sweeper, which only waits for this process to end,
//! in whatever way, kills what is in there and removes it.

use std::io::{self, Read};
use std::path::Path;
use std::process::{Child, Command, Stdio};

use anyhow::{Context, ensure};
use kata_pulse_simulator::hierarchy::{Hierarchy, Version, mounted, remove_tree, write};

use crate::child::Told;

/// What a container is measured by.
const MEASURED: [&str; 6] = ["cpu", "cpuacct", "memory", "blkio", "pids", "hugetlb"];

/// The same in v2, as far as it has to be switched on.
const MEASURED_V2: [&str; 5] = ["cpu", "memory", "io", "pids", "hugetlb"];

/// Containers that are really there.
#[derive(Debug)]
pub struct Containers {
    hierarchies: Vec<Hierarchy>,
    name: String,
    sleeping: Vec<Child>,
    _sweeper: Told,
}

impl Containers {
    /// None yet, but somebody who will remove them.
    pub fn new() -> anyhow::Result<Self> {
        let name = format!("kata-pulse-bench-{}", std::process::id());
        let measures = |one: &Hierarchy| match &one.version {
            Version::V1(options) => options.iter().any(|option| MEASURED.contains(&option.as_str())),
            Version::V2 => true,
        };
        let hierarchies: Vec<Hierarchy> = mounted()?.into_iter().filter(measures).collect();
        ensure!(!hierarchies.is_empty(), "no cgroup hierarchy is mounted");
        let sweeper = Told::start(Command::new(std::env::current_exe()?).args(["sweep", &name]))?;
        Ok(Self { hierarchies, name, sleeping: Vec::new(), _sweeper: sweeper })
    }

    /// `v1`, `v2` or `hybrid`, as far as containers are measured by it.
    pub fn version(&self) -> &'static str {
        let v2 = self.hierarchies.iter().filter(|one| one.version == Version::V2).count();
        match (self.hierarchies.len() - v2, v2) {
            (0, _) => "v2",
            (_, 0) => "v1",
            _ => "v1 with a v2 hierarchy beside it",
        }
    }

    /// Makes more of them until there are `count`, each in a pod of its own.
    pub fn grow(&mut self, count: usize) -> anyhow::Result<()> {
        for number in self.sleeping.len()..count {
            let process = Command::new("sleep").arg("86400").stdin(Stdio::null()).spawn().context("start sleep")?;
            let pid = process.id().to_string();
            self.sleeping.push(process);
            for hierarchy in &self.hierarchies {
                let pod = format!("pod{}", uid(number));
                let mut directory = hierarchy.mount.clone();
                for part in [self.name.as_str(), "kubepods", &pod, &id(number)] {
                    switch_on(hierarchy, &directory);
                    directory.push(part);
                    hierarchy.make(&directory)?;
                }
                write(&directory.join("cgroup.procs"), &pid)?;
            }
        }
        Ok(())
    }
}

impl Drop for Containers {
    fn drop(&mut self) {
        for process in &mut self.sleeping {
            process.kill().ok();
            process.wait().ok();
        }
    }
}

/// The id of a container that is made here.
pub fn id(number: usize) -> String {
    format!("{number:064x}")
}

/// The UID of a pod that is made here.
pub fn uid(number: usize) -> String {
    format!("00000000-0000-4000-8000-{number:012}")
}

/// Lets the cgroups below have what they are measured by.
fn switch_on(hierarchy: &Hierarchy, directory: &Path) {
    if hierarchy.version == Version::V2 {
        for controller in MEASURED_V2 {
            // What the host does not have, or has elsewhere, is not measured there.
            write(&directory.join("cgroup.subtree_control"), &format!("+{controller}")).ok();
        }
    }
}

/// Waits until standard input ends, then removes the cgroup of this name and all that is in it.
pub fn sweep(name: &str) -> anyhow::Result<()> {
    ensure!(name.starts_with("kata-pulse-bench-"), "{name} was not made here");
    io::stdin().read_to_end(&mut Vec::new())?;
    for hierarchy in mounted()? {
        remove_tree(&hierarchy.mount.join(name))?;
    }
    Ok(())
}
