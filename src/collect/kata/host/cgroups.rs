//! The cgroups that are one sandbox's own: the one in its pod, and in split mode the one for overhead.
//!
//! Which they are is read off the sandbox's processes, because configurations, runtimes and drivers place them in nine
//! different ways. A cgroup counts as the sandbox's own only if its path has the sandbox's id in it: a shim that was
//! not moved sits in containerd's cgroup, and that must not be charged to a pod.
//!
//! A cgroup once found stays until it is removed, also when all processes have left it: memory stays charged where it
//! was first touched. In the recorded node a VMM's own cgroup holds 2.4 MB and the overhead cgroup 180 MB of guest RAM.

use std::path::{Path, PathBuf};

use super::parse::{memory_v1, memory_v2};
use crate::collect::cgroup::Hugepages;
use crate::collect::cgroup::layout::{Layout, V1, directory};
use crate::collect::cgroup::membership::Membership;
use crate::collect::cgroup::parse::{CpuStatV2, single};
use crate::collect::held::{HeldFile, Reader, Vanished};
use crate::model::host_side::{CgroupRole, CgroupUse, HostMemory, HostSide};
use crate::model::units::{Bytes, Seconds};

/// Where a process is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Place {
    /// In a cgroup of its sandbox alone.
    Own(String),
    /// In one that is shared with others.
    Shared,
    /// It could not be told.
    Unknown,
}

/// Reads where processes are, as seen from the node's root cgroup.
#[derive(Debug, Default)]
pub(super) struct Resolver(Membership);

impl Resolver {
    /// The place of the process or thread whose directory in procfs this is.
    pub(super) fn place(&mut self, reader: &mut Reader, layout: &Layout, dir: &Path, sandbox: &str) -> Place {
        let path = reader.parse(&mut HeldFile::default(), dir, "cgroup", |content| Ok(self.0.of(layout, content)));
        let Ok(Some(Some(path))) = path else { return Place::Unknown };
        own_part(&path, sandbox).map_or(Place::Shared, |own| Place::Own(own.to_owned()))
    }
}

/// The path up to the part that names the sandbox: `/kubepods/pod…/kata_<id>` of `/kubepods/pod…/kata_<id>/vcpu`.
fn own_part<'a>(path: &'a str, sandbox: &str) -> Option<&'a str> {
    if sandbox.is_empty() {
        return None;
    }
    let at = path.find(sandbox)?;
    let end = path[at..].find('/').map_or(path.len(), |slash| at + slash);
    path.get(..end)
}

/// The cgroups of one sandbox.
#[derive(Debug, Default)]
pub(super) struct Cgroups {
    found: Vec<Found>,
    /// Where the shim is, if in a cgroup of the sandbox: with another one besides, that is the overhead cgroup.
    shim: Option<String>,
    /// Every process of the sandbox is in one of the cgroups found.
    all_placed: bool,
    /// CPU time of cgroups that were removed, in the unit of [`Files::cpu`].
    departed: u64,
}

#[derive(Debug)]
struct Found {
    path: String,
    files: Files,
    /// CPU time when last read.
    cpu: u64,
    /// Read at a slow pace: it hardly ever changes, and there are several files of it.
    hugetlb: Option<Bytes>,
}

impl Cgroups {
    /// Takes in where the processes are now.
    pub(super) fn look_again(&mut self, layout: &Layout, shim: Option<&Place>, others: &[Place]) {
        self.all_placed = true;
        for place in shim.into_iter().chain(others) {
            match place {
                Place::Own(path) => self.add(layout, path),
                Place::Shared | Place::Unknown => self.all_placed = false,
            }
        }
        self.shim = match shim {
            Some(Place::Own(path)) => Some(path.clone()),
            _ => None,
        };
        for found in &mut self.found {
            found.files.look_again();
            found.hugetlb = found.files.hugetlb();
        }
    }

    fn add(&mut self, layout: &Layout, path: &str) {
        if self.found.iter().all(|found| found.path != path) {
            let files = Files::new(layout, path);
            self.found.push(Found { path: path.to_owned(), files, cpu: 0, hugetlb: None });
        }
    }

    /// Reads all of them into `side`, with their sums.
    pub(super) fn read(&mut self, reader: &mut Reader, side: &mut HostSide) {
        let split = self.found.len() > 1;
        let mut cpu_sum = Some(self.departed);
        let mut memory_sum = Some(0);
        let mut unit: Option<fn(u64) -> Seconds> = None;
        let Self { found, shim, all_placed, departed } = self;
        found.retain_mut(|cgroup| {
            let Ok((cpu, memory)) = cgroup.read(reader) else {
                // Its past stays in the sum; a process that is still said to be in it makes the sum unknown.
                *departed += cgroup.cpu;
                cpu_sum = plus(cpu_sum, Some(cgroup.cpu));
                *all_placed = false;
                return false;
            };
            cpu_sum = plus(cpu_sum, cpu);
            memory_sum = plus(memory_sum, memory.and_then(|memory| memory.total()).map(|bytes| bytes.0));
            let seconds = cgroup.files.seconds();
            unit = Some(seconds);
            let overhead = split && shim.as_deref() == Some(cgroup.path.as_str());
            side.cgroups.push(CgroupUse {
                path: cgroup.path.as_str().into(),
                role: if overhead { CgroupRole::Overhead } else { CgroupRole::Sandbox },
                cpu: cpu.map(seconds),
                memory,
            });
            true
        });
        if let (true, Some(seconds)) = (*all_placed, unit) {
            side.cpu = cpu_sum.map(seconds);
            side.memory = memory_sum.map(Bytes);
        }
    }
}

fn plus(sum: Option<u64>, part: Option<u64>) -> Option<u64> {
    sum?.checked_add(part?)
}

impl Found {
    fn read(&mut self, reader: &mut Reader) -> Result<(Option<u64>, Option<HostMemory>), Vanished> {
        let cpu = self.files.cpu(reader)?;
        if let Some(cpu) = cpu {
            self.cpu = cpu;
        }
        let memory = self.files.memory(reader)?.map(|memory| HostMemory { hugetlb: self.hugetlb, ..memory });
        Ok((cpu, memory))
    }
}

/// Held files of one cgroup.
#[derive(Debug)]
enum Files {
    V1 { roots: Box<V1>, cpu: HeldFile, memory: HeldFile, kernel: HeldFile },
    V2 { dir: PathBuf, cpu: HeldFile, memory: HeldFile },
}

impl Files {
    fn new(layout: &Layout, path: &str) -> Self {
        match layout {
            Layout::V2 { root } => {
                Self::V2 { dir: directory(root, path), cpu: HeldFile::default(), memory: HeldFile::default() }
            }
            Layout::V1(V1 { cpuacct, memory, hugetlb, .. }) => {
                let below = |root: &Option<PathBuf>| root.as_deref().map(|root| directory(root, path));
                let roots =
                    V1 { cpuacct: below(cpuacct), memory: below(memory), hugetlb: below(hugetlb), ..V1::default() };
                Self::V1 {
                    roots: Box::new(roots),
                    cpu: HeldFile::default(),
                    memory: HeldFile::default(),
                    kernel: HeldFile::default(),
                }
            }
        }
    }

    /// What one unit of [`Files::cpu`] is.
    fn seconds(&self) -> fn(u64) -> Seconds {
        match self {
            Self::V1 { .. } => Seconds::from_nanos,
            Self::V2 { .. } => Seconds::from_micros,
        }
    }

    fn look_again(&mut self) {
        let files = match self {
            Self::V1 { cpu, memory, kernel, .. } => vec![cpu, memory, kernel],
            Self::V2 { cpu, memory, .. } => vec![cpu, memory],
        };
        files.into_iter().for_each(HeldFile::look_again);
    }

    fn cpu(&mut self, reader: &mut Reader) -> Result<Option<u64>, Vanished> {
        match self {
            Self::V2 { dir, cpu, .. } => {
                let stat = reader.parse(cpu, dir, "cpu.stat", CpuStatV2::parse)?;
                Ok(stat.and_then(|stat| stat.usage_usec))
            }
            Self::V1 { roots, cpu, .. } => match roots.cpuacct.as_deref() {
                Some(dir) => reader.parse(cpu, dir, "cpuacct.usage", |content| single(content, "cpuacct.usage")),
                None => Ok(None),
            },
        }
    }

    fn memory(&mut self, reader: &mut Reader) -> Result<Option<HostMemory>, Vanished> {
        match self {
            Self::V2 { dir, memory, .. } => reader.parse(memory, dir, "memory.stat", memory_v2),
            Self::V1 { roots, memory, kernel, .. } => {
                let Some(dir) = roots.memory.as_deref() else { return Ok(None) };
                let stat = reader.parse(memory, dir, "memory.stat", memory_v1)?;
                let name = "memory.kmem.usage_in_bytes";
                let bytes = reader.parse(kernel, dir, name, |content| single(content, name))?;
                Ok(stat.map(|stat| HostMemory { kernel: bytes.map(Bytes), ..stat }))
            }
        }
    }

    /// Huge pages of all sizes; `None` without the controller.
    fn hugetlb(&self) -> Option<Bytes> {
        let (dir, name) = match self {
            Self::V2 { dir, .. } => (dir.as_path(), "current"),
            Self::V1 { roots, .. } => (roots.hugetlb.as_deref()?, "usage_in_bytes"),
        };
        let bytes = |size: &String| {
            let content = std::fs::read(dir.join(format!("hugetlb.{size}.{name}"))).ok()?;
            single(&content, "hugetlb").ok()
        };
        let sizes = Hugepages::of(dir).sizes;
        if sizes.is_empty() {
            return None;
        }
        sizes.iter().map(bytes).try_fold(0u64, |sum, bytes| sum.checked_add(bytes?)).map(Bytes)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sandboxs_part_of_every_placement() {
        let id = "760e7a6493d4f0add8a217d0f6a019cc288419dd8f375035586436c4c816d236";
        for own in [
            format!("/kubepods/burstable/podx/kata_{id}"),
            format!("/kubepods/podx/{id}"),
            format!("/kubepods.slice/kubepods-podx.slice/cri-containerd-{id}.scope"),
            format!("/kubepods.slice/kubepods-podx.slice/crio-{id}.scope"),
            format!("/kubepods-burstable-podx.slice:cri-containerd:{id}"),
            format!("/kata_overhead/{id}"),
            format!("/kata-overhead.slice/runtime-rs-{id}.scope"),
        ] {
            assert_eq!(own_part(&own, id), Some(own.as_str()));
            assert_eq!(own_part(&format!("{own}/vcpu/0"), id), Some(own.as_str()));
        }
        for shared in ["/", "/system.slice/containerd.service", "/kubepods/podx", "/kata_overhead"] {
            assert_eq!(own_part(shared, id), None, "{shared}");
        }
        assert_eq!(own_part("/a", ""), None);
    }
}
