//! A shim's answer to Task `Stats`: the agent's message squeezed into the format of a host's cgroup.
//!
//! Which format, and what is lost on the way, depends on the runtime and not on the guest, so the guest's cgroup
//! version must be guessed from what came through. What is known to be right in every combination is CPU, memory in
//! use and its limit, threads, and bandwidth periods.

#[cfg(test)]
mod tests;

use protobuf::well_known_types::any::Any;

use crate::collect::kata::stats::{
    Guest, HugePages, IoEntry, cfs, cpu, devices, filled, huge_pages, spec, swap, tasks,
};
use crate::model::inventory::KataRuntime;
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Cpu, DeviceIo, Memory, Usage};
use crate::protos::{cgroups_v1, cgroups_v2, decode};

/// Type names with and without the prefixes that containerd has used over time end in these.
const V1: &str = "io.containerd.cgroups.v1.Metrics";
const V2: &str = "io.containerd.cgroups.v2.Metrics";

/// Longest type name that is repeated in an error.
const MAX_QUOTE_BYTES: usize = 100;

/// Why a shim's answer tells nothing.
#[derive(Debug, thiserror::Error)]
pub enum StatsError {
    /// Not one of the two formats.
    #[error("stats of unknown type {0:?}")]
    Type(String),
    /// Not what its type says.
    #[error("decode stats")]
    Decode(#[from] protobuf::Error),
}

/// Usage of a container, from its shim's `Stats`.
pub fn of_task(stats: &Any, runtime: KataRuntime) -> Result<Usage, StatsError> {
    // `type.googleapis.com/` and `types.containerd.io/` come before a slash.
    let name = stats.type_url.rsplit_once('/').map_or(&*stats.type_url, |(_, name)| name);
    match name {
        V1 => Ok(of_v1(&decode(&stats.value)?, runtime)),
        V2 => Ok(of_v2(&decode(&stats.value)?, runtime)),
        _ => Err(StatsError::Type(name[..name.floor_char_boundary(MAX_QUOTE_BYTES)].to_owned())),
    }
}

fn of_v1(stats: &cgroups_v1::Metrics, runtime: KataRuntime) -> Usage {
    let guest = match runtime {
        KataRuntime::Go => guest_behind_go_v1(&stats.memory),
        KataRuntime::Rs => guest_behind_rs(&stats.memory),
    };
    let usage = &stats.cpu.usage;
    let throttling = stats
        .cpu
        .throttling
        .as_ref()
        .map(|data| cfs(guest, data.periods, data.throttled_periods, Seconds::from_nanos(data.throttled_time)));
    Usage {
        cpu: cpu(
            Seconds::from_nanos(usage.total),
            Seconds::from_nanos(usage.user),
            Seconds::from_nanos(usage.kernel),
            throttling,
        ),
        memory: memory_of_v1(&stats.memory, guest, runtime),
        tasks: tasks(stats.pids.current, stats.pids.limit),
        io: io_of_v1(guest, &stats.blkio),
        hugetlb: huge_pages(
            guest,
            stats.hugetlb.iter().map(|pages| HugePages {
                page_size: &pages.pagesize,
                usage: pages.usage,
                max_usage: pages.max,
                failcnt: Some(pages.failcnt),
            }),
        ),
        spec: spec(stats.memory.usage.limit, stats.memory.swap.limit),
        ..Usage::default()
    }
}

/// The Go runtime copies keys of v1 only. A process that lives has anonymous or file memory, so where all of these are
/// zero the guest does not have the keys; `pgfault` is spelt the same in both versions and shows that it was read.
fn guest_behind_go_v1(memory: &cgroups_v1::MemoryStat) -> Guest {
    if [memory.rss, memory.cache, memory.mapped_file, memory.total_inactive_file].iter().any(|bytes| *bytes > 0) {
        Guest::V1
    } else if memory.pg_fault > 0 {
        Guest::V2
    } else {
        Guest::Unknown
    }
}

/// The Rust runtime copies by name as well, among others the limit that v1 alone has in `memory.stat`, where it is
/// never zero, and four keys that are spelt the same in both versions.
fn guest_behind_rs(memory: &cgroups_v1::MemoryStat) -> Guest {
    let common = [memory.inactive_anon, memory.inactive_file, memory.active_file, memory.unevictable];
    if memory.hierarchical_memory_limit > 0 {
        Guest::V1
    } else if common.iter().any(|bytes| *bytes > 0) {
        Guest::V2
    } else {
        Guest::Unknown
    }
}

fn memory_of_v1(stats: &cgroups_v1::MemoryStat, guest: Guest, runtime: KataRuntime) -> Option<Memory> {
    let usage = filled(stats.usage.usage)?;
    let less = |inactive_file: u64| Some(Bytes(usage.saturating_sub(inactive_file)));
    let common = Memory {
        usage: Some(Bytes(usage)),
        max_usage: filled(stats.usage.max).map(Bytes),
        swap: stats.swap.as_ref().and_then(|entry| swap(guest, entry.usage, usage)),
        ..Memory::default()
    };
    let kernel = stats.kernel.as_ref().and_then(|entry| (entry.limit > 0).then_some(Bytes(entry.usage)));
    Some(match (guest, runtime) {
        // `rss`, `cache` and `mapped_file` carry the totals with child cgroups here.
        (Guest::V1, KataRuntime::Go) => Memory {
            working_set: less(stats.total_inactive_file),
            rss: Some(Bytes(stats.rss)),
            cache: Some(Bytes(stats.cache)),
            mapped_file: Some(Bytes(stats.mapped_file)),
            inactive_file: Some(Bytes(stats.total_inactive_file)),
            failcnt: Some(stats.usage.failcnt),
            kernel,
            page_faults: Some(stats.pg_fault),
            major_page_faults: Some(stats.pg_maj_fault),
            ..common
        },
        // Page faults are looked for under names that no kernel uses.
        (Guest::V1, KataRuntime::Rs) => Memory {
            working_set: less(stats.total_inactive_file),
            rss: Some(Bytes(stats.total_rss)),
            cache: Some(Bytes(stats.total_cache)),
            mapped_file: Some(Bytes(stats.total_mapped_file)),
            active_file: Some(Bytes(stats.total_active_file)),
            inactive_file: Some(Bytes(stats.total_inactive_file)),
            file_dirty: Some(Bytes(stats.total_dirty)),
            failcnt: Some(stats.usage.failcnt),
            kernel,
            ..common
        },
        (Guest::V2, KataRuntime::Go) => Memory {
            page_faults: Some(stats.pg_fault),
            major_page_faults: Some(stats.pg_maj_fault),
            page_faults_hierarchy: Some(stats.pg_fault),
            major_page_faults_hierarchy: Some(stats.pg_maj_fault),
            ..common
        },
        // What v1 calls the cgroup's own inactive file memory is on v2 the whole of it, child cgroups included: the
        // very key the working set needs, in a field where nobody looks for it.
        (Guest::V2, KataRuntime::Rs) => Memory {
            working_set: less(stats.inactive_file),
            active_file: Some(Bytes(stats.active_file)),
            inactive_file: Some(Bytes(stats.inactive_file)),
            ..common
        },
        (Guest::Unknown, _) => common,
    })
}

fn io_of_v1(guest: Guest, stats: &cgroups_v1::BlkIOStat) -> Vec<DeviceIo> {
    fn entries(list: &[cgroups_v1::BlkIOEntry]) -> impl Iterator<Item = IoEntry<'_>> {
        list.iter().map(|entry| IoEntry { major: entry.major, minor: entry.minor, op: &entry.op, value: entry.value })
    }
    devices(guest, entries(&stats.io_service_bytes_recursive), entries(&stats.io_serviced_recursive))
}

fn of_v2(stats: &cgroups_v2::Metrics, runtime: KataRuntime) -> Usage {
    let guest = guest_behind_v2(&stats.memory);
    Usage {
        cpu: cpu_of_v2(guest, &stats.cpu, runtime),
        memory: memory_of_v2(&stats.memory, guest),
        tasks: tasks(stats.pids.current, stats.pids.limit),
        // The Go runtime folds all devices into one entry, the last one's number on it.
        io: match runtime {
            KataRuntime::Go => Vec::new(),
            KataRuntime::Rs => io_of_v2(&stats.io),
        },
        hugetlb: huge_pages(
            guest,
            stats.hugetlb.iter().map(|pages| HugePages {
                page_size: &pages.pagesize,
                usage: pages.current,
                max_usage: pages.max,
                // Never filled in.
                failcnt: filled(pages.failcnt),
            }),
        ),
        spec: spec(stats.memory.usage_limit, stats.memory.swap_limit),
        ..Usage::default()
    }
}

/// `anon` and `file` are keys of v2; older runtimes copy no key at all, and then nothing tells.
fn guest_behind_v2(memory: &cgroups_v2::MemoryStat) -> Guest {
    if memory.anon > 0 || memory.file > 0 {
        Guest::V2
    } else if memory.pgfault > 0 {
        Guest::V1
    } else {
        Guest::Unknown
    }
}

fn cpu_of_v2(guest: Guest, stats: &cgroups_v2::CPUStat, runtime: KataRuntime) -> Option<Cpu> {
    let (user, system) = match runtime {
        // Put into each other's field by setCPUStatsV2.
        KataRuntime::Go => (stats.system_usec, stats.user_usec),
        KataRuntime::Rs => (stats.user_usec, stats.system_usec),
    };
    let throttling = cfs(guest, stats.nr_periods, stats.nr_throttled, Seconds::from_micros(stats.throttled_usec));
    cpu(
        Seconds::from_micros(stats.usage_usec),
        Seconds::from_micros(user),
        Seconds::from_micros(system),
        Some(throttling),
    )
}

fn memory_of_v2(stats: &cgroups_v2::MemoryStat, guest: Guest) -> Option<Memory> {
    let usage = filled(stats.usage)?;
    let common = Memory {
        usage: Some(Bytes(usage)),
        max_usage: filled(stats.max_usage).map(Bytes),
        swap: swap(guest, stats.swap_usage, usage),
        ..Memory::default()
    };
    Some(match guest {
        // Of kernel memory only some parts come through, so there is no sum.
        Guest::V2 => Memory {
            working_set: Some(Bytes(usage.saturating_sub(stats.inactive_file))),
            rss: Some(Bytes(stats.anon)),
            cache: Some(Bytes(stats.file)),
            mapped_file: Some(Bytes(stats.file_mapped)),
            active_file: Some(Bytes(stats.active_file)),
            inactive_file: Some(Bytes(stats.inactive_file)),
            file_dirty: Some(Bytes(stats.file_dirty)),
            file_writeback: Some(Bytes(stats.file_writeback)),
            page_faults: Some(stats.pgfault),
            major_page_faults: Some(stats.pgmajfault),
            page_faults_hierarchy: Some(stats.pgfault),
            major_page_faults_hierarchy: Some(stats.pgmajfault),
            ..common
        },
        Guest::V1 => Memory { page_faults: Some(stats.pgfault), major_page_faults: Some(stats.pgmajfault), ..common },
        Guest::Unknown => common,
    })
}

fn io_of_v2(stats: &cgroups_v2::IOStat) -> Vec<DeviceIo> {
    let entries = stats.usage.iter().flat_map(|entry| {
        [("read", entry.rbytes), ("write", entry.wbytes), ("rios", entry.rios), ("wios", entry.wios)]
            .map(|(op, value)| IoEntry { major: entry.major, minor: entry.minor, op, value })
    });
    devices(Guest::V2, entries, [].into_iter())
}
