//! What is true of a sandbox at one tick: every number that is served, as a typed field, before any protocol,
//! unit or defect had its way with it.
//!
//! A test compares what an agent says with these. All counters grow with the tick and never fall.

/// Everything about one sandbox at one tick.
#[derive(Debug, Clone, PartialEq)]
pub struct Truth {
    /// The tick these are the values of. One tick is a second of the guest's life.
    pub tick: u64,
    /// The pause container first, then the others in the order of the plan.
    pub containers: Vec<ContainerTruth>,
    /// The guest as a whole.
    pub guest: GuestTruth,
    /// What the hypervisor itself counts.
    pub vmm: VmmTruth,
    /// What it costs the host.
    pub host: HostTruth,
}

impl Truth {
    /// The container with this id.
    ///
    /// # Panics
    /// When there is none.
    #[must_use]
    pub fn container(&self, id: &str) -> &ContainerTruth {
        let found = self.containers.iter().find(|container| container.id == id);
        found.unwrap_or_else(|| panic!("no container {id}"))
    }

    /// The process with this part to play.
    ///
    /// # Panics
    /// When the sandbox has none, as a Firecracker sandbox has no virtiofsd.
    #[must_use]
    pub fn process(&self, component: Component) -> &ProcessTruth {
        let found = self.host.processes.iter().find(|process| process.component == component);
        found.unwrap_or_else(|| panic!("no process {component:?}"))
    }
}

/// One container in the guest.
#[derive(Debug, Clone, PartialEq)]
pub struct ContainerTruth {
    /// Its id; the sandbox id for the pause container.
    pub id: String,
    /// Its name in the pod, `POD` for the pause container.
    pub name: String,
    /// Its CPU time.
    pub cpu: CpuTruth,
    /// Its memory.
    pub memory: MemoryTruth,
    /// Threads in its cgroup.
    pub pids: u64,
    /// What it did to block devices of the guest. A v2 guest reports none of it.
    pub block_io: Vec<BlockIoTruth>,
}

/// CPU time of a container.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct CpuTruth {
    /// Nanoseconds in user mode, whole microseconds.
    pub user_ns: u64,
    /// Nanoseconds in the kernel, whole microseconds.
    pub kernel_ns: u64,
    /// The sum by virtual CPU. Only a v1 guest reports it.
    pub per_cpu_ns: Vec<u64>,
    /// Periods of 100 ms in which it ran under a quota; 0 without one.
    pub periods: u64,
    /// Those in which it ran into its quota.
    pub throttled_periods: u64,
    /// How long it waited for the next period. A v2 guest reports 0.
    pub throttled_ns: u64,
}

impl CpuTruth {
    /// User and kernel together.
    #[must_use]
    pub fn total_ns(&self) -> u64 {
        self.user_ns + self.kernel_ns
    }
}

/// Memory of a container, in bytes unless said.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub struct MemoryTruth {
    /// Its limit; none is told as `u64::MAX` by a v2 guest.
    pub limit: Option<u64>,
    /// The most it ever used.
    pub peak: u64,
    pub swap: u64,
    pub active_anon: u64,
    pub inactive_anon: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub shmem: u64,
    pub file_mapped: u64,
    pub file_dirty: u64,
    pub kernel_stack: u64,
    pub page_tables: u64,
    pub percpu: u64,
    pub sock: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    /// Events, not bytes.
    pub page_faults: u64,
    /// Events, not bytes.
    pub major_page_faults: u64,
    /// How often it ran into its limit; only a v1 guest reports it.
    pub failures: u64,
}

impl MemoryTruth {
    /// Anonymous memory.
    #[must_use]
    pub fn anon(&self) -> u64 {
        // The kernel keeps shared memory on the anonymous lists.
        self.active_anon + self.inactive_anon - self.shmem
    }

    /// Page cache, shared memory included.
    #[must_use]
    pub fn file(&self) -> u64 {
        self.active_file + self.inactive_file + self.shmem
    }

    /// What the kernel keeps for it.
    #[must_use]
    pub fn kernel(&self) -> u64 {
        self.kernel_stack + self.page_tables + self.percpu + self.sock + self.slab()
    }

    /// Kernel objects.
    #[must_use]
    pub fn slab(&self) -> u64 {
        self.slab_reclaimable + self.slab_unreclaimable
    }

    /// All that is charged to it.
    #[must_use]
    pub fn usage(&self) -> u64 {
        self.anon() + self.file() + self.kernel()
    }

    /// What cannot be taken back without being missed: usage without inactive files.
    #[must_use]
    pub fn working_set(&self) -> u64 {
        self.usage() - self.inactive_file
    }
}

/// Block I/O of a container on one device.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after what they count")]
pub struct BlockIoTruth {
    /// The guest's number, not the host's.
    pub major: u64,
    pub minor: u64,
    pub read_bytes: u64,
    pub write_bytes: u64,
    pub reads: u64,
    pub writes: u64,
}

/// The guest as a whole.
#[derive(Debug, Clone, PartialEq)]
pub struct GuestTruth {
    /// Milliseconds by mode, one entry per virtual CPU.
    pub cpus: Vec<CpuModes>,
    /// Load over 1, 5 and 15 minutes.
    pub load: [f32; 3],
    /// Scheduling entities that could run, and all there are.
    pub tasks: (u64, u64),
    /// Its memory.
    pub memory: GuestMemory,
    /// Every key of `/proc/vmstat`, in the agent's order, which is the alphabet's.
    pub vm_stat: Vec<(&'static str, u64)>,
    /// `eth0` and `lo`.
    pub network: Vec<InterfaceTruth>,
    /// Whole disks and partitions.
    pub disks: Vec<DiskTruth>,
    /// Filesystems on block devices.
    pub filesystems: Vec<FilesystemTruth>,
    /// The agent's own process.
    pub agent: AgentTruth,
}

impl GuestTruth {
    /// All CPUs together.
    #[must_use]
    pub fn cpu_total(&self) -> CpuModes {
        self.cpus.iter().fold(CpuModes::default(), |sum, cpu| sum.plus(cpu))
    }

    /// A key of `/proc/vmstat`.
    ///
    /// # Panics
    /// When the guest has no such key.
    #[must_use]
    pub fn vm_stat(&self, key: &str) -> u64 {
        let found = self.vm_stat.iter().find(|(name, _)| *name == key);
        found.unwrap_or_else(|| panic!("no vmstat key {key}")).1
    }

    /// The interface with this name.
    ///
    /// # Panics
    /// When the guest has none.
    #[must_use]
    pub fn interface(&self, name: &str) -> &InterfaceTruth {
        let found = self.network.iter().find(|interface| interface.name == name);
        found.unwrap_or_else(|| panic!("no interface {name}"))
    }
}

/// Milliseconds of CPU time by mode.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub struct CpuModes {
    pub user: u64,
    pub nice: u64,
    pub system: u64,
    pub idle: u64,
    pub iowait: u64,
    pub irq: u64,
    pub softirq: u64,
    pub steal: u64,
    pub guest: u64,
    pub guest_nice: u64,
}

impl CpuModes {
    /// The kernel's words and their values.
    #[must_use]
    pub fn items(&self) -> [(&'static str, u64); 10] {
        let Self { user, nice, system, idle, iowait, irq, softirq, steal, guest, guest_nice } = *self;
        [
            ("guest", guest),
            ("guest_nice", guest_nice),
            ("idle", idle),
            ("iowait", iowait),
            ("irq", irq),
            ("nice", nice),
            ("softirq", softirq),
            ("steal", steal),
            ("system", system),
            ("user", user),
        ]
    }

    /// Time spent on something: user, nice, system, irq and softirq. `guest` is a part of `user`.
    #[must_use]
    pub fn busy(&self) -> u64 {
        self.user + self.nice + self.system + self.irq + self.softirq
    }

    fn plus(&self, other: &Self) -> Self {
        Self {
            user: self.user + other.user,
            nice: self.nice + other.nice,
            system: self.system + other.system,
            idle: self.idle + other.idle,
            iowait: self.iowait + other.iowait,
            irq: self.irq + other.irq,
            softirq: self.softirq + other.softirq,
            steal: self.steal + other.steal,
            guest: self.guest + other.guest,
            guest_nice: self.guest_nice + other.guest_nice,
        }
    }
}

/// Memory of the guest, in bytes. What is not here is 0.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub struct GuestMemory {
    pub total: u64,
    pub free: u64,
    pub available: u64,
    pub buffers: u64,
    pub cached: u64,
    pub active_anon: u64,
    pub inactive_anon: u64,
    pub active_file: u64,
    pub inactive_file: u64,
    pub anon_pages: u64,
    pub mapped: u64,
    pub shmem: u64,
    pub slab_reclaimable: u64,
    pub slab_unreclaimable: u64,
    pub kernel_stack: u64,
    pub page_tables: u64,
    pub per_cpu: u64,
    pub committed: u64,
}

/// A network interface.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after what they count")]
pub struct InterfaceTruth {
    pub name: String,
    pub received: Traffic,
    pub sent: Traffic,
}

/// One direction of an interface.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after what they count")]
pub struct Traffic {
    pub bytes: u64,
    pub packets: u64,
    pub errors: u64,
    pub drops: u64,
}

/// A disk or a partition, as `/proc/diskstats` has it: sectors of 512 bytes, milliseconds.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's words")]
pub struct DiskTruth {
    pub name: String,
    pub major: u64,
    pub minor: u64,
    /// A part of another disk in the list: adding it up counts everything twice.
    pub partition: bool,
    pub reads: u64,
    pub reads_merged: u64,
    pub sectors_read: u64,
    pub time_reading: u64,
    pub writes: u64,
    pub writes_merged: u64,
    pub sectors_written: u64,
    pub time_writing: u64,
    pub in_progress: u64,
    pub time_in_progress: u64,
    pub weighted_time_in_progress: u64,
    pub flushes: u64,
    pub time_flushing: u64,
}

/// A filesystem.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after what they count")]
pub struct FilesystemTruth {
    pub mount: String,
    pub device: String,
    pub total_bytes: u64,
    pub used_bytes: u64,
    /// What is free, blocks reserved for root included.
    pub available_bytes: u64,
    pub total_inodes: u64,
    pub used_inodes: u64,
}

/// The agent's own process.
#[derive(Debug, Clone, PartialEq, Eq)]
#[expect(missing_docs, reason = "named after what they count")]
pub struct AgentTruth {
    pub threads: u64,
    /// Ticks of 10 ms.
    pub user_ticks: u64,
    /// Ticks of 10 ms.
    pub system_ticks: u64,
    pub rss_bytes: u64,
    pub virtual_bytes: u64,
    pub io: ProcessIo,
}

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
    pub comm: &'static str,
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
