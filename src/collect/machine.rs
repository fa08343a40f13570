//! The `machine` collector: what the node is, read once in a while.

use std::collections::{BTreeMap, BTreeSet};
use std::path::Path;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::meminfo::Meminfo;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::machine::{Dimm, Machine};
use crate::model::units::Bytes;

/// Hardware changes by hot-plug only. What could not be read is read again at the next collection.
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

    /// What there is, and what is missing that every kernel has.
    fn read(&self) -> (Machine, Option<CollectError>) {
        let Roots { host, proc, sys, .. } = &*self.roots;
        let missing = |name: &str, problem: &dyn std::fmt::Display| {
            CollectError::Read(format!("{}: {problem}", proc.join(name).display()))
        };
        let (meminfo, mut problem) = match std::fs::read(proc.join("meminfo")) {
            Ok(content) => (Meminfo::parse(&content), None),
            Err(error) => (Meminfo::default(), Some(missing("meminfo", &error))),
        };
        if meminfo.total.is_none() || meminfo.swap_total.is_none() {
            problem.get_or_insert_with(|| missing("meminfo", &"no MemTotal or SwapTotal"));
        }
        let topology = Topology::read(proc, sys);
        if topology.cores.is_none() {
            problem.get_or_insert_with(|| missing("stat", &"no CPUs"));
        }
        let of_kernel = |name: &str| line(&proc.join("sys/kernel").join(name));
        let (boot_id, kernel_version) = (of_kernel("random/boot_id"), of_kernel("osrelease"));
        for (name, value) in [("sys/kernel/random/boot_id", &boot_id), ("sys/kernel/osrelease", &kernel_version)] {
            if value.is_none() {
                problem.get_or_insert_with(|| missing(name, &"unreadable"));
            }
        }
        let machine_id = line(&host.join("etc/machine-id")).or_else(|| line(&host.join("var/lib/dbus/machine-id")));
        let machine = Machine {
            machine_id: machine_id.unwrap_or_default(),
            system_uuid: line(&sys.join("class/dmi/id/product_uuid")).unwrap_or_default(),
            boot_id: boot_id.unwrap_or_default(),
            kernel_version: kernel_version.unwrap_or_default(),
            os_version: os_version(host).unwrap_or_default(),
            cores: topology.cores,
            physical_cores: topology.physical_cores,
            sockets: topology.sockets,
            books: topology.books,
            drawers: topology.drawers,
            memory: meminfo.total,
            swap: meminfo.swap_total,
            dimms: dimms(sys),
        };
        (machine, problem)
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
        let (machine, problem) = self.read();
        let machine = Arc::new(machine);
        // Half of it is not kept: it would stay half for as long as all of it.
        self.last = problem.is_none().then(|| (Instant::now(), Arc::clone(&machine)));
        draft.machine = Some(machine);
        problem.map_or(Ok(()), Err)
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
        let read = |name: &str| std::fs::read(proc.join(name)).unwrap_or_default();
        let stat = read("stat");
        let stat = String::from_utf8_lossy(&stat);
        let online = stat.lines().filter(|line| line.starts_with("cpu") && !line.starts_with("cpu ")).count() as u64;
        // Where what follows the CPUs is not there, some of them may not be either.
        let online = if stat.lines().any(|line| line.starts_with("ctxt ")) { online } else { 0 };
        let from_sysfs = Self::from_sysfs(sys);
        let found = if from_sysfs.cores == Some(online) { from_sysfs } else { Self::from_cpuinfo(&read("cpuinfo")) };
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

    /// One block of lines for each CPU. Not by the `procfs` crate: it panics on an empty file, and takes what is the same
    /// for all CPUs away from each.
    ///
    /// ```text
    /// physical id\t: 0
    /// core id\t\t: 1
    /// ```
    fn from_cpuinfo(content: &[u8]) -> Self {
        let mut sockets = BTreeSet::new();
        let mut physical = BTreeSet::new();
        for cpu in String::from_utf8_lossy(content).split("\n\n") {
            let value = |wanted: &str| {
                let mut pairs = cpu.lines().filter_map(|line| line.split_once(':'));
                pairs.find(|(key, _)| key.trim() == wanted).map(|(_, value)| value.trim().to_owned())
            };
            let Some(socket) = value("physical id") else { continue };
            physical.extend(value("core id").map(|core| (socket.clone(), core)));
            sockets.insert(socket);
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_single_socket_is_counted_from_cpuinfo() {
        let cpu = |number: u32, core: u32| format!("processor\t: {number}\nphysical id\t: 0\ncore id\t\t: {core}\n\n");
        let four = [cpu(0, 0), cpu(1, 0), cpu(2, 1), cpu(3, 1)].concat();
        let topology = Topology::from_cpuinfo(four.as_bytes());
        assert_eq!((topology.sockets, topology.physical_cores), (Some(1), Some(2)));
        let two = [cpu(0, 0), cpu(1, 0).replace("id\t: 0", "id\t: 1")].concat();
        let topology = Topology::from_cpuinfo(two.as_bytes());
        assert_eq!((topology.sockets, topology.physical_cores), (Some(2), Some(2)));
    }

    #[test]
    fn what_could_not_be_read_is_read_again_at_once() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().to_owned();
        let roots = Roots { host: here.clone(), proc: here.clone(), sys: here.clone(), cgroup: here.clone() };
        let mut machines = Machines::new(Arc::new(roots));
        let mut collect = || {
            let mut draft = Draft {
                inventory: Arc::default(),
                rows: Vec::new(),
                machine: None,
                node: None,
                volumes: None,
                top: None,
            };
            let problem = machines.collect(&mut draft).err().map(|error| error.to_string()).unwrap_or_default();
            let machine = draft.machine.unwrap();
            (machine.memory, machine.cores, problem.rsplit('/').next().unwrap_or_default().to_owned())
        };
        let write = |name: &str, text: &str| {
            std::fs::create_dir_all(here.join(name).parent().unwrap()).unwrap();
            std::fs::write(here.join(name), text).unwrap();
        };
        let meminfo = "MemTotal: 2 kB\nSwapTotal: 0 kB\n";
        write("sys/kernel/osrelease", "6.1.0\n");
        write("sys/kernel/random/boot_id", "1\n");
        write("stat", "cpu 1\ncpu0 1\ncpu1 1\nctxt 1\n");
        write("meminfo", "");
        assert_eq!(collect(), (None, Some(2), "meminfo: no MemTotal or SwapTotal".to_owned()));
        write("meminfo", meminfo);
        write("stat", "cpu 1\ncpu0 1\n");
        assert_eq!(collect(), (Some(Bytes(2048)), None, "stat: no CPUs".to_owned()), "some CPUs are not all");
        write("stat", "cpu 1\ncpu0 1\ncpu1 1\nctxt 1\n");
        assert_eq!(collect(), (Some(Bytes(2048)), Some(2), String::new()));
        write("meminfo", "");
        assert_eq!(collect(), (Some(Bytes(2048)), Some(2), String::new()), "what was read well is kept");
    }

    #[test]
    fn an_empty_cpuinfo_is_no_panic() {
        for content in ["", "\n\n", "processor\t: 0\n", "physical id"] {
            let topology = Topology::from_cpuinfo(content.as_bytes());
            assert_eq!((topology.sockets, topology.physical_cores), (None, None), "{content:?}");
        }
    }
}
