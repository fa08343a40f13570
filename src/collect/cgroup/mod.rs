//! The `cgroup` collector: CPU, memory, tasks, block I/O, huge pages, pressure and limits of every cgroup that has a
//! row, from cgroup v1, v2 or hybrid mounts.

pub mod layout;
pub mod membership;
pub mod parse;
pub mod v1;
pub mod v2;

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant, UNIX_EPOCH};

use crate::collect::block_devices::BlockDevices;
use crate::collect::held::{Budget, Reader, Vanished};
use crate::collect::meminfo::Meminfo;
use crate::collect::procs::Procs;
use crate::collect::{CollectError, Collector, Draft, DraftRow, Roots};
use crate::model::inventory::{Inventory, Kind};
use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::Usage;
use layout::Layout;

/// Files that were absent are looked for again at this pace: a controller may have been switched on since.
const LOOK_AGAIN: Duration = Duration::from_secs(60);

/// A cgroup known for less than this has absent files looked for every time: the runtime makes its directories one
/// controller after the other.
const YOUNG: Duration = Duration::from_secs(10);

/// What to read. Facts that no enabled family shows are not read.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
#[expect(clippy::struct_excessive_bools, reason = "independent switches")]
pub struct Wanted {
    /// Block I/O.
    pub io: bool,
    /// Peak, failure count and kernel memory, each a file of its own.
    pub memory_details: bool,
    /// Pressure stall totals.
    pub pressure: bool,
    /// Huge pages.
    pub hugetlb: bool,
    /// Page sizes of the node.
    pub hugepages: Hugepages,
}

/// Huge page sizes in the kernel's spelling in cgroup file names: `2MB`, `1GB`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Hugepages {
    /// The sizes, ascending.
    pub sizes: Vec<String>,
}

impl Hugepages {
    /// From the `hugetlb.<size>.…` file names of a cgroup directory.
    pub fn of(dir: &Path) -> Self {
        let names = std::fs::read_dir(dir).into_iter().flatten().flatten();
        let mut sizes: Vec<String> = names
            .filter_map(|entry| {
                let name = entry.file_name().into_string().ok()?;
                let size = name.strip_prefix("hugetlb.")?.split('.').next()?;
                Some(size.to_owned())
            })
            .collect();
        sizes.sort();
        sizes.dedup();
        Self { sizes }
    }
}

/// Reads every cgroup of the inventory.
#[derive(Debug)]
pub struct Cgroups {
    roots: Arc<Roots>,
    layout: Option<Layout>,
    wanted: Wanted,
    reader: Reader,
    known: HashMap<Arc<str>, Known>,
    devices: BlockDevices,
    procs: Procs,
}

/// What is kept about a cgroup between collections.
#[derive(Debug)]
struct Known {
    handles: Handles,
    first_seen: Instant,
    looked: Instant,
    made: Option<Seconds>,
}

#[derive(Debug)]
enum Handles {
    V1(Box<v1::Handles>),
    V2(Box<v2::Handles>),
}

impl Cgroups {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, wanted: Wanted, budget: Arc<Budget>) -> Self {
        let devices = BlockDevices::new(roots.proc.clone());
        let procs = Procs::new(Arc::clone(&roots));
        Self { roots, layout: None, wanted, reader: Reader::new(budget), known: HashMap::new(), devices, procs }
    }

    fn read_row(&mut self, row: &mut DraftRow, layout: &Layout, now: Instant) -> Result<(), Vanished> {
        let subject = Arc::clone(&row.subject);
        let Some(cgroup) = &subject.cgroup else { return Ok(()) };
        if !self.known.contains_key(cgroup.as_str()) {
            self.known.insert(Arc::clone(&cgroup.0), Known::new(layout, cgroup.as_str(), now));
        }
        let Some(known) = self.known.get_mut(cgroup.as_str()) else { return Ok(()) };
        let usage = &mut row.usage;
        let read = known.read(&mut self.reader, &self.wanted, usage, now);
        if read.is_err() {
            self.known.remove(cgroup.as_str());
            return read;
        }
        for io in &mut usage.io {
            self.devices.name_of(io.number, now).clone_into(&mut io.device);
        }
        if self.procs.is_apart() && matches!(layout, Layout::V1(_)) {
            // Where v2 says 0 for a process of another namespace, v1 says nothing, and there seem to be none.
            usage.tasks.processes = u64::try_from(self.procs.of(cgroup.as_str()).len()).ok();
        }
        usage.start_time = subject.started_at.or(known.made);
        usage.creation_time = subject.created_at;
        let nested = matches!(subject.kind, Kind::Root | Kind::Group | Kind::Pod);
        if nested && matches!(layout, Layout::V1(_)) {
            // On v1 a kill is counted in the victim's own cgroup only; a zero further up would be a lie.
            usage.oom_kills = None;
        }
        if subject.kind == Kind::Root {
            self.complete_root(&mut row.usage);
        }
        Ok(())
    }

    /// The root cgroup has no limits and, on v2, no swap counter; the kubelet shows the machine's figures there.
    fn complete_root(&mut self, usage: &mut Usage) {
        // When its directory was made is not when the node was booted.
        usage.start_time = self.roots.boot_time();
        let path = self.roots.proc.join("meminfo");
        let meminfo = match std::fs::read(&path) {
            Ok(content) => Meminfo::parse(&content),
            Err(error) => return self.reader.note(&path, &error),
        };
        if let (Some(memory), Some(total), Some(free)) = (&mut usage.memory, meminfo.swap_total, meminfo.swap_free)
            && memory.swap.is_none()
        {
            memory.swap = Some(Bytes(total.0.saturating_sub(free.0)));
        }
        if let Some(spec) = &mut usage.spec {
            spec.memory_limit = meminfo.total.map(|bytes| Limit::At(bytes.0));
            spec.memory_swap_limit = meminfo.swap_total.map(|bytes| Limit::At(bytes.0));
            spec.swap_limit = spec.memory_swap_limit;
        }
    }
}

impl Known {
    fn new(layout: &Layout, cgroup: &str, now: Instant) -> Self {
        let handles = match layout {
            Layout::V2 { root } => Handles::V2(Box::new(v2::Handles::new(layout::directory(root, cgroup)))),
            Layout::V1(roots) => {
                let primary = layout.primary_root().unwrap_or(Path::new("/nonexistent"));
                Handles::V1(Box::new(v1::Handles::new(roots, primary, cgroup)))
            }
        };
        let dir = match &handles {
            Handles::V1(handles) => handles.dir(),
            Handles::V2(handles) => handles.dir(),
        };
        let made = made_at(dir);
        Self { handles, first_seen: now, looked: now, made }
    }

    fn read(&mut self, reader: &mut Reader, wanted: &Wanted, usage: &mut Usage, now: Instant) -> Result<(), Vanished> {
        let young = now.duration_since(self.first_seen) < YOUNG;
        let look_again = young || now.duration_since(self.looked) >= LOOK_AGAIN;
        if look_again {
            self.looked = now;
        }
        match &mut self.handles {
            Handles::V1(handles) => {
                if look_again {
                    handles.look_again();
                }
                handles.read(reader, wanted, usage)
            }
            Handles::V2(handles) => {
                if look_again {
                    handles.look_again();
                }
                handles.read(reader, wanted, usage)
            }
        }
    }
}

/// When the cgroup was made: the oldest modification time among its directory and a file that is never written,
/// which is what the kubelet uses where the runtime does not say.
fn made_at(dir: &Path) -> Option<Seconds> {
    ["", "cgroup.events", "cgroup.clone_children"]
        .iter()
        .filter_map(|name| std::fs::metadata(dir.join(name)).ok()?.modified().ok())
        .min()
        .and_then(|time| time.duration_since(UNIX_EPOCH).ok())
        .map(|time| Seconds::from_secs(time.as_secs()))
}

impl Collector for Cgroups {
    fn name(&self) -> &'static str {
        "cgroup"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let layout = match &self.layout {
            Some(layout) => layout.clone(),
            None => {
                let layout = Layout::detect(&self.roots.cgroup).map_err(CollectError::source)?;
                if let (true, Some(root)) = (self.wanted.hugetlb, layout.primary_root()) {
                    let dir = match &layout {
                        Layout::V1(layout::V1 { hugetlb: Some(dir), .. }) => dir,
                        _ => root,
                    };
                    self.wanted.hugepages = Hugepages::of(&first_child(dir).unwrap_or(dir.to_owned()));
                }
                self.layout.insert(layout).clone()
            }
        };
        let now = Instant::now();
        for row in &mut draft.rows {
            row.gone |= self.read_row(row, &layout, now).is_err();
        }
        self.reader.take_fault().map_or(Ok(()), |fault| Err(CollectError::Read(fault)))
    }

    fn forget(&mut self, inventory: &Inventory) {
        let live: std::collections::HashSet<&str> =
            inventory.subjects.iter().filter_map(|subject| Some(subject.cgroup.as_ref()?.as_str())).collect();
        self.known.retain(|cgroup, _| live.contains(&**cgroup));
        self.known.shrink_to_fit();
    }
}

/// Some child cgroup of a root: the root itself lacks most files.
fn first_child(dir: &Path) -> Option<std::path::PathBuf> {
    let entries = std::fs::read_dir(dir).ok()?;
    entries.flatten().find(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir())).map(|entry| entry.path())
}
