//! The recorded node's two sandboxes against numbers read off their files by hand, made-up trees, real processes.

use std::fs;

use kata_pulse_simulator::recorded::{Capture, RecordedNode};

use super::*;
use crate::collect::kata::fixtures::{IDLE, WEB};
use crate::model::guest::Hypervisor;
use crate::model::host_side::{CgroupRole, CgroupUse, HostMemory, ProcessUse};
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Interface, Traffic};

fn roots(host: &Path) -> Roots {
    Roots { host: host.into(), proc: host.join("proc"), sys: host.join("sys"), cgroup: host.join("sys/fs/cgroup") }
}

fn host_reader(host: &Path) -> HostReader {
    HostReader::new(&roots(host), &Budget::new(1000))
}

fn located(host: &Path, sandbox: &str) -> Located {
    ProcessTable::scan(&host.join("proc")).unwrap().locate(&Hints { sandbox, ..Hints::default() })
}

fn adopted(host: &Path, sandbox: &str) -> SandboxHost {
    let mut side = SandboxHost::new(sandbox);
    side.adopt(&located(host, sandbox));
    side
}

#[test]
fn the_recorded_sandboxes() {
    let node = RecordedNode::unpack().unwrap();
    let [t0, t1] = Capture::ALL.map(|capture| node.root(capture));
    processes_are_found_with_and_without_hints(&t0);
    a_split_sandbox_costs_both_its_cgroups(&t0);
    an_undivided_sandbox_costs_one_and_counters_rise(&t0, &t1);
}

fn processes_are_found_with_and_without_hints(root: &Path) {
    let table = ProcessTable::scan(&root.join("proc")).unwrap();
    let id = |pid, start| Identity { pid, start };
    for (sandbox, shim, vmm, virtiofsd) in
        [(IDLE, id(219, 2717), id(228, 2887), id(225, 2846)), (WEB, id(274, 8078), id(283, 8262), id(280, 8222))]
    {
        let expected =
            Located { shim: Some(shim), hypervisor: HypervisorPlace::Process(vmm), virtiofsd: vec![virtiofsd] };
        let blind = Hints { sandbox, ..Hints::default() };
        let told = Hints {
            hypervisor: Some(Hypervisor::CloudHypervisor),
            shim_pid: Some(shim.pid),
            vmm_pid: Some(vmm.pid),
            virtiofsd_pid: Some(virtiofsd.pid),
            ..blind
        };
        // A runc shim, containerd, a pid that is not there: each is named by a stale file.
        let stale = Hints { shim_pid: Some(333), vmm_pid: Some(153), virtiofsd_pid: Some(999_999), ..blind };
        for hints in [blind, told, stale] {
            assert_eq!(table.locate(&hints), expected, "{hints:?}");
        }
    }
    assert_eq!(table.locate(&Hints { sandbox: &"0".repeat(64), ..Hints::default() }), Located::default());
    // A runc pod has a shim as well, and nothing of a machine.
    let runc = "d387b7f712f4696f3b2854ea1e688c26585de71d1bdbe51f34492ea397534f05";
    let located = table.locate(&Hints { sandbox: runc, ..Hints::default() });
    assert_eq!((located.shim.map(|shim| shim.pid), located.hypervisor), (Some(333), HypervisorPlace::Unknown));
}

fn a_split_sandbox_costs_both_its_cgroups(root: &Path) {
    let mut host = host_reader(root);
    let side = adopted(root, IDLE).read(&mut host, Instant::now());
    let kib = |kib: u64| Some(Bytes(kib * 1024));
    let shim = ProcessUse {
        cpu: Some(Seconds::from_ticks(1690)), // 1258 + 432
        resident: kib(43_944),
        resident_anon: kib(4820),
        resident_shmem: kib(0),
        threads: Some(4),
        open_fds: Some(27),
        read_bytes: Some(Bytes(25_808_896)),
        written_bytes: Some(Bytes(0)),
    };
    let hypervisor = ProcessUse {
        cpu: Some(Seconds::from_ticks(3220)), // 1949 + 1271
        resident: kib(192_908),
        resident_anon: kib(1536),
        resident_shmem: kib(179_704),
        threads: Some(9),
        open_fds: Some(138),
        read_bytes: Some(Bytes(47_120_384)),
        written_bytes: Some(Bytes(0)),
    };
    assert_eq!((side.shim, side.hypervisor), (Some(shim), Some(hypervisor)));
    let virtiofsd = side.virtiofsd.unwrap();
    assert_eq!(virtiofsd.cpu, Some(Seconds::from_ticks(80))); // 62 + 18
    assert_eq!(virtiofsd.resident_shmem, kib(2880));

    let memory = |anon, shmem, kernel| {
        let [anon, shmem, kernel, hugetlb] = [anon, shmem, kernel, 0].map(|bytes| Some(Bytes(bytes)));
        Some(HostMemory { anon, shmem, kernel, hugetlb })
    };
    let overhead = CgroupUse {
        path: format!("/kata_overhead/{IDLE}").into(),
        role: CgroupRole::Overhead,
        cpu: Some(Seconds::from_micros(44_118_104)),
        memory: memory(3_641_344, 181_997_568, 2_564_096),
    };
    let own = CgroupUse {
        path: format!("/kubepods/burstable/podc94d1f8e-77b3-4c1b-8a25-0f3e5d9a4c02/{IDLE}").into(),
        role: CgroupRole::Sandbox,
        cpu: Some(Seconds::from_micros(4_856_960)),
        memory: memory(16_384, 2_379_776, 16_384),
    };
    assert_eq!(side.cgroups, [overhead, own]);
    // 44118104 + 4856960 µs
    assert_eq!(side.cpu, Some(Seconds::from_micros(48_975_064)));
    // 3641344 + 181997568 + 2564096 = 188203008; 16384 + 2379776 + 16384 = 2412544
    assert_eq!(side.memory, Some(Bytes(190_615_552)));
    // eth0 without its mirror tap0_kata, where 866 and 4704 stand for the other directions.
    let eth0 = Interface {
        name: "eth0".into(),
        receive: Traffic { bytes: Bytes(4744), packets: 58, errors: 0, dropped: 0 },
        transmit: Traffic { bytes: Bytes(1688), packets: 22, errors: 0, dropped: 0 },
    };
    assert_eq!(side.network, [eth0]);
    assert_eq!(host.take_fault(), None);
}

fn an_undivided_sandbox_costs_one_and_counters_rise(t0: &Path, t1: &Path) {
    let [earlier, later] = [t0, t1].map(|root| {
        let mut side = adopted(root, WEB);
        let facts = side.read(&mut host_reader(root), Instant::now());
        assert!(side.is_complete());
        facts
    });
    let [cgroup] = earlier.cgroups.as_slice() else { panic!("{:?}", earlier.cgroups) };
    assert_eq!(cgroup.role, CgroupRole::Sandbox);
    assert_eq!(earlier.cpu, Some(Seconds::from_micros(122_527_698)));
    // 5873664 + 247500800 + 5001216
    assert_eq!(earlier.memory, Some(Bytes(258_375_680)));
    // The writes of the guest are virtiofsd's, not the VMM's.
    assert_eq!(earlier.virtiofsd.unwrap().written_bytes, Some(Bytes(169_148_416)));
    assert_eq!(earlier.hypervisor.unwrap().written_bytes, Some(Bytes(0)));
    let seconds = |cpu: Option<Seconds>| cpu.unwrap().as_f64();
    assert!(seconds(later.cpu) > seconds(earlier.cpu));
    for (later, earlier) in
        [(later.shim, earlier.shim), (later.hypervisor, earlier.hypervisor), (later.virtiofsd, earlier.virtiofsd)]
    {
        assert!(seconds(later.unwrap().cpu) >= seconds(earlier.unwrap().cpu));
    }
}

/// A made-up host: processes and cgroups as files.
struct Made {
    dir: tempfile::TempDir,
}

impl Made {
    fn v2() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        made.write("sys/fs/cgroup/cgroup.controllers", "cpu memory\n");
        made
    }

    fn v1() -> Self {
        let made = Self { dir: tempfile::tempdir().unwrap() };
        for controller in ["cpu,cpuacct", "memory", "hugetlb"] {
            fs::create_dir_all(made.path().join("sys/fs/cgroup").join(controller)).unwrap();
        }
        made
    }

    fn path(&self) -> &Path {
        self.dir.path()
    }

    fn write(&self, name: &str, content: &str) {
        let path = self.path().join(name);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn process(&self, pid: u32, comm: &str, parent: u32, ticks: u64, start: u64) {
        let stat = format!("{pid} ({comm}) S {parent} 0 0 0 0 0 0 0 0 0 {ticks} 0 0 0 20 0 1 0 {start} 0 0\n");
        self.write(&format!("proc/{pid}/stat"), &stat);
        self.write(&format!("proc/{pid}/status"), "Name:\tx\nVmRSS:\t1 kB\n");
        self.write(&format!("proc/{pid}/io"), &format!("read_bytes: {ticks}\nwrite_bytes: 0\n"));
        fs::create_dir_all(self.path().join(format!("proc/{pid}/fd"))).unwrap();
    }

    fn cmdline(&self, pid: u32, words: &[&str]) {
        self.write(&format!("proc/{pid}/cmdline"), &words.join("\0"));
    }

    fn cgroup_of(&self, pid: u32, lines: &str) {
        self.write(&format!("proc/{pid}/cgroup"), lines);
    }

    fn gone(&self, pid: u32) {
        fs::remove_dir_all(self.path().join(format!("proc/{pid}"))).unwrap();
    }

    fn cgroup_v2(&self, path: &str, micros: u64, bytes: u64) {
        self.write(&format!("sys/fs/cgroup{path}/cpu.stat"), &format!("usage_usec {micros}\n"));
        let memory = format!("anon {bytes}\nshmem 0\nkernel 0\n");
        self.write(&format!("sys/fs/cgroup{path}/memory.stat"), &memory);
    }

    /// A shim 10 with a VMM 20 and a virtiofsd 30, all in `/pod/<sandbox>`.
    fn undivided(sandbox: &str) -> Self {
        let made = Self::v2();
        made.process(10, "containerd-shim", 1, 1, 100);
        made.cmdline(10, &["/opt/containerd-shim-kata-v2", "-id", sandbox]);
        made.process(20, "qemu-system-x86", 10, 2, 200);
        made.process(30, "virtiofsd", 10, 4, 300);
        for pid in [10, 20, 30] {
            made.cgroup_of(pid, &format!("0::/pod/{sandbox}\n"));
        }
        made.cgroup_v2(&format!("/pod/{sandbox}"), 1000, 1 << 20);
        made
    }

    /// Reads without held descriptors: a made-up file does not answer ESRCH when its process has ended.
    fn reader(&self) -> HostReader {
        HostReader::new(&roots(self.path()), &Budget::new(0))
    }
}

fn ticks(process: Option<ProcessUse>) -> Option<Seconds> {
    process.and_then(|process| process.cpu)
}

#[test]
fn a_pid_that_is_used_again_is_another_process() {
    let made = Made::undivided(WEB);
    let mut side = adopted(made.path(), WEB);
    let mut host = made.reader();
    assert_eq!(ticks(side.read(&mut host, Instant::now()).hypervisor), Some(Seconds::from_ticks(2)));
    made.process(20, "postgres", 1, 9999, 201);
    let facts = side.read(&mut host, Instant::now());
    assert_eq!(facts.hypervisor, None);
    assert!(!side.is_complete());
    assert_eq!((facts.cpu, facts.memory), (None, None), "half a sandbox is no sum");
    assert_eq!(ticks(facts.shim), Some(Seconds::from_ticks(1)));
    // Its successor is taken in when it is found.
    made.process(20, "qemu-system-x86", 10, 3, 500);
    side.adopt(&located(made.path(), WEB));
    let facts = side.read(&mut host, Instant::now());
    assert!(side.is_complete());
    // The first machine's 2 ticks stay in the sum: a counter does not fall.
    assert_eq!(ticks(facts.hypervisor), Some(Seconds::from_ticks(5)));
}

#[test]
fn a_fork_that_ends_leaves_its_share() {
    let made = Made::undivided(WEB);
    made.process(31, "virtiofsd", 30, 100, 301);
    made.process(32, "virtiofsd", 31, 1000, 302);
    made.cgroup_of(31, &format!("0::/pod/{WEB}\n"));
    made.cgroup_of(32, &format!("0::/pod/{WEB}\n"));
    let mut side = adopted(made.path(), WEB);
    let mut host = made.reader();
    let facts = side.read(&mut host, Instant::now()).virtiofsd.unwrap();
    assert_eq!((facts.cpu, facts.threads), (Some(Seconds::from_ticks(1104)), Some(3)));
    assert_eq!(facts.read_bytes, Some(Bytes(1104)));
    made.gone(32);
    let facts = side.read(&mut host, Instant::now()).virtiofsd.unwrap();
    assert_eq!((facts.cpu, facts.threads), (Some(Seconds::from_ticks(1104)), Some(2)));
    assert_eq!(facts.read_bytes, Some(Bytes(1104)));
    made.gone(31);
    made.gone(30);
    assert_eq!(side.read(&mut host, Instant::now()).virtiofsd, None);
    assert!(side.is_complete(), "a sandbox may have no virtiofsd");
}

#[test]
fn what_may_not_be_read_is_absent_and_no_fault() {
    let made = Made::undivided(WEB);
    // A directory refuses to be read even by root.
    fs::remove_file(made.path().join("proc/20/io")).unwrap();
    fs::create_dir(made.path().join("proc/20/io")).unwrap();
    fs::remove_dir(made.path().join("proc/20/fd")).unwrap();
    let mut side = adopted(made.path(), WEB);
    let mut host = made.reader();
    for _ in 0..2 {
        let facts = side.read(&mut host, Instant::now()).hypervisor.unwrap();
        assert_eq!((facts.read_bytes, facts.written_bytes, facts.open_fds), (None, None, None));
        assert_eq!(facts.resident, Some(Bytes(1024)));
        assert_eq!(host.take_fault(), None);
    }
    made.write("proc/20/status", "VmRSS:\tmuch\n");
    let facts = side.read(&mut host, Instant::now()).hypervisor.unwrap();
    assert_eq!(facts.resident, None);
    assert!(host.take_fault().unwrap().ends_with("proc/20/status: malformed VmRSS"));
}

#[test]
fn a_shared_cgroup_is_nobodys_cost() {
    let made = Made::undivided(WEB);
    made.cgroup_of(10, "0::/system.slice/containerd.service\n");
    made.cgroup_v2("/system.slice/containerd.service", 1 << 40, 1 << 40);
    let facts = adopted(made.path(), WEB).read(&mut made.reader(), Instant::now());
    assert_eq!(facts.cgroups.len(), 1, "the shim's is containerd's");
    assert_eq!((facts.cpu, facts.memory), (None, None), "what the shim costs is not known");
    assert_eq!(facts.cgroups[0].cpu, Some(Seconds::from_micros(1000)));
}

#[test]
fn a_cgroup_all_have_left_keeps_counting_and_one_removed_leaves_its_share() {
    let made = Made::undivided(WEB);
    let mut side = adopted(made.path(), WEB);
    let mut host = made.reader();
    let start = Instant::now();
    assert_eq!(side.read(&mut host, start).cpu, Some(Seconds::from_micros(1000)));
    let overhead = format!("/kata_overhead/{WEB}");
    for pid in [10, 20, 30] {
        made.cgroup_of(pid, &format!("0::{overhead}\n"));
    }
    made.cgroup_v2(&overhead, 30, 5);
    let facts = side.read(&mut host, start + Duration::from_secs(1));
    assert_eq!(facts.cpu, Some(Seconds::from_micros(1030)));
    assert_eq!(facts.memory, Some(Bytes((1 << 20) + 5)));
    assert_eq!(facts.cgroups[1].role, CgroupRole::Overhead);
    fs::remove_dir_all(made.path().join("sys/fs/cgroup/pod")).unwrap();
    let facts = side.read(&mut host, start + Duration::from_secs(2));
    assert_eq!((facts.cpu, facts.memory), (None, None), "someone may have been in it");
    let facts = side.read(&mut host, start + Duration::from_secs(3));
    assert_eq!((facts.cpu, facts.memory), (Some(Seconds::from_micros(1030)), Some(Bytes(5))));
    // Old sandboxes are looked at every half minute only.
    made.cgroup_of(20, "0::/elsewhere\n");
    let late = start + YOUNG + PLACES_INTERVAL;
    assert_eq!(side.read(&mut host, late).cpu, None);
    made.cgroup_of(20, &format!("0::{overhead}\n"));
    assert_eq!(side.read(&mut host, late + Duration::from_secs(29)).cpu, None);
    assert_eq!(side.read(&mut host, late + PLACES_INTERVAL).cpu, Some(Seconds::from_micros(1030)));
}

/// In a cgroup namespace of our own the kernel tells others' cgroups relative to ours.
#[test]
fn cgroups_are_found_from_within_a_namespace() {
    let made = Made::undivided(WEB);
    made.write("sys/fs/cgroup/kubepods/burstable/podme/us/cgroup.procs", &format!("{}\n", std::process::id()));
    for pid in [10, 20, 30] {
        made.cgroup_of(pid, &format!("0::/../../podx/{WEB}\n"));
    }
    made.cgroup_v2(&format!("/kubepods/burstable/podx/{WEB}"), 77, 1);
    let facts = adopted(made.path(), WEB).read(&mut made.reader(), Instant::now());
    assert_eq!(facts.cgroups[0].path.as_str(), format!("/kubepods/burstable/podx/{WEB}"));
    assert_eq!(facts.cpu, Some(Seconds::from_micros(77)));
    // Elsewhere in the tree than the kernel can mean: not believed.
    made.cgroup_of(20, &format!("0::/../../../../../x/{WEB}\n"));
    let facts = adopted(made.path(), WEB).read(&mut made.reader(), Instant::now());
    assert_eq!((facts.cgroups.len(), facts.cpu), (1, None));
}

/// On v1 the VMM's vCPU threads alone are in the sandbox's cgroup; memory.stat and CPU are files per controller.
#[test]
fn on_v1_the_vcpu_threads_tell_the_sandboxs_cgroup() {
    let made = Made::v1();
    made.process(10, "containerd-shim", 1, 1, 100);
    made.cmdline(10, &["containerd-shim-kata-v2", "-id", WEB]);
    made.process(20, "cloud-hyperviso", 10, 2, 200);
    let overhead = format!("9:memory:/kata_overhead/{WEB}\n4:cpu,cpuacct:/kata_overhead/{WEB}\n0::/\n");
    let own = format!("9:memory:/kubepods/podx/{WEB}\n4:cpu,cpuacct:/kubepods/podx/{WEB}\n0::/\n");
    made.cgroup_of(10, &overhead);
    made.cgroup_of(20, &overhead);
    made.write("proc/20/task/20/cgroup", &overhead);
    made.write("proc/20/task/21/cgroup", &own);
    made.write("proc/20/task/22/cgroup", &own);
    for (path, nanos, rss, shmem, kernel, huge) in
        [(format!("kata_overhead/{WEB}"), 7, 100, 2000, 30, 0), (format!("kubepods/podx/{WEB}"), 50, 1, 0, 2, 4096)]
    {
        let root = "sys/fs/cgroup";
        made.write(&format!("{root}/cpu,cpuacct/{path}/cpuacct.usage"), &format!("{nanos}\n"));
        let stat = format!("rss 9\ntotal_rss {rss}\ntotal_shmem {shmem}\n");
        made.write(&format!("{root}/memory/{path}/memory.stat"), &stat);
        made.write(&format!("{root}/memory/{path}/memory.kmem.usage_in_bytes"), &format!("{kernel}\n"));
        made.write(&format!("{root}/hugetlb/{path}/hugetlb.2MB.usage_in_bytes"), &format!("{huge}\n"));
    }
    let facts = adopted(made.path(), WEB).read(&mut made.reader(), Instant::now());
    let roles: Vec<CgroupRole> = facts.cgroups.iter().map(|cgroup| cgroup.role).collect();
    assert_eq!(roles, [CgroupRole::Overhead, CgroupRole::Sandbox]);
    assert_eq!(facts.cpu, Some(Seconds::from_nanos(57)));
    // 100 + 2000 + 30 and 1 + 0 + 2 + 4096
    assert_eq!(facts.memory, Some(Bytes(6229)));
}

#[test]
fn dragonball_is_the_shim_and_its_network_a_threads() {
    let made = Made::undivided(WEB);
    made.gone(20);
    let table = ProcessTable::scan(&made.path().join("proc")).unwrap();
    let hints = Hints { sandbox: WEB, hypervisor: Some(Hypervisor::Dragonball), ..Hints::default() };
    let located = table.locate(&hints);
    assert_eq!(located.hypervisor, HypervisorPlace::InShim);
    let net =
        |name: &str| format!("h|\n {name}: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n tap9: 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1 1\n");
    made.write("proc/10/net/dev", &net("node0"));
    for thread in [10, 11, 12] {
        let dir = made.path().join(format!("proc/10/task/{thread}/net"));
        fs::create_dir_all(&dir).unwrap();
        // Threads in the process's namespace see the very same file.
        if thread != 12 {
            fs::hard_link(made.path().join("proc/10/net/dev"), dir.join("dev")).unwrap();
        }
    }
    made.write("proc/10/task/12/net/dev", &net("eth0"));
    let mut side = SandboxHost::new(WEB);
    side.adopt(&located);
    let facts = side.read(&mut made.reader(), Instant::now());
    assert!(side.is_complete());
    assert_eq!(facts.hypervisor, None);
    assert_eq!(facts.network.iter().map(|interface| interface.name.as_str()).collect::<Vec<_>>(), ["eth0"]);
    assert_eq!(facts.cpu, Some(Seconds::from_micros(1000)));
}

#[test]
fn the_nodes_own_network_is_not_a_pods() {
    let made = Made::undivided(WEB);
    made.write("proc/1/net/dev", " eth0: 1 2 3 4 0 0 0 0 5 6 7 8 0 0 0 0\n");
    fs::create_dir_all(made.path().join("proc/20/net")).unwrap();
    fs::hard_link(made.path().join("proc/1/net/dev"), made.path().join("proc/20/net/dev")).unwrap();
    let facts = adopted(made.path(), WEB).read(&mut made.reader(), Instant::now());
    assert_eq!(facts.network, []);
}

/// Go's runtime: QEMU has daemonized and its parent is init; a remote machine's VMM "is" the shim.
#[test]
fn processes_are_found_whoever_their_parent_is() {
    let made = Made::undivided(WEB);
    made.process(20, "qemu-system-x86", 1, 2, 200);
    made.cmdline(20, &["/usr/bin/qemu-system-x86_64", "-name", &format!("sandbox-{WEB}")]);
    made.process(40, "qemu-system-x86", 1, 2, 150);
    made.cmdline(40, &["/usr/bin/qemu-system-x86_64", "-name", &format!("sandbox-{IDLE}")]);
    let table = ProcessTable::scan(&made.path().join("proc")).unwrap();
    let hints = Hints { sandbox: WEB, ..Hints::default() };
    let vmm = |hints: &Hints| match table.locate(hints).hypervisor {
        HypervisorPlace::Process(identity) => identity.pid,
        other => panic!("{other:?}"),
    };
    assert_eq!(vmm(&hints), 20);
    assert_eq!(vmm(&Hints { vmm_pid: Some(40), ..hints }), 20, "another sandbox's");
    assert_eq!(vmm(&Hints { vmm_pid: Some(10), ..hints }), 20, "the shim is no VMM");
    let remote = table.locate(&Hints { hypervisor: Some(Hypervisor::Remote), vmm_pid: Some(10), ..hints });
    assert_eq!(remote.hypervisor, HypervisorPlace::Remote);
    // Firecracker's command line has the first 32 digits.
    made.process(50, "firecracker", 1, 2, 160);
    made.cmdline(50, &["firecracker", "--id", &"c".repeat(32)]);
    let table = ProcessTable::scan(&made.path().join("proc")).unwrap();
    let located = table.locate(&Hints { sandbox: &"c".repeat(64), ..Hints::default() });
    assert!(matches!(located.hypervisor, HypervisorPlace::Process(Identity { pid: 50, .. })));
}

#[test]
fn nothing_known_is_nothing_told() {
    let made = Made::v2();
    made.write("proc/self/nothing", "");
    let mut side = adopted(made.path(), WEB);
    let mut host = made.reader();
    assert_eq!(side.read(&mut host, Instant::now()), HostSide::default());
    assert!(!side.is_complete());
    assert_eq!(host.take_fault(), None);
    assert!(ProcessTable::scan(&made.path().join("none")).is_err());
}

/// Shells under the names of Kata's processes, on this host's own `/proc`, through held descriptors.
#[test]
fn real_processes_are_found_read_and_missed_when_they_end() {
    let dir = tempfile::tempdir().unwrap();
    for name in ["containerd-shim-kata-v2", "cloud-hypervisor", "virtiofsd"] {
        std::os::unix::fs::symlink("/bin/sh", dir.path().join(name)).unwrap();
    }
    let id = "abadcafe".repeat(8);
    // A minute at most, should the test end before it has ended them.
    let idle = "i=0; while [ $i -lt 300 ]; do sleep 0.2; i=$((i+1)); done";
    let path = dir.path().display();
    let script = format!("{path}/cloud-hypervisor -c '{idle}' x & {path}/virtiofsd -c '{idle}' x & wait");
    let mut shim = std::process::Command::new(dir.path().join("containerd-shim-kata-v2"))
        .args(["-c", &script, "shim", "-id", &id])
        .stdin(std::process::Stdio::null())
        .spawn()
        .unwrap();
    let host = Path::new("/");
    let mut side = SandboxHost::new(&id);
    let until = Instant::now() + Duration::from_secs(10);
    let located = loop {
        let located = located(host, &id);
        if located.shim.is_some() && located.hypervisor != HypervisorPlace::Unknown && !located.virtiofsd.is_empty() {
            break located;
        }
        assert!(Instant::now() < until, "{located:?}");
        std::thread::sleep(Duration::from_millis(10));
    };
    side.adopt(&located);
    let mut host = host_reader(host);
    let first = side.read(&mut host, Instant::now());
    assert_eq!(located.shim.unwrap().pid, shim.id());
    for process in [first.shim, first.hypervisor, first.virtiofsd] {
        let process = process.unwrap();
        assert!(process.resident.unwrap() > Bytes(0));
        assert!(process.open_fds.unwrap() > 0 && process.threads.unwrap() > 0);
        assert!(process.cpu.is_some());
    }
    assert!(side.is_complete());
    assert_eq!(first.cpu, None, "the test's cgroup is not the sandbox's");

    let HypervisorPlace::Process(vmm) = located.hypervisor else { panic!("{located:?}") };
    let kill = |pid: u32| {
        let pid = rustix::process::Pid::from_raw(i32::try_from(pid).unwrap()).unwrap();
        rustix::process::kill_process(pid, rustix::process::Signal::KILL).unwrap();
    };
    kill(vmm.pid);
    let until = Instant::now() + Duration::from_secs(10);
    while side.read(&mut host, Instant::now()).hypervisor.is_some() {
        assert!(Instant::now() < until);
        std::thread::sleep(Duration::from_millis(10));
    }
    assert!(!side.is_complete());
    located.virtiofsd.iter().take(1).for_each(|virtiofsd| kill(virtiofsd.pid));
    shim.wait().unwrap();
    assert_eq!(side.read(&mut host, Instant::now()).shim, None);
}
