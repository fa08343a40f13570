//! What lies on the node's disk for a sandbox: its state file, its sockets, its bundle. One look at it serves both the
//! conversation with the guest and the search for its processes.
//!
//! A runtime writes these one after the other while a machine starts, and never again: the site of a young sandbox is
//! looked at in every collection, an older one only when something found there turned out not to be true, and once a
//! minute while something is missing.
//! Everything here blocks on file reads: call it off the async workers.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::collect::chain;
use crate::collect::kata::Options;
use crate::collect::kata::state_file::{self, SandboxState};
use crate::model::guest::Hypervisor;
use crate::model::identity::SandboxId;
use crate::model::inventory::{KataDirectory, KataRuntime, Sandbox};
use crate::transport::Address;

/// Largest bundle file read: an address is a hundred bytes.
const MAX_ADDRESS_BYTES: u64 = 4 << 10;

/// A sandbox known for less than this is still being started.
const YOUNG: Duration = Duration::from_secs(60);

/// How often what is missing from an older site is looked for: a bundle that this process cannot see never comes.
const MISSING_INTERVAL: Duration = Duration::from_secs(60);

/// One sandbox's files.
#[derive(Debug, Default)]
pub struct Site {
    /// The runtime's own notes.
    pub notes: Option<SandboxState>,
    /// The hypervisor's socket that leads to the agent, and which hypervisor makes one of that name.
    pub agent_socket: Option<(PathBuf, Hypervisor)>,
    /// Cloud Hypervisor's API socket.
    pub vmm_socket: Option<PathBuf>,
    /// The Task service's address, from the sandbox's bundle.
    pub task: Option<Address>,
    /// The sandbox's directory has a directory `root`.
    pub has_root: bool,
    /// The shim, from the bundle.
    pub shim_pid: Option<u32>,
    /// virtiofsd, from its pid file.
    pub virtiofsd_pid: Option<u32>,
    distrusted: AtomicBool,
}

impl Site {
    /// Looks at a sandbox's files.
    fn look(options: &Options, id: &SandboxId, directory: &KataDirectory) -> Self {
        let notes = [Some(directory.path.clone()), jail(id, directory)].into_iter().flatten().find_map(|place| {
            state_file::read(directory.runtime, &place)
                .inspect_err(|error| {
                    if !error.is_absent() {
                        tracing::debug!(sandbox = %id, error = chain(error), "no state file");
                    }
                })
                .ok()
        });
        let bundles: Vec<PathBuf> = options.bundles.iter().map(|bundles| bundles.join(id.as_str())).collect();
        let address = bundles.iter().find_map(|bundle| read_small(&bundle.join("address")));
        let root = directory.path.join("root");
        Self {
            agent_socket: agent_socket(options, id, directory),
            vmm_socket: vmm_socket(options, id, directory),
            task: address.and_then(|text| Address::of_task(&text, &options.run_dir).ok()),
            has_root: root.is_dir(),
            shim_pid: bundles.iter().find_map(|bundle| state_file::read_pid(&bundle.join("shim.pid"))),
            virtiofsd_pid: notes
                .as_ref()
                .and_then(|notes| notes.virtiofsd_pid)
                .or_else(|| state_file::read_pid(&root.join("virtiofsd.sock.pid"))),
            notes,
            distrusted: AtomicBool::new(false),
        }
    }

    /// The hypervisor, by the state file or else by its socket's name.
    pub fn hypervisor(&self) -> Option<Hypervisor> {
        let noted = self.notes.as_ref().and_then(SandboxState::hypervisor);
        noted.or(self.agent_socket.as_ref().map(|(_, hypervisor)| *hypervisor))
    }

    /// Something here turned out not to be true: have it looked at again.
    pub fn distrust(&self) {
        self.distrusted.store(true, Ordering::Relaxed);
    }

    /// All there is to find was found.
    fn is_complete(&self) -> bool {
        let socketless =
            matches!(self.hypervisor(), Some(Hypervisor::Qemu | Hypervisor::Stratovirt | Hypervisor::Remote));
        self.notes.is_some() && self.task.is_some() && (self.agent_socket.is_some() || socketless)
    }
}

/// The sites of all sandboxes.
#[derive(Debug, Default)]
pub struct Sites {
    known: HashMap<SandboxId, Known>,
}

/// A site, since when its sandbox is known, and when it was looked at.
#[derive(Debug)]
struct Known {
    since: Instant,
    looked: Instant,
    site: Arc<Site>,
}

impl Known {
    fn is_good(&self, now: Instant) -> bool {
        let young = now.duration_since(self.since) < YOUNG;
        let missing = !self.site.is_complete() && now.duration_since(self.looked) >= MISSING_INTERVAL;
        !young && !missing && !self.site.distrusted.load(Ordering::Relaxed)
    }
}

impl Sites {
    /// Every sandbox's site, in the order of the sandboxes; an empty one where its directory is not to be seen.
    pub fn look(&mut self, options: &Options, sandboxes: &[Arc<Sandbox>]) -> Vec<Arc<Site>> {
        let now = Instant::now();
        let mut one = |sandbox: &Arc<Sandbox>| {
            let Some(directory) = &sandbox.kata else { return Arc::default() };
            let known = self.known.get(sandbox.id.as_str());
            if let Some(known) = known.filter(|known| known.is_good(now)) {
                return Arc::clone(&known.site);
            }
            let since = known.map_or(now, |known| known.since);
            let site = Arc::new(Site::look(options, &sandbox.id, directory));
            self.known.insert(sandbox.id.clone(), Known { since, looked: now, site: Arc::clone(&site) });
            site
        };
        sandboxes.iter().map(&mut one).collect()
    }

    /// Drops what is known of sandboxes that are gone.
    pub fn forget(&mut self, is_gone: impl Fn(&SandboxId) -> bool) {
        self.known.retain(|id, _| !is_gone(id));
    }
}

/// Where runtime-rs keeps a jailed Firecracker, beside the sandboxes' own directories.
fn jail(id: &SandboxId, directory: &KataDirectory) -> Option<PathBuf> {
    let root = directory.path.parent().filter(|_| directory.runtime == KataRuntime::Rs)?;
    Some(root.join("firecracker").join(id.as_str()).join("root"))
}

/// The hypervisor's socket that leads to the agent, by the names that the runtimes give it.
fn agent_socket(options: &Options, id: &SandboxId, directory: &KataDirectory) -> Option<(PathBuf, Hypervisor)> {
    let mut candidates = match directory.runtime {
        KataRuntime::Go => {
            let machine = options.run_dir.join("vc/vm").join(id.as_str());
            vec![(machine.join("clh.sock"), Hypervisor::CloudHypervisor)]
        }
        KataRuntime::Rs => vec![
            (directory.path.join("ch-vm.sock"), Hypervisor::CloudHypervisor),
            (directory.path.join("root/kata.hvsock"), Hypervisor::Dragonball),
            (directory.path.join("kata.hvsock"), Hypervisor::Firecracker),
            (directory.path.join("vsock.sock"), Hypervisor::OpenVmm),
        ],
    };
    candidates.extend(jail(id, directory).map(|jail| (jail.join("kata.hvsock"), Hypervisor::Firecracker)));
    candidates.into_iter().find(|(path, _)| path.exists())
}

/// Cloud Hypervisor's API socket.
fn vmm_socket(options: &Options, id: &SandboxId, directory: &KataDirectory) -> Option<PathBuf> {
    let path = match directory.runtime {
        KataRuntime::Go => options.run_dir.join("vc/vm").join(id.as_str()).join("clh-api.sock"),
        KataRuntime::Rs => directory.path.join("ch-api.sock"),
    };
    path.exists().then_some(path)
}

fn read_small(path: &Path) -> Option<String> {
    let mut text = String::new();
    File::open(path).ok()?.take(MAX_ADDRESS_BYTES).read_to_string(&mut text).ok()?;
    Some(text)
}
