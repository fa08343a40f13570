//! What a Kata container uses, out of the three messages that tell it. Pure.
//!
//! All three speak of the container's cgroup inside the guest. The agent's own message is complete but for what the
//! agent itself cannot read; a shim squeezes it into another format and loses half; CRI has the shim's remains. Each
//! has fields that are always zero for a reason that has nothing to do with the container: those are left out, and a
//! zero that may be true is kept.
//!
//! As of Kata Containers 4.1.0 (`rustjail/src/cgroups`, `containerd-shim-v2/metrics.go`, `trans_from_agent.rs`).

mod agent;
mod cri;
mod task;

use std::collections::BTreeMap;

pub use agent::of_agent;
pub use cri::of_cri;
pub use task::{StatsError, of_task};

use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::{Cfs, Cpu, DeviceIo, DeviceNumber, Hugetlb, Spec, Tasks};

/// Most block devices and page sizes taken from one container. A guest has a handful; what it claims beyond that
/// would become series.
const MAX_DEVICES: usize = 128;
const MAX_PAGE_SIZES: usize = 8;

/// Which cgroup version the guest runs: decides what the numbers mean.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Guest {
    V1,
    V2,
    /// The message does not tell: only what means the same in both is used.
    Unknown,
}

/// A number whose zero means that nobody filled it in.
fn filled(number: u64) -> Option<u64> {
    (number != 0).then_some(number)
}

/// A limit in the guest's own words: 0 for unknown, -1 of either version for none.
fn limit(raw: u64) -> Option<Limit> {
    filled(raw).map(|raw| if raw >= 1 << 62 { Limit::Max } else { Limit::At(raw) })
}

/// CPU time. A cgroup that has run anything has used some, so a total of zero is a guest that could not read it
/// (older agents on cgroup v2, a cgroup that is gone).
fn cpu(usage: Seconds, user: Seconds, system: Seconds, cfs: Option<Cfs>) -> Option<Cpu> {
    (usage.as_f64() > 0.0).then_some(Cpu { usage, user: Some(user), system: Some(system), cfs })
}

/// Bandwidth control. The agent looks for the time under its name of cgroup v1 and finds nothing on v2
/// (kata-containers issue 13851); where no period was throttled, that zero is true.
fn cfs(guest: Guest, periods: u64, throttled_periods: u64, throttled: Seconds) -> Cfs {
    let lost = guest != Guest::V1 && throttled_periods > 0 && throttled.as_f64() <= 0.0;
    Cfs { periods, throttled_periods, throttled: (!lost).then_some(throttled), burst_periods: None, burst: None }
}

/// Swap in use. cgroup v1 counts memory and swap together, v2 swap alone.
fn swap(guest: Guest, swap_usage: u64, usage: u64) -> Option<Bytes> {
    match guest {
        Guest::V1 => filled(swap_usage).map(|both| Bytes(both.saturating_sub(usage))),
        Guest::V2 => Some(Bytes(swap_usage)),
        Guest::Unknown => None,
    }
}

/// Limits that hold inside the guest. The swap limit counts memory and swap together on v1, swap alone on v2, as
/// elsewhere in the model.
fn spec(memory_limit: u64, swap_limit: u64) -> Option<Spec> {
    let spec = Spec { memory_limit: limit(memory_limit), memory_swap_limit: limit(swap_limit), ..Spec::default() };
    (spec != Spec::default()).then_some(spec)
}

/// Threads. Zero is a failed reading: a container without a thread is none. The limit never reaches the guest.
fn tasks(current: u64, pids_limit: u64) -> Tasks {
    Tasks { processes: None, threads: filled(current), threads_max: limit(pids_limit) }
}

/// One line of a block I/O list, whichever message it comes from.
struct IoEntry<'a> {
    major: u64,
    minor: u64,
    op: &'a str,
    value: u64,
}

/// Block I/O by device, from the list of bytes and the list of operations.
///
/// On v2 there is one list, for bytes, which holds operations as well (`rios`, `wios`), and the guest's parser fills it
/// with zeros (cgroups-rs issue 178): all zeros are nothing.
fn devices<'a>(
    guest: Guest,
    bytes: impl Iterator<Item = IoEntry<'a>>,
    operations: impl Iterator<Item = IoEntry<'a>>,
) -> Vec<DeviceIo> {
    let mut found = BTreeMap::new();
    let mut any = false;
    for IoEntry { major, minor, op, value } in bytes {
        any |= value > 0;
        let Some(device) = device(&mut found, major, minor) else { continue };
        match op {
            "read" => device.read_bytes = Some(Bytes(value)),
            "write" => device.written_bytes = Some(Bytes(value)),
            "rios" => device.reads = Some(value),
            "wios" => device.writes = Some(value),
            "sync" => set(&mut device.other_bytes, "Sync", value),
            "async" => set(&mut device.other_bytes, "Async", value),
            "discard" => set(&mut device.other_bytes, "Discard", value),
            "total" => set(&mut device.other_bytes, "Total", value),
            _ => {}
        }
    }
    for IoEntry { major, minor, op, value } in operations {
        let Some(device) = device(&mut found, major, minor) else { continue };
        match op {
            "read" => device.reads = Some(value),
            "write" => device.writes = Some(value),
            _ => {}
        }
    }
    match guest {
        Guest::V1 => found.into_values().collect(),
        Guest::V2 if any => found.into_values().collect(),
        Guest::V2 | Guest::Unknown => Vec::new(),
    }
}

fn device(found: &mut BTreeMap<DeviceNumber, DeviceIo>, major: u64, minor: u64) -> Option<&mut DeviceIo> {
    let number = DeviceNumber { major: u32::try_from(major).ok()?, minor: u32::try_from(minor).ok()? };
    if found.len() >= MAX_DEVICES && !found.contains_key(&number) {
        return None;
    }
    Some(found.entry(number).or_insert_with(|| DeviceIo::new(number)))
}

fn set(list: &mut Vec<(&'static str, Bytes)>, operation: &'static str, value: u64) {
    match list.iter_mut().find(|(known, _)| *known == operation) {
        Some((_, bytes)) => *bytes = Bytes(value),
        None => list.push((operation, Bytes(value))),
    }
}

/// Huge pages by size, in order of the name. The guest never fills the highest use on v2.
fn huge_pages<'a>(guest: Guest, sizes: impl Iterator<Item = HugePages<'a>>) -> Vec<Hugetlb> {
    let found: BTreeMap<&str, Hugetlb> = sizes
        .filter(|size| is_page_size(size.page_size))
        .take(MAX_PAGE_SIZES)
        .map(|HugePages { page_size, usage, max_usage, failcnt }| {
            let hugetlb = Hugetlb {
                page_size: page_size.to_owned(),
                usage: Bytes(usage),
                max_usage: (guest == Guest::V1).then_some(Bytes(max_usage)),
                failcnt,
            };
            (page_size, hugetlb)
        })
        .collect();
    found.into_values().collect()
}

/// Huge pages of one size, whichever message they come from.
struct HugePages<'a> {
    page_size: &'a str,
    usage: u64,
    max_usage: u64,
    failcnt: Option<u64>,
}

/// The kernel's spelling, `2MB`, `1GB`; it becomes a label, so nothing else is believed.
fn is_page_size(text: &str) -> bool {
    ["KB", "MB", "GB"].iter().any(|unit| {
        text.strip_suffix(unit)
            .is_some_and(|number| (1..=4).contains(&number.len()) && number.bytes().all(|byte| byte.is_ascii_digit()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn limits_are_none_known_or_unknown() {
        assert_eq!(limit(0), None);
        assert_eq!(limit(134_217_728), Some(Limit::At(134_217_728)));
        assert_eq!(limit((1 << 62) - 1), Some(Limit::At((1 << 62) - 1)));
        assert_eq!(limit(1 << 62), Some(Limit::Max));
        assert_eq!(limit(9_223_372_036_854_771_712), Some(Limit::Max), "v1");
        assert_eq!(limit(u64::MAX), Some(Limit::Max), "v2");
        assert_eq!(spec(0, 0), None);
    }

    #[test]
    fn throttled_time_of_zero_is_true_only_where_nothing_was_throttled() {
        let time =
            |guest, throttled_periods, nanos| cfs(guest, 9, throttled_periods, Seconds::from_nanos(nanos)).throttled;
        assert_eq!(time(Guest::V2, 6, 0), None);
        assert_eq!(time(Guest::Unknown, 6, 0), None);
        assert_eq!(time(Guest::V1, 6, 0), Some(Seconds::from_nanos(0)));
        assert_eq!(time(Guest::V2, 0, 0), Some(Seconds::from_nanos(0)));
        assert_eq!(time(Guest::V2, 6, 5), Some(Seconds::from_nanos(5)), "an agent with the fix");
    }

    #[test]
    fn page_sizes_are_the_kernels_and_few() {
        for good in ["2MB", "1GB", "64KB", "512MB"] {
            assert!(is_page_size(good), "{good}");
        }
        for bad in ["", "MB", "2", "2M", "2mb", "-2MB", "20000MB", "2 MB", "2MB\"", "٢MB"] {
            assert!(!is_page_size(bad), "{bad}");
        }
        let names: Vec<String> = (0..100).map(|number| format!("{number}MB")).collect();
        let many = names.iter().map(|name| HugePages { page_size: name, usage: 1, max_usage: 0, failcnt: None });
        assert_eq!(huge_pages(Guest::V2, many).len(), MAX_PAGE_SIZES);
    }

    #[test]
    fn devices_beyond_the_bound_are_not_taken() {
        let entry = |minor| IoEntry { major: 8, minor, op: "read", value: 1 };
        let many = devices(Guest::V1, (0..1000).map(entry), (0..1000).map(entry));
        assert_eq!(many.len(), MAX_DEVICES);
        assert_eq!((many[0].number.minor, many[127].number.minor), (0, 127));
        // A negative 16-bit number of the guest's parser.
        let odd = IoEntry { major: u64::MAX, minor: 0, op: "read", value: 1 };
        assert_eq!(devices(Guest::V1, [odd].into_iter(), [].into_iter()), []);
    }
}
