//! The `node` collector: the node as a host, as node_exporter tells it. Off unless asked for, because most nodes have a
//! node_exporter already.
//!
//! Files of the network come from `/proc/1/net`, the host's namespace: the agent's own is a pod's.

mod filesystems;
mod names;
mod os;
mod parse;
mod sysfs;

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use crate::collect::cgroup::parse::{ParseError, pressure, single};
use crate::collect::exclude::Exclude;
use crate::collect::held::{Budget, HeldFile, Reader};
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::node::{CpuTime, HostInterface, HostPressure, Node, Processor, Uname};
use crate::model::units::Seconds;

/// What an administrator changes is read this often.
const SLOWLY: Duration = Duration::from_secs(30);

/// A CPU that lost more than this much idle time was taken out and put back in; less is the kernel's own rounding.
const IDLE_STEP_BACK: f64 = 3.0;

/// Where `idle` is among a CPU's modes.
const IDLE: usize = 3;

/// Block devices that node_exporter leaves out when nobody says otherwise.
pub const DISKS: &str = r"^(z?ram|loop|fd|(h|s|v|xv)d[a-z]|nvme\d+n\d+p)\d+$";

/// Mount points that it leaves out.
pub const MOUNTS: &str = r"^/(dev|proc|run/credentials/.+|sys|var/lib/docker/.+|var/lib/containers/storage/.+)($|/)";

/// Types of filesystems that it leaves out.
pub const FILESYSTEMS: &str = "^(autofs|binfmt_misc|bpf|cgroup2?|configfs|debugfs|devpts|devtmpfs|fusectl|hugetlbfs|iso9660|\
    mqueue|nsfs|overlay|proc|procfs|pstore|rpc_pipefs|securityfs|selinuxfs|squashfs|erofs|sysfs|tracefs|efivarfs)$";

/// What is left out: nothing by default.
#[derive(Clone, Debug, Default)]
pub struct Options {
    /// Interfaces, by name.
    pub interfaces: Exclude,
    /// Block devices, by name.
    pub disks: Exclude,
    /// Filesystems, by mount point.
    pub mounts: Exclude,
    /// Filesystems, by type.
    pub filesystems: Exclude,
}

/// Reads the node.
#[derive(Debug)]
pub struct Nodes {
    roots: Arc<Roots>,
    exclude: Arc<Options>,
    reader: Reader,
    held: HashMap<&'static str, HeldFile>,
    filesystems: filesystems::Filesystems,
    cpus: HashMap<String, CpuTime>,
    slow: Option<(Instant, Slow)>,
}

/// What is read slowly.
#[derive(Clone, Debug)]
struct Slow {
    processors: Vec<Processor>,
    uname: Uname,
    os: Vec<(&'static str, String)>,
}

impl Nodes {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>, budget: Arc<Budget>, exclude: Options) -> Self {
        let (held, cpus) = Default::default();
        let filesystems = filesystems::Filesystems::default();
        Self { roots, exclude: Arc::new(exclude), reader: Reader::new(budget), held, filesystems, cpus, slow: None }
    }

    /// A file of procfs, if the kernel has it.
    fn read<T>(&mut self, name: &'static str, parse: impl FnOnce(&[u8]) -> Result<T, ParseError>) -> Option<T> {
        let held = self.held.entry(name).or_default();
        self.reader.parse(held, &self.roots.proc, name, parse).ok().flatten()
    }

    /// The same, for files of which no line can be wrong.
    fn lines<T>(&mut self, name: &'static str, parse: impl FnOnce(&[u8]) -> T) -> Option<T> {
        self.read(name, |content| Ok(parse(content)))
    }

    fn slow(&mut self) -> Slow {
        if let Some((read, slow)) = &self.slow
            && read.elapsed() < SLOWLY
        {
            return slow.clone();
        }
        let cpuinfo = std::fs::read(self.roots.proc.join("cpuinfo")).unwrap_or_default();
        let mut processors = sysfs::processors(&cpuinfo);
        once(&mut processors, |processor| processor.cpu.clone());
        let slow = Slow { processors, uname: os::uname(&self.roots), os: os::release(&self.roots.host) };
        // A driver or a module may have come, and its file with it.
        self.held.values_mut().for_each(HeldFile::look_again);
        self.slow = Some((Instant::now(), slow.clone()));
        slow
    }

    fn network(&mut self) -> Vec<HostInterface> {
        let mut interfaces = self.read("1/net/dev", parse::net_dev).unwrap_or_default();
        let exclude = &self.exclude.interfaces;
        interfaces.retain(|interface| !exclude.has(&interface.device));
        once(&mut interfaces, |interface| interface.device.clone());
        sysfs::describe(&self.roots.sys, &mut interfaces, exclude);
        interfaces
    }

    /// The kernel lets idle and I/O wait step back a little, and a counter must not. What steps back further was reset.
    fn steady(&mut self, mut cpus: Vec<CpuTime>) -> Vec<CpuTime> {
        for cpu in &mut cpus {
            let Some(last) = self.cpus.get(&cpu.cpu) else { continue };
            if last.modes[IDLE].as_f64() - cpu.modes[IDLE].as_f64() >= IDLE_STEP_BACK {
                continue;
            }
            let before = last.modes.iter().chain(&last.guest);
            for (now, before) in cpu.modes.iter_mut().chain(&mut cpu.guest).zip(before) {
                if now.as_f64() < before.as_f64() {
                    *now = *before;
                }
            }
        }
        self.cpus = cpus.iter().map(|cpu| (cpu.cpu.clone(), cpu.clone())).collect();
        cpus
    }

    fn take(&mut self) -> (Node, Option<CollectError>) {
        let Slow { mut processors, uname, os } = self.slow();
        sysfs::clock(&self.roots.sys, &mut processors);
        let page = procfs::page_size();
        let (mut cpus, kernel) = self.read("stat", parse::stat).unwrap_or_default();
        once(&mut cpus, |cpu| cpu.cpu.clone());
        let mut netstat = self.lines("1/net/netstat", parse::netstat).unwrap_or_default();
        netstat.extend(self.lines("1/net/snmp", parse::netstat).unwrap_or_default());
        netstat.extend(self.lines("1/net/snmp6", parse::snmp6).unwrap_or_default());
        let mut sockstat = self.lines("1/net/sockstat", |text| parse::sockstat(text, page)).unwrap_or_default();
        sockstat.extend(self.lines("1/net/sockstat6", |text| parse::sockstat(text, page)).unwrap_or_default());
        let limit = |content: &[u8]| single(content, "nf_conntrack_max");
        let conntrack = (
            self.lines("1/net/stat/nf_conntrack", parse::conntrack).flatten(),
            self.read("sys/net/netfilter/nf_conntrack_max", limit),
        );
        let now = SystemTime::now().duration_since(UNIX_EPOCH).ok();
        let pressure = HostPressure {
            cpu: self.read("pressure/cpu", pressure),
            io: self.read("pressure/io", pressure),
            memory: self.read("pressure/memory", pressure),
            irq: self.read("pressure/irq", pressure),
        };
        let mut memory = self.lines("meminfo", parse::meminfo).unwrap_or_default();
        let mut vmstat = self.lines("vmstat", parse::vmstat).unwrap_or_default();
        for named in [&mut memory, &mut vmstat, &mut netstat, &mut sockstat] {
            once(named, |named| named.name);
        }
        let exclude = Arc::clone(&self.exclude);
        let mut disks = self.read("diskstats", |content| parse::diskstats(content, &exclude.disks)).unwrap_or_default();
        let mut softnet = self.lines("1/net/softnet_stat", parse::softnet).unwrap_or_default();
        once(&mut disks, |disk| disk.device.clone());
        once(&mut softnet, |row| row.cpu.clone());
        let mut neighbours = self.lines("1/net/arp", parse::arp).unwrap_or_default();
        neighbours.retain(|(device, _)| !exclude.interfaces.has(device));
        let roots = Arc::clone(&self.roots);
        let (filesystems, problem) = match self.filesystems.read(&roots.proc, &roots.host, &exclude) {
            Ok(filesystems) => (filesystems, None),
            Err(error) => (Vec::new(), Some(error)),
        };
        let node = Node {
            cpus: self.steady(cpus),
            processors,
            kernel,
            load: self.read("loadavg", parse::loadavg),
            memory,
            vmstat,
            netstat,
            sockstat,
            disks,
            filesystems,
            interfaces: self.network(),
            pressure,
            softnet,
            open_files: self.read("sys/fs/file-nr", parse::file_nr),
            conntrack,
            neighbours,
            uname,
            os,
            time: now.map(|now| Seconds::from_nanos(u64::try_from(now.as_nanos()).unwrap_or(u64::MAX))),
        };
        (node, problem)
    }
}

/// Leaves the first of each key. No kernel says a thing twice, and a page that did would be refused as a whole.
fn once<T, K: Eq + std::hash::Hash>(all: &mut Vec<T>, key: impl Fn(&T) -> K) {
    let mut seen = HashSet::with_capacity(all.len());
    all.retain(|one| seen.insert(key(one)));
}

impl Collector for Nodes {
    fn name(&self) -> &'static str {
        "node"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let (node, problem) = self.take();
        draft.node = Some(Box::new(node));
        let fault = self.reader.take_fault().map(CollectError::Read);
        problem.or(fault).map_or(Ok(()), Err)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn cpu(idle: u64, iowait: u64) -> CpuTime {
        let mut modes = [Seconds::ZERO; 8];
        (modes[IDLE], modes[IDLE + 1]) = (Seconds::from_ticks(idle), Seconds::from_ticks(iowait));
        CpuTime { cpu: "0".to_owned(), modes, guest: [Seconds::ZERO; 2] }
    }

    #[test]
    fn what_node_exporter_leaves_out_is_left_out() {
        let has = |pattern: &str| {
            let exclude = Exclude::new(pattern).unwrap();
            move |name: &&str| exclude.has(name)
        };
        let parts = ["loop0", "ram15", "zram0", "fd0", "sda1", "hdb12", "xvda1", "vdz9", "nvme0n1p1", "nvme10n2p15"];
        assert!(parts.iter().all(has(DISKS)));
        let disks = ["sda", "vdb", "nvme0n1", "dm-0", "md127", "sr0", "mmcblk0", "mmcblk0p1", "sdaa1", "nbd0", "zd0"];
        assert!(!disks.iter().any(has(DISKS)));
        let plumbing = ["/dev", "/dev/shm", "/proc/sys", "/sys", "/run/credentials/a", "/var/lib/docker/overlay2/x"];
        assert!(plumbing.iter().all(has(MOUNTS)));
        let storage =
            ["/", "/device", "/run", "/run/credentials", "/var/lib/docker", "/var/lib/kubelet/pods/1", "/a/dev"];
        assert!(!storage.iter().any(has(MOUNTS)));
        assert!(["cgroup", "cgroup2", "iso9660", "mqueue", "efivarfs", "overlay"].iter().all(has(FILESYSTEMS)));
        assert!(!["ext4", "tmpfs", "xfs", "nfs4", "fuse.lxcfs", "cgroup3"].iter().any(has(FILESYSTEMS)));
    }

    #[test]
    fn a_cpu_steps_back_only_when_it_was_taken_out() {
        let root = tempfile::tempdir().unwrap();
        let here = root.path().to_owned();
        let roots = Roots { host: here.clone(), proc: here.clone(), sys: here.clone(), cgroup: here };
        let mut nodes = Nodes::new(Arc::new(roots), Budget::new(8), Options::default());
        let mut steady = |idle, iowait| {
            let modes = nodes.steady(vec![cpu(idle, iowait)]).remove(0).modes;
            (modes[IDLE].as_f64(), modes[IDLE + 1].as_f64())
        };
        assert_eq!(steady(1000, 500), (10.0, 5.0));
        assert_eq!(steady(1010, 499), (10.1, 5.0));
        assert_eq!(steady(1009, 501), (10.1, 5.01));
        assert_eq!(steady(3, 2), (0.03, 0.02), "it came back and counts anew");
    }
}
