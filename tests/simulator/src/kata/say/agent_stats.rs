//! What `StatsContainer` says of one container: filled by the guest's cgroup version, with its gaps.

use protobuf::{MessageField, SpecialFields};

use crate::kata::kind::GuestCgroup;
use crate::kata::truth::{BlockIoTruth, ContainerTruth, CpuTruth, MemoryTruth};
use crate::kata::wire::agent::{
    BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, CpuUsage, HugetlbStats, MemoryData, MemoryStat, MemoryStats,
    PidsStats, StatsContainerResponse, ThrottlingData,
};

/// `percpu_usage` of `CpuUsage`: told by guests, asked for by nobody, and therefore not in the proto file.
const PER_CPU: u32 = 2;

/// No limit, as a v1 kernel tells it.
const NO_LIMIT_V1: u64 = 9_223_372_036_854_771_712;

/// No limit, as -1 cast by the agent.
const NO_LIMIT_V2: u64 = u64::MAX;

/// How the agent fills its message.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) guest: GuestCgroup,
    pub(crate) reports_throttled_time: bool,
    /// Microseconds for nanoseconds, KiB for bytes.
    pub(crate) wrong_units: bool,
}

/// The whole response.
pub(crate) fn response(container: &ContainerTruth, manner: Manner) -> StatsContainerResponse {
    let memory = &container.memory;
    let v1 = manner.guest == GuestCgroup::V1;
    let mut stats = CgroupStats {
        cpu_stats: MessageField::some(cpu(&container.cpu, manner)),
        memory_stats: MessageField::some(if v1 { memory_v1(memory) } else { memory_v2(memory) }),
        pids_stats: MessageField::some(PidsStats { current: container.pids, ..Default::default() }),
        blkio_stats: MessageField::some(if v1 { blkio_v1(&container.block_io) } else { blkio_v2(&container.block_io) }),
        ..Default::default()
    };
    stats.hugetlb_stats = ["2MB", "1GB"].map(|size| (size.to_owned(), HugetlbStats::default())).into();
    if manner.wrong_units {
        spoil(&mut stats);
    }
    StatsContainerResponse { cgroup_stats: MessageField::some(stats), ..Default::default() }
}

fn cpu(cpu: &CpuTruth, manner: Manner) -> CpuStats {
    let v1 = manner.guest == GuestCgroup::V1;
    // A v1 guest tells user and kernel time in ticks of 10 ms.
    let told = |nanos: u64| if v1 { nanos / 10_000_000 * 10_000_000 } else { nanos };
    let mut usage = CpuUsage {
        total_usage: cpu.total_ns(),
        usage_in_kernelmode: told(cpu.kernel_ns),
        usage_in_usermode: told(cpu.user_ns),
        ..Default::default()
    };
    if v1 {
        add_numbers(&mut usage.special_fields, PER_CPU, &cpu.per_cpu_ns);
    }
    let throttling = ThrottlingData {
        periods: cpu.periods,
        throttled_periods: cpu.throttled_periods,
        // The key that is asked for does not exist on v2.
        throttled_time: if v1 || manner.reports_throttled_time { cpu.throttled_ns } else { 0 },
        ..Default::default()
    };
    CpuStats {
        cpu_usage: MessageField::some(usage),
        throttling_data: MessageField::some(throttling),
        ..Default::default()
    }
}

/// Adds a packed list of numbers that the generated message has no field for.
pub(super) fn add_numbers(fields: &mut SpecialFields, number: u32, values: &[u64]) {
    let mut packed = Vec::new();
    for value in values {
        let mut left = *value;
        while left >= 0x80 {
            packed.push(u8::try_from(left & 0x7f).unwrap_or_default() | 0x80);
            left >>= 7;
        }
        packed.push(u8::try_from(left).unwrap_or_default());
    }
    fields.mut_unknown_fields().add_length_delimited(number, packed);
}

fn data(usage: u64, max_usage: u64, failcnt: u64, limit: u64) -> MessageField<MemoryData> {
    MessageField::some(MemoryData { usage, max_usage, failcnt, limit, ..Default::default() })
}

fn memory_v2(memory: &MemoryTruth) -> MemoryStats {
    MemoryStats {
        usage: data(memory.usage(), memory.peak, 0, memory.limit.unwrap_or(NO_LIMIT_V2)),
        swap_usage: data(memory.swap, 0, 0, 0),
        kernel_usage: data(0, 0, 0, NO_LIMIT_V2),
        stats: v2_keys(memory).into_iter().map(memory_stat).collect(),
        ..Default::default()
    }
}

fn memory_v1(memory: &MemoryTruth) -> MemoryStats {
    let limit = memory.limit.unwrap_or(NO_LIMIT_V1);
    MemoryStats {
        cache: memory.file(),
        usage: data(memory.usage(), memory.peak, memory.failures, limit),
        // Memory and swap together.
        swap_usage: data(memory.usage() + memory.swap, memory.peak + memory.swap, 0, NO_LIMIT_V1),
        kernel_usage: data(memory.kernel(), memory.kernel(), 0, NO_LIMIT_V1),
        use_hierarchy: true,
        stats: v1_keys(memory).into_iter().map(memory_stat).collect(),
        ..Default::default()
    }
}

/// `memory.stat` of a v2 guest.
pub(super) fn v2_keys(memory: &MemoryTruth) -> Vec<(String, u64)> {
    let keys = [
        ("active_anon", memory.active_anon),
        ("active_file", memory.active_file),
        ("anon", memory.anon()),
        ("anon_thp", 0),
        ("file", memory.file()),
        ("file_dirty", memory.file_dirty),
        ("file_mapped", memory.file_mapped),
        ("file_thp", 0),
        ("file_writeback", 0),
        ("inactive_anon", memory.inactive_anon),
        ("inactive_file", memory.inactive_file),
        ("kernel", memory.kernel()),
        ("kernel_stack", memory.kernel_stack),
        ("pagetables", memory.page_tables),
        ("percpu", memory.percpu),
        ("pgactivate", memory.page_faults / 9),
        ("pgdeactivate", 0),
        ("pgfault", memory.page_faults),
        ("pglazyfree", 0),
        ("pglazyfreed", 0),
        ("pgmajfault", memory.major_page_faults),
        ("pgrefill", 0),
        ("pgscan", 0),
        ("pgsteal", 0),
        ("sec_pagetables", 0),
        ("shmem", memory.shmem),
        ("shmem_thp", 0),
        ("slab", memory.slab()),
        ("slab_reclaimable", memory.slab_reclaimable),
        ("slab_unreclaimable", memory.slab_unreclaimable),
        ("sock", memory.sock),
        ("swapcached", 0),
        ("thp_collapse_alloc", 0),
        ("thp_fault_alloc", 0),
        ("unevictable", 0),
        ("vmalloc", 0),
        ("workingset_activate_anon", 0),
        ("workingset_activate_file", 0),
        ("workingset_nodereclaim", 0),
        ("workingset_refault_anon", 0),
        ("workingset_refault_file", 0),
        ("workingset_restore_anon", 0),
        ("workingset_restore_file", 0),
    ];
    keys.into_iter().map(|(key, value)| (key.to_owned(), value)).collect()
}

/// `memory.stat` of a v1 guest: every key for the cgroup itself, and again as `total_…` for what is below it, too.
pub(super) fn v1_keys(memory: &MemoryTruth) -> Vec<(String, u64)> {
    let own = [
        ("active_anon", memory.active_anon),
        ("active_file", memory.active_file),
        ("cache", memory.file()),
        ("dirty", memory.file_dirty),
        ("inactive_anon", memory.inactive_anon),
        ("inactive_file", memory.inactive_file),
        ("mapped_file", memory.file_mapped),
        ("pgfault", memory.page_faults),
        ("pgmajfault", memory.major_page_faults),
        ("pgpgin", memory.page_faults * 2),
        ("pgpgout", memory.page_faults / 2),
        ("rss", memory.anon()),
        ("rss_huge", 0),
        ("shmem", memory.shmem),
        ("swap", memory.swap),
        ("swapcached", 0),
        ("unevictable", 0),
        ("workingset_refault_anon", 0),
        ("workingset_refault_file", 0),
        ("writeback", 0),
    ];
    let both = own.into_iter().flat_map(|(key, value)| [(key.to_owned(), value), (format!("total_{key}"), value)]);
    let limits = [
        ("hierarchical_memory_limit".to_owned(), memory.limit.unwrap_or(NO_LIMIT_V1)),
        ("hierarchical_memsw_limit".to_owned(), NO_LIMIT_V1),
    ];
    both.chain(limits).collect()
}

/// An entry of the agent's map.
pub(super) fn memory_stat((key, value): (String, u64)) -> MemoryStat {
    MemoryStat { key, value, ..Default::default() }
}

/// One list for bytes and operations, and every value 0: the parser looks for `:` where v2 has `=`.
fn blkio_v2(devices: &[BlockIoTruth]) -> BlkioStats {
    let ops = ["read", "write", "rios", "wios", "dbytes", "dios"];
    let entries = devices.iter().flat_map(|device| ops.map(|op| entry(device, op, 0)));
    BlkioStats { io_service_bytes_recursive: entries.collect(), ..Default::default() }
}

fn blkio_v1(devices: &[BlockIoTruth]) -> BlkioStats {
    let list = |read: fn(&BlockIoTruth) -> (u64, u64)| -> Vec<_> {
        devices
            .iter()
            .flat_map(|device| {
                let (reads, writes) = read(device);
                let total = reads + writes;
                [("read", reads), ("write", writes), ("sync", total), ("async", 0), ("total", total)]
                    .map(|(op, value)| entry(device, op, value))
            })
            .collect()
    };
    BlkioStats {
        io_service_bytes_recursive: list(|device| (device.read_bytes, device.write_bytes)),
        io_serviced_recursive: list(|device| (device.reads, device.writes)),
        ..Default::default()
    }
}

fn entry(device: &BlockIoTruth, op: &str, value: u64) -> BlkioStatsEntry {
    BlkioStatsEntry { major: device.major, minor: device.minor, op: op.to_owned(), value, ..Default::default() }
}

fn spoil(stats: &mut CgroupStats) {
    if let Some(usage) = stats.cpu_stats.mut_or_insert_default().cpu_usage.as_mut() {
        usage.total_usage /= 1000;
        usage.usage_in_usermode /= 1000;
        usage.usage_in_kernelmode /= 1000;
    }
    let memory = stats.memory_stats.mut_or_insert_default();
    if let Some(usage) = memory.usage.as_mut() {
        usage.usage /= 1024;
    }
    for stat in &mut memory.stats {
        stat.value /= 1024;
    }
}
