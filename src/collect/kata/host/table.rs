//! Which process is which: one pass over `/proc` for all sandboxes, then each one's shim, VMM and virtiofsd out of it.
//!
//! | process | how it is known |
//! |---|---|
//! | shim | `shim.pid` of the sandbox's bundle, else `-id <sandbox>` on the command line |
//! | VMM | the state file's or the VMM's own pid, else the shim's child with a VMM's name, else by command line |
//! | virtiofsd | likewise, and what it forked |
//!
//! A pid from a file is believed only if the process bears it out: the sandbox's id on its command line, or the shim as
//! its parent. VMMs started by Go's runtime may have been handed to init, so the parent alone is not enough either.

use std::cell::OnceCell;
use std::collections::HashMap;
use std::io;
use std::path::{Path, PathBuf};

use crate::collect::pid_stat;
use crate::model::guest::Hypervisor;

/// A process for good: a pid may be used again, a pid with its start time never is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Identity {
    /// The pid.
    pub pid: u32,
    /// Start time in ticks since boot.
    pub start: u64,
}

/// Processes of the node at one moment.
#[derive(Debug)]
pub struct ProcessTable {
    proc: PathBuf,
    processes: HashMap<u32, Process>,
    /// Parent and child, sorted.
    children: Vec<(u32, u32)>,
    /// Pids of shims, VMMs and virtiofsds by the ids on their command lines. Read when first needed.
    by_id: OnceCell<HashMap<Box<str>, Vec<u32>>>,
}

#[derive(Debug)]
struct Process {
    start: u64,
    parent: u32,
    kind: Kind,
}

/// What a process is by its name. The kernel cuts names to 15 characters: `containerd-shim`, `cloud-hyperviso`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Kind {
    Shim,
    Vmm,
    Virtiofsd,
    Other,
}

impl Kind {
    fn of(comm: &[u8]) -> Self {
        const VMMS: [&[u8]; 5] = [b"cloud-hyperviso", b"qemu", b"firecracker", b"openvmm", b"stratovirt"];
        if comm.starts_with(b"containerd-shim") {
            Self::Shim
        } else if comm.starts_with(b"virtiofsd") {
            Self::Virtiofsd
        } else if VMMS.iter().any(|name| comm.starts_with(name)) {
            Self::Vmm
        } else {
            Self::Other
        }
    }
}

/// What is known about a sandbox's processes beforehand.
#[derive(Clone, Copy, Debug, Default)]
pub struct Hints<'a> {
    /// The sandbox's id.
    pub sandbox: &'a str,
    /// Its hypervisor.
    pub hypervisor: Option<Hypervisor>,
    /// `shim.pid` of its bundle.
    pub shim_pid: Option<u32>,
    /// The VMM's pid by state file, Task API or the VMM itself.
    pub vmm_pid: Option<u32>,
    /// virtiofsd's pid by state file or pid file.
    pub virtiofsd_pid: Option<u32>,
}

/// Where a sandbox's VMM is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum HypervisorPlace {
    /// Not found.
    #[default]
    Unknown,
    /// A process of its own.
    Process(Identity),
    /// Threads of the shim (Dragonball).
    InShim,
    /// Not on this node.
    Remote,
}

/// A sandbox's processes.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Located {
    /// Its shim.
    pub shim: Option<Identity>,
    /// Its VMM.
    pub hypervisor: HypervisorPlace,
    /// virtiofsd and what it forked, parents first.
    pub virtiofsd: Vec<Identity>,
}

/// As many digits of a sandbox's id are looked for on command lines: Firecracker's has no more.
const ID_DIGITS: usize = 32;

/// A command line longer than this is cut: QEMU's are 2 to 8 kB.
const MAX_CMDLINE_BYTES: usize = 64 << 10;

/// Processes below virtiofsd looked at.
const MAX_FORKS: usize = 64;

impl ProcessTable {
    /// Reads `/proc/<pid>/stat` of every process. Processes that end meanwhile are not in it.
    pub fn scan(proc: &Path) -> io::Result<Self> {
        let mut processes = HashMap::new();
        let mut children = Vec::new();
        pid_stat::each(proc, |pid, stat| {
            if !stat.has_ended() {
                children.push((stat.parent, pid));
                processes.insert(pid, Process { start: stat.start, parent: stat.parent, kind: Kind::of(stat.comm) });
            }
        })?;
        children.sort_unstable();
        Ok(Self { proc: proc.to_owned(), processes, children, by_id: OnceCell::new() })
    }

    /// Finds a sandbox's processes.
    pub fn locate(&self, hints: &Hints<'_>) -> Located {
        let shim = hints
            .shim_pid
            .filter(|pid| self.is(*pid, Kind::Shim) && self.mentions(*pid, hints.sandbox))
            .or_else(|| self.named(hints.sandbox, Kind::Shim).next());
        let hypervisor = match hints.hypervisor {
            Some(Hypervisor::Dragonball) if shim.is_some() => HypervisorPlace::InShim,
            Some(Hypervisor::Remote) => HypervisorPlace::Remote,
            Some(Hypervisor::Dragonball) => HypervisorPlace::Unknown,
            _ => self
                .vmm(hints, shim)
                .and_then(|pid| self.identity(pid))
                .map_or(HypervisorPlace::Unknown, HypervisorPlace::Process),
        };
        let mut virtiofsd: Vec<u32> = hints
            .virtiofsd_pid
            .filter(|pid| self.belongs(*pid, hints.sandbox, shim))
            .into_iter()
            .chain(self.children_of_kind(shim, Kind::Virtiofsd))
            .chain(self.named(hints.sandbox, Kind::Virtiofsd))
            .collect();
        self.add_forks(&mut virtiofsd);
        Located {
            shim: shim.and_then(|pid| self.identity(pid)),
            hypervisor,
            virtiofsd: virtiofsd.into_iter().filter_map(|pid| self.identity(pid)).collect(),
        }
    }

    fn vmm(&self, hints: &Hints<'_>, shim: Option<u32>) -> Option<u32> {
        // Go's shim gives its own pid for a machine elsewhere.
        let given = hints.vmm_pid.filter(|pid| Some(*pid) != shim && self.belongs(*pid, hints.sandbox, shim));
        given
            .or_else(|| self.children_of_kind(shim, Kind::Vmm).next())
            .or_else(|| self.named(hints.sandbox, Kind::Vmm).next())
    }

    /// Completes the list with what its processes have forked, and drops repetitions.
    fn add_forks(&self, pids: &mut Vec<u32>) {
        let mut all: Vec<u32> = Vec::new();
        let mut next = std::mem::take(pids).into_iter().collect::<std::collections::VecDeque<_>>();
        while let Some(pid) = next.pop_front() {
            if all.len() < MAX_FORKS && !all.contains(&pid) {
                all.push(pid);
                next.extend(self.children_of(pid));
            }
        }
        *pids = all;
    }

    fn identity(&self, pid: u32) -> Option<Identity> {
        self.processes.get(&pid).map(|process| Identity { pid, start: process.start })
    }

    fn is(&self, pid: u32, kind: Kind) -> bool {
        self.processes.get(&pid).is_some_and(|process| process.kind == kind)
    }

    fn belongs(&self, pid: u32, sandbox: &str, shim: Option<u32>) -> bool {
        let Some(process) = self.processes.get(&pid) else { return false };
        shim == Some(process.parent) || self.mentions(pid, sandbox)
    }

    fn children_of(&self, parent: u32) -> impl Iterator<Item = u32> {
        let first = self.children.partition_point(|(other, _)| *other < parent);
        self.children.iter().skip(first).take_while(move |(other, _)| *other == parent).map(|(_, pid)| *pid)
    }

    fn children_of_kind(&self, parent: Option<u32>, kind: Kind) -> impl Iterator<Item = u32> {
        let children = parent.into_iter().flat_map(|parent| self.children_of(parent));
        children.filter(move |pid| self.is(*pid, kind))
    }

    /// A process has the sandbox's id on its command line.
    fn mentions(&self, pid: u32, sandbox: &str) -> bool {
        let id = shortened(sandbox).as_bytes();
        !id.is_empty() && command_line(&self.proc, pid).windows(id.len()).any(|text| text == id)
    }

    /// Processes of a kind with the sandbox's id on their command lines.
    fn named(&self, sandbox: &str, kind: Kind) -> impl Iterator<Item = u32> {
        let by_id = self.by_id.get_or_init(|| self.index());
        let id = shortened(sandbox);
        let found: Vec<u32> = if id.len() == ID_DIGITS && id.bytes().all(is_hex) {
            by_id.get(id).cloned().unwrap_or_default()
        } else {
            // No id of a container runtime; only tests and tools name sandboxes so.
            self.processes.keys().copied().filter(|pid| self.is(*pid, kind) && self.mentions(*pid, sandbox)).collect()
        };
        found.into_iter().filter(move |pid| self.is(*pid, kind))
    }

    fn index(&self) -> HashMap<Box<str>, Vec<u32>> {
        let mut by_id: HashMap<Box<str>, Vec<u32>> = HashMap::new();
        for (pid, _) in self.processes.iter().filter(|(_, process)| process.kind != Kind::Other) {
            for id in ids_in(&command_line(&self.proc, *pid)) {
                let pids = by_id.entry(id.into()).or_default();
                if !pids.contains(pid) {
                    pids.push(*pid);
                }
            }
        }
        // The oldest first: a child may still carry its parent's command line.
        by_id.values_mut().for_each(|pids| pids.sort_by_key(|pid| self.identity(*pid).map(|identity| identity.start)));
        by_id
    }
}

/// The beginning of a process's command line, its words apart by NUL; blank when it cannot be read.
pub fn command_line(proc: &Path, pid: u32) -> Vec<u8> {
    use std::io::Read;
    let mut line = Vec::new();
    let file = std::fs::File::open(proc.join(pid.to_string()).join("cmdline"));
    let read = file.and_then(|file| file.take(MAX_CMDLINE_BYTES as u64).read_to_end(&mut line));
    if read.is_ok() { line } else { Vec::new() }
}

/// The beginnings of all that may be ids of sandboxes in a text, as [`shortened`] gives them.
pub fn ids_in(text: &[u8]) -> impl Iterator<Item = &str> {
    let runs = text.split(|byte| !is_hex(*byte));
    runs.filter_map(|run| std::str::from_utf8(run.get(..ID_DIGITS)?).ok())
}

/// Whether a process's name is that of a shim, a VMM or virtiofsd.
pub fn is_of_a_sandbox(comm: &[u8]) -> bool {
    Kind::of(comm) != Kind::Other
}

fn is_hex(byte: u8) -> bool {
    matches!(byte, b'0'..=b'9' | b'a'..=b'f')
}

/// As much of a sandbox's id as is compared.
pub fn shortened(sandbox: &str) -> &str {
    sandbox.get(..ID_DIGITS).unwrap_or(sandbox)
}
