use proptest::prelude::*;
use protobuf::Message;

use super::*;
use crate::model::units::Limit;
use crate::model::usage::{Cfs, Hugetlb, Spec, Tasks};
use crate::protos::task::StatsResponse;

const SPIN: &[u8] = include_bytes!("../../../../../tests/fixtures/kata/task-stats-rs-spin.pb");
const WRITER: &[u8] = include_bytes!("../../../../../tests/fixtures/kata/task-stats-rs-writer.pb");

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
    let cpu =
        cgroups_v1::CPUStat { usage: Some(usage).into(), throttling: Some(throttling).into(), ..Default::default() };
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
    let usage = of_task(&v1(cgroups_v1::MemoryStat { pg_fault: 9, ..entries(30, u64::MAX) }), KataRuntime::Go).unwrap();
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
    assert_eq!((memory.rss, memory.cache, memory.mapped_file), (Some(Bytes(300)), Some(Bytes(600)), Some(Bytes(20))));
    assert_eq!((memory.kernel, memory.max_usage, memory.failcnt), (None, None, None));
    assert_eq!((memory.page_faults, memory.page_faults_hierarchy), (Some(9), Some(9)));
}

#[test]
fn go_runtime_on_a_cgroup2_host_with_a_cgroup1_guest_or_an_old_runtime() {
    let keys =
        cgroups_v2::MemoryStat { usage: 1000, swap_usage: 1200, pgfault: 9, inactive_file: 4, ..Default::default() };
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
