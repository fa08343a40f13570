//! CRI `ContainerStats` of a Kata container, the last resort: containerd asks the shim (see [`super::of_task`]) and
//! understands its answer by the letter.

use k8s_cri::v1::{ContainerStats, CpuUsage, MemoryUsage, UInt64Value};

use crate::collect::kata::stats::filled;
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Cpu, Memory, Usage};

/// Usage of a container, from CRI.
pub fn of_cri(stats: &ContainerStats) -> Usage {
    Usage { cpu: stats.cpu.as_ref().and_then(cpu), memory: stats.memory.as_ref().and_then(memory), ..Usage::default() }
}

fn cpu(stats: &CpuUsage) -> Option<Cpu> {
    let usage = number(stats.usage_core_nano_seconds.as_ref())?;
    Some(Cpu { usage: Seconds::from_nanos(usage), user: None, system: None, cfs: None })
}

/// Where the shim lost the inactive file memory, containerd subtracts nothing and calls all of the usage the working
/// set; what it lost besides is zero. Page faults are those of the hierarchy where they come through at all.
fn memory(stats: &MemoryUsage) -> Option<Memory> {
    let usage = number(stats.usage_bytes.as_ref())?;
    let working_set = number(stats.working_set_bytes.as_ref()).filter(|working_set| *working_set < usage);
    let page_faults = number(stats.page_faults.as_ref());
    let major = stats.major_page_faults.as_ref().map(|faults| faults.value);
    let major_page_faults = page_faults.and(major);
    Some(Memory {
        usage: Some(Bytes(usage)),
        working_set: working_set.map(Bytes),
        rss: number(stats.rss_bytes.as_ref()).map(Bytes),
        page_faults,
        major_page_faults,
        page_faults_hierarchy: page_faults,
        major_page_faults_hierarchy: major_page_faults,
        ..Memory::default()
    })
}

/// A value that is there and not zero.
fn number(value: Option<&UInt64Value>) -> Option<u64> {
    filled(value?.value)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stats(usage: u64, working_set: u64, rss: u64, faults: [u64; 2]) -> ContainerStats {
        let value = |value| Some(UInt64Value { value });
        ContainerStats {
            cpu: Some(CpuUsage { usage_core_nano_seconds: value(27_100_000_000), ..CpuUsage::default() }),
            memory: Some(MemoryUsage {
                usage_bytes: value(usage),
                working_set_bytes: value(working_set),
                rss_bytes: value(rss),
                page_faults: value(faults[0]),
                major_page_faults: value(faults[1]),
                ..MemoryUsage::default()
            }),
            ..ContainerStats::default()
        }
    }

    #[test]
    fn a_working_set_that_equals_usage_is_none() {
        // As recorded for a container whose working set was 2 MB.
        let usage = of_cri(&stats(69_623_808, 69_623_808, 0, [0, 0]));
        assert_eq!(usage.cpu.unwrap().usage, Seconds::from_nanos(27_100_000_000));
        assert_eq!(usage.memory.unwrap(), Memory { usage: Some(Bytes(69_623_808)), ..Memory::default() });
    }

    #[test]
    fn a_shim_that_loses_nothing_is_believed() {
        let expected = Memory {
            usage: Some(Bytes(1000)),
            working_set: Some(Bytes(600)),
            rss: Some(Bytes(300)),
            page_faults: Some(9),
            major_page_faults: Some(0),
            page_faults_hierarchy: Some(9),
            major_page_faults_hierarchy: Some(0),
            ..Memory::default()
        };
        assert_eq!(of_cri(&stats(1000, 600, 300, [9, 0])).memory.unwrap(), expected);
    }

    #[test]
    fn what_is_absent_or_zero_gives_nothing() {
        assert_eq!(of_cri(&ContainerStats::default()), Usage::default());
        let zero = ContainerStats {
            cpu: Some(CpuUsage { usage_core_nano_seconds: Some(UInt64Value { value: 0 }), ..CpuUsage::default() }),
            memory: Some(MemoryUsage::default()),
            ..ContainerStats::default()
        };
        assert_eq!(of_cri(&zero), Usage::default());
    }
}
