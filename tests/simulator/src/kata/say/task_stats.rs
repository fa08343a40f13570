//! What `Stats` of the Task service says of one container. Both runtimes translate the agent's answer, and both lose
//! something on the way.

use protobuf::MessageField;
use protobuf::well_known_types::any::Any;

use super::agent_stats;
use crate::kata::kind::{GuestCgroup, HostCgroup, Runtime};
use crate::kata::truth::ContainerTruth;
use crate::kata::wire::agent::{BlkioStatsEntry, CgroupStats, MemoryData};
use crate::kata::wire::{cgroups_v1 as v1, cgroups_v2 as v2};

/// The format of cgroup v1.
pub(crate) const V1: &str = "io.containerd.cgroups.v1.Metrics";
/// The format of cgroup v2.
pub(crate) const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// Whose shim answers, about which guest, on which host.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) runtime: Runtime,
    pub(crate) host: HostCgroup,
    pub(crate) agent: agent_stats::Manner,
}

/// The payload with its type: runtime-rs always speaks v1, the Go shim what its host speaks.
pub(crate) fn payload(container: &ContainerTruth, manner: Manner) -> Any {
    let response = agent_stats::response(container, manner.agent);
    let stats = response.cgroup_stats.unwrap_or_default();
    let (type_url, value) = match (manner.runtime, manner.host) {
        (Runtime::Go, HostCgroup::V2) => (V2, encoded(&go_v2(&stats))),
        (Runtime::Go, HostCgroup::V1) => (V1, encoded(&go_v1(&stats))),
        (Runtime::Rust, _) => (V1, encoded(&rust_v1(&stats, manner.agent.guest))),
    };
    Any { type_url: type_url.to_owned(), value, ..Default::default() }
}

fn encoded(message: &impl protobuf::Message) -> Vec<u8> {
    message.write_to_bytes().expect("a message without required fields can be written")
}

/// A key of the agent's map; 0 where the guest's kernel does not have it.
fn key(stats: &CgroupStats, name: &str) -> u64 {
    stats.memory_stats.stats.iter().find(|stat| stat.key == name).map_or(0, |stat| stat.value)
}

/// The keys are v2's whatever the guest has; user and system time are exchanged; of the block devices the last wins.
fn go_v2(stats: &CgroupStats) -> v2::Metrics {
    let usage = &stats.cpu_stats.cpu_usage;
    let throttling = &stats.cpu_stats.throttling_data;
    let memory = &stats.memory_stats;
    let cpu = v2::CPUStat {
        usage_usec: usage.total_usage / 1000,
        user_usec: usage.usage_in_kernelmode / 1000,
        system_usec: usage.usage_in_usermode / 1000,
        nr_periods: throttling.periods,
        nr_throttled: throttling.throttled_periods,
        throttled_usec: throttling.throttled_time / 1000,
        ..Default::default()
    };
    let key = |name| key(stats, name);
    let memory = v2::MemoryStat {
        anon: key("anon"),
        file: key("file"),
        kernel_stack: key("kernel_stack"),
        slab: key("slab"),
        sock: key("sock"),
        shmem: key("shmem"),
        file_mapped: key("file_mapped"),
        file_dirty: key("file_dirty"),
        file_writeback: key("file_writeback"),
        anon_thp: key("anon_thp"),
        inactive_anon: key("inactive_anon"),
        active_anon: key("active_anon"),
        inactive_file: key("inactive_file"),
        active_file: key("active_file"),
        unevictable: key("unevictable"),
        slab_reclaimable: key("slab_reclaimable"),
        slab_unreclaimable: key("slab_unreclaimable"),
        pgfault: key("pgfault"),
        pgmajfault: key("pgmajfault"),
        usage: memory.usage.usage,
        usage_limit: memory.usage.limit,
        swap_usage: memory.swap_usage.usage,
        swap_limit: memory.swap_usage.limit,
        ..Default::default()
    };
    let mut io = v2::IOStat::default();
    if let Some(last) = stats.blkio_stats.io_service_bytes_recursive.last() {
        let of = |op: &str| {
            let entries = &stats.blkio_stats.io_service_bytes_recursive;
            entries.iter().filter(|entry| entry.op == op).map(|entry| entry.value).next_back().unwrap_or_default()
        };
        io.usage.push(v2::IOEntry {
            major: last.major,
            minor: last.minor,
            rbytes: of("read"),
            wbytes: of("write"),
            ..Default::default()
        });
    }
    v2::Metrics {
        pids: MessageField::some(v2::PidsStat { current: stats.pids_stats.current, ..Default::default() }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        io: MessageField::some(io),
        hugetlb: page_sizes(stats).map(|pagesize| v2::HugeTlbStat { pagesize, ..Default::default() }).collect(),
        ..Default::default()
    }
}

/// The keys are v1's whatever the guest has.
fn go_v1(stats: &CgroupStats) -> v1::Metrics {
    let key = |name| key(stats, name);
    let memory = v1::MemoryStat {
        cache: key("cache"),
        rss: key("rss"),
        rss_huge: key("rss_huge"),
        mapped_file: key("mapped_file"),
        dirty: key("dirty"),
        writeback: key("writeback"),
        pg_pg_in: key("pgpgin"),
        pg_pg_out: key("pgpgout"),
        pg_fault: key("pgfault"),
        pg_maj_fault: key("pgmajfault"),
        inactive_anon: key("inactive_anon"),
        active_anon: key("active_anon"),
        inactive_file: key("inactive_file"),
        active_file: key("active_file"),
        unevictable: key("unevictable"),
        hierarchical_memory_limit: key("hierarchical_memory_limit"),
        hierarchical_swap_limit: key("hierarchical_memsw_limit"),
        total_cache: key("total_cache"),
        total_rss: key("total_rss"),
        total_rss_huge: key("total_rss_huge"),
        total_mapped_file: key("total_mapped_file"),
        total_dirty: key("total_dirty"),
        total_writeback: key("total_writeback"),
        total_pg_pg_in: key("total_pgpgin"),
        total_pg_pg_out: key("total_pgpgout"),
        total_pg_fault: key("total_pgfault"),
        total_pg_maj_fault: key("total_pgmajfault"),
        total_inactive_anon: key("total_inactive_anon"),
        total_active_anon: key("total_active_anon"),
        total_inactive_file: key("total_inactive_file"),
        total_active_file: key("total_active_file"),
        total_unevictable: key("total_unevictable"),
        ..entries(stats)
    };
    metrics_v1(stats, memory)
}

/// It looks for names of v1, some of which no kernel has (`pg_fault`), and never for `active_anon`.
fn rust_v1(stats: &CgroupStats, guest: GuestCgroup) -> v1::Metrics {
    let key = |name| key(stats, name);
    // A v2 guest has four of these names.
    let total = |name| if guest == GuestCgroup::V1 { key(name) } else { 0 };
    let memory = v1::MemoryStat {
        cache: stats.memory_stats.cache,
        rss: key("rss"),
        rss_huge: key("rss_huge"),
        mapped_file: key("mapped_file"),
        dirty: key("dirty"),
        writeback: key("writeback"),
        inactive_anon: key("inactive_anon"),
        inactive_file: key("inactive_file"),
        active_file: key("active_file"),
        unevictable: key("unevictable"),
        hierarchical_memory_limit: key("hierarchical_memory_limit"),
        hierarchical_swap_limit: key("hierarchical_swap_limit"),
        total_cache: total("total_cache"),
        total_rss: total("total_rss"),
        total_rss_huge: total("total_rss_huge"),
        total_mapped_file: total("total_mapped_file"),
        total_dirty: total("total_dirty"),
        total_writeback: total("total_writeback"),
        total_inactive_anon: total("total_inactive_anon"),
        total_active_anon: total("total_active_anon"),
        total_inactive_file: total("total_inactive_file"),
        total_active_file: total("total_active_file"),
        total_unevictable: total("total_unevictable"),
        ..entries(stats)
    };
    metrics_v1(stats, memory)
}

/// The entries that both runtimes copy.
fn entries(stats: &CgroupStats) -> v1::MemoryStat {
    let entry = |data: &MessageField<MemoryData>| {
        data.as_ref().map_or_else(MessageField::none, |data| {
            MessageField::some(v1::MemoryEntry {
                limit: data.limit,
                usage: data.usage,
                max: data.max_usage,
                failcnt: data.failcnt,
                ..Default::default()
            })
        })
    };
    v1::MemoryStat {
        usage: entry(&stats.memory_stats.usage),
        swap: entry(&stats.memory_stats.swap_usage),
        kernel: entry(&stats.memory_stats.kernel_usage),
        ..Default::default()
    }
}

fn metrics_v1(stats: &CgroupStats, memory: v1::MemoryStat) -> v1::Metrics {
    let usage = &stats.cpu_stats.cpu_usage;
    let throttling = &stats.cpu_stats.throttling_data;
    let cpu = v1::CPUStat {
        usage: MessageField::some(v1::CPUUsage {
            total: usage.total_usage,
            kernel: usage.usage_in_kernelmode,
            user: usage.usage_in_usermode,
            ..Default::default()
        }),
        throttling: MessageField::some(v1::Throttle {
            periods: throttling.periods,
            throttled_periods: throttling.throttled_periods,
            throttled_time: throttling.throttled_time,
            ..Default::default()
        }),
        ..Default::default()
    };
    let list = |entries: &[BlkioStatsEntry]| entries.iter().map(block_entry).collect();
    let blkio = v1::BlkIOStat {
        io_service_bytes_recursive: list(&stats.blkio_stats.io_service_bytes_recursive),
        io_serviced_recursive: list(&stats.blkio_stats.io_serviced_recursive),
        ..Default::default()
    };
    v1::Metrics {
        hugetlb: page_sizes(stats).map(|pagesize| v1::HugetlbStat { pagesize, ..Default::default() }).collect(),
        pids: MessageField::some(v1::PidsStat { current: stats.pids_stats.current, ..Default::default() }),
        cpu: MessageField::some(cpu),
        memory: MessageField::some(memory),
        blkio: MessageField::some(blkio),
        ..Default::default()
    }
}

fn block_entry(entry: &BlkioStatsEntry) -> v1::BlkIOEntry {
    v1::BlkIOEntry {
        op: entry.op.clone(),
        major: entry.major,
        minor: entry.minor,
        value: entry.value,
        ..Default::default()
    }
}

fn page_sizes(stats: &CgroupStats) -> impl Iterator<Item = String> + '_ {
    stats.hugetlb_stats.keys().cloned()
}
