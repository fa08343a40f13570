//! `container_*`: cAdvisor's families with cAdvisor's types, one per line.
//!
//! Where the kubelet exports a constant zero for want of a source, there is no line here; `catalog` lists those with
//! the reason.

use crate::expose::families::{Put, family, some};
use crate::expose::family::Kind::{Counter, Gauge};
use crate::expose::family::{Family, Profile};
use crate::model::snapshot::Row;
use crate::model::units::{Limit, Seconds, Value};
use crate::model::usage::{Cfs, DeviceIo, Disk, Filesystem, Hugetlb, Interface, IoCost, Memory, Spec, Stall};

const D: Profile = Profile::Dashboards;
const K: Profile = Profile::Kubelet;
const A: Profile = Profile::All;

const NONE: &[&str] = &[];
const DEVICE: &[&str] = &["device"];
const INTERFACE: &[&str] = &["interface"];
const PAGESIZE: &[&str] = &["pagesize"];

fn memory(row: &Row, put: Put<'_>, fact: fn(&Memory) -> Option<Value>) {
    some(put, row.usage.memory.as_ref().and_then(fact));
}

/// Throttling counters exist in every cgroup but mean something only beside a quota; alerts rely on their absence.
fn cfs(row: &Row, put: Put<'_>, fact: fn(&Cfs) -> Option<Value>) {
    let quota = row.usage.spec.as_ref().and_then(|spec| spec.cpu_quota_micros);
    if let (Some(Limit::At(_)), Some(cpu)) = (quota, &row.usage.cpu) {
        some(put, cpu.cfs.as_ref().and_then(fact));
    }
}

fn spec(row: &Row, put: Put<'_>, fact: fn(&Spec) -> Option<Value>) {
    some(put, row.usage.spec.as_ref().and_then(fact));
}

fn limit(limit: Option<Limit>) -> Option<Value> {
    limit.map(|limit| Value::Int(limit.or_zero()))
}

fn io(row: &Row, put: Put<'_>, fact: fn(&DeviceIo) -> Option<Value>) {
    for device in &row.usage.io {
        if let Some(value) = fact(device) {
            put(&[&device.label()], value);
        }
    }
}

fn io_cost(row: &Row, put: Put<'_>, fact: fn(&IoCost) -> Seconds) {
    for device in &row.usage.io {
        if let Some(cost) = &device.cost {
            put(&[&device.label()], fact(cost).value());
        }
    }
}

fn disk(row: &Row, put: Put<'_>, fact: fn(&Disk) -> Value) {
    for disk in &row.usage.disks {
        put(&[&disk.device], fact(disk));
    }
}

/// Operations: of the node's disks on the `/` row, of the cgroup elsewhere. One source per row, so that the read and
/// the write family always have the same devices and dashboards can add them.
fn operations(row: &Row, put: Put<'_>, of_disk: fn(&Disk) -> u64, of_cgroup: fn(&DeviceIo) -> Option<u64>) {
    if row.usage.disks.is_empty() {
        for device in &row.usage.io {
            if let Some(count) = of_cgroup(device) {
                put(&[&device.label()], Value::Int(count));
            }
        }
    } else {
        for disk in &row.usage.disks {
            put(&[&disk.device], Value::Int(of_disk(disk)));
        }
    }
}

fn filesystem(row: &Row, put: Put<'_>, fact: fn(&Filesystem) -> Option<Value>) {
    for filesystem in &row.usage.filesystems {
        if let Some(value) = fact(filesystem) {
            put(&[&filesystem.device], value);
        }
    }
}

fn interface(row: &Row, put: Put<'_>, fact: fn(&Interface) -> Value) {
    for interface in &row.usage.network {
        put(&[&interface.name], fact(interface));
    }
}

fn hugetlb(row: &Row, put: Put<'_>, fact: fn(&Hugetlb) -> Option<Value>) {
    for pages in &row.usage.hugetlb {
        if let Some(value) = fact(pages) {
            put(&[&pages.page_size], value);
        }
    }
}

fn stall(stall: Option<&Stall>, put: Put<'_>, fact: fn(&Stall) -> Option<Seconds>) {
    some(put, stall.and_then(fact));
}

fn int(count: Option<u64>) -> Option<Value> {
    count.map(Value::Int)
}

fn bytes(bytes: Option<crate::model::units::Bytes>) -> Option<Value> {
    bytes.map(Value::from)
}

/// The table, sorted by name.
pub const CONTAINER: &[Family<Row>] = &[
    family(
        Counter,
        K,
        "container_blkio_device_usage_total",
        &["device", "major", "minor", "operation"],
        "Bytes read from and written to a block device.",
        "v2 `io.stat`; v1 `blkio.*.io_service_bytes*`",
        |row, put| {
            for device in &row.usage.io {
                let (major, minor) = (device.number.major.to_string(), device.number.minor.to_string());
                let mut one = |operation, value: Value| put(&[&device.label(), &major, &minor, operation], value);
                if let Some(read) = device.read_bytes {
                    one("Read", read.into());
                }
                if let Some(written) = device.written_bytes {
                    one("Write", written.into());
                }
                for (operation, value) in &device.other_bytes {
                    one(operation, (*value).into());
                }
            }
        },
    ),
    family(
        Counter,
        K,
        "container_cpu_cfs_burst_periods_total",
        NONE,
        "Enforcement periods in which CPU burst was used.",
        "`cpu.stat` `nr_bursts`, kernel 5.14, beside a quota",
        |row, put| cfs(row, put, |cfs| int(cfs.burst_periods)),
    ),
    family(
        Counter,
        K,
        "container_cpu_cfs_burst_seconds_total",
        NONE,
        "CPU time used above the quota thanks to burst.",
        "`cpu.stat` `burst_usec` (v1 `burst_time`), kernel 5.14, beside a quota",
        |row, put| cfs(row, put, |cfs| cfs.burst.map(Value::from)),
    ),
    family(
        Counter,
        D,
        "container_cpu_cfs_periods_total",
        NONE,
        "CPU quota enforcement periods that have passed.",
        "`cpu.stat` `nr_periods`, beside a quota",
        |row, put| cfs(row, put, |cfs| int(Some(cfs.periods))),
    ),
    family(
        Counter,
        D,
        "container_cpu_cfs_throttled_periods_total",
        NONE,
        "CPU quota enforcement periods in which the container was throttled.",
        "`cpu.stat` `nr_throttled`, beside a quota",
        |row, put| cfs(row, put, |cfs| int(Some(cfs.throttled_periods))),
    ),
    family(
        Counter,
        K,
        "container_cpu_cfs_throttled_seconds_total",
        NONE,
        "Time the container was throttled.",
        "`cpu.stat` `throttled_usec` (v1 `throttled_time`), beside a quota",
        |row, put| cfs(row, put, |cfs| cfs.throttled.map(Value::from)),
    ),
    family(
        Counter,
        K,
        "container_cpu_system_seconds_total",
        NONE,
        "CPU time consumed in kernel mode.",
        "v2 `cpu.stat` `system_usec`; v1 `cpuacct.stat` `system`",
        |row, put| some(put, row.usage.cpu.as_ref().and_then(|cpu| cpu.system)),
    ),
    family(
        Counter,
        D,
        "container_cpu_usage_seconds_total",
        &["cpu"],
        "CPU time consumed, all modes and CPUs together.",
        "v2 `cpu.stat` `usage_usec`; v1 `cpuacct.usage`",
        |row, put| {
            if let Some(cpu) = &row.usage.cpu {
                put(&["total"], cpu.usage.value());
            }
        },
    ),
    family(
        Counter,
        K,
        "container_cpu_user_seconds_total",
        NONE,
        "CPU time consumed in user mode.",
        "v2 `cpu.stat` `user_usec`; v1 `cpuacct.stat` `user`",
        |row, put| some(put, row.usage.cpu.as_ref().and_then(|cpu| cpu.user)),
    ),
    family(
        Gauge,
        K,
        "container_creation_time_seconds",
        NONE,
        "When the container was created, Unix time.",
        "CRI `created_at`",
        |row, put| some(put, row.usage.creation_time.map(|time| Value::Int(time.whole()))),
    ),
    family(
        Gauge,
        K,
        "container_file_descriptors",
        NONE,
        "Open file descriptors of the container's processes; needs the fd collector.",
        "`/proc/<pid>/fd`",
        |row, put| some(put, row.usage.descriptors.map(|fds| fds.open)),
    ),
    family(
        Gauge,
        K,
        "container_fs_inodes_free",
        DEVICE,
        "Free inodes of the filesystem.",
        "statfs, `/` row",
        |row, put| filesystem(row, put, |filesystem| int(filesystem.inodes_free)),
    ),
    family(
        Gauge,
        K,
        "container_fs_inodes_total",
        DEVICE,
        "Inodes of the filesystem.",
        "statfs, `/` row",
        |row, put| filesystem(row, put, |filesystem| int(filesystem.inodes)),
    ),
    family(
        Counter,
        K,
        "container_fs_io_cost_indebt_seconds_total",
        DEVICE,
        "Time the container was in debt to io.cost.",
        "v2 `io.stat` `cost.indebt`",
        |row, put| io_cost(row, put, |cost| cost.indebt),
    ),
    family(
        Counter,
        K,
        "container_fs_io_cost_indelay_seconds_total",
        DEVICE,
        "Time the container was delayed to repay io.cost.",
        "v2 `io.stat` `cost.indelay`",
        |row, put| io_cost(row, put, |cost| cost.indelay),
    ),
    family(
        Counter,
        K,
        "container_fs_io_cost_usage_seconds_total",
        DEVICE,
        "Device time used, by the io.cost model.",
        "v2 `io.stat` `cost.usage`",
        |row, put| io_cost(row, put, |cost| cost.usage),
    ),
    family(
        Counter,
        K,
        "container_fs_io_cost_wait_seconds_total",
        DEVICE,
        "Time spent waiting for io.cost.",
        "v2 `io.stat` `cost.wait`",
        |row, put| io_cost(row, put, |cost| cost.wait),
    ),
    family(
        Gauge,
        K,
        "container_fs_io_current",
        DEVICE,
        "Requests in progress.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| Value::Int(disk.in_progress)),
    ),
    family(
        Counter,
        K,
        "container_fs_io_time_seconds_total",
        DEVICE,
        "Time with at least one request in progress.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| disk.io_time.value()),
    ),
    family(
        Counter,
        K,
        "container_fs_io_time_weighted_seconds_total",
        DEVICE,
        "Time of requests in progress, summed over requests.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| disk.weighted_io_time.value()),
    ),
    family(Gauge, K, "container_fs_limit_bytes", DEVICE, "Size of the filesystem.", "statfs", |row, put| {
        filesystem(row, put, |filesystem| bytes(filesystem.limit))
    }),
    family(
        Counter,
        K,
        "container_fs_read_seconds_total",
        DEVICE,
        "Time spent reading.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| disk.read_time.value()),
    ),
    family(
        Counter,
        D,
        "container_fs_reads_bytes_total",
        DEVICE,
        "Bytes read from the device.",
        "v2 `io.stat` `rbytes`; v1 `blkio.*.io_service_bytes*` `Read`",
        |row, put| io(row, put, |io| bytes(io.read_bytes)),
    ),
    family(
        Counter,
        K,
        "container_fs_reads_merged_total",
        DEVICE,
        "Reads merged.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| Value::Int(disk.reads_merged)),
    ),
    family(
        Counter,
        D,
        "container_fs_reads_total",
        DEVICE,
        "Reads completed.",
        "v2 `io.stat` `rios`; v1 `blkio.*.io_serviced*` `Read`; `/` row `/proc/diskstats`",
        |row, put| operations(row, put, |disk| disk.reads, |io| io.reads),
    ),
    family(
        Counter,
        K,
        "container_fs_sector_reads_total",
        DEVICE,
        "512-byte sectors read.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| Value::Int(disk.sectors_read)),
    ),
    family(
        Counter,
        K,
        "container_fs_sector_writes_total",
        DEVICE,
        "512-byte sectors written.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| Value::Int(disk.sectors_written)),
    ),
    family(
        Gauge,
        K,
        "container_fs_usage_bytes",
        DEVICE,
        "Bytes used on the filesystem; of a container, those of its writable layer, asked once a minute.",
        "statfs on the `/` row; CRI `ContainerStats.writable_layer`",
        |row, put| filesystem(row, put, |filesystem| bytes(filesystem.usage)),
    ),
    family(
        Counter,
        K,
        "container_fs_write_seconds_total",
        DEVICE,
        "Time spent writing.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| disk.write_time.value()),
    ),
    family(
        Counter,
        D,
        "container_fs_writes_bytes_total",
        DEVICE,
        "Bytes written to the device.",
        "v2 `io.stat` `wbytes`; v1 `blkio.*.io_service_bytes*` `Write`",
        |row, put| io(row, put, |io| bytes(io.written_bytes)),
    ),
    family(
        Counter,
        K,
        "container_fs_writes_merged_total",
        DEVICE,
        "Writes merged.",
        "`/proc/diskstats`, `/` row",
        |row, put| disk(row, put, |disk| Value::Int(disk.writes_merged)),
    ),
    family(
        Counter,
        D,
        "container_fs_writes_total",
        DEVICE,
        "Writes completed.",
        "v2 `io.stat` `wios`; v1 `blkio.*.io_serviced*` `Write`; `/` row `/proc/diskstats`",
        |row, put| operations(row, put, |disk| disk.writes, |io| io.writes),
    ),
    family(
        Counter,
        A,
        "container_hugetlb_failcnt",
        PAGESIZE,
        "Huge page allocations refused by the limit.",
        "v2 `hugetlb.<size>.events` `max`; v1 `hugetlb.<size>.failcnt`",
        |row, put| hugetlb(row, put, |pages| int(pages.failcnt)),
    ),
    family(
        Gauge,
        A,
        "container_hugetlb_max_usage_bytes",
        PAGESIZE,
        "Most bytes of huge pages in use.",
        "v1 `hugetlb.<size>.max_usage_in_bytes`",
        |row, put| hugetlb(row, put, |pages| bytes(pages.max_usage)),
    ),
    family(
        Gauge,
        A,
        "container_hugetlb_usage_bytes",
        PAGESIZE,
        "Bytes of huge pages in use.",
        "v2 `hugetlb.<size>.current`; v1 `hugetlb.<size>.usage_in_bytes`",
        |row, put| hugetlb(row, put, |pages| bytes(Some(pages.usage))),
    ),
    family(
        Gauge,
        K,
        "container_last_seen",
        NONE,
        "When the container was last measured, Unix time.",
        "clock",
        |row, put| some(put, row.usage.measured_at.map(|time| Value::Int(time.whole()))),
    ),
    family(
        Gauge,
        D,
        "container_memory_cache",
        NONE,
        "Page cache.",
        "`memory.stat` `file` (v1 `total_cache`)",
        |row, put| memory(row, put, |memory| bytes(memory.cache)),
    ),
    family(
        Counter,
        K,
        "container_memory_events_high_total",
        NONE,
        "Times reclaim was forced because usage was above memory.high.",
        "v2 `memory.events` `high`",
        |row, put| memory(row, put, |memory| int(memory.events_high)),
    ),
    family(
        Counter,
        K,
        "container_memory_events_max_total",
        NONE,
        "Times usage was about to exceed the limit.",
        "v2 `memory.events` `max`",
        |row, put| memory(row, put, |memory| int(memory.events_max)),
    ),
    family(
        Counter,
        K,
        "container_memory_failcnt",
        NONE,
        "Times usage hit the limit.",
        "v1 `memory.failcnt`",
        |row, put| memory(row, put, |memory| int(memory.failcnt)),
    ),
    family(
        Counter,
        K,
        "container_memory_failures_total",
        &["failure_type", "scope"],
        "Page faults of the container itself and of its hierarchy.",
        "`memory.stat` `pgfault`, `pgmajfault` (v1 hierarchy `total_*`)",
        |row, put| {
            let Some(memory) = &row.usage.memory else { return };
            for (kind, scope, count) in [
                ("pgfault", "container", memory.page_faults),
                ("pgfault", "hierarchy", memory.page_faults_hierarchy),
                ("pgmajfault", "container", memory.major_page_faults),
                ("pgmajfault", "hierarchy", memory.major_page_faults_hierarchy),
            ] {
                if let Some(count) = count {
                    put(&[kind, scope], Value::Int(count));
                }
            }
        },
    ),
    family(
        Gauge,
        K,
        "container_memory_file_dirty_bytes",
        NONE,
        "File cache waiting to be written.",
        "`memory.stat` `file_dirty` (v1 `total_dirty`)",
        |row, put| memory(row, put, |memory| bytes(memory.file_dirty)),
    ),
    family(
        Gauge,
        K,
        "container_memory_file_writeback_bytes",
        NONE,
        "File cache being written.",
        "`memory.stat` `file_writeback` (v1 `total_writeback`)",
        |row, put| memory(row, put, |memory| bytes(memory.file_writeback)),
    ),
    family(
        Gauge,
        K,
        "container_memory_kernel_usage",
        NONE,
        "Kernel memory.",
        "v2 `memory.stat` `kernel`, kernel 5.18; v1 `memory.kmem.usage_in_bytes`",
        |row, put| memory(row, put, |memory| bytes(memory.kernel)),
    ),
    family(
        Gauge,
        K,
        "container_memory_mapped_file",
        NONE,
        "Mapped files.",
        "`memory.stat` `file_mapped` (v1 `total_mapped_file`)",
        |row, put| memory(row, put, |memory| bytes(memory.mapped_file)),
    ),
    family(
        Gauge,
        K,
        "container_memory_max_usage_bytes",
        NONE,
        "Highest memory usage so far.",
        "v2 `memory.peak`, kernel 5.19; v1 `memory.max_usage_in_bytes`",
        |row, put| memory(row, put, |memory| bytes(memory.max_usage)),
    ),
    family(
        Counter,
        K,
        "container_memory_pgscan_total",
        NONE,
        "Pages scanned by reclaim.",
        "v2 `memory.stat` `pgscan`",
        |row, put| memory(row, put, |memory| int(memory.pgscan)),
    ),
    family(
        Counter,
        K,
        "container_memory_pgsteal_total",
        NONE,
        "Pages reclaimed.",
        "v2 `memory.stat` `pgsteal`",
        |row, put| memory(row, put, |memory| int(memory.pgsteal)),
    ),
    family(
        Gauge,
        D,
        "container_memory_rss",
        NONE,
        "Anonymous memory.",
        "`memory.stat` `anon` (v1 `total_rss`)",
        |row, put| memory(row, put, |memory| bytes(memory.rss)),
    ),
    family(
        Gauge,
        D,
        "container_memory_swap",
        NONE,
        "Swap in use.",
        "v2 `memory.swap.current`; v1 `memory.stat` `total_swap`",
        |row, put| memory(row, put, |memory| bytes(memory.swap)),
    ),
    family(
        Gauge,
        K,
        "container_memory_total_active_file_bytes",
        NONE,
        "File cache on the active list.",
        "`memory.stat` `active_file` (v1 `total_active_file`)",
        |row, put| memory(row, put, |memory| bytes(memory.active_file)),
    ),
    family(
        Gauge,
        K,
        "container_memory_total_inactive_file_bytes",
        NONE,
        "File cache on the inactive list.",
        "`memory.stat` `inactive_file` (v1 `total_inactive_file`)",
        |row, put| memory(row, put, |memory| bytes(memory.inactive_file)),
    ),
    family(
        Gauge,
        D,
        "container_memory_usage_bytes",
        NONE,
        "All memory charged to the container, cache included.",
        "v2 `memory.current`; v1 `memory.usage_in_bytes`",
        |row, put| memory(row, put, |memory| bytes(memory.usage)),
    ),
    family(
        Gauge,
        D,
        "container_memory_working_set_bytes",
        NONE,
        "Memory usage less inactive file cache.",
        "usage − inactive file, not below 0",
        |row, put| memory(row, put, |memory| bytes(memory.working_set)),
    ),
    family(
        Counter,
        K,
        "container_memory_workingset_refault_anon_total",
        NONE,
        "Evicted anonymous pages that were needed again.",
        "v2 `memory.stat` `workingset_refault_anon`, kernel 5.9",
        |row, put| memory(row, put, |memory| int(memory.refault_anon)),
    ),
    family(
        Counter,
        K,
        "container_memory_workingset_refault_file_total",
        NONE,
        "Evicted file pages that were needed again.",
        "v2 `memory.stat` `workingset_refault_file`, kernel 5.9",
        |row, put| memory(row, put, |memory| int(memory.refault_file)),
    ),
    family(
        Counter,
        D,
        "container_network_receive_bytes_total",
        INTERFACE,
        "Bytes received.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.receive.bytes.into()),
    ),
    family(
        Counter,
        K,
        "container_network_receive_errors_total",
        INTERFACE,
        "Errors while receiving.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.receive.errors.into()),
    ),
    family(
        Counter,
        D,
        "container_network_receive_packets_dropped_total",
        INTERFACE,
        "Packets dropped while receiving.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.receive.dropped.into()),
    ),
    family(
        Counter,
        D,
        "container_network_receive_packets_total",
        INTERFACE,
        "Packets received.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.receive.packets.into()),
    ),
    family(
        Counter,
        D,
        "container_network_transmit_bytes_total",
        INTERFACE,
        "Bytes sent.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.transmit.bytes.into()),
    ),
    family(
        Counter,
        K,
        "container_network_transmit_errors_total",
        INTERFACE,
        "Errors while sending.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.transmit.errors.into()),
    ),
    family(
        Counter,
        D,
        "container_network_transmit_packets_dropped_total",
        INTERFACE,
        "Packets dropped while sending.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.transmit.dropped.into()),
    ),
    family(
        Counter,
        D,
        "container_network_transmit_packets_total",
        INTERFACE,
        "Packets sent.",
        "`/proc/<pid>/net/dev`",
        |row, put| interface(row, put, |interface| interface.transmit.packets.into()),
    ),
    family(
        Counter,
        K,
        "container_oom_events_total",
        NONE,
        "Processes killed by the out-of-memory killer since the cgroup was made.",
        "v2 `memory.events` `oom_kill`; v1 `memory.oom_control` `oom_kill`, kernel 4.13, not on rows above containers",
        |row, put| some(put, row.usage.oom_kills),
    ),
    family(
        Counter,
        K,
        "container_pressure_cpu_stalled_seconds_total",
        NONE,
        "Time no task could run for want of CPU.",
        "v2 `cpu.pressure` `full`, kernel 5.13",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.cpu.as_ref()), put, |stall| stall.stalled),
    ),
    family(
        Counter,
        K,
        "container_pressure_cpu_waiting_seconds_total",
        NONE,
        "Time some task waited for CPU.",
        "v2 `cpu.pressure` `some`",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.cpu.as_ref()), put, |stall| stall.waiting),
    ),
    family(
        Counter,
        K,
        "container_pressure_io_stalled_seconds_total",
        NONE,
        "Time no task could run for want of I/O.",
        "v2 `io.pressure` `full`",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.io.as_ref()), put, |stall| stall.stalled),
    ),
    family(
        Counter,
        K,
        "container_pressure_io_waiting_seconds_total",
        NONE,
        "Time some task waited for I/O.",
        "v2 `io.pressure` `some`",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.io.as_ref()), put, |stall| stall.waiting),
    ),
    family(
        Counter,
        K,
        "container_pressure_memory_stalled_seconds_total",
        NONE,
        "Time no task could run for want of memory.",
        "v2 `memory.pressure` `full`",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.memory.as_ref()), put, |stall| stall.stalled),
    ),
    family(
        Counter,
        K,
        "container_pressure_memory_waiting_seconds_total",
        NONE,
        "Time some task waited for memory.",
        "v2 `memory.pressure` `some`",
        |row, put| stall(row.usage.pressure.as_ref().and_then(|p| p.memory.as_ref()), put, |stall| stall.waiting),
    ),
    family(Gauge, K, "container_processes", NONE, "Processes in this very cgroup.", "`cgroup.procs`", |row, put| {
        some(put, row.usage.tasks.processes)
    }),
    family(
        Gauge,
        K,
        "container_sockets",
        NONE,
        "Open sockets of the container's processes; needs the fd collector.",
        "`/proc/<pid>/fd`",
        |row, put| some(put, row.usage.descriptors.map(|fds| fds.sockets)),
    ),
    family(
        Gauge,
        K,
        "container_spec_cpu_period",
        NONE,
        "CPU quota enforcement period in microseconds.",
        "v2 `cpu.max`; v1 `cpu.cfs_period_us`",
        |row, put| spec(row, put, |spec| int(spec.cpu_period_micros)),
    ),
    family(
        Gauge,
        K,
        "container_spec_cpu_quota",
        NONE,
        "CPU time allowed per period in microseconds; absent without a limit.",
        "v2 `cpu.max`; v1 `cpu.cfs_quota_us`",
        |row, put| {
            spec(row, put, |spec| match spec.cpu_quota_micros? {
                Limit::At(quota) => Some(Value::Int(quota)),
                Limit::Max => None,
            });
        },
    ),
    family(
        Gauge,
        K,
        "container_spec_cpu_shares",
        NONE,
        "CPU shares.",
        "v2 2 + (`cpu.weight` − 1) × 262142 / 9999; v1 `cpu.shares`",
        |row, put| spec(row, put, |spec| int(spec.cpu_shares)),
    ),
    family(
        Gauge,
        K,
        "container_spec_memory_limit_bytes",
        NONE,
        "Memory limit; 0 without one.",
        "v2 `memory.max`; v1 `memory.limit_in_bytes`; `/` row `MemTotal`",
        |row, put| spec(row, put, |spec| limit(spec.memory_limit)),
    ),
    family(
        Gauge,
        K,
        "container_spec_memory_reservation_limit_bytes",
        NONE,
        "Memory reservation; 0 without one.",
        "v2 `memory.min`; v1 `memory.soft_limit_in_bytes`",
        |row, put| spec(row, put, |spec| limit(spec.memory_reservation)),
    ),
    family(
        Gauge,
        K,
        "container_spec_memory_swap_limit_bytes",
        NONE,
        "Swap limit; 0 without one. On cgroup v1 memory and swap together.",
        "v2 `memory.swap.max`; v1 `memory.memsw.limit_in_bytes`; `/` row `SwapTotal`",
        |row, put| spec(row, put, |spec| limit(spec.memory_swap_limit)),
    ),
    family(
        Gauge,
        K,
        "container_start_time_seconds",
        NONE,
        "When the container was started, Unix time.",
        "CRI `started_at`, else the cgroup's modification time; `/` row boot time",
        |row, put| some(put, row.usage.start_time.map(|time| Value::Int(time.whole()))),
    ),
    family(Gauge, K, "container_threads", NONE, "Threads in the cgroup and below.", "`pids.current`", |row, put| {
        some(put, row.usage.tasks.threads)
    }),
    family(Gauge, K, "container_threads_max", NONE, "Bound on threads; 0 without one.", "`pids.max`", |row, put| {
        some(put, limit(row.usage.tasks.threads_max))
    }),
    family(
        Gauge,
        K,
        "container_ulimits_soft",
        &["ulimit"],
        "Soft limit of the container's first process; -1 when unlimited.",
        "`/proc/<pid>/limits`",
        |row, put| {
            if let Some(files) = row.usage.max_open_files {
                let value = match files {
                    Limit::Max => Value::Float(-1.0),
                    Limit::At(files) => Value::Int(files),
                };
                put(&["max_open_files"], value);
            }
        },
    ),
];
