//! The guest as a whole, as its own `/proc` would tell it.

use super::ProcessIo;

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
