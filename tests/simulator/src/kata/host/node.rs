//! What a node has besides its sandboxes: the machine's own files and the root of the cgroup tree.

use super::Tree;
use crate::kata::kind::HostCgroup;

/// Controllers of a v1 host: directory, and links to it.
pub(super) const V1_HIERARCHIES: [(&str, &[&str]); 5] =
    [("cpu,cpuacct", &["cpu", "cpuacct"]), ("memory", &[]), ("blkio", &[]), ("pids", &[]), ("hugetlb", &[])];

const MEMINFO: &str = "\
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
SwapTotal:             0 kB
SwapFree:              0 kB
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
CommitLimit:     8388608 kB
Committed_AS:    2097152 kB
VmallocTotal:   34359738367 kB
VmallocUsed:       32768 kB
VmallocChunk:          0 kB
";

const STAT: &str = "\
cpu  4000 0 4000 400000 0 0 0 0 0 0
cpu0 1000 0 1000 100000 0 0 0 0 0 0
cpu1 1000 0 1000 100000 0 0 0 0 0 0
cpu2 1000 0 1000 100000 0 0 0 0 0 0
cpu3 1000 0 1000 100000 0 0 0 0 0 0
ctxt 1
btime 1795230000
processes 1
";

/// Two columns of numbers, of which each limit of a process has one.
const LIMITS: &str = "\
Limit                     Soft Limit           Hard Limit           Units     
Max cpu time              unlimited            unlimited            seconds   
Max file size             unlimited            unlimited            bytes     
Max data size             unlimited            unlimited            bytes     
Max stack size            8388608              unlimited            bytes     
Max core file size        0                    unlimited            bytes     
Max resident set          unlimited            unlimited            bytes     
Max processes             63000                63000                processes 
Max open files            1048576              1048576              files     
Max locked memory         8388608              8388608              bytes     
Max address space         unlimited            unlimited            bytes     
Max file locks            unlimited            unlimited            locks     
Max pending signals       63000                63000                signals   
Max msgqueue size         819200               819200               bytes     
Max nice priority         0                    0                    
Max realtime priority     0                    0                    
Max realtime timeout      unlimited            unlimited            us        
";

/// What every network namespace's file begins with.
pub(super) const NET_DEV_HEAD: &str = "\
Inter-|   Receive                                                |  Transmit
 face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs drop fifo colls carrier compressed
";

/// The node's own interfaces.
const NODE_INTERFACES: &str = "\
    lo: 7000      70    0    0    0     0          0         0     7000      70    0    0    0     0       0          0
  ens5: 5000000 4000    0    0    0     0          0         0   900000    3000    0    0    0     0       0          0
";

/// Writes the machine's files.
pub(in crate::kata) fn make(root: &Tree, host: HostCgroup) -> anyhow::Result<()> {
    for directory in ["etc", "proc/1/net", "proc/sys/kernel/random", "sys/fs/cgroup", "var/log/pods", "run"] {
        root.directory(directory)?;
    }
    let device = rustix::fs::stat(root.root())?.st_dev;
    let device = format!("{}:{}", rustix::fs::major(device), rustix::fs::minor(device));
    let mounts = format!("21 1 {device} / / rw,relatime shared:1 - ext4 /dev/vda rw\n");
    let network = format!("{NET_DEV_HEAD}{NODE_INTERFACES}");
    for (path, content) in [
        ("etc/machine-id", "0123456789abcdef0123456789abcdef\n"),
        ("etc/os-release", "NAME=\"Simulated\"\nPRETTY_NAME=\"Simulated Linux\"\n"),
        ("proc/1/limits", LIMITS),
        ("proc/1/mountinfo", &mounts),
        ("proc/1/net/dev", &network),
        ("proc/diskstats", " 254       0 vda 1000 20 30000 4000 5000 60 70000 8000 0 10000 11000 0 0 0 0 0 0\n"),
        ("proc/meminfo", MEMINFO),
        ("proc/stat", STAT),
        ("proc/sys/kernel/osrelease", "6.1.0-simulated\n"),
        ("proc/sys/kernel/random/boot_id", "11111111-2222-4333-8444-555555555555\n"),
    ] {
        root.write(path, content)?;
    }
    match host {
        HostCgroup::V2 => root_of_v2(root),
        HostCgroup::V1 => root_of_v1(root),
    }
}

fn root_of_v2(root: &Tree) -> anyhow::Result<()> {
    root.write("sys/fs/cgroup/cgroup.controllers", "cpuset cpu io memory hugetlb pids rdma misc\n")?;
    root.write("sys/fs/cgroup/cgroup.procs", "1\n")?;
    root.write("sys/fs/cgroup/cpu.stat", "usage_usec 80000000\nuser_usec 40000000\nsystem_usec 40000000\n")?;
    let memory =
        "anon 1073741824\nfile 4294967296\nkernel 268435456\ninactive_file 2147483648\npgfault 1\npgmajfault 1\n";
    root.write("sys/fs/cgroup/memory.stat", memory)
}

fn root_of_v1(root: &Tree) -> anyhow::Result<()> {
    for (name, links) in V1_HIERARCHIES {
        root.directory(&format!("sys/fs/cgroup/{name}"))?;
        root.write(&format!("sys/fs/cgroup/{name}/cgroup.procs"), "1\n")?;
        for link in links {
            root.link(&format!("sys/fs/cgroup/{link}"), name)?;
        }
    }
    Ok(())
}
