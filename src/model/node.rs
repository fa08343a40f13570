//! Facts of the node as a host, behind the `node_*` families: what node_exporter reads. Counters that the kernel of the
//! day lacks are `None` or an empty list.

use crate::model::units::{Bytes, Seconds, Value};
use crate::model::usage::Stall;

/// The node at one moment.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Node {
    /// CPU time by CPU.
    pub cpus: Vec<CpuTime>,
    /// What the CPUs are, and how fast they run.
    pub processors: Vec<Processor>,
    /// Counters of `/proc/stat` beside those of CPUs.
    pub kernel: KernelCounters,
    /// Load averages over 1, 5 and 15 minutes.
    pub load: Option<[Value; 3]>,
    /// Fields of `/proc/meminfo` under the names of their families.
    pub memory: Vec<Named>,
    /// Counters of `/proc/vmstat` under the names of their families.
    pub vmstat: Vec<Named>,
    /// Protocol counters under the names of their families.
    pub netstat: Vec<Named>,
    /// Sockets by protocol under the names of their families.
    pub sockstat: Vec<Named>,
    /// Block devices.
    pub disks: Vec<BlockDevice>,
    /// Mounted filesystems.
    pub filesystems: Vec<MountedFilesystem>,
    /// Network interfaces of the host's namespace.
    pub interfaces: Vec<HostInterface>,
    /// Stall totals of CPU, I/O, memory and interrupts.
    pub pressure: HostPressure,
    /// Packets handled by CPU.
    pub softnet: Vec<Softnet>,
    /// Open files of the whole node and their limit.
    pub open_files: Option<(u64, u64)>,
    /// Tracked connections and their limit.
    pub conntrack: (Option<u64>, Option<u64>),
    /// Neighbours by interface.
    pub neighbours: Vec<(String, u64)>,
    /// Kernel and host name.
    pub uname: Uname,
    /// The distribution, by key of `os-release` in lower case.
    pub os: Vec<(&'static str, String)>,
    /// The time of the collection, Unix time.
    pub time: Option<Seconds>,
}

/// A value whose family's name comes from the kernel.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Named {
    /// The family.
    pub name: &'static str,
    /// Its only sample.
    pub value: Value,
}

/// `cpu<n>` of `/proc/stat`. Time in guests is part of `user` and `nice`, as the kernel counts it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct CpuTime {
    /// Its number.
    pub cpu: String,
    /// In the order of [`CPU_MODES`].
    pub modes: [Seconds; 8],
    /// In guests, as user and niced.
    pub guest: [Seconds; 2],
}

/// Modes in the kernel's order.
pub const CPU_MODES: [&str; 8] = ["user", "nice", "system", "idle", "iowait", "irq", "softirq", "steal"];

/// Modes of [`CpuTime::guest`].
pub const GUEST_MODES: [&str; 2] = ["user", "nice"];

/// A CPU's description and clock.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Processor {
    /// Its number.
    pub cpu: String,
    /// Values in the order of [`CPU_LABELS`]; blank where the kernel says nothing.
    pub labels: [String; CPU_LABELS.len()],
    /// Now, lowest and highest of the hardware, in hertz.
    pub hardware_hertz: [Option<u64>; 3],
    /// Now, lowest and highest that the governor allows, in hertz.
    pub scaling_hertz: [Option<u64>; 3],
}

/// Labels of `node_cpu_info`, sorted; `cpu` is among them.
pub const CPU_LABELS: [&str; 10] =
    ["cachesize", "core", "cpu", "family", "microcode", "model", "model_name", "package", "stepping", "vendor"];

/// What `/proc/stat` counts for the node as a whole.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct KernelCounters {
    /// When the node was booted, Unix time.
    pub boot_time: Option<Seconds>,
    /// Context switches.
    pub context_switches: Option<u64>,
    /// Processes and threads made.
    pub forks: Option<u64>,
    /// Interrupts.
    pub interrupts: Option<u64>,
    /// Processes that run or could.
    pub running: Option<u64>,
    /// Processes that wait for I/O.
    pub blocked: Option<u64>,
}

/// A line of `/proc/diskstats`.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct BlockDevice {
    /// Name without `/dev/`.
    pub device: String,
    /// Number.
    pub major: u64,
    /// Number.
    pub minor: u64,
    /// Reads and writes.
    pub read: Transfers,
    /// Reads and writes.
    pub written: Transfers,
    /// Requests in progress.
    pub in_progress: u64,
    /// Time with at least one request in progress.
    pub io_time: Option<Seconds>,
    /// Request time summed over requests.
    pub weighted_io_time: Option<Seconds>,
    /// Discards, since Linux 4.18.
    pub discards: Option<Transfers>,
    /// Flushes and the time they took, since Linux 5.5.
    pub flushes: Option<(u64, Seconds)>,
}

/// One direction of a block device.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Transfers {
    /// Requests completed.
    pub completed: u64,
    /// Requests merged with another.
    pub merged: u64,
    /// 512-byte sectors.
    pub sectors: u64,
    /// Time all requests took.
    pub time: Seconds,
}

impl Default for Transfers {
    fn default() -> Self {
        Self { completed: 0, merged: 0, sectors: 0, time: Seconds::ZERO }
    }
}

/// A mount and its usage.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct MountedFilesystem {
    /// What is mounted.
    pub device: String,
    /// Type of the filesystem.
    pub fstype: String,
    /// Where.
    pub mountpoint: String,
    /// It cannot be written.
    pub readonly: bool,
    /// `None` when it gave an error or no answer.
    pub usage: Option<FilesystemUsage>,
}

/// What `statfs` tells.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct FilesystemUsage {
    /// Size.
    pub size: Bytes,
    /// Free.
    pub free: Bytes,
    /// Free for whoever is not root.
    pub available: Bytes,
    /// Inodes.
    pub files: u64,
    /// Free inodes.
    pub files_free: u64,
}

/// A network interface.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostInterface {
    /// Name.
    pub device: String,
    /// Counters in the order of [`RECEIVE`], of `/proc/1/net/dev`.
    pub receive: Option<[u64; 8]>,
    /// Counters in the order of [`TRANSMIT`].
    pub transmit: Option<[u64; 8]>,
    /// Received packets that no protocol took.
    pub receive_nohandler: Option<u64>,
    /// Settings, in the order of [`SETTINGS`].
    pub settings: [Option<u64>; SETTINGS.len()],
    /// Speed in bits per second; `None` where the driver does not know.
    pub speed: Option<u64>,
    /// How often the carrier changed, came and went.
    pub carrier_changes: [Option<u64>; 3],
    /// Address, broadcast address, duplex, alias, state; `None` when sysfs does not show the interface.
    pub info: Option<InterfaceInfo>,
}

/// Texts of an interface; blank when unknown.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct InterfaceInfo {
    /// Hardware address.
    pub address: String,
    /// Broadcast address.
    pub broadcast: String,
    /// `full`, `half`, `unknown`.
    pub duplex: String,
    /// What an administrator calls it.
    pub ifalias: String,
    /// `up`, `down`, `unknown`, …
    pub operstate: String,
}

/// Columns of `/proc/net/dev`, received.
pub const RECEIVE: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "frame", "compressed", "multicast"];

/// Columns of `/proc/net/dev`, sent.
pub const TRANSMIT: [&str; 8] = ["bytes", "packets", "errs", "drop", "fifo", "colls", "carrier", "compressed"];

/// Files of `/sys/class/net/<interface>` that hold one number.
pub const SETTINGS: [&str; 13] = [
    "addr_assign_type",
    "carrier",
    "dev_id",
    "dormant",
    "flags",
    "ifindex",
    "iflink",
    "link_mode",
    "mtu",
    "name_assign_type",
    "netdev_group",
    "type",
    "tx_queue_len",
];

/// Pressure of the node as a whole.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct HostPressure {
    /// CPU: only waiting means something for the node as a whole.
    pub cpu: Option<Stall>,
    /// I/O.
    pub io: Option<Stall>,
    /// Memory.
    pub memory: Option<Stall>,
    /// Interrupts: only stalled, since Linux 6.1.
    pub irq: Option<Stall>,
}

/// A line of `/proc/net/softnet_stat`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Softnet {
    /// The CPU.
    pub cpu: String,
    /// Packets handled.
    pub processed: u64,
    /// Packets dropped because the queue was full.
    pub dropped: u64,
    /// Times that work was left over.
    pub squeezed: u64,
}

/// What `uname` tells.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Uname {
    /// Values in the order of [`UNAME_LABELS`].
    pub values: [String; 6],
}

/// Labels of `node_uname_info`, sorted.
pub const UNAME_LABELS: [&str; 6] = ["domainname", "machine", "nodename", "release", "sysname", "version"];
