//! Files of the kernel: cgroups, `/proc`, and names of cgroups.

use std::path::PathBuf;

use kata_pulse::collect::cgroup::layout::Layout;
use kata_pulse::collect::cgroup::membership::Membership;
use kata_pulse::collect::cgroup::parse::{
    self, CpuStatV1, CpuStatV2, CpuacctStat, MemoryEvents, MemoryStatV1, MemoryStatV2, ParseError,
};
use kata_pulse::collect::cgroup::v1;
use kata_pulse::collect::exclude::Exclude;
use kata_pulse::collect::kata::host::parse::{Io, Status, memory_v1, memory_v2};
use kata_pulse::collect::meminfo::Meminfo;
use kata_pulse::collect::mount_table;
use kata_pulse::collect::network::net_dev;
use kata_pulse::collect::pid_stat::Stat;
use kata_pulse::collect::process::max_open_files;
use kata_pulse::discover::cgroup_path::{Class, Leaf, below_pod, classify, is_container_id};
use kata_pulse::model::units::{Bytes, Limit, Seconds};
use kata_pulse::model::usage::{DeviceIo, Pressure, Spec, Tasks, Usage};
use procfs::FromRead;

use crate::memory::within;
use crate::page;
use crate::reference::{contains, last, number};

/// Holds every field of a file of `key value` lines against the plain reading. A file that is refused has a known key
/// with something else than a number.
macro_rules! keyed_file {
    ($content:expr, $file:ident { $($field:ident),* $(,)? }) => {{
        let told = [$((stringify!($field), last($content, stringify!($field), b' '))),*];
        match $file::parse($content) {
            Ok(file) => {
                let read = [$((stringify!($field), file.$field)),*];
                for ((key, read), (_, told)) in read.into_iter().zip(told) {
                    assert_eq!(read, told.map(|text| number(text).expect("a number, as the file was taken")), "{key}");
                }
            }
            Err(ParseError(key)) => {
                let known = told.iter().any(|(name, _)| *name == key);
                assert!(known && contains($content, key.as_bytes()), "{key} is no reason to refuse the file");
            }
        }
    }};
}

/// Any file of a cgroup directory, read as each of them.
pub fn cgroup_files(content: &[u8]) {
    within(content.len(), 300, 8 << 10, || {
        keyed_file!(
            content,
            CpuStatV2 {
                usage_usec,
                user_usec,
                system_usec,
                nr_periods,
                nr_throttled,
                throttled_usec,
                nr_bursts,
                burst_usec,
            }
        );
        keyed_file!(content, CpuStatV1 { nr_periods, nr_throttled, throttled_time, nr_bursts, burst_time });
        keyed_file!(content, CpuacctStat { user, system });
        keyed_file!(content, MemoryEvents { high, max, oom_kill });
        keyed_file!(
            content,
            MemoryStatV2 {
                anon,
                file,
                kernel,
                file_mapped,
                file_dirty,
                file_writeback,
                inactive_file,
                active_file,
                pgfault,
                pgmajfault,
                pgscan,
                pgsteal,
                workingset_refault_file,
                workingset_refault_anon,
            }
        );
        keyed_file!(
            content,
            MemoryStatV1 {
                cache,
                rss,
                mapped_file,
                dirty,
                writeback,
                swap,
                inactive_file,
                active_file,
                pgfault,
                pgmajfault,
                total_cache,
                total_rss,
                total_mapped_file,
                total_dirty,
                total_writeback,
                total_swap,
                total_inactive_file,
                total_active_file,
                total_pgfault,
                total_pgmajfault,
            }
        );
    });
    single_values(content);
    let pressure = parse::pressure(content).ok();
    if let Some(stall) = &pressure {
        for total in [stall.waiting, stall.stalled].into_iter().flatten() {
            let text = format!("total={}", micros(total));
            // Digits may have zeros before them.
            assert!(contains(content, text.as_bytes()) || contains(content, b"total=0"), "{text} was made up");
        }
    }
    let io = within(content.len(), 100, 8 << 10, || parse::io_stat(content)).unwrap_or_default();
    for device in &io {
        let number = format!("{}:{}", device.number.major, device.number.minor);
        assert!(contains(content, number.as_bytes()) || contains(content, b"0"), "{number} was made up");
    }
    let mut io_v1 = Vec::new();
    let taken = v1::add_bytes(content, &mut io_v1).and_then(|()| v1::add_operations(content, &mut io_v1));
    if taken.is_err() {
        io_v1.clear();
    }
    let limit = parse::limit(content, "limit").ok();
    serve(io, pressure.clone(), limit);
    serve(io_v1, pressure, limit);
}

/// Files that hold one value, or a list.
fn single_values(content: &[u8]) {
    let single = parse::single(content, "value");
    assert_eq!(single.clone().ok(), number(content.trim_ascii()));
    match parse::limit(content, "limit") {
        Ok(Limit::At(bound)) => assert_eq!(single, Ok(bound)),
        Ok(Limit::Max) => assert_eq!(content.trim_ascii(), b"max"),
        Err(_) => assert!(single.is_err()),
    }
    if let Ok(Limit::At(quota)) = parse::cfs_quota(content) {
        assert_eq!(single, Ok(quota));
    }
    if let Ok((Limit::At(quota), _)) = parse::cpu_max(content) {
        assert!(contains(content, quota.to_string().as_bytes()) || contains(content, b"0"));
    }
    let lines = content.split(|byte| *byte == b'\n').count() as u64;
    let (count, first) = parse::procs(content);
    assert!(count <= lines && first != Some(0));
    assert_eq!(parse::pids(content).count() as u64, count);
    assert_eq!(parse::pids(content).flatten().next(), first);
    let shares = parse::shares_from_weight(single.unwrap_or_default());
    assert!(shares >= 2);
}

/// The page of a container that has these.
fn serve(io: Vec<DeviceIo>, pressure: Option<kata_pulse::model::usage::Stall>, limit: Option<Limit>) {
    let spec =
        Spec { memory_limit: limit, cpu_quota_micros: limit, cpu_period_micros: Some(100_000), ..Spec::default() };
    page::of_usage(Usage {
        io,
        pressure: Some(Pressure { cpu: pressure.clone(), memory: pressure.clone(), io: pressure }),
        tasks: Tasks { threads_max: limit, ..Tasks::default() },
        spec: Some(spec),
        ..Usage::default()
    });
}

fn micros(time: Seconds) -> u64 {
    match time.value() {
        kata_pulse::model::units::Value::Decimal { mantissa, .. } => mantissa,
        other => panic!("{other:?} is not what a kernel counts"),
    }
}

/// Any file of `/proc`, read as each of them.
pub fn proc_files(content: &[u8]) {
    within(content.len(), 200, 8 << 10, || {
        stat(content);
        status(content);
        meminfo(content);
        host_memory(content);
    });
    if let Ok(Io { read, written }) = Io::parse(content) {
        assert_eq!(last(content, "read_bytes:", b' ').and_then(number), Some(read));
        assert_eq!(last(content, "write_bytes:", b' ').and_then(number), Some(written));
    }
    let network = within(content.len(), 100, 8 << 10, || net_dev(content, &Exclude::default())).unwrap_or_default();
    assert!(network.len() <= 128 && network.iter().all(|interface| interface.name != "lo"));
    page::of_usage(Usage { network, ..Usage::default() });
    let _ = max_open_files(content);
    let _ = procfs::DiskStats::from_read(content);
    mounts(content);
}

/// Where the `procfs` crate reads a mount table as the kernel writes it, ours reads the same.
fn mounts(content: &[u8]) {
    let ours = within(content.len(), 1000, 8 << 10, || mount_table::parse(content));
    // Theirs ends fields at any number of any blanks, takes a last line without an end, and does not undo escapes.
    let plain = content.iter().all(|byte| matches!(byte, b' '..=b'~' | b'\n') && *byte != b'\\');
    let mut lines = content.split(|byte| *byte == b'\n');
    let ended = lines.next_back().is_some_and(<[u8]>::is_empty);
    let parted = lines.all(|line| line.split(|byte| *byte == b' ').all(|field| !field.is_empty()));
    if !(plain && ended && parted) {
        return;
    }
    let Ok(theirs) = procfs::process::MountInfos::from_read(content) else { return };
    let ours = ours.expect("theirs has read it");
    assert_eq!(ours.len(), theirs.0.len());
    for (ours, theirs) in ours.iter().zip(&theirs.0) {
        assert_eq!((ours.majmin, ours.root.to_str()), (theirs.majmin.as_str(), Some(theirs.root.as_str())));
        assert_eq!((&*ours.point, &*ours.fs_type), (&*theirs.mount_point, theirs.fs_type.as_str()));
        assert_eq!(&*ours.source, theirs.mount_source.as_deref().unwrap_or("none"));
        assert_eq!(
            ours.readonly,
            [&theirs.mount_options, &theirs.super_options].iter().any(|it| it.contains_key("ro"))
        );
    }
}

/// Where the `procfs` crate reads a `stat`, ours reads the same.
fn stat(content: &[u8]) {
    let ours = Stat::parse(content);
    // Theirs panics where the name does not lie between two blanks, or has nothing on one side, and on some files that
    // are not ASCII.
    if !content.is_ascii() {
        return;
    }
    let open = content.iter().position(|byte| *byte == b'(');
    let close = content.iter().rposition(|byte| *byte == b')');
    let Some((open, close)) = open.zip(close).filter(|(open, close)| open < close) else {
        return assert!(ours.is_err());
    };
    let (before, behind) = (&content[..open], &content[close + 1..]);
    let said = |text: &[u8]| text.iter().any(u8::is_ascii_graphic);
    if !before.ends_with(b" ") || !behind.starts_with(b" ") || !said(before) || !said(behind) {
        return;
    }
    let Ok(theirs) = procfs::process::Stat::from_read(content) else { return };
    let Ok(parent) = u32::try_from(theirs.ppid) else { return };
    let (Some(ticks), Ok(threads)) = (theirs.utime.checked_add(theirs.stime), u64::try_from(theirs.num_threads)) else {
        return;
    };
    // Theirs takes signs.
    if contains(content, b"+") {
        return;
    }
    let ours = ours.expect("what procfs reads");
    assert_eq!((ours.parent, ours.ticks, ours.threads), (parent, ticks, threads));
    assert_eq!((ours.comm, ours.start), (theirs.comm.as_bytes(), theirs.starttime));
    assert_eq!(ours.resident_pages, Some(theirs.rss));
}

fn status(content: &[u8]) {
    let Ok(Status { resident, anon, shmem }) = Status::parse(content) else { return };
    for (key, read) in [("VmRSS", resident), ("RssAnon", anon), ("RssShmem", shmem)] {
        let told = last(content, key, b':').and_then(|text| number(text.strip_suffix(b" kB")?));
        assert_eq!(read, told.map(Bytes::from_kib), "{key}");
    }
}

fn meminfo(content: &[u8]) {
    let Meminfo { total, swap_total, swap_free } = Meminfo::parse(content);
    for (key, read) in [("MemTotal:", total), ("SwapTotal:", swap_total), ("SwapFree:", swap_free)] {
        let told = last(content, key, b' ').and_then(|text| number(text.strip_suffix(b" kB")?));
        assert_eq!(read, told.map(Bytes::from_kib), "{key}");
    }
}

fn host_memory(content: &[u8]) {
    if let Ok(memory) = memory_v2(content) {
        assert_eq!(memory.anon, last(content, "anon", b' ').and_then(number).map(Bytes));
        assert_eq!(memory.shmem, last(content, "shmem", b' ').and_then(number).map(Bytes));
        if let Some(kernel) = last(content, "kernel", b' ') {
            assert_eq!(memory.kernel, number(kernel).map(Bytes));
        }
    }
    if let Ok(memory) = memory_v1(content) {
        assert_eq!(memory.anon, last(content, "total_rss", b' ').and_then(number).map(Bytes));
        assert_eq!(memory.shmem, last(content, "total_shmem", b' ').and_then(number).map(Bytes));
    }
}

/// A path below the cgroup mount, and a process' `cgroup` file.
pub fn cgroup_paths(content: &[u8]) {
    for version in [Layout::V2 { root: PathBuf::from("/nonexistent") }, Layout::V1(v1_roots())] {
        if let Some(cgroup) = Membership::default().of(&version, content) {
            assert!(contains(content, cgroup.as_bytes()) && !cgroup.ends_with(" (deleted)"), "{cgroup}");
        }
    }
    let Ok(path) = std::str::from_utf8(content) else { return };
    let mut class = Class::Other;
    let mut before = String::new();
    for name in path.split('/').filter(|name| !name.is_empty()) {
        let parent = std::mem::replace(&mut class, Class::Other);
        class = classify(&parent, name);
        match &class {
            Class::Pod(uid) => {
                let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
                assert!((1..=64).contains(&uid.as_str().len()) && uid.as_str().bytes().all(legal), "{uid}");
            }
            Class::Leaf(Leaf::Container { id } | Leaf::Kata { id }) | Class::Stray(id) => {
                assert!(is_container_id(id.as_str()) && name.contains(id.as_str()), "{name}: {id}");
                comes_back(&before, &parent, id.as_str());
            }
            Class::Kubepods | Class::Qos | Class::Leaf(Leaf::Other) | Class::Other => {}
        }
        before = format!("{before}/{name}");
    }
}

/// Where a runtime would have put a container, the container is found.
fn comes_back(pod: &str, parent: &Class, id: &str) {
    if !matches!(parent, Class::Pod(_)) {
        return;
    }
    for runtime in [None, Some("containerd"), Some("cri-o"), Some("docker")] {
        let path = below_pod(pod, runtime, id);
        let name = path.rsplit('/').next().unwrap_or_default();
        assert_eq!(classify(parent, name), Class::Leaf(Leaf::Container { id: id.into() }), "{path}");
    }
}

fn v1_roots() -> kata_pulse::collect::cgroup::layout::V1 {
    let memory = Some(PathBuf::from("/nonexistent"));
    kata_pulse::collect::cgroup::layout::V1 { memory, ..Default::default() }
}
