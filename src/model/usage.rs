//! What one cgroup, one pod network or one guest container has used: the facts behind one row.
//!
//! Every field that a source may lack is an `Option` or an empty list. `None` gives no sample; zero is a measured zero.

use std::borrow::Cow;

use crate::model::units::{Bytes, Limit, Seconds};

/// Everything measured for one row of one collection.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Usage {
    /// CPU time and throttling.
    pub cpu: Option<Cpu>,
    /// Memory in use.
    pub memory: Option<Memory>,
    /// Kills by the out-of-memory killer inside this cgroup since it was made.
    pub oom_kills: Option<u64>,
    /// Tasks and their bound.
    pub tasks: Tasks,
    /// Block I/O by device.
    pub io: Vec<DeviceIo>,
    /// Huge pages by size.
    pub hugetlb: Vec<Hugetlb>,
    /// Pressure stall totals.
    pub pressure: Option<Pressure>,
    /// Requested shares and limits.
    pub spec: Option<Spec>,
    /// Network counters by interface; only on rows that carry a network.
    pub network: Vec<Interface>,
    /// Filesystem usage by device.
    pub filesystems: Vec<Filesystem>,
    /// Whole-device counters of the node, on the `/` row only.
    pub disks: Vec<Disk>,
    /// Soft limit of open files of the row's first process. `Limit::Max` when unlimited.
    pub max_open_files: Option<Limit>,
    /// Open descriptors, when the `fd` collector is on.
    pub descriptors: Option<Descriptors>,
    /// When this was measured, Unix time.
    pub measured_at: Option<Seconds>,
    /// When the container or the cgroup was started, Unix time.
    pub start_time: Option<Seconds>,
    /// When the container was created, Unix time.
    pub creation_time: Option<Seconds>,
}

/// CPU time, cumulative.
#[derive(Clone, Debug, PartialEq)]
pub struct Cpu {
    /// All modes.
    pub usage: Seconds,
    /// User mode.
    pub user: Option<Seconds>,
    /// Kernel mode.
    pub system: Option<Seconds>,
    /// CFS bandwidth control, when the cgroup has its counters.
    pub cfs: Option<Cfs>,
}

/// CFS bandwidth counters. Served only beside a quota: without one they mean nothing.
#[derive(Clone, Debug, PartialEq)]
pub struct Cfs {
    /// Enforcement periods that have passed.
    pub periods: u64,
    /// Periods in which the cgroup was throttled.
    pub throttled_periods: u64,
    /// Time spent throttled; `None` where the source is known to lose it (Kata guests on cgroup v2).
    pub throttled: Option<Seconds>,
    /// Periods that used burst, kernel 5.14.
    pub burst_periods: Option<u64>,
    /// Time above quota thanks to burst, kernel 5.14.
    pub burst: Option<Seconds>,
}

/// Memory, by the kernel's accounting. Bytes now, unless a field says otherwise.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Memory {
    /// All that is charged to the cgroup.
    pub usage: Option<Bytes>,
    /// Usage less inactive file cache, not below zero: what the kubelet evicts and scales by.
    pub working_set: Option<Bytes>,
    /// Anonymous memory.
    pub rss: Option<Bytes>,
    /// Page cache.
    pub cache: Option<Bytes>,
    /// Mapped files.
    pub mapped_file: Option<Bytes>,
    /// Swap in use.
    pub swap: Option<Bytes>,
    /// Highest usage since the cgroup was made; kernel 5.19 on v2.
    pub max_usage: Option<Bytes>,
    /// Times the limit was hit; v1 only.
    pub failcnt: Option<u64>,
    /// Kernel memory.
    pub kernel: Option<Bytes>,
    /// File cache on the active list.
    pub active_file: Option<Bytes>,
    /// File cache on the inactive list.
    pub inactive_file: Option<Bytes>,
    /// Dirty file cache.
    pub file_dirty: Option<Bytes>,
    /// File cache under write-back.
    pub file_writeback: Option<Bytes>,
    /// Page faults of the cgroup itself, cumulative.
    pub page_faults: Option<u64>,
    /// Major page faults of the cgroup itself, cumulative.
    pub major_page_faults: Option<u64>,
    /// Page faults including child cgroups, cumulative.
    pub page_faults_hierarchy: Option<u64>,
    /// Major page faults including child cgroups, cumulative.
    pub major_page_faults_hierarchy: Option<u64>,
    /// `memory.events` `high`: times reclaim was forced by `memory.high`; v2.
    pub events_high: Option<u64>,
    /// `memory.events` `max`: times usage was about to exceed `memory.max`; v2.
    pub events_max: Option<u64>,
    /// Pages scanned by reclaim; v2.
    pub pgscan: Option<u64>,
    /// Pages reclaimed; v2.
    pub pgsteal: Option<u64>,
    /// Refaults of evicted file pages; v2, kernel 5.9.
    pub refault_file: Option<u64>,
    /// Refaults of evicted anonymous pages; v2, kernel 5.9.
    pub refault_anon: Option<u64>,
}

/// Processes and threads.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Tasks {
    /// Processes in this very cgroup, children not counted.
    pub processes: Option<u64>,
    /// Threads in the cgroup and below.
    pub threads: Option<u64>,
    /// Bound on threads.
    pub threads_max: Option<Limit>,
}

/// Cumulative I/O of one block device.
#[derive(Clone, Debug, PartialEq)]
pub struct DeviceIo {
    /// Device number.
    pub number: DeviceNumber,
    /// `/dev/<name>`; blank when the node does not know the number.
    pub device: String,
    /// Bytes read.
    pub read_bytes: Option<Bytes>,
    /// Bytes written.
    pub written_bytes: Option<Bytes>,
    /// Read operations.
    pub reads: Option<u64>,
    /// Write operations.
    pub writes: Option<u64>,
    /// Further byte counters that v1 keeps, under the kernel's name (`Sync`, `Async`, `Discard`, `Total`).
    pub other_bytes: Vec<(&'static str, Bytes)>,
    /// `io.cost` delays, when the controller is on; v2.
    pub cost: Option<IoCost>,
}

impl DeviceIo {
    /// A device of which nothing is known but its number.
    pub const fn new(number: DeviceNumber) -> Self {
        Self {
            number,
            device: String::new(),
            read_bytes: None,
            written_bytes: None,
            reads: None,
            writes: None,
            other_bytes: Vec::new(),
            cost: None,
        }
    }

    /// The `device` label. A device without a name gets the path that udev gives it by number, because two blank
    /// ones in a row would be one series twice.
    pub fn label(&self) -> Cow<'_, str> {
        if self.device.is_empty() {
            Cow::Owned(format!("/dev/block/{}:{}", self.number.major, self.number.minor))
        } else {
            Cow::Borrowed(&self.device)
        }
    }
}

/// A block device's number.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct DeviceNumber {
    /// Major number.
    pub major: u32,
    /// Minor number.
    pub minor: u32,
}

/// `cost.*` keys of `io.stat`, kernel 5.10.
#[derive(Clone, Debug, PartialEq)]
pub struct IoCost {
    /// `cost.usage`
    pub usage: Seconds,
    /// `cost.wait`
    pub wait: Seconds,
    /// `cost.indebt`
    pub indebt: Seconds,
    /// `cost.indelay`
    pub indelay: Seconds,
}

/// Huge pages of one size.
#[derive(Clone, Debug, PartialEq)]
pub struct Hugetlb {
    /// Page size in the kernel's spelling: `2MB`, `1GB`.
    pub page_size: String,
    /// Bytes in use.
    pub usage: Bytes,
    /// Most bytes in use; v1 only.
    pub max_usage: Option<Bytes>,
    /// Allocations refused by the limit.
    pub failcnt: Option<u64>,
}

/// Pressure stall information, cumulative stall time. cgroup v2 only.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Pressure {
    /// CPU.
    pub cpu: Option<Stall>,
    /// Memory.
    pub memory: Option<Stall>,
    /// I/O.
    pub io: Option<Stall>,
}

/// The two totals of one pressure file.
#[derive(Clone, Debug, PartialEq)]
pub struct Stall {
    /// Some task waited (`some`).
    pub waiting: Option<Seconds>,
    /// No task could run (`full`).
    pub stalled: Option<Seconds>,
}

/// What was asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Spec {
    /// CPU shares, v1 scale.
    pub cpu_shares: Option<u64>,
    /// CFS period in microseconds.
    pub cpu_period_micros: Option<u64>,
    /// CFS quota in microseconds; `None` when the controller is absent.
    pub cpu_quota_micros: Option<Limit>,
    /// Memory limit in bytes.
    pub memory_limit: Option<Limit>,
    /// Memory protected from reclaim (v2 `memory.min`) or soft limit (v1), bytes.
    pub memory_reservation: Option<Limit>,
    /// Swap limit in bytes: swap alone on v2, memory plus swap on v1.
    pub memory_swap_limit: Option<Limit>,
    /// Limit of swap alone in bytes; on v1 only where memory and both together are limited.
    pub swap_limit: Option<Limit>,
}

/// Cumulative counters of one network interface.
#[derive(Clone, Debug, PartialEq)]
pub struct Interface {
    /// Name in its network namespace.
    pub name: String,
    /// Received.
    pub receive: Traffic,
    /// Sent.
    pub transmit: Traffic,
}

/// One direction of an interface.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Traffic {
    /// Bytes.
    pub bytes: Bytes,
    /// Packets.
    pub packets: u64,
    /// Errors.
    pub errors: u64,
    /// Packets dropped.
    pub dropped: u64,
}

/// Usage of one filesystem, or of one container's writable layer on it.
#[derive(Clone, Debug, PartialEq)]
pub struct Filesystem {
    /// `/dev/<name>`, or the mount point of a tmpfs.
    pub device: String,
    /// Bytes in use.
    pub usage: Option<Bytes>,
    /// Size of the filesystem.
    pub limit: Option<Bytes>,
    /// Inodes of the filesystem.
    pub inodes: Option<u64>,
    /// Free inodes of the filesystem.
    pub inodes_free: Option<u64>,
}

/// `/proc/diskstats` counters of one device, cumulative except `in_progress`.
#[derive(Clone, Debug, PartialEq)]
pub struct Disk {
    /// `/dev/<name>`.
    pub device: String,
    /// Reads completed.
    pub reads: u64,
    /// Reads merged.
    pub reads_merged: u64,
    /// 512-byte sectors read.
    pub sectors_read: u64,
    /// Time spent reading.
    pub read_time: Seconds,
    /// Writes completed.
    pub writes: u64,
    /// Writes merged.
    pub writes_merged: u64,
    /// 512-byte sectors written.
    pub sectors_written: u64,
    /// Time spent writing.
    pub write_time: Seconds,
    /// Requests in progress now.
    pub in_progress: u64,
    /// Time with at least one request in progress.
    pub io_time: Seconds,
    /// Request time summed over requests.
    pub weighted_io_time: Seconds,
}

/// Open descriptors of a row's processes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Descriptors {
    /// All kinds.
    pub open: u64,
    /// Sockets among them.
    pub sockets: u64,
}
