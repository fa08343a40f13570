//! What a guest may say that has an interest in being misunderstood.
//!
//! A guest belongs to its tenant: the agent in it, and so every name, label and number it tells, may be anything that
//! fits into a message.

use std::fmt::Write;

use crate::kata::wire::agent::{BlkioStatsEntry, HugetlbStats, StatsContainerResponse};

/// What a ttrpc response can carry at most, less the room for its envelope.
pub(crate) const RPC_LIMIT: usize = (4 << 20) - 1024;

/// The most entries a lie puts into a map of a response.
const MAP_LIMIT: usize = 60_000;

/// How a guest lies. The agent tells it so, and with it every shim that passes on what the agent says.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Label values with quotes, line breaks, control characters, text that reads like further samples, and one of
    /// 64 KiB. Keys and operations of `StatsContainer` likewise.
    HostileLabels,
    /// Families that bear other people's names (`container_…`, `kata_pulse_…`, `up`), illegal ones, types that
    /// change, values that are no numbers, lines that are no lines.
    HostileFamilies,
    /// This many families of one sample each. A response of the agent ends where it reaches 4 MiB, a shim's body
    /// does not.
    ManyFamilies(usize),
    /// This many samples of one family, and as many keys of `StatsContainer`, within the same bounds.
    ManySeries(usize),
    /// Counters that fall with every tick.
    Backwards,
    /// Counters at the end of what their type holds.
    HugeNumbers,
}

impl Lie {
    /// What is added to the text, in at most `limit` bytes.
    pub(crate) fn text(self, limit: usize) -> String {
        let mut text = String::new();
        match self {
            Self::HostileLabels => hostile_labels(&mut text),
            Self::HostileFamilies => text.push_str(HOSTILE_FAMILIES),
            Self::ManyFamilies(count) => fill(&mut text, count, limit, |text, number| {
                write!(text, "# TYPE kata_guest_f{number} gauge\nkata_guest_f{number} {number}\n")
            }),
            Self::ManySeries(count) => {
                text.push_str("# TYPE kata_guest_netdev_flood gauge\n");
                fill(&mut text, count, limit, |text, number| {
                    writeln!(text, "kata_guest_netdev_flood{{interface=\"eth{number}\",item=\"recv_bytes\"}} {number}")
                });
            }
            Self::Backwards => {}
            Self::HugeNumbers => text.push_str(HUGE_NUMBERS),
        }
        text
    }

    /// What is done to the stats of a container.
    pub(crate) fn spoil(self, response: &mut StatsContainerResponse) {
        let stats = response.cgroup_stats.mut_or_insert_default();
        match self {
            Self::HostileLabels => {
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.stats.extend(hostile_values().map(|value| (value, 1)));
                stats.hugetlb_stats.extend(hostile_values().map(|value| (value, HugetlbStats::default())));
                let blkio = stats.blkio_stats.mut_or_insert_default();
                let entries = hostile_values().map(|op| BlkioStatsEntry { op, value: 1, ..Default::default() });
                blkio.io_service_bytes_recursive.extend(entries);
            }
            Self::ManySeries(count) => {
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.stats.extend((0..count.min(MAP_LIMIT)).map(|number| (format!("key_{number}"), 1)));
            }
            Self::HugeNumbers => {
                let cpu = stats.cpu_stats.mut_or_insert_default().cpu_usage.mut_or_insert_default();
                cpu.total_usage = u64::MAX;
                cpu.usage_in_usermode = u64::MAX;
                cpu.usage_in_kernelmode = u64::MAX;
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.usage.mut_or_insert_default().usage = u64::MAX;
                memory.stats.values_mut().for_each(|value| *value = u64::MAX);
                stats.pids_stats.mut_or_insert_default().current = u64::MAX;
            }
            Self::HostileFamilies | Self::ManyFamilies(_) | Self::Backwards => {}
        }
    }
}

fn fill(text: &mut String, count: usize, limit: usize, line: impl Fn(&mut String, usize) -> std::fmt::Result) {
    // No line is longer.
    let full = limit.saturating_sub(128);
    for number in 0..count {
        if text.len() >= full {
            break;
        }
        // Writing to a string cannot fail.
        line(text, number).ok();
    }
}

fn hostile_labels(text: &mut String) {
    text.push_str("# HELP kata_guest_netdev_hostile Labels.\n# TYPE kata_guest_netdev_hostile gauge\n");
    for value in hostile_values() {
        let escaped = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
        writeln!(text, "kata_guest_netdev_hostile{{interface=\"{escaped}\",item=\"recv_bytes\"}} 1").ok();
        writeln!(text, "kata_guest_netdev_stat{{interface=\"{escaped}\",item=\"recv_bytes\"}} 1").ok();
    }
}

/// Text that somebody may take for something else.
pub(crate) fn hostile_values() -> impl Iterator<Item = String> {
    let values = [
        "",
        "eth0\"} 1\ncontainer_cpu_usage_seconds_total{container=\"victim\",pod=\"other\"} 1e9\n#",
        "back\\slash\\",
        "../../../../etc/passwd",
        "\u{0}\u{1}\u{7f}",
        "\u{202e}desrever",
        "<script>alert(1)</script>",
        "'; DROP TABLE pods; --",
        "${jndi:ldap://example.invalid}",
        "{}=,\t",
    ];
    values.into_iter().map(str::to_owned).chain([String::from("A").repeat(64 << 10)])
}

const HOSTILE_FAMILIES: &str = "\
# HELP container_cpu_usage_seconds_total Not yours.
# TYPE container_cpu_usage_seconds_total counter
container_cpu_usage_seconds_total{container=\"victim\",pod=\"other\",namespace=\"kube-system\"} 1000000
kata_pulse_sandbox_up{sandbox_id=\"0\"} 1
up{job=\"kubelet\"} 0
# TYPE kata_guest_load counter
# TYPE kata_guest_load histogram
kata_guest_load{item=\"load1\"} NaN
kata_guest_load{item=\"load5\"} -Inf
kata_guest_load{item=\"load15\"} nonsense
kata_guest_cpu_time{cpu=\"total\",item=\"user\"} -5
kata_guest_cpu_time{cpu=\"total\",item=\"user\"} 7
kata_guest_meminfo{item=\"mem_total\"
kata_guest_meminfo{item=\"mem_free\"} 1 2 3 4
0illegal 1
{no_name=\"1\"} 1
kata_guest_meminfo{item=\"mem_available\",item=\"twice\"} 1
kata_guest_meminfo{item=unquoted} 1
# TYPE
# HELP
kata_guest_netdev_stat{interface=\"eth0\",item=\"recv_bytes\"} 1 99999999999999999999
# EOF
kata_guest_after_the_end 1
";

const HUGE_NUMBERS: &str = "\
kata_guest_cpu_time{cpu=\"total\",item=\"user\"} 1.7976931348623157e308
kata_guest_cpu_time{cpu=\"total\",item=\"system\"} 18446744073709551615
kata_guest_meminfo{item=\"mem_total\"} 1e400
kata_guest_netdev_stat{interface=\"eth0\",item=\"recv_bytes\"} 99999999999999999999999999
kata_guest_vm_stat{item=\"oom_kill\"} 1e30
";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn floods_end_at_their_limit() {
        let text = Lie::ManyFamilies(1_000_000).text(100_000);
        assert!((90_000..100_000).contains(&text.len()));
        assert!(text.ends_with('\n'));
        let text = Lie::ManySeries(1000).text(usize::MAX);
        assert_eq!(text.lines().count(), 1001);
    }
}
