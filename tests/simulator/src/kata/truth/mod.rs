//! What is true of a sandbox at one tick: every number that is served, as a typed field, before any protocol,
//! unit or defect had its way with it.
//!
//! A test compares what an agent says with these. All counters grow with the tick and never fall.

mod guest;
mod host;

pub use guest::{AgentTruth, CpuModes, DiskTruth, FilesystemTruth, GuestMemory, GuestTruth, InterfaceTruth, Traffic};
pub use host::{CgroupTruth, Component, HostTruth, ProcessIo, ProcessTruth, VmmDiskTruth, VmmNetTruth, VmmTruth};

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
#[derive(Debug, Clone, Default, PartialEq, Eq)]
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
