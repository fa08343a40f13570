//! What a sandbox costs the node: its shim, VMM and virtiofsd by `/proc`, its cgroups, its network as the host sees it.
//!
//! None of it asks the guest, so it works while the guest hangs. Finding the processes takes one pass over `/proc` for
//! all sandboxes, a [`ProcessTable`]; reading them goes through held descriptors, which cannot be led astray when a pid
//! is used again, and a process's start time is checked where a file is opened anew.
//!
//! Everything here blocks on file reads: call it off the async workers.

mod cgroups;
pub mod parse;
mod process;
mod table;
#[cfg(test)]
mod tests;

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::Roots;
use crate::collect::cgroup::layout::Layout;
use crate::collect::cgroup::parse::ParseError;
use crate::collect::exclude::Exclude;
use crate::collect::held::{Budget, HeldFile, Reader};
use crate::collect::network::{net_dev, same_file};
use crate::model::host_side::HostSide;
use crate::model::usage::Interface;

use cgroups::{Cgroups, Place, Resolver};
use process::Component;
pub use table::{
    Hints, HypervisorPlace, Identity, Located, ProcessTable, command_line, ids_in, is_of_a_sandbox, shortened,
};

/// Where a process is, and what huge pages it holds, is looked up this often. A process is moved once, after boot.
const PLACES_INTERVAL: Duration = Duration::from_secs(30);

/// A sandbox known for less than this is looked at every time: its processes may not be in their place yet.
const YOUNG: Duration = Duration::from_secs(60);

/// Threads looked at in search of one that is in a cgroup or a network namespace of its own.
const MAX_THREADS: usize = 512;

/// Reads the host side of sandboxes, one after the other.
#[derive(Debug)]
pub struct HostReader {
    proc: PathBuf,
    cgroup_mount: PathBuf,
    layout: Option<Layout>,
    resolver: Resolver,
    reader: Reader,
    /// For files that may be refused, which is no fault: `io` takes the right to trace the process.
    lenient: Reader,
    /// `proc` is a real procfs, whose `fd` directories tell how many entries they have (kernel 6.2).
    real_procfs: bool,
}

impl HostReader {
    /// A reader that has read nothing yet.
    pub fn new(roots: &Roots, budget: &Arc<Budget>) -> Self {
        Self {
            proc: roots.proc.clone(),
            cgroup_mount: roots.cgroup.clone(),
            layout: None,
            resolver: Resolver::default(),
            reader: Reader::new(Arc::clone(budget)),
            lenient: Reader::new(Arc::clone(budget)),
            real_procfs: is_procfs(&roots.proc),
        }
    }

    /// What could not be read or parsed since the last call, in a line. What is absent or refused is not among it.
    pub fn take_fault(&mut self) -> Option<String> {
        // What it noted is refusals.
        drop(self.lenient.take_fault());
        self.reader.take_fault()
    }

    fn layout(&mut self) -> Option<&Layout> {
        if self.layout.is_none() {
            self.layout = Layout::detect(&self.cgroup_mount).ok();
        }
        self.layout.as_ref()
    }
}

fn is_procfs(path: &Path) -> bool {
    rustix::fs::statfs(path).is_ok_and(|stat| stat.f_type == rustix::fs::PROC_SUPER_MAGIC)
}

/// The host side of one sandbox, and what is held open for it. Holding its network's counters keeps the pod's network
/// namespace alive: drop this when the sandbox is gone, scraped or not.
#[derive(Debug)]
pub struct SandboxHost {
    sandbox: String,
    shim: Component,
    hypervisor: Component,
    virtiofsd: Component,
    place: HypervisorPlace,
    cgroups: Cgroups,
    network: Option<NetDev>,
    first_read: Option<Instant>,
    looked: Option<Instant>,
}

/// `net/dev` of the pod's network namespace.
#[derive(Debug)]
struct NetDev {
    dir: PathBuf,
    held: HeldFile,
    /// It is the node's namespace: its counters are not the pod's.
    of_node: bool,
}

impl SandboxHost {
    /// A sandbox of which nothing is known yet.
    pub fn new(sandbox: &str) -> Self {
        Self {
            sandbox: sandbox.to_owned(),
            shim: Component::default(),
            hypervisor: Component::default(),
            virtiofsd: Component::default(),
            place: HypervisorPlace::Unknown,
            cgroups: Cgroups::default(),
            network: None,
            first_read: None,
            looked: None,
        }
    }

    /// Takes in what [`ProcessTable::locate`] found. Processes that are known already stay as they are, so this may be
    /// repeated with every new table: virtiofsd may fork late.
    pub fn adopt(&mut self, located: &Located) {
        let Located { shim, hypervisor, virtiofsd } = located;
        self.shim.adopt(*shim);
        if *hypervisor != HypervisorPlace::Unknown {
            self.place = *hypervisor;
        }
        if let HypervisorPlace::Process(identity) = hypervisor {
            self.hypervisor.adopt(Some(*identity));
        }
        self.virtiofsd.adopt(virtiofsd.iter().copied());
        // New processes may be in new places.
        self.looked = None;
    }

    /// The shim is known, and the VMM as far as there is one on this node. While this is false, locate again.
    pub fn is_complete(&self) -> bool {
        let hypervisor = match self.place {
            HypervisorPlace::Process(_) => self.hypervisor.is_alive(),
            HypervisorPlace::InShim | HypervisorPlace::Remote => true,
            HypervisorPlace::Unknown => false,
        };
        self.shim.is_alive() && hypervisor
    }

    /// Reads everything.
    pub fn read(&mut self, host: &mut HostReader, now: Instant) -> HostSide {
        let shim = self.shim.read(host);
        let hypervisor = self.hypervisor.read(host);
        let virtiofsd = self.virtiofsd.read(host);
        let first = *self.first_read.get_or_insert(now);
        let young = now.duration_since(first) < YOUNG;
        if young || self.looked.is_none_or(|looked| now.duration_since(looked) >= PLACES_INTERVAL) {
            self.looked = Some(now);
            self.look_for_cgroups(host);
        }
        let mut side = HostSide { shim, hypervisor, virtiofsd, ..HostSide::default() };
        if host.layout().is_some() {
            self.cgroups.read(&mut host.reader, &mut side);
        }
        if !self.is_complete() {
            (side.cpu, side.memory) = (None, None);
        }
        side.network = self.read_network(host);
        side
    }

    /// Notes in which cgroups the sandbox's processes are.
    fn look_for_cgroups(&mut self, host: &mut HostReader) {
        let Some(layout) = host.layout().cloned() else { return };
        let HostReader { proc, resolver, reader, .. } = host;
        let mut place_of = |dir: &Path| resolver.place(reader, &layout, dir, &self.sandbox);
        let mut places = Vec::new();
        let shim = self.shim.first().map(|pid| place_of(&proc.join(pid.to_string())));
        for pid in self.hypervisor.pids().chain(self.virtiofsd.pids()) {
            places.push(place_of(&proc.join(pid.to_string())));
        }
        if let (Layout::V1(_), Some(pid)) = (&layout, self.hypervisor.first()) {
            // On v1 only the vCPU threads may be in the sandbox's cgroup, and the process itself elsewhere.
            let threads = threads_of(&proc.join(pid.to_string()));
            places.extend(threads.iter().map(|dir| place_of(dir)).filter(|place| matches!(place, Place::Own(_))));
        }
        self.cgroups.look_again(&layout, shim.as_ref(), &places);
    }

    fn read_network(&mut self, host: &mut HostReader) -> Vec<Interface> {
        if self.network.is_none() {
            self.network = self.open_network(host);
        }
        let Some(NetDev { dir, held, of_node }) = &mut self.network else { return Vec::new() };
        if *of_node {
            return Vec::new();
        }
        match host.reader.parse(held, dir, "dev", pod_interfaces) {
            Ok(Some(interfaces)) => interfaces,
            // The process is gone and the file was not held.
            Ok(None) | Err(_) => {
                self.network = None;
                Vec::new()
            }
        }
    }

    /// The VMM is in the pod's network namespace; with Dragonball one of the shim's threads is, and the shim is not.
    fn open_network(&mut self, host: &mut HostReader) -> Option<NetDev> {
        let (component, dir) = match self.place {
            HypervisorPlace::Process(_) => {
                let dir = host.proc.join(self.hypervisor.first()?.to_string());
                (&mut self.hypervisor, dir)
            }
            HypervisorPlace::InShim => {
                let shim = host.proc.join(self.shim.first()?.to_string());
                let own = shim.join("net/dev");
                let dir = threads_of(&shim).into_iter().find(|thread| !same_file(&thread.join("net/dev"), &own))?;
                (&mut self.shim, dir)
            }
            HypervisorPlace::Remote | HypervisorPlace::Unknown => return None,
        };
        let dir = dir.join("net");
        let mut held = HeldFile::default();
        host.reader.parse(&mut held, &dir, "dev", |_| Ok(())).ok()??;
        let of_node = same_file(&dir.join("dev"), &host.proc.join("1/net/dev"));
        // Had the process ended before the file was opened, its pid might have been another's by then.
        component.read(host)?;
        Some(NetDev { dir, held, of_node })
    }
}

/// `net/dev` without the taps: they mirror the pod's interfaces to the guest, with the directions swapped.
fn pod_interfaces(content: &[u8]) -> Result<Vec<Interface>, ParseError> {
    let mut interfaces = net_dev(content, &Exclude::default())?;
    interfaces.retain(|interface| !interface.name.starts_with("tap"));
    Ok(interfaces)
}

/// `/proc/<pid>/task/<tid>` of a process, a bounded number of them.
fn threads_of(process: &Path) -> Vec<PathBuf> {
    let entries = std::fs::read_dir(process.join("task")).into_iter().flatten().flatten();
    entries.take(MAX_THREADS).map(|entry| entry.path()).collect()
}
