//! A shim's answer to Task `Stats`: the agent's message squeezed into the format of a host's cgroup.
//!
//! Which format, and what is lost on the way, depends on the runtime and not on the guest, so the guest's cgroup
//! version must be guessed from what came through. What is known to be right in every combination is CPU, memory in
//! use and its limit, threads, and bandwidth periods.

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

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use protobuf::Message;

    use super::*;
    use crate::model::units::Limit;
    use crate::model::usage::{Cfs, Hugetlb, Spec, Tasks};
    use crate::protos::task::StatsResponse;

    const SPIN: &[u8] = include_bytes!("../../../../tests/fixtures/kata/task-stats-rs-spin.pb");
    const WRITER: &[u8] = include_bytes!("../../../../tests/fixtures/kata/task-stats-rs-writer.pb");

    fn recorded(bytes: &[u8]) -> Any {
        decode::<StatsResponse>(bytes).unwrap().stats.unwrap()
    }

    fn any(type_url: &str, message: &impl Message) -> Any {
        Any { type_url: type_url.into(), value: message.write_to_bytes().unwrap(), ..Any::default() }
    }

    fn v1(memory: cgroups_v1::MemoryStat) -> Any {
        let usage = cgroups_v1::CPUUsage { total: 7_000, kernel: 3_000, user: 4_000, ..Default::default() };
        let throttling =
            cgroups_v1::Throttle { periods: 10, throttled_periods: 5, throttled_time: 0, ..Default::default() };
        let cpu = cgroups_v1::CPUStat {
            usage: Some(usage).into(),
            throttling: Some(throttling).into(),
            ..Default::default()
        };
        any(V1, &cgroups_v1::Metrics { cpu: Some(cpu).into(), memory: Some(memory).into(), ..Default::default() })
    }

    /// As both runtimes fill `usage`, `swap` and `kernel`: 1000 bytes in use; on v1 swap counts memory as well.
    fn entries(swap: u64, kernel_limit: u64) -> cgroups_v1::MemoryStat {
        let entry = |usage, limit| Some(cgroups_v1::MemoryEntry { usage, limit, ..Default::default() }).into();
        cgroups_v1::MemoryStat {
            usage: entry(1000, 4096),
            swap: entry(swap, 0),
            kernel: entry(50, kernel_limit),
            ..Default::default()
        }
    }

    #[test]
    fn rust_runtime_with_a_cgroup2_guest_as_recorded() {
        let usage = of_task(&recorded(SPIN), KataRuntime::Rs).unwrap();
        let expected = Usage {
            cpu: Some(Cpu {
                usage: Seconds::from_nanos(53_164_637_000),
                user: Some(Seconds::from_nanos(52_089_212_000)),
                system: Some(Seconds::from_nanos(1_075_425_000)),
                cfs: Some(Cfs {
                    periods: 1072,
                    throttled_periods: 1036,
                    throttled: None,
                    burst_periods: None,
                    burst: None,
                }),
            }),
            memory: Some(Memory {
                usage: Some(Bytes(1_736_704)),
                // 1 736 704 - 1 581 056: what the agent's own message gives for this container.
                working_set: Some(Bytes(155_648)),
                swap: Some(Bytes(0)),
                max_usage: Some(Bytes(1_769_472)),
                active_file: Some(Bytes(0)),
                inactive_file: Some(Bytes(1_581_056)),
                ..Memory::default()
            }),
            tasks: Tasks { processes: None, threads: Some(1), threads_max: None },
            hugetlb: ["1GB", "2MB"]
                .map(|size| Hugetlb { page_size: size.into(), usage: Bytes(0), max_usage: None, failcnt: Some(0) })
                .to_vec(),
            spec: Some(Spec { memory_limit: Some(Limit::Max), ..Spec::default() }),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
        let memory = of_task(&recorded(WRITER), KataRuntime::Rs).unwrap().memory.unwrap();
        // 69 328 896 - 68 743 168; the runtime's own clients are told 69 328 896.
        assert_eq!(memory.working_set, Some(Bytes(585_728)));
    }

    #[test]
    fn rust_runtime_with_a_cgroup1_guest() {
        let stats = cgroups_v1::MemoryStat {
            hierarchical_memory_limit: 4096,
            rss: 1,
            total_rss: 300,
            total_cache: 500,
            total_mapped_file: 20,
            total_inactive_file: 0,
            total_active_file: 70,
            total_dirty: 6,
            inactive_file: 0,
            ..entries(1200, 1 << 63)
        };
        let memory = of_task(&v1(stats), KataRuntime::Rs).unwrap().memory.unwrap();
        let expected = Memory {
            usage: Some(Bytes(1000)),
            working_set: Some(Bytes(1000)),
            rss: Some(Bytes(300)),
            cache: Some(Bytes(500)),
            mapped_file: Some(Bytes(20)),
            swap: Some(Bytes(200)),
            failcnt: Some(0),
            kernel: Some(Bytes(50)),
            active_file: Some(Bytes(70)),
            inactive_file: Some(Bytes(0)),
            file_dirty: Some(Bytes(6)),
            ..Memory::default()
        };
        assert_eq!(memory, expected);
    }

    #[test]
    fn rust_runtime_with_no_memory_stat_at_all() {
        let usage = of_task(&v1(entries(0, u64::MAX)), KataRuntime::Rs).unwrap();
        assert_eq!(usage.memory.unwrap(), Memory { usage: Some(Bytes(1000)), ..Memory::default() });
        assert_eq!(usage.spec.unwrap().memory_limit, Some(Limit::At(4096)));
    }

    #[test]
    fn go_runtime_on_a_cgroup1_host_with_a_cgroup1_guest() {
        let stats = cgroups_v1::MemoryStat {
            rss: 300,
            cache: 500,
            total_inactive_file: 400,
            pg_fault: 9,
            ..entries(1000, 1 << 63)
        };
        let usage = of_task(&v1(stats), KataRuntime::Go).unwrap();
        let cpu = usage.cpu.unwrap();
        assert_eq!((cpu.user, cpu.system), (Some(Seconds::from_nanos(4000)), Some(Seconds::from_nanos(3000))));
        assert_eq!(cpu.cfs.unwrap().throttled, Some(Seconds::from_nanos(0)), "v1 guests do report the time");
        let expected = Memory {
            usage: Some(Bytes(1000)),
            working_set: Some(Bytes(600)),
            rss: Some(Bytes(300)),
            cache: Some(Bytes(500)),
            mapped_file: Some(Bytes(0)),
            swap: Some(Bytes(0)),
            failcnt: Some(0),
            kernel: Some(Bytes(50)),
            inactive_file: Some(Bytes(400)),
            page_faults: Some(9),
            major_page_faults: Some(0),
            ..Memory::default()
        };
        assert_eq!(usage.memory.unwrap(), expected);
    }

    #[test]
    fn go_runtime_on_a_cgroup1_host_with_a_cgroup2_guest() {
        let usage =
            of_task(&v1(cgroups_v1::MemoryStat { pg_fault: 9, ..entries(30, u64::MAX) }), KataRuntime::Go).unwrap();
        assert_eq!(usage.cpu.unwrap().cfs.unwrap().throttled, None);
        let expected = Memory {
            usage: Some(Bytes(1000)),
            swap: Some(Bytes(30)),
            page_faults: Some(9),
            major_page_faults: Some(0),
            page_faults_hierarchy: Some(9),
            major_page_faults_hierarchy: Some(0),
            ..Memory::default()
        };
        assert_eq!(usage.memory.unwrap(), expected);
    }

    fn v2(memory: cgroups_v2::MemoryStat) -> Any {
        let cpu = cgroups_v2::CPUStat {
            usage_usec: 10,
            user_usec: 3,
            system_usec: 7,
            nr_periods: 4,
            nr_throttled: 2,
            ..Default::default()
        };
        let entry = cgroups_v2::IOEntry { major: 254, rbytes: 5, ..Default::default() };
        let pages = cgroups_v2::HugeTlbStat { current: 4096, pagesize: "2MB".into(), ..Default::default() };
        any(
            "type.googleapis.com/io.containerd.cgroups.v2.Metrics",
            &cgroups_v2::Metrics {
                pids: Some(cgroups_v2::PidsStat { current: 2, ..Default::default() }).into(),
                cpu: Some(cpu).into(),
                memory: Some(memory).into(),
                io: Some(cgroups_v2::IOStat { usage: vec![entry], ..Default::default() }).into(),
                hugetlb: vec![pages],
                ..Default::default()
            },
        )
    }

    #[test]
    fn go_runtime_on_a_cgroup2_host_swaps_user_and_system_and_folds_devices() {
        let memory = cgroups_v2::MemoryStat {
            anon: 300,
            file: 600,
            inactive_file: 400,
            file_mapped: 20,
            pgfault: 9,
            usage: 1000,
            usage_limit: u64::MAX,
            ..Default::default()
        };
        let usage = of_task(&v2(memory), KataRuntime::Go).unwrap();
        let cpu = usage.cpu.unwrap();
        assert_eq!(cpu.usage, Seconds::from_micros(10));
        assert_eq!((cpu.user, cpu.system), (Some(Seconds::from_micros(7)), Some(Seconds::from_micros(3))));
        let cfs = cpu.cfs.unwrap();
        assert_eq!((cfs.periods, cfs.throttled_periods, cfs.throttled), (4, 2, None));
        assert_eq!(usage.io, []);
        assert_eq!(usage.tasks.threads, Some(2));
        let pages = Hugetlb { page_size: "2MB".into(), usage: Bytes(4096), max_usage: None, failcnt: None };
        assert_eq!(usage.hugetlb, [pages]);
        assert_eq!(usage.spec.unwrap().memory_limit, Some(Limit::Max));
        let memory = usage.memory.unwrap();
        assert_eq!(memory.working_set, Some(Bytes(600)));
        assert_eq!(
            (memory.rss, memory.cache, memory.mapped_file),
            (Some(Bytes(300)), Some(Bytes(600)), Some(Bytes(20)))
        );
        assert_eq!((memory.kernel, memory.max_usage, memory.failcnt), (None, None, None));
        assert_eq!((memory.page_faults, memory.page_faults_hierarchy), (Some(9), Some(9)));
    }

    #[test]
    fn go_runtime_on_a_cgroup2_host_with_a_cgroup1_guest_or_an_old_runtime() {
        let keys = cgroups_v2::MemoryStat {
            usage: 1000,
            swap_usage: 1200,
            pgfault: 9,
            inactive_file: 4,
            ..Default::default()
        };
        let memory = of_task(&v2(keys), KataRuntime::Go).unwrap().memory.unwrap();
        let expected = Memory {
            usage: Some(Bytes(1000)),
            swap: Some(Bytes(200)),
            page_faults: Some(9),
            major_page_faults: Some(0),
            ..Memory::default()
        };
        assert_eq!(memory, expected);
        let none = cgroups_v2::MemoryStat { usage: 1000, ..Default::default() };
        let memory = of_task(&v2(none), KataRuntime::Go).unwrap().memory.unwrap();
        assert_eq!(memory, Memory { usage: Some(Bytes(1000)), ..Memory::default() });
    }

    #[test]
    fn rust_runtime_in_the_newer_format_would_be_taken_at_its_word() {
        let usage = of_task(&v2(cgroups_v2::MemoryStat::default()), KataRuntime::Rs).unwrap();
        assert_eq!(usage.cpu.unwrap().user, Some(Seconds::from_micros(3)));
        assert_eq!(usage.io[0].read_bytes, Some(Bytes(5)));
        assert_eq!(usage.memory, None);
    }

    #[test]
    fn types_are_known_with_any_prefix_and_by_nothing_else() {
        for prefix in ["", "type.googleapis.com/", "types.containerd.io/"] {
            let stats = any(&format!("{prefix}{V1}"), &cgroups_v1::Metrics::default());
            assert_eq!(of_task(&stats, KataRuntime::Go).unwrap(), Usage::default());
        }
        for name in ["", "io.containerd.cgroups.v3.Metrics", "xio.containerd.cgroups.v1.Metrics"] {
            let stats = any(name, &cgroups_v1::Metrics::default());
            assert!(matches!(of_task(&stats, KataRuntime::Go), Err(StatsError::Type(_))));
        }
        let lying = Any { type_url: V2.into(), value: vec![0x0b, 0x0a, 0x7f], ..Any::default() };
        assert!(matches!(of_task(&lying, KataRuntime::Go), Err(StatsError::Decode(_))));
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_usage_or_an_error(bytes in proptest::collection::vec(proptest::num::u8::ANY, 0..300)) {
            for type_url in [V1, V2] {
                for runtime in [KataRuntime::Go, KataRuntime::Rs] {
                    let stats = Any { type_url: type_url.into(), value: bytes.clone(), ..Any::default() };
                    let _ = of_task(&stats, runtime);
                }
            }
        }

        #[test]
        fn a_recorded_message_with_damage_gives_a_usage_or_an_error(
            index in proptest::num::usize::ANY,
            byte in proptest::num::u8::ANY,
        ) {
            let mut stats = recorded(WRITER);
            let length = stats.value.len();
            stats.value[index % length] = byte;
            let _ = of_task(&stats, KataRuntime::Rs);
        }
    }
}
