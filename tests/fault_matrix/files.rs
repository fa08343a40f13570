//! Files of the kernel: of each cgroup, of each container's process, of the node. One container per cell, all in one
//! node, so that a cell costs next to nothing.

use std::collections::BTreeSet;
use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use crate::support::agent::Agent;
use crate::support::exposition::{Page, backward};
use crate::support::gate::Gate;
use crate::support::host::Host;
use crate::support::kata::{Series, assert_none, false_values, series_without};
use crate::{IN_TIME, PATIENCE, logged, start};

/// What is wrong with a file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It is not there.
    Absent,
    /// It opens and does not read: EISDIR stands for what a driver may say.
    Refused,
    /// Its mode forbids reading.
    Denied,
    /// There is nothing in it.
    Empty,
    /// It ends in the middle.
    Truncated,
    /// No text at all.
    Garbage,
    /// Larger than any file of its kind; what is first in it is right.
    Huge,
}

const FAULTS: [Fault; 7] =
    [Fault::Absent, Fault::Refused, Fault::Denied, Fault::Empty, Fault::Truncated, Fault::Garbage, Fault::Huge];

impl Fault {
    /// It concerns the name: a file that is held open does not notice.
    fn is_of_name(self) -> bool {
        matches!(self, Self::Absent | Self::Refused | Self::Denied)
    }

    fn begin(self, path: &Path) -> Ill {
        let content = fs::read(path).unwrap_or_else(|error| panic!("{}: {error}", path.display()));
        let ill = Ill { fault: self, path: path.to_owned(), content };
        let write = |content: &[u8]| fs::write(path, content).expect("write the file");
        match self {
            Self::Absent => fs::rename(path, ill.aside()).expect("move the file away"),
            Self::Refused => {
                fs::rename(path, ill.aside()).expect("move the file away");
                fs::create_dir(path).expect("a directory");
            }
            Self::Denied => fs::set_permissions(path, Permissions::from_mode(0o0)).expect("forbid"),
            Self::Empty => write(b""),
            Self::Truncated => write(&ill.content[..ill.content.len().div_ceil(2)]),
            Self::Garbage => write(&[0xff; 4096]),
            Self::Huge => write(&[ill.content.clone(), b"filler 1\n".repeat(600_000)].concat()),
        }
        ill
    }
}

/// A file with a fault, and what it was.
struct Ill {
    fault: Fault,
    path: PathBuf,
    content: Vec<u8>,
}

impl Ill {
    fn aside(&self) -> PathBuf {
        self.path.with_extension("aside")
    }

    /// The same file as before, for whoever holds it open as well.
    fn heal(&self) {
        match self.fault {
            Fault::Refused | Fault::Absent => {
                // There is no directory to remove after the one, and an empty one after the other.
                let _ = fs::remove_dir(&self.path);
                fs::rename(self.aside(), &self.path).expect("move the file back");
            }
            Fault::Denied => fs::set_permissions(&self.path, Permissions::from_mode(0o644)).expect("allow"),
            _ => fs::write(&self.path, &self.content).expect("write the file"),
        }
    }
}

/// A file, and what depends on it.
struct Source {
    /// Below the container's cgroup, or its process's directory, or the node.
    file: &'static str,
    /// Who says so when it cannot be understood. `None`: it is a detail, and nobody does.
    collector: Option<&'static str>,
    /// The families that come from it, by the beginnings of their names.
    gives: &'static [&'static str],
    after_good: After,
}

/// How a file is read once it has been read well.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum After {
    /// By the descriptor that is held.
    Held,
    /// Not for a while.
    Remembered,
}

const fn held(file: &'static str, collector: &'static str, gives: &'static [&'static str]) -> Source {
    Source { file, collector: Some(collector), gives, after_good: After::Held }
}

const fn remembered(file: &'static str, collector: Option<&'static str>, gives: &'static [&'static str]) -> Source {
    Source { file, collector, gives, after_good: After::Remembered }
}

const V2: &[Source] = &[
    held("cpu.stat", "cgroup", &["container_cpu_"]),
    held("cpu.max", "cgroup", &["container_spec_cpu_period", "container_spec_cpu_quota", "container_cpu_cfs_"]),
    held("cpu.weight", "cgroup", &["container_spec_cpu_shares"]),
    held("cpu.pressure", "cgroup", &["container_pressure_cpu_"]),
    held("io.stat", "cgroup", &["container_fs_", "container_blkio_"]),
    held("memory.current", "cgroup", &["container_memory_usage_bytes", "container_memory_working_set_bytes"]),
    held("memory.stat", "cgroup", &["container_memory_", "container_oom_events_total"]),
    held("memory.events", "cgroup", &["container_memory_events_", "container_oom_events_total"]),
    held("memory.max", "cgroup", &["container_spec_memory_limit_bytes"]),
    held("memory.peak", "cgroup", &["container_memory_max_usage_bytes"]),
    held("memory.swap.current", "cgroup", &["container_memory_swap"]),
    held("pids.current", "cgroup", &["container_threads"]),
    held("pids.max", "cgroup", &["container_threads_max"]),
];

/// Below the directories of the controllers.
const V1: &[Source] = &[
    held("cpu,cpuacct/cpuacct.usage", "cgroup", &["container_cpu_"]),
    held("cpu,cpuacct/cpuacct.stat", "cgroup", &["container_cpu_user_", "container_cpu_system_"]),
    held("cpu,cpuacct/cpu.stat", "cgroup", &["container_cpu_cfs_"]),
    held("cpu,cpuacct/cpu.shares", "cgroup", &["container_spec_cpu_shares"]),
    held(
        "memory/memory.usage_in_bytes",
        "cgroup",
        &["container_memory_usage_bytes", "container_memory_working_set_bytes"],
    ),
    held("memory/memory.stat", "cgroup", &["container_memory_", "container_oom_events_total"]),
    held("memory/memory.limit_in_bytes", "cgroup", &["container_spec_memory_limit_bytes"]),
    held("pids/pids.current", "cgroup", &["container_threads"]),
];

const PROCESS: &[Source] =
    &[held("net/dev", "network", &["container_network_"]), remembered("limits", None, &["container_ulimits_soft"])];

/// A container whose file is ill in one way.
struct Cell {
    source: &'static Source,
    fault: Fault,
    /// The row that may lack something, or else one below it.
    id: String,
    path: PathBuf,
}

fn pod(number: usize) -> String {
    format!("kubepods/pod{number:08x}-0000-4000-8000-000000000000")
}

fn container(number: usize) -> String {
    format!("{}/{number:064x}", pod(number))
}

/// Files of a cgroup v1, with the controller's directory.
const V1_FILES: &[(&str, &str)] = &[
    ("cpu,cpuacct/cgroup.procs", ""),
    ("cpu,cpuacct/cpu.cfs_period_us", "100000\n"),
    ("cpu,cpuacct/cpu.cfs_quota_us", "50000\n"),
    ("cpu,cpuacct/cpu.shares", "512\n"),
    ("cpu,cpuacct/cpu.stat", "nr_periods 40\nnr_throttled 4\nthrottled_time 250000000\n"),
    ("cpu,cpuacct/cpuacct.stat", "user 250\nsystem 100\n"),
    ("cpu,cpuacct/cpuacct.usage", "3500000000\n"),
    ("memory/cgroup.procs", ""),
    ("memory/memory.failcnt", "3\n"),
    ("memory/memory.limit_in_bytes", "67108864\n"),
    ("memory/memory.max_usage_in_bytes", "41943040\n"),
    ("memory/memory.oom_control", "oom_kill_disable 0\nunder_oom 0\noom_kill 1\n"),
    (
        "memory/memory.stat",
        "cache 8388608\nrss 16777216\nmapped_file 4096\npgfault 1000\npgmajfault 5\nswap 0\ntotal_cache 8388608\n\
         total_rss 16777216\ntotal_mapped_file 4096\ntotal_pgfault 1000\ntotal_pgmajfault 5\n\
         total_inactive_file 4194304\ntotal_active_file 4194304\ntotal_swap 0\n",
    ),
    ("memory/memory.usage_in_bytes", "33554432\n"),
    ("memory/memory.use_hierarchy", "1\n"),
    ("pids/cgroup.procs", ""),
    ("pids/pids.current", "9\n"),
    ("pids/pids.max", "100\n"),
];

fn v1_cgroup(host: &Host, cgroup: &str) {
    for (file, text) in V1_FILES {
        let (controller, name) = file.split_once('/').expect("a controller");
        host.write(&format!("sys/fs/cgroup/{controller}/{cgroup}/{name}"), text);
    }
}

/// Every fault at every one of these files, each in a container of its own, and one container that is well.
fn cells(sources: &'static [Source], path: impl Fn(usize, &str) -> PathBuf) -> Vec<Cell> {
    let faults = sources.iter().flat_map(|source| FAULTS.map(|fault| (source, fault)));
    let cell = |(number, (source, fault)): (usize, (&'static Source, Fault))| Cell {
        source,
        fault,
        id: format!("/{}", pod(number)),
        path: path(number, source.file),
    };
    faults.enumerate().map(cell).collect()
}

/// Every series but those of the agent itself. When a directory was made is what the test changes with every file.
fn series(page: &Page) -> Series {
    let mut series = series_without(page, &[]);
    series.retain(|(name, labels), _| {
        let made = name == "container_start_time_seconds" && labels.get("id").is_some_and(|id| id != "/");
        // Says that something could not be read.
        !made && name != "container_scrape_error" && name != "machine_scrape_error"
    });
    series
}

fn scrape(agent: &Agent) -> Page {
    let started = Instant::now();
    let page = agent.page("/metrics");
    assert!(started.elapsed() < IN_TIME, "a scrape took {:?}", started.elapsed());
    page
}

fn succeeds(page: &Page, collector: &str) -> bool {
    page.value("kata_pulse_collector_success", &[("collector", collector)]) == 1.0
}

/// What a page with faults must be, given one without.
struct Table {
    cells: Vec<Cell>,
    /// The series that are looked at.
    series: fn(&Page) -> Series,
    well: Series,
}

impl Table {
    /// `later`: the files were read before.
    fn check(&self, page: &Page, later: bool) {
        let served = (self.series)(page);
        let when = if later { "later" } else { "at first" };
        assert_none(&false_values(&served, &self.well), &format!("false, {when}"));
        let mut lost: BTreeSet<&(String, _)> = self.well.keys().filter(|one| !served.contains_key(*one)).collect();
        for Cell { source, fault, id, .. } in &self.cells {
            let given = |(name, labels): &(String, crate::support::exposition::Labels)| {
                let is_theirs = |is: &String| is == id || (id != "/" && is.starts_with(id));
                labels.get("id").is_none_or(is_theirs) && source.gives.iter().any(|begin| name.starts_with(begin))
            };
            let theirs: Vec<_> = lost.iter().filter(|one| given(one)).copied().collect();
            let what = format!("{fault:?} {} {when}", source.file);
            let is_partial = matches!(fault, Fault::Truncated | Fault::Huge | Fault::Empty);
            match source.after_good {
                After::Held if later && fault.is_of_name() => assert_eq!(theirs.len(), 0, "{what}: {theirs:?}"),
                After::Remembered if later => {}
                _ => assert!(!theirs.is_empty() || is_partial, "{what}: nothing is missing"),
            }
            lost.retain(|one| !theirs.contains(one));
        }
        assert!(lost.is_empty(), "{when}: missing without a fault: {lost:?}");
    }

    fn begin(&self) -> Vec<Ill> {
        self.cells.iter().map(|cell| cell.fault.begin(&cell.path)).collect()
    }

    fn collectors(&self) -> BTreeSet<&'static str> {
        self.cells.iter().filter_map(|cell| cell.source.collector).collect()
    }

    /// Everything as it was, nothing having gone backwards; files that were absent are looked for now and then.
    fn recover(&self, agent: &Agent, ills: &[Ill], before: &Page) -> Page {
        ills.iter().for_each(Ill::heal);
        agent.wait_until("everything is served again", Duration::from_secs(90), || {
            (self.series)(&scrape(agent)) == self.well
        });
        let page = scrape(agent);
        assert_none(&backward(before, &page), "backwards");
        for collector in self.collectors() {
            assert!(succeeds(&page, collector), "{collector}");
        }
        page
    }
}

fn eager(host: &Host) -> Vec<std::ffi::OsString> {
    let mut flags = host.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    flags
}

fn run(host: &Host, cells: Vec<Cell>) {
    let well = series(&scrape(&start(eager(host))));
    let table = Table { cells, series, well };
    let ills = table.begin();
    let agent = start(eager(host));
    let mut page = scrape(&agent);
    for round in 1..=2 {
        let later = round == 2;
        for _ in 0..3 {
            page = scrape(&agent);
            table.check(&page, later);
        }
        for collector in table.collectors() {
            assert!(!succeeds(&page, collector), "{collector} does not say so");
            assert_eq!(logged(&agent, &["collector is failing", collector]), round, "{collector} says it once");
        }
        assert_eq!((agent.get("/livez").status, agent.get("/readyz").status), (200, 200));
        if later {
            table.recover(&agent, &table.begin_again(&ills), &page);
        } else {
            page = table.recover(&agent, &ills, &page);
            table.begin();
        }
        for collector in table.collectors() {
            assert_eq!(logged(&agent, &["collector is well again", collector]), round, "{collector}");
        }
    }
    agent.stop(0);
}

impl Table {
    /// The faults that are there already, once more to be healed.
    fn begin_again(&self, first: &[Ill]) -> Vec<Ill> {
        first.iter().map(|ill| Ill { fault: ill.fault, path: ill.path.clone(), content: ill.content.clone() }).collect()
    }
}

#[test]
fn cgroup_v2() {
    let host = Host::v2();
    let cells = cells(V2, |number, file| host.path(&format!("sys/fs/cgroup/{}/{file}", container(number))));
    for number in 0..=cells.len() {
        host.v2_cgroup(&pod(number));
        host.v2_cgroup(&container(number));
    }
    run(&host, cells);
}

#[test]
fn cgroup_v1() {
    let host = Host::bare();
    let path = |number, file: &str| {
        let (controller, name) = file.split_once('/').expect("a controller");
        host.path(&format!("sys/fs/cgroup/{controller}/{}/{name}", container(number)))
    };
    let cells = cells(V1, path);
    for number in 0..=cells.len() {
        v1_cgroup(&host, &pod(number));
        v1_cgroup(&host, &container(number));
    }
    run(&host, cells);
}

#[test]
fn processes_of_containers() {
    let host = Host::v2();
    let pid = |number: usize| u32::try_from(1000 + number).expect("a small number");
    let cells = cells(PROCESS, |number, file| host.path(&format!("proc/{}/{file}", pid(number))));
    for number in 0..=cells.len() {
        host.v2_cgroup(&pod(number));
        host.v2_cgroup(&container(number));
        host.v2_process(&container(number), pid(number), &[("lo", 1), ("eth0", 1000)]);
    }
    run(&host, cells);
}

/// A file of the node, of which there is but one: a fault has an agent of its own.
struct OfNode {
    source: Source,
    /// What nobody can tell from the truth, so that nobody says it.
    unsaid: &'static [Fault],
}

const NODE: &[OfNode] = &[
    OfNode {
        source: remembered(
            "proc/meminfo",
            Some("machine"),
            &["machine_memory_", "machine_swap_", "container_memory_swap", "container_spec_memory_"],
        ),
        // What is said of memory stands in the first half.
        unsaid: &[Fault::Truncated, Fault::Huge],
    },
    OfNode {
        source: remembered("proc/stat", Some("machine"), &["machine_cpu_", "container_start_time_seconds"]),
        unsaid: &[Fault::Huge],
    },
    OfNode { source: remembered("proc/1/mountinfo", Some("filesystem"), &["container_fs_"]), unsaid: &[] },
    // A node may have no disks.
    OfNode {
        source: held("proc/diskstats", "filesystem", &["container_fs_", "container_blkio_"]),
        unsaid: &[Fault::Empty, Fault::Truncated],
    },
    // Nor need its first process have a network.
    OfNode {
        source: held("proc/1/net/dev", "network", &["container_network_"]),
        unsaid: &[Fault::Absent, Fault::Empty],
    },
    OfNode { source: remembered("proc/1/limits", None, &["container_ulimits_soft"]), unsaid: &[] },
];

/// With those of the node's filesystems, but for what fills while the test runs. A device whose name is not known has
/// its number for one.
fn series_of_node(page: &Page) -> Series {
    let fills = ["container_fs_usage_bytes", "container_fs_inodes_free"];
    let of_filesystems = page.samples().filter(|sample| {
        sample.name.starts_with("container_fs_")
            && sample.label("id") == Some("/")
            && !fills.contains(&sample.name.as_str())
    });
    let mut all = series(page);
    all.extend(of_filesystems.map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value)));
    all.retain(|(_, labels), _| !labels.get("device").is_some_and(|device| device.starts_with("/dev/block/")));
    all
}

impl OfNode {
    /// What is served, said and recovered with this fault there from the beginning, and again once all was well.
    fn run(&'static self, fault: Fault) {
        let host = Host::v2();
        host.v2_cgroup(&pod(0));
        host.v2_cgroup(&container(0));
        let well = series_of_node(&scrape(&start(eager(&host))));
        let cell = Cell { source: &self.source, fault, id: "/".to_owned(), path: host.path(self.source.file) };
        let table = Table { cells: vec![cell], series: series_of_node, well };
        let what = format!("{fault:?} {}", self.source.file);
        let mut ills = table.begin();
        let agent = start(eager(&host));
        for later in [false, true] {
            let [.., page] = [(); 3].map(|()| self.check(&agent, &table, later));
            if let (Some(collector), false) = (self.source.collector, later || self.unsaid.contains(&fault)) {
                assert!(!succeeds(&page, collector), "{what}: {collector} does not say so");
                assert_eq!(logged(&agent, &["collector is failing", collector]), 1, "{what}: {collector} says it once");
            }
            assert_eq!((agent.get("/livez").status, agent.get("/readyz").status), (200, 200), "{what}");
            table.recover(&agent, &ills, &page);
            if !later {
                ills = table.begin();
            }
        }
        agent.stop(0);
    }

    fn check(&self, agent: &Agent, table: &Table, later: bool) -> Page {
        let page = scrape(agent);
        let served = series_of_node(&page);
        let what =
            format!("{:?} {}, {}", table.cells[0].fault, self.source.file, if later { "later" } else { "at first" });
        assert_none(&false_values(&served, &table.well), &what);
        let lost: Vec<_> = table.well.keys().filter(|one| !served.contains_key(*one)).collect();
        let others: Vec<_> =
            lost.iter().filter(|(name, _)| !self.source.gives.iter().any(|begin| name.starts_with(begin))).collect();
        assert!(others.is_empty(), "{what}: missing without a fault: {others:?}");
        let is_partial = matches!(table.cells[0].fault, Fault::Truncated | Fault::Huge | Fault::Empty);
        assert!(later || is_partial || !lost.is_empty(), "{what}: nothing is missing");
        page
    }
}

#[test]
fn files_of_the_node() {
    std::thread::scope(|scope| {
        let run = |one: &'static OfNode| {
            for fault in FAULTS {
                one.run(fault);
            }
        };
        let all: Vec<_> = NODE.iter().map(|one| (one, scope.spawn(move || run(one)))).collect();
        let failed: Vec<&str> =
            all.into_iter().filter_map(|(one, thread)| thread.join().is_err().then_some(one.source.file)).collect();
        assert_eq!(failed, [""; 0]);
    });
}

/// Whoever reads stands still in the kernel, as before a device that does not answer. The collection waits and nobody
/// waits for it longer than they said; a slow one is one that is let go in time.
#[test]
fn files_that_hang_and_files_that_are_slow() {
    let host = Host::v2();
    host.v2_cgroup(&pod(0));
    host.v2_cgroup(&container(0));
    host.v2_process(&container(0), 1000, &[("eth0", 1000)]);
    let of_cgroup = ["cpu.stat", "memory.stat", "cgroup.procs"];
    let of_cgroup = of_cgroup.map(|file| format!("sys/fs/cgroup/{}/{file}", container(0)));
    let of_process = ["net/dev", "limits"].map(|file| format!("proc/1000/{file}"));
    let of_node = ["proc/meminfo", "proc/stat", "proc/1/mountinfo", "proc/diskstats"].map(str::to_owned);
    let well = series(&scrape(&start(eager(&host))));
    for file in of_cgroup.iter().chain(&of_process).chain(&of_node) {
        let mut gate = Gate::close(&host.path(file));
        let agent = start(eager(&host));
        let started = Instant::now();
        let late = agent.get_with("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "1.5")]);
        assert_eq!(late.status, 503, "{file}: {}", late.text());
        assert!(started.elapsed() < IN_TIME, "{file}: {:?}", started.elapsed());
        gate.wait_for_reader();
        assert_eq!((agent.get("/livez").status, agent.get("/readyz").status), (200, 200), "{file}");
        let page = std::thread::scope(|scope| {
            let slow = scope.spawn(|| agent.page("/metrics"));
            gate.open();
            slow.join().expect("a page")
        });
        assert_none(&false_values(&series(&page), &well), file);
        agent.wait_until(&format!("everything is served again: {file}"), PATIENCE, || series(&scrape(&agent)) == well);
        agent.stop(0);
    }
}

/// The cgroup goes while it is read: the rest of it is not there any more. Its row is gone, and only its.
#[test]
fn a_cgroup_that_vanishes_while_it_is_read() {
    for version in ["v1", "v2"] {
        let host = if version == "v1" { Host::bare() } else { Host::v2() };
        let make = |cgroup: &str| if version == "v1" { v1_cgroup(&host, cgroup) } else { host.v2_cgroup(cgroup) };
        [pod(0), container(0), pod(1), container(1)].iter().for_each(|cgroup| make(cgroup));
        let (first, roots): (_, &[&str]) = match version {
            "v1" => {
                (format!("sys/fs/cgroup/memory/{}/memory.stat", container(1)), &["cpu,cpuacct/", "memory/", "pids/"])
            }
            _ => (format!("sys/fs/cgroup/{}/memory.stat", container(1)), &[""]),
        };
        let gate = Gate::close(&host.path(&first));
        let agent = start(eager(&host));
        let page = std::thread::scope(|scope| {
            let scrape = scope.spawn(|| agent.page("/metrics"));
            let mut gate = gate;
            gate.wait_for_reader();
            for root in roots {
                let directory = host.path(&format!("sys/fs/cgroup/{root}{}", pod(1)));
                fs::rename(&directory, host.path(&format!("gone-{}", root.replace('/', "")))).expect("it goes");
            }
            gate.let_go();
            scrape.join().expect("a page")
        });
        let rows = |page: &Page, number| {
            page.matching("container_memory_usage_bytes", &[("id", &format!("/{}", container(number)))]).len()
        };
        assert_eq!((rows(&page, 0), rows(&page, 1)), (1, 0), "{version}");
        let page = scrape(&agent);
        assert_eq!((rows(&page, 0), rows(&page, 1)), (1, 0), "{version}");
        assert!(succeeds(&page, "cgroup"), "{version}: to vanish is no fault");
        agent.stop(0);
    }
}
