//! Facts of a Kata sandbox's machine: the guest as a whole as the kata-agent sees it, and the machine as its VMM does.
//!
//! What single containers use is a [`crate::model::usage::Usage`] like any other's; what the sandbox costs the node is
//! a [`crate::model::host_side::HostSide`]. Everything a source may lack is an `Option`: `None` gives no sample.

use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Disk, Interface};

/// The VMMs Kata can drive.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Hypervisor {
    /// Cloud Hypervisor.
    CloudHypervisor,
    /// QEMU.
    Qemu,
    /// Firecracker.
    Firecracker,
    /// Dragonball, which runs inside the shim's process.
    Dragonball,
    /// OpenVMM.
    OpenVmm,
    /// StratoVirt.
    Stratovirt,
    /// A machine elsewhere (peer pods): the node holds the shim only.
    Remote,
}

impl Hypervisor {
    /// From Kata's own name for it, as in its configuration and state files. `None` for a name not known here.
    pub fn from_kata_name(name: &str) -> Option<Self> {
        Some(match name {
            "clh" | "cloud-hypervisor" => Self::CloudHypervisor,
            "qemu" => Self::Qemu,
            "firecracker" => Self::Firecracker,
            "dragonball" => Self::Dragonball,
            "openvmm" => Self::OpenVmm,
            "stratovirt" => Self::Stratovirt,
            "remote" => Self::Remote,
            _ => return None,
        })
    }

    /// Kata's own name for it: the value of `hypervisor` labels.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::CloudHypervisor => "clh",
            Self::Qemu => "qemu",
            Self::Firecracker => "firecracker",
            Self::Dragonball => "dragonball",
            Self::OpenVmm => "openvmm",
            Self::Stratovirt => "stratovirt",
            Self::Remote => "remote",
        }
    }
}

/// A guest as a whole, from the text its agent gives (`GetMetrics`, or the agent's part of a shim's `/metrics`).
///
/// The interfaces are the pod's network as the workload sees it; CPU, memory and disks are the whole machine's, agent
/// and guest kernel included.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Guest {
    /// CPU time of all vCPUs together.
    pub cpu: CpuTimes,
    /// vCPUs online.
    pub vcpus: Option<u64>,
    /// Memory of the machine.
    pub memory: GuestMemory,
    /// Load averages.
    pub load: Load,
    /// Scheduling entities that can run now, `/proc/loadavg`.
    pub runnable_tasks: Option<u64>,
    /// Scheduling entities (threads) that exist.
    pub threads: Option<u64>,
    /// Interfaces by name, loopback left out.
    pub interfaces: Vec<Interface>,
    /// Whole disks by device path; partitions, loop and memory-backed devices left out.
    pub disks: Vec<Disk>,
    /// Filesystems on block devices by mount point; agents from 3.32.0. A virtio-fs root is not among them.
    pub filesystems: Vec<GuestFilesystem>,
    /// Page faults, cumulative.
    pub page_faults: Option<u64>,
    /// Major page faults, cumulative.
    pub major_page_faults: Option<u64>,
    /// Processes killed for lack of memory anywhere in the guest, cumulative.
    pub oom_kills: Option<u64>,
    /// How often the agent has answered so far. A text without it has no agent section: the guest was not reached.
    pub agent_scrapes: Option<u64>,
}

/// Modes of CPU time as `/proc/stat` tells them apart.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
#[expect(missing_docs, reason = "the kernel's names, documented in proc(5)")]
pub enum CpuMode {
    User,
    Nice,
    System,
    Idle,
    Iowait,
    Irq,
    Softirq,
    Steal,
    Guest,
    GuestNice,
}

impl CpuMode {
    /// All of them, in the kernel's order.
    pub const ALL: [Self; 10] = [
        Self::User,
        Self::Nice,
        Self::System,
        Self::Idle,
        Self::Iowait,
        Self::Irq,
        Self::Softirq,
        Self::Steal,
        Self::Guest,
        Self::GuestNice,
    ];

    /// The kernel's name in lower case.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::User => "user",
            Self::Nice => "nice",
            Self::System => "system",
            Self::Idle => "idle",
            Self::Iowait => "iowait",
            Self::Irq => "irq",
            Self::Softirq => "softirq",
            Self::Steal => "steal",
            Self::Guest => "guest",
            Self::GuestNice => "guest_nice",
        }
    }
}

/// CPU time by mode, cumulative. `guest` is also counted in `user`, and `guest_nice` in `nice`.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct CpuTimes {
    millis: [Option<u64>; CpuMode::ALL.len()],
}

impl CpuTimes {
    /// Sets one mode, in milliseconds as the agent counts them; `None` when it gave no usable number.
    pub fn set_millis(&mut self, mode: CpuMode, millis: Option<u64>) {
        self.millis[mode as usize] = millis;
    }

    /// Time in one mode.
    pub fn time(&self, mode: CpuMode) -> Option<Seconds> {
        self.millis[mode as usize].map(Seconds::from_millis)
    }

    /// The modes that are known.
    pub fn known(&self) -> impl Iterator<Item = (CpuMode, Seconds)> {
        CpuMode::ALL.into_iter().filter_map(|mode| Some((mode, self.time(mode)?)))
    }

    /// Time spent running anything: user, nice, system, and both kinds of interrupts. `None` when one is missing.
    pub fn usage(&self) -> Option<Seconds> {
        self.sum(&[CpuMode::User, CpuMode::Nice, CpuMode::System, CpuMode::Irq, CpuMode::Softirq])
    }

    /// Time in user mode, niced or not.
    pub fn user(&self) -> Option<Seconds> {
        self.sum(&[CpuMode::User, CpuMode::Nice])
    }

    /// Time in the kernel, interrupts included.
    pub fn system(&self) -> Option<Seconds> {
        self.sum(&[CpuMode::System, CpuMode::Irq, CpuMode::Softirq])
    }

    fn sum(&self, modes: &[CpuMode]) -> Option<Seconds> {
        let sum = modes.iter().try_fold(0u64, |sum, mode| sum.checked_add(self.millis[*mode as usize]?));
        sum.map(Seconds::from_millis)
    }
}

/// `/proc/meminfo` of the guest. The agent prints 0 for a line its kernel lacks, so an optional line's 0 may mean
/// either; only `available` is known never to be a true 0 and is `None` then.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestMemory {
    /// `MemTotal`
    pub total: Option<Bytes>,
    /// `MemFree`
    pub free: Option<Bytes>,
    /// `MemAvailable`
    pub available: Option<Bytes>,
    /// `Buffers`
    pub buffers: Option<Bytes>,
    /// `Cached`, shared memory included.
    pub cached: Option<Bytes>,
    /// `Active(file)`
    pub active_file: Option<Bytes>,
    /// `Inactive(file)`
    pub inactive_file: Option<Bytes>,
    /// `AnonPages`
    pub anon_pages: Option<Bytes>,
    /// `Mapped`
    pub mapped: Option<Bytes>,
    /// `Shmem`
    pub shmem: Option<Bytes>,
    /// `Dirty`
    pub dirty: Option<Bytes>,
    /// `Writeback`
    pub writeback: Option<Bytes>,
    /// `Slab`
    pub slab: Option<Bytes>,
    /// `SReclaimable`
    pub slab_reclaimable: Option<Bytes>,
    /// `SUnreclaim`
    pub slab_unreclaimable: Option<Bytes>,
    /// `KernelStack`
    pub kernel_stack: Option<Bytes>,
    /// `PageTables`
    pub page_tables: Option<Bytes>,
    /// `Percpu`
    pub per_cpu: Option<Bytes>,
    /// `SwapTotal`
    pub swap_total: Option<Bytes>,
    /// `SwapFree`
    pub swap_free: Option<Bytes>,
    /// `SwapCached`
    pub swap_cached: Option<Bytes>,
    /// `Committed_AS`
    pub committed: Option<Bytes>,
    /// `HugePages_Total`, a number of pages.
    pub hugepages_total: Option<u64>,
    /// `HugePages_Free`, a number of pages.
    pub hugepages_free: Option<u64>,
    /// `Hugepagesize`
    pub hugepage_size: Option<Bytes>,
}

/// Load averages of the guest.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Load {
    /// Over one minute.
    pub one: Option<f64>,
    /// Over five minutes.
    pub five: Option<f64>,
    /// Over fifteen minutes.
    pub fifteen: Option<f64>,
}

/// A filesystem inside the guest.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct GuestFilesystem {
    /// Where it is mounted in the guest.
    pub mount: String,
    /// Last part of the mount's source: `vda`.
    pub device: String,
    /// Size.
    pub size: Option<Bytes>,
    /// In use.
    pub used: Option<Bytes>,
    /// Free, the part kept for root included.
    pub free: Option<Bytes>,
    /// Inodes.
    pub inodes: Option<u64>,
    /// Inodes in use.
    pub inodes_used: Option<u64>,
    /// Free inodes.
    pub inodes_free: Option<u64>,
}

/// A sandbox's machine as its VMM tells it.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Vmm {
    /// What the machine is doing.
    pub state: Option<VmState>,
    /// Size of the machine's memory: what it was given, plus what was plugged in, less the balloon. Not what it uses.
    pub memory: Option<Bytes>,
    /// Block devices by id.
    pub disks: Vec<VmmDisk>,
    /// Network devices by id.
    pub networks: Vec<VmmNetwork>,
}

/// States of a machine.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VmState {
    /// Made, not booted.
    Created,
    /// Running.
    Running,
    /// Stopped in place; its counters stand still.
    Paused,
    /// Shut down.
    Shutdown,
    /// The VMM holds no machine, or one that is not booted.
    NotRunning,
    /// Something else, in the VMM's word.
    Other(String),
}

impl VmState {
    /// In lower case.
    pub fn as_str(&self) -> &str {
        match self {
            Self::Created => "created",
            Self::Running => "running",
            Self::Paused => "paused",
            Self::Shutdown => "shutdown",
            Self::NotRunning => "not_running",
            Self::Other(word) => word,
        }
    }
}

/// Cumulative counters of a virtual block device. They restart from 0 with the machine.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmmDisk {
    /// The VMM's id of the device: `_disk0`.
    pub device: String,
    /// Bytes the guest has read.
    pub read_bytes: Option<Bytes>,
    /// Bytes the guest has written.
    pub written_bytes: Option<Bytes>,
    /// Read requests.
    pub reads: Option<u64>,
    /// Write requests.
    pub writes: Option<u64>,
    /// How long reads took.
    pub read_latency: Latency,
    /// How long writes took.
    pub write_latency: Latency,
}

/// How long requests took since the machine was booted. Absent until there was one.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Latency {
    /// The fastest.
    pub min: Option<Seconds>,
    /// The slowest.
    pub max: Option<Seconds>,
    /// A running mean.
    pub mean: Option<Seconds>,
}

/// Cumulative counters of a virtual network device, in the guest's directions.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct VmmNetwork {
    /// The VMM's id of the device: `_net0`.
    pub device: String,
    /// Bytes the guest has received.
    pub receive_bytes: Option<Bytes>,
    /// Frames the guest has received.
    pub receive_frames: Option<u64>,
    /// Bytes the guest has sent.
    pub transmit_bytes: Option<Bytes>,
    /// Frames the guest has sent.
    pub transmit_frames: Option<u64>,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cpu_sums_take_no_time_twice_and_need_every_part() {
        let mut times = CpuTimes::default();
        for (mode, millis) in CpuMode::ALL.into_iter().zip([3940, 5, 10_690, 35_430, 40, 7, 380, 9, 1000, 2]) {
            times.set_millis(mode, Some(millis));
        }
        // 3940 + 5 + 10690 + 7 + 380: neither guest (in user), idle, iowait nor steal.
        assert_eq!(times.usage(), Some(Seconds::from_millis(15_022)));
        assert_eq!(times.user(), Some(Seconds::from_millis(3945)));
        assert_eq!(times.system(), Some(Seconds::from_millis(11_077)));
        assert_eq!(times.known().count(), 10);
        times.set_millis(CpuMode::Irq, None);
        assert_eq!(times.usage(), None);
        assert_eq!(times.user(), Some(Seconds::from_millis(3945)));
        assert_eq!(times.known().count(), 9);
    }

    #[test]
    fn a_hypervisors_name_is_katas() {
        for name in ["clh", "qemu", "firecracker", "dragonball", "openvmm", "stratovirt", "remote"] {
            assert_eq!(Hypervisor::from_kata_name(name).map(Hypervisor::as_str), Some(name));
        }
        assert_eq!(Hypervisor::from_kata_name("acrn"), None);
        assert_eq!(Hypervisor::from_kata_name(""), None);
    }
}
