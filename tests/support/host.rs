//! A made-up node: a directory for `--host-root`, with a cgroup mount and the files of procfs that the agent reads
//! beside it. Tests write what the kernel would have said, as text at the kernel's path.

use std::ffi::OsString;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

use tempfile::TempDir;

/// `MemTotal` of the node.
pub const MEMORY_BYTES: f64 = 17_179_869_184.0;

/// `SwapTotal` of the node.
pub const SWAP_BYTES: f64 = 2_147_483_648.0;

/// `btime` of the node.
pub const BOOT_TIME: f64 = 1_700_000_000.0;

/// 16 GiB of memory, 2 GiB of swap, half a GiB of it in use.
pub const MEMINFO: &str = "\
MemTotal:       16777216 kB
MemFree:         8388608 kB
MemAvailable:   12582912 kB
Buffers:          262144 kB
Cached:          4194304 kB
SwapCached:            0 kB
Active:          3145728 kB
Inactive:        2097152 kB
Active(anon):    1048576 kB
Inactive(anon):        0 kB
Active(file):    2097152 kB
Inactive(file):  2097152 kB
Unevictable:           0 kB
Mlocked:               0 kB
SwapTotal:       2097152 kB
SwapFree:        1572864 kB
Dirty:              1024 kB
Writeback:             0 kB
AnonPages:       1048576 kB
Mapped:           524288 kB
Shmem:              4096 kB
Slab:             262144 kB
SReclaimable:     131072 kB
SUnreclaim:       131072 kB
KernelStack:        8192 kB
PageTables:        16384 kB
CommitLimit:    10485760 kB
Committed_AS:    2097152 kB
VmallocTotal:   34359738367 kB
VmallocUsed:       32768 kB
VmallocChunk:          0 kB
";

const STAT: &str = "\
cpu  100 0 100 1000 0 0 0 0 0 0
cpu0 25 0 25 250 0 0 0 0 0 0
cpu1 25 0 25 250 0 0 0 0 0 0
cpu2 25 0 25 250 0 0 0 0 0 0
cpu3 25 0 25 250 0 0 0 0 0 0
ctxt 1
btime 1700000000
processes 1
";

/// Two disks and two device-mapper volumes.
const DISKSTATS: &str = " \
 259       0 nvme0n1 1000 20 30000 4000 5000 60 70000 8000 9 10000 11000 0 0 0 0 0 0
 259       8 nvme1n1 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0
 253       0 dm-0 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0
 253       1 dm-1 1 2 3 4 5 6 7 8 9 10 11 0 0 0 0 0 0
";

/// `net/dev` of the node; a pod's is made by [`net_dev`].
const NODE_NETWORK: [(&str, u64); 2] = [("lo", 7), ("ens5", 1000)];

/// `limits` of the node's first process.
const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     \n\
Max cpu time              unlimited            unlimited            seconds   \n\
Max file size             unlimited            unlimited            bytes     \n\
Max data size             unlimited            unlimited            bytes     \n\
Max stack size            8388608              unlimited            bytes     \n\
Max core file size        0                    unlimited            bytes     \n\
Max resident set          unlimited            unlimited            bytes     \n\
Max processes             63000                63000                processes \n\
Max open files            1048576              1048576              files     \n\
Max locked memory         8388608              8388608              bytes     \n\
Max address space         unlimited            unlimited            bytes     \n\
Max file locks            unlimited            unlimited            locks     \n\
Max pending signals       63000                63000                signals   \n\
Max msgqueue size         819200               819200               bytes     \n\
Max nice priority         0                    0                    \n\
Max realtime priority     0                    0                    \n\
Max realtime timeout      unlimited            unlimited            us        \n";

/// Files of a cgroup v2 directory with a CPU and a memory limit, one set of small numbers for all who need no
/// particular ones.
const V2_FILES: &[(&str, &str)] = &[
    ("cgroup.procs", ""),
    ("cpu.max", "50000 100000\n"),
    (
        "cpu.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=500000\n",
    ),
    (
        "cpu.stat",
        "usage_usec 3500000\nuser_usec 2500000\nsystem_usec 1000000\nnr_periods 40\nnr_throttled 4\nthrottled_usec 250000\nnr_bursts 0\nburst_usec 0\n",
    ),
    ("cpu.weight", "20\n"),
    (
        "io.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=1000\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=0\n",
    ),
    ("io.stat", "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0\n"),
    ("memory.current", "33554432\n"),
    ("memory.events", "low 0\nhigh 0\nmax 3\noom 1\noom_kill 1\n"),
    ("memory.max", "67108864\n"),
    ("memory.min", "0\n"),
    ("memory.peak", "41943040\n"),
    (
        "memory.pressure",
        "some avg10=0.00 avg60=0.00 avg300=0.00 total=20\nfull avg10=0.00 avg60=0.00 avg300=0.00 total=10\n",
    ),
    (
        "memory.stat",
        "anon 16777216\nfile 8388608\nkernel 1048576\nfile_mapped 4096\nfile_dirty 0\nfile_writeback 0\ninactive_file 4194304\nactive_file 4194304\npgfault 1000\npgmajfault 5\npgscan 0\npgsteal 0\nworkingset_refault_anon 0\nworkingset_refault_file 0\n",
    ),
    ("memory.swap.current", "0\n"),
    ("memory.swap.max", "max\n"),
    ("pids.current", "9\n"),
    ("pids.max", "100\n"),
];

/// A node. Its files vanish when it is dropped.
pub struct Host {
    directory: TempDir,
}

impl Host {
    /// A node without a cgroup mount.
    pub fn bare() -> Self {
        // Paths of Unix sockets must stay below 108 bytes: keep this one short.
        let directory = tempfile::Builder::new().prefix("kp").tempdir().expect("a temporary directory");
        let host = Self { directory };
        let device = fs::metadata(host.root()).expect("the host root was made").dev();
        let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
        for (path, text) in [
            ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
            ("etc/os-release", "NAME=\"Testing\"\nPRETTY_NAME=\"Testing Linux 1\"\n"),
            ("proc/1/limits", LIMITS),
            ("proc/1/mountinfo", &format!("21 1 {device} / / rw,relatime shared:1 - ext4 /dev/nvme0n1 rw\n")),
            ("proc/1/net/dev", &net_dev(&NODE_NETWORK)),
            ("proc/diskstats", DISKSTATS),
            ("proc/meminfo", MEMINFO),
            ("proc/stat", STAT),
            ("proc/sys/kernel/osrelease", "6.1.0-test\n"),
            ("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n"),
            ("proc/uptime", "1000.00 3900.00\n"),
        ] {
            host.write(path, text);
        }
        host
    }

    /// A cgroup v2 node with its root cgroup and nothing below it.
    pub fn v2() -> Self {
        let host = Self::bare();
        host.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids\n");
        host.write("sys/fs/cgroup/cpu.stat", "usage_usec 9000000\nuser_usec 6000000\nsystem_usec 3000000\n");
        host.write(
            "sys/fs/cgroup/memory.stat",
            "anon 2147483648\nfile 1073741824\nkernel 268435456\nfile_mapped 4096\nfile_dirty 0\nfile_writeback 0\n\
             inactive_file 536870912\nactive_file 536870912\npgfault 5000\npgmajfault 50\npgscan 0\npgsteal 0\n\
             workingset_refault_anon 0\nworkingset_refault_file 0\n",
        );
        host
    }

    /// The directory that stands for `/`.
    pub fn root(&self) -> &Path {
        self.directory.path()
    }

    /// A file of the node as the test reaches it.
    pub fn path(&self, path: &str) -> PathBuf {
        self.root().join(path.trim_start_matches('/'))
    }

    /// Writes a file, its directories made.
    pub fn write(&self, path: &str, text: &str) {
        self.write_bytes(path, text.as_bytes());
    }

    /// Writes a file that need not be text, its directories made.
    pub fn write_bytes(&self, path: &str, content: &[u8]) {
        let path = self.path(path);
        let directory = path.parent().expect("a file lies in a directory");
        fs::create_dir_all(directory).unwrap_or_else(|error| panic!("make {}: {error}", directory.display()));
        fs::write(&path, content).unwrap_or_else(|error| panic!("write {}: {error}", path.display()));
    }

    /// Makes a cgroup v2 directory with every file that a container's has.
    pub fn v2_cgroup(&self, path: &str) {
        for (name, text) in V2_FILES {
            self.write(&format!("sys/fs/cgroup/{}/{name}", path.trim_matches('/')), text);
        }
    }

    /// Says which process runs in a cgroup, and what procfs tells of it.
    pub fn v2_process(&self, cgroup: &str, pid: u32, interfaces: &[(&str, u64)]) {
        self.write(&format!("sys/fs/cgroup/{}/cgroup.procs", cgroup.trim_matches('/')), &format!("{pid}\n"));
        self.write(&format!("proc/{pid}/net/dev"), &net_dev(interfaces));
        self.write(&format!("proc/{pid}/limits"), &LIMITS.replace("1048576 ", "1024    "));
    }

    /// The flags that make the agent read this node and ask no runtime.
    pub fn flags(&self) -> Vec<OsString> {
        [self.flags_but_runtime(), vec!["--runtime-endpoint".into(), "none".into()]].concat()
    }

    /// The flags that make the agent read this node.
    pub fn flags_but_runtime(&self) -> Vec<OsString> {
        vec!["--host-root".into(), self.root().into()]
    }
}

/// `/proc/<pid>/net/dev` with these interfaces. Each counter is told by its place: an interface that starts at 1000
/// has received 1000 bytes in 1001 packets with 1002 errors and 1003 drops, and has sent 1008 bytes, and so on.
pub fn net_dev(interfaces: &[(&str, u64)]) -> String {
    let mut text = String::from(
        "Inter-|   Receive                                                |  Transmit\n \
         face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed\n",
    );
    for (name, first) in interfaces {
        let columns: Vec<String> = (*first..first + 16).map(|count| count.to_string()).collect();
        text.push_str(&format!("{name:>6}: {}\n", columns.join(" ")));
    }
    text
}
