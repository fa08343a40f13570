//! The kata-agent's own message.

use crate::collect::kata::stats::{
    Guest, HugePages, IoEntry, cfs, cpu, devices, filled, huge_pages, spec, swap, tasks,
};
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Cpu, DeviceIo, Memory, Usage};
use crate::protos::agent::{BlkioStats, BlkioStatsEntry, CgroupStats, CpuStats, MemoryStat, MemoryStats};

/// What the parts of kernel memory are called where the kernel gives no sum of them (before 5.18).
const KERNEL_PARTS: [&str; 5] = ["kernel_stack", "slab", "pagetables", "percpu", "vmalloc"];

/// Usage of a container, from the agent's `StatsContainer`.
pub fn of_agent(stats: &CgroupStats) -> Usage {
    let guest = stats.memory_stats.as_ref().map_or(Guest::Unknown, guest);
    let memory_limit = stats.memory_stats.usage.limit;
    let swap_limit = stats.memory_stats.swap_usage.limit;
    Usage {
        cpu: stats.cpu_stats.as_ref().and_then(|stats| cpu_of(guest, stats)),
        memory: stats.memory_stats.as_ref().and_then(|stats| memory_of(guest, stats)),
        tasks: tasks(stats.pids_stats.current, stats.pids_stats.limit),
        io: stats.blkio_stats.as_ref().map(|stats| io_of(guest, stats)).unwrap_or_default(),
        hugetlb: huge_pages(
            guest,
            stats.hugetlb_stats.iter().map(|(page_size, pages)| HugePages {
                page_size,
                usage: pages.usage,
                max_usage: pages.max_usage,
                failcnt: Some(pages.failcnt),
            }),
        ),
        spec: spec(memory_limit, swap_limit),
        ..Usage::default()
    }
}

/// `anon` and `file` are keys of v2 only, `total_…` of v1 only.
fn guest(memory: &MemoryStats) -> Guest {
    let any = |is: fn(&str) -> bool| memory.stats.iter().any(|stat| is(&stat.key));
    if any(|key| matches!(key, "anon" | "file")) {
        Guest::V2
    } else if memory.use_hierarchy || any(|key| key.starts_with("total_")) {
        Guest::V1
    } else {
        Guest::Unknown
    }
}

fn cpu_of(guest: Guest, stats: &CpuStats) -> Option<Cpu> {
    let usage = stats.cpu_usage.as_ref()?;
    let bandwidth = stats
        .throttling_data
        .as_ref()
        .map(|data| cfs(guest, data.periods, data.throttled_periods, Seconds::from_nanos(data.throttled_time)));
    cpu(
        Seconds::from_nanos(usage.total_usage),
        Seconds::from_nanos(usage.usage_in_usermode),
        Seconds::from_nanos(usage.usage_in_kernelmode),
        bandwidth,
    )
}

fn memory_of(guest: Guest, stats: &MemoryStats) -> Option<Memory> {
    // A cgroup with a process in it uses some memory: zero is a failed reading, and what is taken from it would lie.
    let usage = filled(stats.usage.usage)?;
    let common = Memory {
        usage: Some(Bytes(usage)),
        max_usage: filled(stats.usage.max_usage).map(Bytes),
        swap: stats.swap_usage.as_ref().and_then(|data| swap(guest, data.usage, usage)),
        ..Memory::default()
    };
    let less = |inactive_file: Option<Bytes>| inactive_file.map(|file| Bytes(usage.saturating_sub(file.0)));
    let keys = Keys(&stats.stats);
    Some(match guest {
        Guest::V2 => Memory {
            working_set: less(keys.bytes("inactive_file")),
            rss: keys.bytes("anon"),
            cache: keys.bytes("file"),
            mapped_file: keys.bytes("file_mapped"),
            kernel: keys.bytes("kernel").or_else(|| keys.kernel_parts()),
            active_file: keys.bytes("active_file"),
            inactive_file: keys.bytes("inactive_file"),
            file_dirty: keys.bytes("file_dirty"),
            file_writeback: keys.bytes("file_writeback"),
            // Every key of v2 counts child cgroups as well.
            page_faults: keys.count("pgfault"),
            major_page_faults: keys.count("pgmajfault"),
            page_faults_hierarchy: keys.count("pgfault"),
            major_page_faults_hierarchy: keys.count("pgmajfault"),
            pgscan: keys.count("pgscan"),
            pgsteal: keys.count("pgsteal"),
            refault_file: keys.count("workingset_refault_file"),
            refault_anon: keys.count("workingset_refault_anon"),
            ..common
        },
        Guest::V1 => Memory {
            working_set: less(keys.bytes("total_inactive_file")),
            rss: keys.bytes("total_rss").or_else(|| keys.bytes("rss")),
            cache: keys.bytes("total_cache").or_else(|| keys.bytes("cache")),
            mapped_file: keys.bytes("total_mapped_file"),
            failcnt: Some(stats.usage.failcnt),
            kernel: stats.kernel_usage.as_ref().and_then(|data| (data.limit > 0).then_some(Bytes(data.usage))),
            active_file: keys.bytes("total_active_file"),
            inactive_file: keys.bytes("total_inactive_file"),
            file_dirty: keys.bytes("total_dirty"),
            file_writeback: keys.bytes("total_writeback"),
            page_faults: keys.count("pgfault"),
            major_page_faults: keys.count("pgmajfault"),
            page_faults_hierarchy: keys.count("total_pgfault"),
            major_page_faults_hierarchy: keys.count("total_pgmajfault"),
            ..common
        },
        Guest::Unknown => common,
    })
}

/// `memory.stat` as the guest's kernel wrote it.
struct Keys<'a>(&'a [MemoryStat]);

impl Keys<'_> {
    /// Of a key that is there twice the last counts, as in any map on this wire.
    fn count(&self, key: &str) -> Option<u64> {
        self.0.iter().rev().find(|stat| stat.key == key).map(|stat| stat.value)
    }

    fn bytes(&self, key: &str) -> Option<Bytes> {
        self.count(key).map(Bytes)
    }

    /// The sum of what kernel memory consists of; absent where even the two oldest parts are. Parts that a kernel does
    /// not list it does not charge either.
    fn kernel_parts(&self) -> Option<Bytes> {
        let [stack, slab, ..] = KERNEL_PARTS.map(|key| self.count(key));
        stack.and(slab)?;
        let parts = KERNEL_PARTS.iter().filter_map(|key| self.count(key));
        Some(Bytes(parts.fold(0, u64::saturating_add)))
    }
}

fn io_of(guest: Guest, stats: &BlkioStats) -> Vec<DeviceIo> {
    fn entries(list: &[BlkioStatsEntry]) -> impl Iterator<Item = IoEntry<'_>> {
        list.iter().map(|BlkioStatsEntry { major, minor, op, value, .. }| IoEntry {
            major: *major,
            minor: *minor,
            op,
            value: *value,
        })
    }
    devices(guest, entries(&stats.io_service_bytes_recursive), entries(&stats.io_serviced_recursive))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::model::units::Limit;
    use crate::model::usage::{Cfs, DeviceNumber, Hugetlb, Spec, Tasks};
    use crate::protos::agent::{HugetlbStats, MemoryData, PidsStats, StatsContainerResponse};
    use crate::protos::decode;

    const V1: &[u8] = include_bytes!("../../../../tests/fixtures/kata/agent-stats-cgroup1.pb");
    const SPIN: &[u8] = include_bytes!("../../../../tests/fixtures/kata/agent-stats-cgroup2-spin.pb");
    const WRITER: &[u8] = include_bytes!("../../../../tests/fixtures/kata/agent-stats-cgroup2-writer.pb");

    fn recorded(bytes: &[u8]) -> CgroupStats {
        decode::<StatsContainerResponse>(bytes).unwrap().cgroup_stats.unwrap()
    }

    fn with_keys(keys: &[(&str, u64)]) -> CgroupStats {
        let mut stats = CgroupStats::default();
        let memory = stats.memory_stats.mut_or_insert_default();
        memory.usage = Some(MemoryData { usage: 1000, ..Default::default() }).into();
        memory.swap_usage = Some(MemoryData::default()).into();
        let stat =
            |(key, value): &(&str, u64)| MemoryStat { key: (*key).to_owned(), value: *value, ..Default::default() };
        memory.stats = keys.iter().map(stat).collect();
        stats
    }

    fn memory(stats: &CgroupStats) -> Memory {
        of_agent(stats).memory.unwrap()
    }

    #[test]
    fn a_throttled_container_of_a_cgroup2_guest() {
        let usage = of_agent(&recorded(SPIN));
        let expected = Usage {
            cpu: Some(Cpu {
                usage: Seconds::from_nanos(55_526_802_000),
                user: Some(Seconds::from_nanos(54_358_911_000)),
                system: Some(Seconds::from_nanos(1_167_890_000)),
                cfs: Some(Cfs {
                    periods: 1121,
                    throttled_periods: 1073,
                    throttled: None,
                    burst_periods: None,
                    burst: None,
                }),
            }),
            memory: Some(Memory {
                usage: Some(Bytes(1_736_704)),
                // 1 736 704 - 1 581 056
                working_set: Some(Bytes(155_648)),
                rss: Some(Bytes(57_344)),
                cache: Some(Bytes(1_581_056)),
                mapped_file: Some(Bytes(1_396_736)),
                swap: Some(Bytes(0)),
                max_usage: Some(Bytes(1_769_472)),
                failcnt: None,
                kernel: Some(Bytes(98_304)),
                active_file: Some(Bytes(0)),
                inactive_file: Some(Bytes(1_581_056)),
                file_dirty: Some(Bytes(0)),
                file_writeback: Some(Bytes(0)),
                page_faults: Some(110),
                major_page_faults: Some(15),
                page_faults_hierarchy: Some(110),
                major_page_faults_hierarchy: Some(15),
                events_high: None,
                events_max: None,
                pgscan: Some(0),
                pgsteal: Some(0),
                refault_file: Some(0),
                refault_anon: Some(0),
            }),
            tasks: Tasks { processes: None, threads: Some(1), threads_max: None },
            hugetlb: ["1GB", "2MB"]
                .map(|size| Hugetlb { page_size: size.to_owned(), usage: Bytes(0), max_usage: None, failcnt: Some(0) })
                .to_vec(),
            spec: Some(Spec { memory_limit: Some(Limit::Max), ..Spec::default() }),
            ..Usage::default()
        };
        assert_eq!(usage, expected);
    }

    #[test]
    fn a_writing_container_of_a_cgroup2_guest() {
        let usage = of_agent(&recorded(WRITER));
        let memory = usage.memory.unwrap();
        assert_eq!(memory.usage, Some(Bytes(69_775_360)));
        // 69 775 360 - 67 686 400
        assert_eq!(memory.working_set, Some(Bytes(2_088_960)));
        assert_eq!(memory.rss, Some(Bytes(208_896)));
        assert_eq!(memory.cache, Some(Bytes(68_902_912)));
        assert_eq!(memory.active_file, Some(Bytes(1_208_320)));
        assert_eq!(memory.kernel, Some(Bytes(475_136)));
        assert_eq!(memory.page_faults, Some(4241));
        assert_eq!(usage.tasks.threads, Some(4));
        let cfs = usage.cpu.unwrap().cfs.unwrap();
        assert_eq!((cfs.periods, cfs.throttled_periods), (0, 0));
        assert_eq!(cfs.throttled, Some(Seconds::from_nanos(0)), "no period was throttled");
    }

    #[test]
    fn a_container_of_a_cgroup1_guest() {
        let usage = of_agent(&recorded(V1));
        let cpu = usage.cpu.unwrap();
        assert_eq!(cpu.usage, Seconds::from_nanos(343_457_091));
        assert_eq!(cpu.user, Some(Seconds::from_nanos(330_000_000)));
        assert_eq!(cpu.system, Some(Seconds::from_nanos(0)));
        let cfs = cpu.cfs.unwrap();
        assert_eq!((cfs.periods, cfs.throttled_periods), (9, 6));
        assert_eq!(cfs.throttled, Some(Seconds::from_nanos(193_370_621)));
        let expected = Memory {
            usage: Some(Bytes(17_620_992)),
            // 17 620 992 - 16 777 216
            working_set: Some(Bytes(843_776)),
            rss: Some(Bytes(53_248)),
            cache: Some(Bytes(16_781_312)),
            mapped_file: Some(Bytes(0)),
            // memory and swap 17 620 992, less memory 17 620 992
            swap: Some(Bytes(0)),
            max_usage: Some(Bytes(18_067_456)),
            failcnt: Some(0),
            kernel: Some(Bytes(569_344)),
            active_file: Some(Bytes(4096)),
            inactive_file: Some(Bytes(16_777_216)),
            file_dirty: Some(Bytes(16_781_312)),
            file_writeback: Some(Bytes(0)),
            page_faults: Some(178),
            major_page_faults: Some(0),
            page_faults_hierarchy: Some(178),
            major_page_faults_hierarchy: Some(0),
            ..Memory::default()
        };
        assert_eq!(usage.memory.unwrap(), expected);
        let spec = usage.spec.unwrap();
        assert_eq!(spec.memory_limit, Some(Limit::At(134_217_728)));
        assert_eq!(spec.memory_swap_limit, Some(Limit::Max));
        assert_eq!(usage.tasks, Tasks { processes: None, threads: Some(1), threads_max: None });
        assert_eq!((usage.io, usage.hugetlb), (vec![], vec![]));
    }

    #[test]
    fn nothing_gives_nothing() {
        assert_eq!(of_agent(&CgroupStats::default()), Usage::default());
        // What is left when the cgroup is gone but the container is still known.
        let mut gone = CgroupStats::default();
        gone.cpu_stats.mut_or_insert_default().cpu_usage.mut_or_insert_default();
        gone.cpu_stats.mut_or_insert_default().throttling_data.mut_or_insert_default();
        gone.memory_stats.mut_or_insert_default().usage.mut_or_insert_default();
        gone.memory_stats.mut_or_insert_default().kernel_usage.mut_or_insert_default();
        gone.pids_stats.mut_or_insert_default();
        gone.blkio_stats.mut_or_insert_default();
        assert_eq!(of_agent(&gone), Usage::default());
    }

    #[test]
    fn working_set_needs_its_key_and_does_not_go_below_zero() {
        assert_eq!(memory(&with_keys(&[("anon", 1)])).working_set, None);
        assert_eq!(memory(&with_keys(&[("anon", 1), ("inactive_file", 0)])).working_set, Some(Bytes(1000)));
        assert_eq!(memory(&with_keys(&[("anon", 1), ("inactive_file", 1001)])).working_set, Some(Bytes(0)));
        // On v1 that key leaves out child cgroups.
        assert_eq!(memory(&with_keys(&[("total_rss", 1), ("inactive_file", 5)])).working_set, None);
        assert_eq!(memory(&with_keys(&[("total_rss", 1), ("total_inactive_file", 5)])).working_set, Some(Bytes(995)));
    }

    #[test]
    fn without_memory_stat_only_what_has_one_meaning_is_used() {
        let mut stats = with_keys(&[]);
        stats.memory_stats.mut_or_insert_default().swap_usage.mut_or_insert_default().usage = 7;
        let expected = Memory { usage: Some(Bytes(1000)), ..Memory::default() };
        assert_eq!(memory(&stats), expected);
    }

    #[test]
    fn kernel_memory_of_kernels_that_do_not_sum_it_up() {
        let parts = [("anon", 1), ("kernel_stack", 16), ("slab", 100), ("percpu", 8), ("sock", 1000)];
        assert_eq!(memory(&with_keys(&parts)).kernel, Some(Bytes(124)), "socket buffers are not in the kernel's sum");
        assert_eq!(memory(&with_keys(&[("anon", 1), ("slab", 100)])).kernel, None);
        assert_eq!(
            memory(&with_keys(&[("anon", 1), ("kernel", 5), ("kernel_stack", 1), ("slab", 1)])).kernel,
            Some(Bytes(5))
        );
    }

    #[test]
    fn swap_of_a_cgroup1_guest_is_the_difference() {
        let mut stats = with_keys(&[("total_rss", 1)]);
        assert_eq!(memory(&stats).swap, None, "no swap accounting");
        stats.memory_stats.mut_or_insert_default().swap_usage.mut_or_insert_default().usage = 1300;
        assert_eq!(memory(&stats).swap, Some(Bytes(300)));
        stats.memory_stats.mut_or_insert_default().swap_usage.mut_or_insert_default().usage = 999;
        assert_eq!(memory(&stats).swap, Some(Bytes(0)), "read a moment later");
    }

    #[test]
    fn limits_of_threads_are_unknown_when_zero() {
        let pids = PidsStats { current: 3, limit: 64, ..Default::default() };
        let stats = CgroupStats { pids_stats: Some(pids).into(), ..Default::default() };
        assert_eq!(of_agent(&stats).tasks.threads_max, Some(Limit::At(64)));
    }

    #[test]
    fn huge_pages_know_their_peak_on_cgroup1_only() {
        let pages = HugetlbStats { usage: 2_097_152, max_usage: 4_194_304, failcnt: 2, ..Default::default() };
        for (key, peak) in [("total_rss", Some(Bytes(4_194_304))), ("anon", None)] {
            let mut stats = with_keys(&[(key, 1)]);
            stats.hugetlb_stats.insert("2MB".into(), pages.clone());
            stats.hugetlb_stats.insert("\"} 1\n".into(), pages.clone());
            let expected =
                Hugetlb { page_size: "2MB".into(), usage: Bytes(2_097_152), max_usage: peak, failcnt: Some(2) };
            assert_eq!(of_agent(&stats).hugetlb, [expected]);
        }
    }

    fn entry(minor: u64, op: &str, value: u64) -> BlkioStatsEntry {
        BlkioStatsEntry { major: 254, minor, op: op.to_owned(), value, ..Default::default() }
    }

    #[test]
    fn block_io_of_a_cgroup2_guest_is_absent_while_it_is_all_zeros() {
        let mut stats = with_keys(&[("anon", 1)]);
        let ops = ["read", "write", "rios", "wios", "dbytes", "dios"];
        let blkio = stats.blkio_stats.mut_or_insert_default();
        blkio.io_service_bytes_recursive = ops.iter().map(|op| entry(0, op, 0)).collect();
        assert_eq!(of_agent(&stats).io, []);
        // With the parser repaired, a device that has done nothing is a true zero beside one that has.
        let blkio = stats.blkio_stats.mut_or_insert_default();
        blkio.io_service_bytes_recursive.extend([entry(16, "read", 4096), entry(16, "rios", 1)]);
        let io = of_agent(&stats).io;
        assert_eq!(io.len(), 2);
        assert_eq!(io[0].number, DeviceNumber { major: 254, minor: 0 });
        assert_eq!((io[0].read_bytes, io[0].writes), (Some(Bytes(0)), Some(0)));
        assert_eq!((io[1].read_bytes, io[1].reads, io[1].written_bytes), (Some(Bytes(4096)), Some(1), None));
    }

    #[test]
    fn block_io_of_a_cgroup1_guest_comes_in_two_lists() {
        let mut stats = with_keys(&[("total_rss", 1)]);
        let blkio = stats.blkio_stats.mut_or_insert_default();
        let bytes = [("read", 4096), ("write", 0), ("sync", 4096), ("async", 0), ("total", 4096)];
        blkio.io_service_bytes_recursive = bytes.map(|(op, value)| entry(0, op, value)).to_vec();
        blkio.io_serviced_recursive =
            [("read", 1), ("write", 0), ("total", 1)].map(|(op, value)| entry(0, op, value)).to_vec();
        let io = of_agent(&stats).io;
        assert_eq!(io.len(), 1);
        assert_eq!((io[0].read_bytes, io[0].written_bytes), (Some(Bytes(4096)), Some(Bytes(0))));
        assert_eq!((io[0].reads, io[0].writes), (Some(1), Some(0)));
        let other = [("Sync", Bytes(4096)), ("Async", Bytes(0)), ("Total", Bytes(4096))];
        assert_eq!(io[0].other_bytes, other);
        assert_eq!(io[0].label(), "/dev/block/254:0");
    }

    proptest! {
        #[test]
        fn any_bytes_give_a_usage_or_an_error(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            if let Ok(stats) = decode::<CgroupStats>(&bytes) {
                of_agent(&stats);
            }
        }

        #[test]
        fn a_recorded_message_with_damage_gives_a_usage_or_an_error(
            damage in proptest::collection::vec((any::<prop::sample::Index>(), any::<u8>()), 1..8),
            cut in any::<prop::sample::Index>(),
        ) {
            let mut bytes = WRITER.to_vec();
            for (index, byte) in damage {
                *index.get_mut(&mut bytes) = byte;
            }
            bytes.truncate(cut.index(WRITER.len()) + 1);
            if let Ok(response) = decode::<StatsContainerResponse>(&bytes) {
                of_agent(&response.cgroup_stats);
            }
        }
    }
}
