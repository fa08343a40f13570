//! Both exporters on the same host: a family that both have is of the same type, has the same label sets, and its values
//! lie between those that node_exporter gives before and after.

use std::collections::{BTreeMap, BTreeSet};
use std::net::{Ipv4Addr, TcpListener};
use std::process::{Child, Command, Stdio};
use std::time::Instant;

use crate::support::agent::Agent;
use crate::support::exposition::{Family, Kind, Labels, Page};
use crate::{FLAGS, PATIENCE};

/// From the Debian package `prometheus-node-exporter`.
const EXPORTER: &str = "/usr/bin/prometheus-node-exporter";

/// Today's defaults of node_exporter, which Debian's version changes or does not have yet.
const TODAYS_DEFAULTS: [&str; 6] = [
    "--collector.filesystem.mount-points-exclude=^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|\
     var/lib/containers/storage/.+)($|/)",
    "--collector.diskstats.device-exclude=^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\\d+n\\d+p)\\d+$",
    "--collector.netdev.device-exclude=^$",
    "--collector.filesystem.fs-types-exclude=^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|efivarfs|\
     erofs|fusectl|hugetlbfs|iso9660|mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|sysfs|\
     tracefs)$",
    // Off by default; ours is on, and -125000 bytes per second are no speed.
    "--collector.netclass.ignore-invalid-speed",
    "--collector.cpu.info",
];

/// Families of node_exporter that are not here: `docs/metrics.md` has the reasons.
const NOT_HERE: [&str; 13] = [
    "node_disk_info",
    "node_entropy_",
    "node_exporter_build_info",
    "node_nf_conntrack_stat_",
    "node_scrape_collector_",
    "node_selinux_",
    "node_textfile_",
    "node_time_clocksource_",
    "node_time_zone_",
    "node_timex_",
    "node_udp_queues",
    "node_xfs_",
    "node_cpu_core_throttles_",
];

/// Families that Debian's version does not have yet.
const NOT_THERE: [&str; 1] = ["node_pressure_irq_stalled_seconds_total"];

/// Gauges that move with whatever else the machine does: how far beyond both neighbours, as a share of the larger one
/// and as a number.
const RESTLESS: [(&str, f64, f64); 9] = [
    ("node_load", 0.3, 2.0),
    ("node_memory_", 0.25, 256e6),
    ("node_procs_", 0.0, 50.0),
    ("node_sockstat_", 0.5, 200.0),
    ("node_filefd_allocated", 0.3, 500.0),
    ("node_filesystem_", 0.05, 512e6),
    ("node_nf_conntrack_entries", 0.5, 500.0),
    ("node_netstat_Tcp_CurrEstab", 0.5, 100.0),
    ("node_arp_entries", 0.0, 20.0),
];

struct Exporter {
    process: Child,
    port: u16,
}

impl Exporter {
    fn start() -> Self {
        let port =
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).and_then(|free| free.local_addr()).expect("a port").port();
        let process = Command::new(EXPORTER)
            .arg(format!("--web.listen-address=127.0.0.1:{port}"))
            .args(TODAYS_DEFAULTS)
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .spawn()
            .unwrap_or_else(|error| panic!("{EXPORTER}: {error}; `make setup` installs it"));
        let exporter = Self { process, port };
        let deadline = Instant::now() + PATIENCE;
        while exporter.get().is_err() {
            assert!(Instant::now() < deadline, "node_exporter does not answer");
            std::thread::sleep(std::time::Duration::from_millis(50));
        }
        exporter
    }

    fn get(&self) -> Result<String, ureq::Error> {
        ureq::get(format!("http://127.0.0.1:{}/metrics", self.port)).call()?.body_mut().read_to_string()
    }

    fn page(&self) -> Page {
        Page::parse(&self.get().expect("node_exporter answers")).expect("an exposition")
    }
}

impl Drop for Exporter {
    fn drop(&mut self) {
        let _ = self.process.kill();
        let _ = self.process.wait();
    }
}

fn host_families(page: &Page) -> BTreeMap<&str, &Family> {
    page.families
        .iter()
        .filter(|family| family.name.starts_with("node_"))
        .map(|family| (family.name.as_str(), family))
        .collect()
}

fn values(family: &Family) -> BTreeMap<&Labels, f64> {
    family.samples.iter().map(|sample| (&sample.labels, sample.value)).collect()
}

/// What lies outside of its neighbours.
fn outside(name: &str, kind: Kind, before: f64, ours: f64, after: f64) -> bool {
    let (low, high) = (before.min(after), before.max(after));
    let (share, number) = RESTLESS
        .iter()
        .find(|(prefix, ..)| name.starts_with(prefix))
        .map_or((0.0, 0.0), |(_, share, number)| (*share, *number));
    let slack = high.abs() * share + number + high.abs() * 1e-9;
    // Each has its own idea of when a sum over CPUs was taken.
    let slack = if kind == Kind::Counter { slack + 0.02 } else { slack };
    ours < low - slack || ours > high + slack
}

#[test]
fn both_say_the_same_of_what_both_have() {
    let _alone = crate::alone();
    let exporter = Exporter::start();
    let agent = Agent::start(FLAGS);
    agent.page("/metrics");
    let (before, ours, after) = (exporter.page(), agent.page("/metrics"), exporter.page());
    let (before, ours, after) = (host_families(&before), host_families(&ours), host_families(&after));
    let mut problems = Vec::new();
    let mut shared = 0;
    for (name, theirs) in &before {
        let (Some(our), Some(later)) = (ours.get(name), after.get(name)) else {
            if !NOT_HERE.iter().any(|prefix| name.starts_with(prefix)) {
                problems.push(format!("{name} is not here"));
            }
            continue;
        };
        shared += 1;
        if our.kind != theirs.kind {
            problems.push(format!("{name}: {:?} here, {:?} there", our.kind, theirs.kind));
        }
        let (theirs, our, later) = (values(theirs), values(our), values(later));
        let sets =
            |values: &BTreeMap<&Labels, f64>| values.keys().map(|labels| (*labels).clone()).collect::<BTreeSet<_>>();
        // What came or went between the two is of no use.
        if sets(&theirs) == sets(&later) && sets(&our) != sets(&theirs) {
            let (here, there) = (sets(&our), sets(&theirs));
            let only = |one: &BTreeSet<Labels>, other| one.difference(other).cloned().collect::<Vec<Labels>>();
            problems.push(format!("{name}: only here {:?}, only there {:?}", only(&here, &there), only(&there, &here)));
        }
        let kind = ours[name].kind.expect("a type");
        for (labels, ours) in &our {
            if let (Some(before), Some(after)) = (theirs.get(labels), later.get(labels))
                && outside(name, kind, *before, *ours, *after)
            {
                problems.push(format!("{name}{labels:?}: {before}, then {ours} here, then {after}"));
            }
        }
    }
    let only_here = ours.keys().filter(|name| !before.contains_key(*name) && !NOT_THERE.contains(name));
    problems.extend(only_here.map(|name| format!("{name} is not there")));
    assert_eq!(problems, [""; 0], "of {shared} families");
    assert!(shared > 150, "only {shared} families are compared");
}
