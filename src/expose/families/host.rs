//! `node_*`: the node as a host, under the names, types and labels of node_exporter.

use crate::expose::families::{family, some};
use crate::expose::family::Kind::{Counter, Gauge, Untyped};
use crate::expose::family::Profile::Dashboards;
use crate::expose::family::{Family, Kind, Meta, Put};
use crate::model::node::{
    BlockDevice, CPU_LABELS, CPU_MODES, GUEST_MODES, HostInterface, HostPressure, InterfaceInfo, MountedFilesystem,
    Named, Node, Processor, UNAME_LABELS,
};
use crate::model::units::{Bytes, Seconds, Value};

/// Labels of `node_os_info`, sorted.
const OS_LABELS: &[&str] = &[
    "build_id",
    "id",
    "id_like",
    "image_id",
    "image_version",
    "name",
    "pretty_name",
    "variant",
    "variant_id",
    "version",
    "version_codename",
    "version_id",
];

const DEVICE: &[&str] = &["device"];

const FILESYSTEM: &[&str] = &["device", "fstype", "mountpoint"];

fn clocks(node: &Node, put: Put<'_>, fact: fn(&Processor) -> Option<u64>) {
    for cpu in &node.processors {
        if let Some(hertz) = fact(cpu) {
            put(&[&cpu.cpu], hertz.into());
        }
    }
}

fn disks(node: &Node, put: Put<'_>, fact: fn(&BlockDevice) -> Option<Value>) {
    for disk in &node.disks {
        if let Some(value) = fact(disk) {
            put(&[&disk.device], value);
        }
    }
}

fn filesystems(node: &Node, put: Put<'_>, fact: fn(&MountedFilesystem) -> Option<Value>) {
    for filesystem in &node.filesystems {
        if let Some(value) = fact(filesystem) {
            put(&[&filesystem.device, &filesystem.fstype, &filesystem.mountpoint], value);
        }
    }
}

fn interfaces(node: &Node, put: Put<'_>, fact: fn(&HostInterface) -> Option<Value>) {
    for interface in &node.interfaces {
        if let Some(value) = fact(interface) {
            put(&[&interface.device], value);
        }
    }
}

fn pressure(node: &Node, put: Put<'_>, fact: fn(&HostPressure) -> Option<Seconds>) {
    some(put, fact(&node.pressure));
}

/// Major and minor number: `22.04`, `12`, and `15.6` of `15.6.1`.
fn version(text: &str) -> Option<Value> {
    let end = text.match_indices('.').nth(1).map_or(text.len(), |(second, _)| second);
    Value::from_decimal(&text.as_bytes()[..end])
}

/// Families whose names the kernel gives, a group for each of its files: the kind of all, what is said of them, and the
/// facts.
pub const NAMED: &[Group] = &[
    Group {
        prefix: "node_memory_",
        kind: Gauge,
        help: "A field of the node's memory.",
        source: "`/proc/meminfo`, every field of it",
        facts: |node| &node.memory,
    },
    Group {
        prefix: "node_netstat_",
        kind: Untyped,
        help: "A counter of a network protocol.",
        source: "`/proc/1/net/netstat`, `snmp`, `snmp6`: what node_exporter takes of them",
        facts: |node| &node.netstat,
    },
    Group {
        prefix: "node_sockstat_",
        kind: Gauge,
        help: "Sockets of a network protocol.",
        source: "`/proc/1/net/sockstat`, `sockstat6`",
        facts: |node| &node.sockstat,
    },
    Group {
        prefix: "node_vmstat_",
        kind: Untyped,
        help: "A counter of virtual memory.",
        source: "`/proc/vmstat`: what node_exporter takes of it",
        facts: |node| &node.vmstat,
    },
];

/// Families that are named by the kernel.
#[derive(Debug)]
pub struct Group {
    /// What all names begin with.
    pub prefix: &'static str,
    /// Type of all.
    pub kind: Kind,
    /// One sentence for all.
    pub help: &'static str,
    /// Where they come from.
    pub source: &'static str,
    /// The facts.
    pub facts: fn(&Node) -> &[Named],
}

impl Group {
    /// What a table's row says, for the name of one fact.
    pub const fn meta(&self, name: &'static str) -> Meta {
        let (kind, help, source) = (self.kind, self.help, self.source);
        Meta { name, kind, help, labels: &[], stamped: false, profile: Dashboards, source }
    }
}

/// The table, sorted by name.
pub const HOST: &[Family<Node>] = &[
    family(
        Gauge,
        Dashboards,
        "node_arp_entries",
        DEVICE,
        "Neighbours known on the interface, IPv4.",
        "`/proc/1/net/arp`",
        |node: &Node, put| {
            for (device, count) in &node.neighbours {
                put(&[device], (*count).into());
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "node_boot_time_seconds",
        &[],
        "When the node was booted, Unix time.",
        "`/proc/stat`",
        |node, put| some(put, node.kernel.boot_time),
    ),
    family(
        Counter,
        Dashboards,
        "node_context_switches_total",
        &[],
        "Context switches.",
        "`/proc/stat`",
        |node, put| some(put, node.kernel.context_switches),
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_frequency_hertz",
        &["cpu"],
        "Clock of the CPU, now.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.hardware_hertz[0]),
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_frequency_max_hertz",
        &["cpu"],
        "Clock of the CPU, at most.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.hardware_hertz[2]),
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_frequency_min_hertz",
        &["cpu"],
        "Clock of the CPU, at least.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/cpuinfo_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.hardware_hertz[1]),
    ),
    family(
        Counter,
        Dashboards,
        "node_cpu_guest_seconds_total",
        &["cpu", "mode"],
        "CPU time in guests, which is part of the modes user and nice.",
        "`/proc/stat`",
        |node, put| {
            for cpu in &node.cpus {
                GUEST_MODES.iter().zip(&cpu.guest).for_each(|(mode, time)| put(&[&cpu.cpu, mode], time.value()));
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_info",
        &CPU_LABELS,
        "What the CPU is; always 1.",
        "`/proc/cpuinfo`",
        |node, put| {
            for cpu in &node.processors {
                put(&cpu.labels.each_ref().map(String::as_str), Value::Int(1));
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_scaling_frequency_hertz",
        &["cpu"],
        "Clock of the CPU as its governor sets it, now.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/scaling_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.scaling_hertz[0]),
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_scaling_frequency_max_hertz",
        &["cpu"],
        "Clock of the CPU as its governor sets it, at most.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/scaling_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.scaling_hertz[2]),
    ),
    family(
        Gauge,
        Dashboards,
        "node_cpu_scaling_frequency_min_hertz",
        &["cpu"],
        "Clock of the CPU as its governor sets it, at least.",
        "`/sys/devices/system/cpu/cpu*/cpufreq/scaling_*_freq`",
        |node, put| clocks(node, put, |cpu| cpu.scaling_hertz[1]),
    ),
    family(
        Counter,
        Dashboards,
        "node_cpu_seconds_total",
        &["cpu", "mode"],
        "CPU time by mode.",
        "`/proc/stat`",
        |node, put| {
            for cpu in &node.cpus {
                CPU_MODES.iter().zip(&cpu.modes).for_each(|(mode, time)| put(&[&cpu.cpu, mode], time.value()));
            }
        },
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_discard_time_seconds_total",
        DEVICE,
        "Time discards took, summed over them.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.discards?.time.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_discarded_sectors_total",
        DEVICE,
        "Sectors of 512 bytes discarded.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.discards?.sectors.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_discards_completed_total",
        DEVICE,
        "Discards completed.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.discards?.completed.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_discards_merged_total",
        DEVICE,
        "Discards merged with another.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.discards?.merged.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_flush_requests_time_seconds_total",
        DEVICE,
        "Time flushes took, summed over them.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.flushes?.1.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_flush_requests_total",
        DEVICE,
        "Flushes completed.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.flushes?.0.into())),
    ),
    family(Gauge, Dashboards, "node_disk_io_now", DEVICE, "Requests in progress.", "`/proc/diskstats`", |node, put| {
        disks(node, put, |disk| Some(disk.in_progress.into()))
    }),
    family(
        Counter,
        Dashboards,
        "node_disk_io_time_seconds_total",
        DEVICE,
        "Time with at least one request in progress.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| disk.io_time.map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_io_time_weighted_seconds_total",
        DEVICE,
        "Time requests took, summed over them.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| disk.weighted_io_time.map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_read_bytes_total",
        DEVICE,
        "Bytes read.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(Bytes::from_sectors(disk.read.sectors).into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_read_time_seconds_total",
        DEVICE,
        "Time reads took, summed over them.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.read.time.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_reads_completed_total",
        DEVICE,
        "Reads completed.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.read.completed.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_reads_merged_total",
        DEVICE,
        "Reads merged with another.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.read.merged.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_write_time_seconds_total",
        DEVICE,
        "Time writes took, summed over them.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.written.time.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_writes_completed_total",
        DEVICE,
        "Writes completed.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.written.completed.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_writes_merged_total",
        DEVICE,
        "Writes merged with another.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(disk.written.merged.into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_disk_written_bytes_total",
        DEVICE,
        "Bytes written.",
        "`/proc/diskstats`",
        |node, put| disks(node, put, |disk| Some(Bytes::from_sectors(disk.written.sectors).into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filefd_allocated",
        &[],
        "Open files of the whole node.",
        "`/proc/sys/fs/file-nr`",
        |node, put| some(put, node.open_files.map(|(open, _)| open)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filefd_maximum",
        &[],
        "Most files that may be open.",
        "`/proc/sys/fs/file-nr`",
        |node, put| some(put, node.open_files.map(|(_, most)| most)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_avail_bytes",
        FILESYSTEM,
        "Space free for whoever is not root.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage?.available.into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_device_error",
        FILESYSTEM,
        "Whether the filesystem gave an error or no answer.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage.is_none().into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_files",
        FILESYSTEM,
        "Inodes.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage?.files.into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_files_free",
        FILESYSTEM,
        "Free inodes.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage?.files_free.into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_free_bytes",
        FILESYSTEM,
        "Free space.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage?.free.into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_readonly",
        FILESYSTEM,
        "Whether the filesystem cannot be written.",
        "`/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| filesystem.usage.map(|_| filesystem.readonly.into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_filesystem_size_bytes",
        FILESYSTEM,
        "Size of the filesystem.",
        "`statfs` of `/proc/1/mountinfo`",
        |node, put| filesystems(node, put, |filesystem| Some(filesystem.usage?.size.into())),
    ),
    family(Counter, Dashboards, "node_forks_total", &[], "Processes and threads made.", "`/proc/stat`", |node, put| {
        some(put, node.kernel.forks)
    }),
    family(Counter, Dashboards, "node_intr_total", &[], "Interrupts.", "`/proc/stat`", |node, put| {
        some(put, node.kernel.interrupts)
    }),
    family(Gauge, Dashboards, "node_load1", &[], "Load average over 1 minute.", "`/proc/loadavg`", |node, put| {
        some(put, node.load.map(|load| load[0]))
    }),
    family(Gauge, Dashboards, "node_load15", &[], "Load average over 15 minutes.", "`/proc/loadavg`", |node, put| {
        some(put, node.load.map(|load| load[2]))
    }),
    family(Gauge, Dashboards, "node_load5", &[], "Load average over 5 minutes.", "`/proc/loadavg`", |node, put| {
        some(put, node.load.map(|load| load[1]))
    }),
    family(
        Gauge,
        Dashboards,
        "node_network_address_assign_type",
        DEVICE,
        "How the hardware address came about.",
        "`/sys/class/net/*/addr_assign_type`",
        |node, put| interfaces(node, put, |interface| interface.settings[0].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_carrier",
        DEVICE,
        "Whether there is a carrier.",
        "`/sys/class/net/*/carrier`",
        |node, put| interfaces(node, put, |interface| interface.settings[1].map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_carrier_changes_total",
        DEVICE,
        "Times the carrier came or went.",
        "`/sys/class/net/*/carrier_*`",
        |node, put| interfaces(node, put, |interface| interface.carrier_changes[0].map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_carrier_down_changes_total",
        DEVICE,
        "Times the carrier went.",
        "`/sys/class/net/*/carrier_*`",
        |node, put| interfaces(node, put, |interface| interface.carrier_changes[2].map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_carrier_up_changes_total",
        DEVICE,
        "Times the carrier came.",
        "`/sys/class/net/*/carrier_*`",
        |node, put| interfaces(node, put, |interface| interface.carrier_changes[1].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_device_id",
        DEVICE,
        "Number of the port of a device.",
        "`/sys/class/net/*/dev_id`",
        |node, put| interfaces(node, put, |interface| interface.settings[2].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_dormant",
        DEVICE,
        "Whether the interface waits for an event, such as a login.",
        "`/sys/class/net/*/dormant`",
        |node, put| interfaces(node, put, |interface| interface.settings[3].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_flags",
        DEVICE,
        "Flags of the interface.",
        "`/sys/class/net/*/flags`",
        |node, put| interfaces(node, put, |interface| interface.settings[4].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_iface_id",
        DEVICE,
        "Number of the interface.",
        "`/sys/class/net/*/ifindex`",
        |node, put| interfaces(node, put, |interface| interface.settings[5].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_iface_link",
        DEVICE,
        "Number of the interface below it.",
        "`/sys/class/net/*/iflink`",
        |node, put| interfaces(node, put, |interface| interface.settings[6].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_iface_link_mode",
        DEVICE,
        "How it is brought up.",
        "`/sys/class/net/*/link_mode`",
        |node, put| interfaces(node, put, |interface| interface.settings[7].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_info",
        &["address", "broadcast", "device", "duplex", "ifalias", "operstate"],
        "Texts of the interface; always 1.",
        "`/sys/class/net/*`",
        |node, put| {
            for interface in &node.interfaces {
                if let Some(InterfaceInfo { address, broadcast, duplex, ifalias, operstate }) = &interface.info {
                    put(&[address, broadcast, &interface.device, duplex, ifalias, operstate], Value::Int(1));
                }
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_mtu_bytes",
        DEVICE,
        "Largest packet.",
        "`/sys/class/net/*/mtu`",
        |node, put| interfaces(node, put, |interface| interface.settings[8].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_name_assign_type",
        DEVICE,
        "How the name came about.",
        "`/sys/class/net/*/name_assign_type`",
        |node, put| interfaces(node, put, |interface| interface.settings[9].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_net_dev_group",
        DEVICE,
        "Group of the interface.",
        "`/sys/class/net/*/netdev_group`",
        |node, put| interfaces(node, put, |interface| interface.settings[10].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_protocol_type",
        DEVICE,
        "Type of the interface's protocol.",
        "`/sys/class/net/*/type`",
        |node, put| interfaces(node, put, |interface| interface.settings[11].map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_bytes_total",
        DEVICE,
        "Bytes received.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[0].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_compressed_total",
        DEVICE,
        "Compressed packets received.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[6].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_drop_total",
        DEVICE,
        "Received packets dropped.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[3].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_errs_total",
        DEVICE,
        "Errors while receiving.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[2].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_fifo_total",
        DEVICE,
        "Received packets lost to a full queue of the device.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[4].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_frame_total",
        DEVICE,
        "Framing errors.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[5].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_multicast_total",
        DEVICE,
        "Multicast packets received.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[7].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_nohandler_total",
        DEVICE,
        "Received packets that no protocol took.",
        "`/sys/class/net/*/statistics/rx_nohandler`",
        |node, put| interfaces(node, put, |interface| interface.receive_nohandler.map(Value::from)),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_receive_packets_total",
        DEVICE,
        "Packets received.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.receive?[1].into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_speed_bytes",
        DEVICE,
        "Speed of the interface in bytes per second, where it is known.",
        "`/sys/class/net/*/speed`",
        |node, put| interfaces(node, put, |interface| interface.speed.map(|bits| (bits / 8).into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_bytes_total",
        DEVICE,
        "Bytes sent.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[0].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_carrier_total",
        DEVICE,
        "Losses of carrier while sending.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[6].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_colls_total",
        DEVICE,
        "Collisions.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[5].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_compressed_total",
        DEVICE,
        "Compressed packets sent.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[7].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_drop_total",
        DEVICE,
        "Packets dropped before they were sent.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[3].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_errs_total",
        DEVICE,
        "Errors while sending.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[2].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_fifo_total",
        DEVICE,
        "Packets lost to a full queue of the device.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[4].into())),
    ),
    family(
        Counter,
        Dashboards,
        "node_network_transmit_packets_total",
        DEVICE,
        "Packets sent.",
        "`/proc/1/net/dev`",
        |node, put| interfaces(node, put, |interface| Some(interface.transmit?[1].into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_transmit_queue_length",
        DEVICE,
        "Length of the transmit queue.",
        "`/sys/class/net/*/tx_queue_len`",
        |node, put| interfaces(node, put, |interface| interface.settings[12].map(Value::from)),
    ),
    family(
        Gauge,
        Dashboards,
        "node_network_up",
        DEVICE,
        "Whether the state of the interface is `up`.",
        "`/sys/class/net/*/operstate`",
        |node, put| interfaces(node, put, |interface| Some((interface.info.as_ref()?.operstate == "up").into())),
    ),
    family(
        Gauge,
        Dashboards,
        "node_nf_conntrack_entries",
        &[],
        "Connections tracked.",
        "`/proc/1/net/stat/nf_conntrack`",
        |node, put| some(put, node.conntrack.0),
    ),
    family(
        Gauge,
        Dashboards,
        "node_nf_conntrack_entries_limit",
        &[],
        "Most connections tracked.",
        "`/proc/sys/net/netfilter/nf_conntrack_max`",
        |node, put| some(put, node.conntrack.1),
    ),
    family(Gauge, Dashboards, "node_os_info", OS_LABELS, "The distribution; always 1.", "`os-release`", |node, put| {
        let values: Vec<&str> = node.os.iter().map(|(_, value)| value.as_str()).collect();
        if !values.is_empty() {
            put(&values, Value::Int(1));
        }
    }),
    family(
        Gauge,
        Dashboards,
        "node_os_version",
        &["id", "id_like", "name"],
        "Number of the distribution's version.",
        "`os-release`",
        |node, put| {
            let of = |key: &str| node.os.iter().find(|(known, _)| *known == key).map_or("", |(_, value)| value);
            if let Some(version) = version(of("version_id")) {
                put(&[of("id"), of("id_like"), of("name")], version);
            }
        },
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_cpu_waiting_seconds_total",
        &[],
        "Time some task waited for a CPU.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.cpu.as_ref()?.waiting),
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_io_stalled_seconds_total",
        &[],
        "Time no task could run for waiting for I/O.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.io.as_ref()?.stalled),
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_io_waiting_seconds_total",
        &[],
        "Time some task waited for I/O.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.io.as_ref()?.waiting),
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_irq_stalled_seconds_total",
        &[],
        "Time no task could run for interrupts.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.irq.as_ref()?.stalled),
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_memory_stalled_seconds_total",
        &[],
        "Time no task could run for waiting for memory.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.memory.as_ref()?.stalled),
    ),
    family(
        Counter,
        Dashboards,
        "node_pressure_memory_waiting_seconds_total",
        &[],
        "Time some task waited for memory.",
        "`/proc/pressure`",
        |node, put| pressure(node, put, |pressure| pressure.memory.as_ref()?.waiting),
    ),
    family(
        Gauge,
        Dashboards,
        "node_procs_blocked",
        &[],
        "Processes that wait for I/O.",
        "`/proc/stat`",
        |node, put| some(put, node.kernel.blocked),
    ),
    family(
        Gauge,
        Dashboards,
        "node_procs_running",
        &[],
        "Processes that run or could.",
        "`/proc/stat`",
        |node, put| some(put, node.kernel.running),
    ),
    family(
        Counter,
        Dashboards,
        "node_softnet_dropped_total",
        &["cpu"],
        "Packets dropped because the queue was full.",
        "`/proc/1/net/softnet_stat`",
        |node, put| {
            for row in &node.softnet {
                put(&[&row.cpu], row.dropped.into());
            }
        },
    ),
    family(
        Counter,
        Dashboards,
        "node_softnet_processed_total",
        &["cpu"],
        "Packets handled.",
        "`/proc/1/net/softnet_stat`",
        |node, put| {
            for row in &node.softnet {
                put(&[&row.cpu], row.processed.into());
            }
        },
    ),
    family(
        Counter,
        Dashboards,
        "node_softnet_times_squeezed_total",
        &["cpu"],
        "Times that work was left over.",
        "`/proc/1/net/softnet_stat`",
        |node, put| {
            for row in &node.softnet {
                put(&[&row.cpu], row.squeezed.into());
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "node_time_seconds",
        &[],
        "The time of the collection, Unix time.",
        "clock",
        |node, put| some(put, node.time),
    ),
    family(
        Gauge,
        Dashboards,
        "node_uname_info",
        &UNAME_LABELS,
        "Kernel and host name; always 1.",
        "`uname`, `/proc/sys/kernel`",
        |node, put| {
            put(&node.uname.values.each_ref().map(String::as_str), Value::Int(1));
        },
    ),
];
