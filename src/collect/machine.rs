//! The `machine` collector: what the node is, read once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::FromRead;

use crate::collect::meminfo::Meminfo;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::machine::{Dimm, Machine};
use crate::model::units::Bytes;

/// Hardware changes by hot-plug only.
const INTERVAL: Duration = Duration::from_secs(300);

/// Reads identity and topology.
#[derive(Debug)]
pub struct Machines {
    roots: Arc<Roots>,
    last: Option<(Instant, Arc<Machine>)>,
}

impl Machines {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { roots, last: None }
    }

    fn read(&self) -> Result<Machine, CollectError> {
        let Roots { host, proc, sys, .. } = &*self.roots;
        let path = proc.join("meminfo");
        let meminfo = std::fs::read(&path)
            .map(|content| Meminfo::parse(&content))
            .map_err(|error| CollectError::Read(format!("{}: {error}", path.display())))?;
        let topology = Topology::read(proc, sys);
        let machine_id = line(&host.join("etc/machine-id")).or_else(|| line(&host.join("var/lib/dbus/machine-id")));
        Ok(Machine {
            machine_id: machine_id.unwrap_or_default(),
            system_uuid: line(&sys.join("class/dmi/id/product_uuid")).unwrap_or_default(),
            boot_id: line(&proc.join("sys/kernel/random/boot_id")).unwrap_or_default(),
            kernel_version: line(&proc.join("sys/kernel/osrelease")).unwrap_or_default(),
            os_version: os_version(host).unwrap_or_default(),
            cores: topology.cores,
            physical_cores: topology.physical_cores,
            sockets: topology.sockets,
            books: topology.books,
            drawers: topology.drawers,
            memory: meminfo.total,
            swap: meminfo.swap_total,
            dimms: dimms(sys),
        })
    }
}

impl Collector for Machines {
    fn name(&self) -> &'static str {
        "machine"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        if let Some((read, machine)) = &self.last
            && read.elapsed() < INTERVAL
        {
            draft.machine = Some(Arc::clone(machine));
            return Ok(());
        }
        let machine = Arc::new(self.read()?);
        self.last = Some((Instant::now(), Arc::clone(&machine)));
        draft.machine = Some(machine);
        Ok(())
    }
}

/// The first line of a file, trimmed; `None` when there is none.
fn line(path: &Path) -> Option<String> {
    let text = std::fs::read_to_string(path).ok()?;
    let line = text.lines().next()?.trim();
    (!line.is_empty()).then(|| line.to_owned())
}

fn os_version(host: &Path) -> Option<String> {
    let text = ["etc/os-release", "usr/lib/os-release"]
        .iter()
        .find_map(|path| std::fs::read_to_string(host.join(path)).ok())?;
    let value = text.lines().find_map(|line| line.strip_prefix("PRETTY_NAME="))?;
    Some(value.trim_matches(['"', '\'']).to_owned())
}

#[derive(Debug, Default)]
struct Topology {
    cores: Option<u64>,
    physical_cores: Option<u64>,
    sockets: Option<u64>,
    books: Option<u64>,
    drawers: Option<u64>,
}

impl Topology {
    /// The number of CPUs from `/proc/stat`, which every architecture has; what they make up from sysfs where it shows
    /// all of them, else from `/proc/cpuinfo`.
    fn read(proc: &Path, sys: &Path) -> Self {
        let stat = std::fs::read_to_string(proc.join("stat")).unwrap_or_default();
        let online = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as u64;
        let from_sysfs = Self::from_sysfs(sys);
        let found = if from_sysfs.cores == Some(online) { from_sysfs } else { Self::from_cpuinfo(proc) };
        Self { cores: (online > 0).then_some(online), ..found }
    }

    fn from_sysfs(sys: &Path) -> Self {
        let mut cores = 0;
        let [mut physical, mut sockets, mut books, mut drawers] = [const { BTreeSet::new() }; 4];
        for entry in std::fs::read_dir(sys.join("devices/system/cpu")).into_iter().flatten().flatten() {
            let name = entry.file_name();
            let number = name.to_str().and_then(|name| name.strip_prefix("cpu")).and_then(|n| n.parse::<u32>().ok());
            let id = |file: &str| line(&entry.path().join("topology").join(file));
            // An offline CPU has no topology directory.
            let (Some(_), Some(package)) = (number, id("physical_package_id")) else { continue };
            cores += 1;
            physical.extend(id("core_id").map(|core| format!("{package}/{core}")));
            books.extend(id("book_id"));
            drawers.extend(id("drawer_id"));
            sockets.insert(package);
        }
        let count = |seen: BTreeSet<String>| (!seen.is_empty()).then_some(seen.len() as u64);
        Self {
            cores: Some(cores),
            physical_cores: count(physical),
            sockets: count(sockets),
            books: count(books),
            drawers: count(drawers),
        }
    }

    fn from_cpuinfo(proc: &Path) -> Self {
        let Ok(info) = procfs::CpuInfo::from_file(proc.join("cpuinfo")) else { return Self::default() };
        let mut sockets = BTreeSet::new();
        let mut physical = BTreeSet::new();
        for cpu in &info.cpus {
            if let Some(socket) = cpu.get("physical id") {
                sockets.insert(socket);
                physical.extend(cpu.get("core id").map(|core| (socket, core)));
            }
        }
        let some = |count: usize| (count > 0).then_some(count as u64);
        Self { physical_cores: some(physical.len()), sockets: some(sockets.len()), ..Self::default() }
    }
}

/// Memory modules by type from `/sys/devices/system/edac/mc/mc*/dimm*`.
fn dimms(sys: &Path) -> Vec<Dimm> {
    let mut by_kind: BTreeMap<String, Dimm> = BTreeMap::new();
    let list = |path: &Path| std::fs::read_dir(path).into_iter().flatten().flatten().map(|entry| entry.path());
    let named = |path: &Path, prefix: &str| {
        path.file_name().and_then(|name| name.to_str()).is_some_and(|name| name.starts_with(prefix))
    };
    for controller in list(&sys.join("devices/system/edac/mc")).filter(|path| named(path, "mc")) {
        for dimm in list(&controller).filter(|path| named(path, "dimm")) {
            let (Some(kind), Some(size)) = (line(&dimm.join("dimm_mem_type")), line(&dimm.join("size"))) else {
                continue;
            };
            let Ok(mebibytes) = size.parse::<u64>() else { continue };
            let entry = by_kind.entry(kind.clone()).or_insert(Dimm { kind, count: 0, capacity: Bytes(0) });
            entry.count += 1;
            entry.capacity.0 = entry.capacity.0.saturating_add(Bytes::from_kib(mebibytes.saturating_mul(1024)).0);
        }
    }
    by_kind.into_values().collect()
}
