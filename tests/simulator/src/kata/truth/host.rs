//! What the hypervisor counts, and what a sandbox costs the host.

use super::InterfaceTruth;

/// What the hypervisor counts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct VmmTruth {
    /// The size of the VM in bytes.
    pub memory_bytes: u64,
    /// By the device's id, `_net0`. `rx` is what the guest received.
    pub nets: Vec<VmmNetTruth>,
    /// By the device's id, `_disk0`.
    pub disks: Vec<VmmDiskTruth>,
}

/// A network device of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the hypervisor's words")]
pub struct VmmNetTruth {
    pub id: String,
    pub rx_bytes: u64,
    pub rx_frames: u64,
    pub tx_bytes: u64,
    pub tx_frames: u64,
}

/// A block device of the VM.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the hypervisor's words")]
pub struct VmmDiskTruth {
    pub id: String,
    pub read_bytes: u64,
    pub read_ops: u64,
    pub write_bytes: u64,
    pub write_ops: u64,
    /// Microseconds: least, most, average. None before the first request, which is told as numbers near
    /// `u64::MAX`.
    pub read_latency: Option<[u64; 3]>,
    /// As [`read_latency`](Self::read_latency).
    pub write_latency: Option<[u64; 3]>,
}

/// What a sandbox costs the host.
#[derive(Debug, Clone, PartialEq)]
pub struct HostTruth {
    /// Shim, hypervisor, virtiofsd and its child, and a kernel thread, as far as the sandbox has them.
    pub processes: Vec<ProcessTruth>,
    /// `eth0` of the pod's network namespace as seen on the host, the tap with its directions exchanged, `lo`.
    pub network: Vec<InterfaceTruth>,
    /// The cgroup of the sandbox.
    pub sandbox_cgroup: CgroupTruth,
    /// The cgroup of its overhead; none where everything is in the sandbox cgroup.
    pub overhead_cgroup: Option<CgroupTruth>,
    /// The cgroup of the pod, which holds the sandbox cgroup.
    pub pod_cgroup: CgroupTruth,
}

impl HostTruth {
    /// The cgroups the sandbox's processes are in: what the node pays is their sum.
    pub fn cgroups(&self) -> impl Iterator<Item = &CgroupTruth> {
        std::iter::once(&self.sandbox_cgroup).chain(&self.overhead_cgroup)
    }

    /// CPU time of all cgroups in microseconds.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        self.cgroups().map(CgroupTruth::cpu_us).sum()
    }

    /// Memory charged to all cgroups in bytes.
    #[must_use]
    pub fn memory_bytes(&self) -> u64 {
        self.cgroups().map(CgroupTruth::memory_current).sum()
    }
}

/// The part a process plays.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Component {
    /// The shim. Under Dragonball it is the hypervisor, too.
    Shim,
    /// The hypervisor.
    Hypervisor,
    /// virtiofsd, the one the shim started.
    Virtiofsd,
    /// The child it forked, which does the work.
    VirtiofsdChild,
    /// A kernel thread that KVM put into the sandbox's cgroup.
    KernelThread,
}

/// A process on the host.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct ProcessTruth {
    /// Its part.
    pub component: Component,
    /// Its pid.
    pub pid: u32,
    /// Its parent's.
    pub parent: u32,
    /// Its name, 15 bytes at most unless the kernel made it.
    pub comm: String,
    /// Its arguments.
    pub command: Vec<String>,
    /// Names of its threads by thread id, the first of them its own.
    pub threads: Vec<(u32, String)>,
    /// Microseconds in user mode. procfs tells whole ticks of 10 ms.
    pub user_us: u64,
    /// Microseconds in the kernel.
    pub system_us: u64,
    /// Memory of its own in bytes.
    pub rss_anon: u64,
    /// Mapped files.
    pub rss_file: u64,
    /// Shared memory: the guest's.
    pub rss_shmem: u64,
    /// Address space in bytes.
    pub virtual_bytes: u64,
    /// Open descriptors.
    pub descriptors: u64,
    /// What it read and wrote.
    pub io: ProcessIo,
    /// The cgroup it is in. With one hierarchy per controller, that of its first thread.
    pub cgroup: String,
}

impl ProcessTruth {
    /// Resident memory in bytes.
    #[must_use]
    pub fn rss(&self) -> u64 {
        self.rss_anon + self.rss_file + self.rss_shmem
    }

    /// User and system time in whole ticks of 10 ms, as procfs tells them.
    #[must_use]
    pub fn ticks(&self) -> (u64, u64) {
        (self.user_us / 10_000, self.system_us / 10_000)
    }
}

/// `/proc/<pid>/io`.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub struct ProcessIo {
    pub rchar: u64,
    pub wchar: u64,
    pub syscr: u64,
    pub syscw: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
}

/// A cgroup on the host.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct CgroupTruth {
    /// Its path below the mount point, with a slash in front.
    pub path: String,
    /// Who is in it: pids. Empty for the pod's.
    pub pids: Vec<u32>,
    /// How many threads that are.
    pub threads: u64,
    /// Microseconds in user mode.
    pub user_us: u64,
    /// Microseconds in the kernel.
    pub system_us: u64,
    /// Anonymous memory in bytes.
    pub anon: u64,
    /// Shared memory: the guest's.
    pub shmem: u64,
    /// Page cache without shared memory, inactive.
    pub inactive_file: u64,
    /// Page cache without shared memory, active.
    pub active_file: u64,
    /// What the kernel keeps.
    pub kernel: u64,
    /// Bytes read from the host's disk.
    pub read_bytes: u64,
    /// Bytes written to the host's disk.
    pub write_bytes: u64,
    /// Page faults.
    pub page_faults: u64,
    /// Microseconds in which some task waited for a CPU.
    pub cpu_waiting_us: u64,
    /// The memory limit in bytes.
    pub memory_limit: Option<u64>,
    /// Microseconds of CPU time per period of 100 ms.
    pub cpu_quota: Option<u64>,
}

impl CgroupTruth {
    /// User and system time.
    #[must_use]
    pub fn cpu_us(&self) -> u64 {
        self.user_us + self.system_us
    }

    /// Page cache, shared memory included.
    #[must_use]
    pub fn file(&self) -> u64 {
        self.shmem + self.inactive_file + self.active_file
    }

    /// All that is charged to it.
    #[must_use]
    pub fn memory_current(&self) -> u64 {
        self.anon + self.file() + self.kernel
    }
}
