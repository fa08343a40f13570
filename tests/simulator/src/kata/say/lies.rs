//! What a guest may say that has an interest in being misunderstood.
//!
//! A guest belongs to its tenant: the agent in it, and so every name, label and number it tells, may be anything that
//! fits into a message. Who breaks out of it speaks for the hypervisor as well.

use std::fmt::Write;

use serde_json::{Map, Value, json};

use crate::kata::say::agent_stats::memory_stat;
use crate::kata::wire::agent::{BlkioStatsEntry, HugetlbStats, StatsContainerResponse};

/// What a ttrpc response can carry at most, less the room for its envelope.
pub(crate) const RPC_LIMIT: usize = (4 << 20) - 1024;

/// Where a shim's body ends, which it need not: somewhere beyond what anybody may take.
pub(crate) const BODY_LIMIT: usize = 12 << 20;

/// The most entries a lie puts into a map of a response.
const MAP_LIMIT: usize = 60_000;

/// How a guest lies. The agent tells it so, and with it every shim that passes on what the agent says; names and
/// numbers of devices are told by the hypervisor, too.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Lie {
    /// Label values with quotes, line breaks, control characters, text that reads like further samples, and one of
    /// 64 KiB, as names of interfaces, disks and mounts that have all their counters. Keys and operations of
    /// `StatsContainer` likewise, but for the long one, which alone would be too much for that answer.
    HostileLabels,
    /// Interfaces, disks, mounts and page sizes whose names have this many bytes, and differ in the last of them.
    LongNames(usize),
    /// Families that bear other people's names (`container_…`, `kata_pulse_…`, `up`), illegal ones, types that
    /// change, values that are no numbers, lines that are no lines.
    HostileFamilies,
    /// This many families of one sample each. A response of the agent ends where it reaches 4 MiB, a shim's body at
    /// 12 MiB.
    ManyFamilies(usize),
    /// This many samples of one family, and as many keys of `StatsContainer`, within the same bounds.
    ManySeries(usize),
    /// This many interfaces, disks, mounts, page sizes and block devices with all their counters, within the same
    /// bounds.
    ManyDevices(usize),
    /// Where counts belong: NaN, infinities, negative numbers, fractions, numbers beyond 64 bits, words.
    OddNumbers,
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
            Self::HostileLabels => {
                text.push_str("# HELP kata_guest_netdev_hostile Labels.\n# TYPE kata_guest_netdev_hostile gauge\n");
                hostile_values().for_each(|value| devices(&mut text, &value));
            }
            Self::LongNames(bytes) => {
                long_names(bytes).iter().for_each(|name| devices(&mut text, name));
                // The shim has heard no more than the agent can say.
                let fitting = text.get(..limit.min(RPC_LIMIT - (64 << 10))).unwrap_or(&text);
                text.truncate(fitting.rfind('\n').map_or(0, |end| end + 1));
            }
            Self::ManyDevices(count) => {
                for number in 0..count {
                    let before = text.len();
                    devices(&mut text, &format!("dev{number}"));
                    if text.len() > limit {
                        // The last one told has all its counters.
                        text.truncate(before);
                        break;
                    }
                }
            }
            Self::OddNumbers => odd_numbers(&mut text),
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
                let values = || hostile_values().filter(|value| value.len() < 1024);
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.stats.extend(values().map(|value| memory_stat((value, 1))));
                stats.hugetlb_stats.extend(values().map(|value| (value, HugetlbStats::default())));
                let blkio = stats.blkio_stats.mut_or_insert_default();
                let entries = values().map(|op| BlkioStatsEntry { op, value: 1, ..Default::default() });
                blkio.io_service_bytes_recursive.extend(entries);
            }
            Self::LongNames(bytes) => {
                stats.hugetlb_stats.extend(long_names(bytes).map(|name| (name, HugetlbStats::default())));
            }
            Self::ManyDevices(count) => {
                let sizes = (0..count.min(MAP_LIMIT)).map(|number| (format!("{number}MB"), HugetlbStats::default()));
                stats.hugetlb_stats.extend(sizes);
                let minors = 0..u64::try_from(count.min(MAP_LIMIT)).unwrap_or_default();
                let entry = |minor| BlkioStatsEntry { minor, op: "read".to_owned(), value: 1, ..Default::default() };
                stats.blkio_stats.mut_or_insert_default().io_service_bytes_recursive.extend(minors.map(entry));
            }
            Self::ManySeries(count) => {
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.stats.extend((0..count.min(MAP_LIMIT)).map(|number| memory_stat((format!("key_{number}"), 1))));
            }
            Self::HugeNumbers => {
                let cpu = stats.cpu_stats.mut_or_insert_default().cpu_usage.mut_or_insert_default();
                cpu.total_usage = u64::MAX;
                cpu.usage_in_usermode = u64::MAX;
                cpu.usage_in_kernelmode = u64::MAX;
                let memory = stats.memory_stats.mut_or_insert_default();
                memory.usage.mut_or_insert_default().usage = u64::MAX;
                memory.stats.iter_mut().for_each(|stat| stat.value = u64::MAX);
                stats.pids_stats.mut_or_insert_default().current = u64::MAX;
            }
            Self::HostileFamilies | Self::ManyFamilies(_) | Self::OddNumbers | Self::Backwards => {}
        }
    }

    /// What the hypervisor says of its devices, with what is added to it.
    pub(crate) fn counters(self, body: &str) -> String {
        let Ok(Value::Object(mut devices)) = serde_json::from_str(body) else { return body.to_owned() };
        let counters = |value: &Value| {
            let names = ["rx_bytes", "rx_frames", "tx_bytes", "tx_frames", "read_bytes", "read_ops", "write_ops"];
            Value::from(names.map(|name| (name.to_owned(), value.clone())).into_iter().collect::<Map<_, _>>())
        };
        match self {
            Self::HostileLabels => devices.extend(hostile_values().map(|name| (name, counters(&json!(1))))),
            Self::LongNames(bytes) => devices.extend(long_names(bytes).map(|name| (name, counters(&json!(1))))),
            Self::ManyDevices(count) => {
                let names = (0..count.min(MAP_LIMIT / 4)).map(|number| format!("_net{number}x"));
                devices.extend(names.map(|name| (name, counters(&json!(1)))));
            }
            Self::HugeNumbers => devices.extend([("_net9".to_owned(), counters(&json!(u64::MAX)))]),
            Self::OddNumbers => {
                let odd = [json!(-1), json!(0.5), json!(1e300), json!("12"), json!([1]), json!({"a": 1}), Value::Null];
                devices.extend(odd.iter().enumerate().map(|(at, value)| (format!("_odd{at}"), counters(value))));
            }
            Self::HostileFamilies | Self::ManyFamilies(_) | Self::ManySeries(_) | Self::Backwards => {}
        }
        Value::Object(devices).to_string()
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

/// An interface, a disk and a mount of this name, with everything that is told of real ones.
fn devices(text: &mut String, name: &str) {
    let name = name.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
    // Writing to a string cannot fail.
    let mut put = |family: &str, labels: &str, item: &str| {
        writeln!(text, "kata_guest_{family}{{{labels},item=\"{item}\"}} 1").ok();
    };
    for item in NETDEV_ITEMS {
        put("netdev_stat", &format!("interface=\"{name}\""), item);
        // Nobody's family.
        put("netdev_hostile", &format!("interface=\"{name}\""), item);
    }
    for item in DISK_ITEMS {
        put("diskstat", &format!("disk=\"{name}\""), item);
    }
    for item in ["available", "total", "used"] {
        put("filesystem_bytes", &format!("device=\"{name}\",mount=\"/{name}\""), item);
        put("filesystem_inodes", &format!("device=\"{name}\",mount=\"/{name}\""), item);
    }
}

const NETDEV_ITEMS: [&str; 8] =
    ["recv_bytes", "recv_drop", "recv_errs", "recv_packets", "sent_bytes", "sent_drop", "sent_errs", "sent_packets"];

const DISK_ITEMS: [&str; 11] = [
    "in_progress",
    "merged",
    "reads",
    "sectors_read",
    "sectors_written",
    "time_in_progress",
    "time_reading",
    "time_writing",
    "weighted_time_in_progress",
    "writes",
    "writes_merged",
];

/// Two names of so many bytes that differ in the last one.
fn long_names(bytes: usize) -> [String; 2] {
    ["x", "y"].map(|last| "A".repeat(bytes.saturating_sub(1)) + last)
}

/// Every series of the real text that is told by a number of its own, with a number that cannot be.
fn odd_numbers(text: &mut String) {
    let values =
        ["NaN", "-1", "+Inf", "-Inf", "0.5", "1e400", "18446744073709551616", "-0.0000001", "0x10", "seven", ""];
    let series = [
        ("cpu_time", "cpu=\"total\"", &["user", "system", "nice", "irq", "softirq", "steal"][..]),
        ("meminfo", "", &["mem_total", "mem_free", "mem_available", "cached", "slab", "anon_pages", "buffers"]),
        ("load", "", &["load1", "load5", "load15"]),
        ("tasks", "", &["cur", "max"]),
        ("vm_stat", "", &["oom_kill", "pgfault", "pgmajfault"]),
        ("netdev_stat", "interface=\"eth0\"", &NETDEV_ITEMS),
        ("diskstat", "disk=\"vda\"", &DISK_ITEMS),
        ("filesystem_bytes", "device=\"vda1\",mount=\"/\"", &["available", "total", "used"]),
    ];
    let mut values = values.iter().cycle();
    for (family, labels, items) in series {
        for item in items {
            let separator = if labels.is_empty() { "" } else { "," };
            let value = values.next().unwrap_or(&"NaN");
            writeln!(text, "kata_guest_{family}{{{labels}{separator}item=\"{item}\"}} {value}").ok();
        }
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
        let text = Lie::ManyDevices(1_000_000).text(100_000);
        assert!((90_000..100_000).contains(&text.len()));
        assert_eq!(text.lines().count() % 33, 0, "every device is whole");
    }

    #[test]
    fn the_hypervisor_joins_in() {
        let body = r#"{"_net0":{"rx_bytes":1}}"#;
        assert_eq!(Lie::Backwards.counters(body), body);
        let told: Value = serde_json::from_str(&Lie::ManyDevices(1000).counters(body)).unwrap();
        assert_eq!(told.as_object().unwrap().len(), 1001);
        assert_eq!(told["_net0"]["rx_bytes"], 1);
    }
}
