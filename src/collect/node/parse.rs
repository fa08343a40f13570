//! Files of procfs about the node as a whole to facts. Pure: any bytes give facts or an error that names the file.
//! Lines that are not understood are skipped, unknown ones too; a known field of another shape is the error.

use crate::collect::cgroup::parse::{ParseError, keyed, number};
use crate::collect::exclude::Exclude;
use crate::collect::node::names::family;
use crate::model::node::{BlockDevice, CpuTime, HostInterface, KernelCounters, Named, Softnet, Transfers};
use crate::model::units::{Bytes, Seconds, Value};

/// Most CPUs, devices and interfaces taken, each.
const MOST: usize = 8192;

fn lines(content: &[u8]) -> impl Iterator<Item = &[u8]> {
    content.split(|byte| *byte == b'\n')
}

fn words(line: &[u8]) -> impl Iterator<Item = &[u8]> {
    line.split(|byte| byte.is_ascii_whitespace()).filter(|word| !word.is_empty())
}

fn text(bytes: &[u8]) -> String {
    String::from_utf8_lossy(bytes).into_owned()
}

/// Numbers of a line until the first word that is none.
fn numbers(line: &[u8]) -> Vec<u64> {
    words(line).map_while(number).collect()
}

/// `/proc/stat`.
///
/// ```text
/// cpu0 573213 401596 177598 225875 6729 0 2220 15793 0 0     clock ticks; the last two are part of the first two
/// intr 16511188 0 9 …
/// ctxt 30826809
/// btime 1795904972
/// processes 309002
/// procs_running 13
/// procs_blocked 0
/// ```
pub(super) fn stat(content: &[u8]) -> Result<(Vec<CpuTime>, KernelCounters), ParseError> {
    let (mut cpus, mut kernel) = (Vec::new(), KernelCounters::default());
    for (key, value) in keyed(content) {
        let first = words(value).next().and_then(number);
        let field = match key {
            b"btime" => {
                kernel.boot_time = Some(Seconds::from_secs(first.ok_or(ParseError("btime"))?));
                continue;
            }
            b"ctxt" => &mut kernel.context_switches,
            b"processes" => &mut kernel.forks,
            b"intr" => &mut kernel.interrupts,
            b"procs_running" => &mut kernel.running,
            b"procs_blocked" => &mut kernel.blocked,
            _ => {
                cpus.extend(cpu(key, value)?.filter(|_| cpus.len() < MOST));
                continue;
            }
        };
        *field = Some(first.ok_or(ParseError("stat"))?);
    }
    Ok((cpus, kernel))
}

/// A line of one CPU. Kernels before 2.6.24 had no guest columns.
fn cpu(key: &[u8], value: &[u8]) -> Result<Option<CpuTime>, ParseError> {
    let Some(number) = key.strip_prefix(b"cpu").filter(|number| number.first().is_some_and(u8::is_ascii_digit)) else {
        return Ok(None);
    };
    let ticks = numbers(value);
    let modes = ticks.first_chunk::<8>().ok_or(ParseError("cpu time"))?;
    let guest = [ticks.get(8), ticks.get(9)].map(|ticks| ticks.copied().unwrap_or_default());
    let seconds = Seconds::from_ticks;
    Ok(Some(CpuTime { cpu: text(number), modes: modes.map(seconds), guest: guest.map(seconds) }))
}

/// `/proc/loadavg`: `7.67 9.60 7.76 5/127 20972`.
pub(super) fn loadavg(content: &[u8]) -> Result<[Value; 3], ParseError> {
    let mut averages = words(content).map(Value::from_decimal);
    let mut next = || averages.next().flatten().ok_or(ParseError("loadavg"));
    Ok([next()?, next()?, next()?])
}

/// Every field of `/proc/meminfo`: `Active(anon):    1652 kB`, `HugePages_Total:       0`.
pub(super) fn meminfo(content: &[u8]) -> Vec<Named> {
    let fields = keyed(content).filter_map(|(key, value)| {
        let key = std::str::from_utf8(key.strip_suffix(b":")?).ok()?;
        let key = key.replace('(', "_").replace(')', "");
        let (value, unit) = match value.strip_suffix(b" kB") {
            Some(kib) => (Bytes::from_kib(number(kib)?).into(), "_bytes"),
            None => (number(value)?.into(), ""),
        };
        Some(Named { name: family("node_memory_", &format!("{key}{unit}"))?, value })
    });
    fields.take(MOST).collect()
}

/// What node_exporter takes of `/proc/vmstat` when nobody says otherwise.
pub(super) fn vmstat(content: &[u8]) -> Vec<Named> {
    let wanted = |key: &str| {
        ["oom_kill", "pgpg", "pswp"].iter().any(|prefix| key.starts_with(prefix))
            || key.strip_prefix("pg").is_some_and(|rest| rest.contains("fault"))
    };
    let fields = keyed(content).filter_map(|(key, value)| {
        let key = std::str::from_utf8(key).ok().filter(|key| wanted(key))?;
        Some(Named { name: family("node_vmstat_", key)?, value: number(value)?.into() })
    });
    fields.take(MOST).collect()
}

/// `/proc/net/netstat` and `/proc/net/snmp`: a line of names and one of numbers for each protocol.
///
/// ```text
/// Tcp: RtoAlgorithm RtoMin … CurrEstab
/// Tcp: 1 200 … 4
/// ```
pub(super) fn netstat(content: &[u8]) -> Vec<Named> {
    let mut found = Vec::new();
    let mut heads: Option<&[u8]> = None;
    for line in lines(content).filter(|line| !line.is_empty()) {
        let Some(head) = heads.take() else {
            heads = Some(line);
            continue;
        };
        let (mut keys, mut values) = (words(head), words(line));
        let (Some(protocol), Some(same)) = (keys.next(), values.next()) else { continue };
        let Some(protocol) = protocol.strip_suffix(b":").filter(|_| protocol == same) else { continue };
        for (key, value) in keys.zip(values) {
            found.extend(protocol_counter(protocol, key, value));
        }
    }
    found
}

/// `/proc/net/snmp6`: `Ip6InOctets      673732`.
pub(super) fn snmp6(content: &[u8]) -> Vec<Named> {
    let counters = lines(content).filter_map(|line| {
        let mut words = words(line);
        let (key, value) = (words.next()?, words.next()?);
        let six = key.iter().position(|byte| *byte == b'6')?;
        protocol_counter(&key[..=six], &key[six + 1..], value)
    });
    counters.collect()
}

/// What node_exporter takes when nobody says otherwise. A negative number, `-1` for "no limit", is none of a counter.
fn protocol_counter(protocol: &[u8], key: &[u8], value: &[u8]) -> Option<Named> {
    let (protocol, key) = (std::str::from_utf8(protocol).ok()?, std::str::from_utf8(key).ok()?);
    let wanted = match protocol {
        _ if matches!(key, "InErrors" | "InErrs") => true,
        "Ip" => key == "Forwarding",
        "Ip6" | "IpExt" => matches!(key, "InOctets" | "OutOctets"),
        "Icmp" | "Icmp6" => matches!(key, "InMsgs" | "OutMsgs"),
        "TcpExt" => {
            ["Listen", "Syncookies"].iter().any(|prefix| key.starts_with(prefix))
                || matches!(key, "TCPSynRetrans" | "TCPTimeouts")
        }
        "Tcp" => matches!(
            key,
            "ActiveOpens" | "InSegs" | "OutSegs" | "OutRsts" | "PassiveOpens" | "RetransSegs" | "CurrEstab"
        ),
        "Udp" | "Udp6" => {
            matches!(key, "InDatagrams" | "OutDatagrams" | "NoPorts" | "RcvbufErrors" | "SndbufErrors")
        }
        _ => false,
    };
    let value = number(value).filter(|_| wanted)?.into();
    Some(Named { name: family("node_netstat_", &format!("{protocol}_{key}"))?, value })
}

/// `/proc/net/sockstat` and `sockstat6`: `TCP: inuse 1 orphan 0 tw 1 alloc 1 mem 214`. Memory is in pages, and is told in
/// bytes as well where node_exporter does.
pub(super) fn sockstat(content: &[u8], page: u64) -> Vec<Named> {
    let mut found = Vec::new();
    for line in lines(content) {
        let mut words = words(line);
        let Some(protocol) = words.next().and_then(|word| std::str::from_utf8(word.strip_suffix(b":")?).ok()) else {
            continue;
        };
        while let (Some(key), Some(value)) = (words.next(), words.next()) {
            let (Ok(key), Some(value)) = (std::str::from_utf8(key), number(value)) else { continue };
            let mut add = |key: &str, value: u64| {
                let name = family("node_sockstat_", &format!("{protocol}_{key}"));
                found.extend(name.map(|name| Named { name, value: value.into() }));
            };
            add(key, value);
            if key == "mem" && matches!(protocol, "TCP" | "UDP") {
                add("mem_bytes", value.saturating_mul(page));
            }
        }
    }
    found
}

/// `/proc/diskstats`, without what is excluded.
///
/// ```text
///  254       0 vda 1197451 67987 69305338 6505887 372443 1774559 284415184 4749362 0 846136 11921720 1380215 132 226258776 579785 29609 86684
/// ```
pub(super) fn diskstats(content: &[u8], exclude: &Exclude) -> Result<Vec<BlockDevice>, ParseError> {
    let mut disks = Vec::new();
    for line in lines(content) {
        let mut words = words(line);
        let (Some(major), Some(minor), Some(device)) = (words.next(), words.next(), words.next()) else { continue };
        let device = text(device);
        if exclude.has(&device) || disks.len() == MOST {
            continue;
        }
        let columns: Vec<u64> = words.map_while(number).collect();
        let at = |column: usize| columns.get(column).copied();
        let transfers = |first: usize| {
            Some(Transfers {
                completed: at(first)?,
                merged: at(first + 1)?,
                sectors: at(first + 2)?,
                time: Seconds::from_millis(at(first + 3)?),
            })
        };
        let malformed = || ParseError("diskstats");
        disks.push(BlockDevice {
            major: number(major).ok_or_else(malformed)?,
            minor: number(minor).ok_or_else(malformed)?,
            read: transfers(0).ok_or_else(malformed)?,
            written: transfers(4).ok_or_else(malformed)?,
            in_progress: at(8).ok_or_else(malformed)?,
            io_time: at(9).map(Seconds::from_millis),
            weighted_io_time: at(10).map(Seconds::from_millis),
            discards: transfers(11),
            flushes: at(15).zip(at(16).map(Seconds::from_millis)),
            device,
        });
    }
    Ok(disks)
}

/// `/proc/<pid>/net/dev`, every interface of it.
pub(super) fn net_dev(content: &[u8]) -> Result<Vec<HostInterface>, ParseError> {
    let mut interfaces = Vec::new();
    for line in lines(content) {
        let Some(colon) = line.iter().rposition(|byte| *byte == b':') else { continue };
        let columns = numbers(&line[colon + 1..]);
        let (receive, rest) = columns.split_first_chunk::<8>().ok_or(ParseError("net/dev"))?;
        let transmit = rest.first_chunk::<8>().ok_or(ParseError("net/dev"))?;
        let device = text(line[..colon].trim_ascii());
        if interfaces.len() < MOST {
            interfaces.push(HostInterface {
                device,
                receive: Some(*receive),
                transmit: Some(*transmit),
                ..HostInterface::default()
            });
        }
    }
    Ok(interfaces)
}

/// `/proc/net/softnet_stat`: hexadecimal columns, a line for each CPU; the last but two names it since Linux 5.10.
pub(super) fn softnet(content: &[u8]) -> Vec<Softnet> {
    let rows = lines(content).filter(|line| !line.is_empty()).enumerate();
    let rows = rows.filter_map(|(at, line)| {
        let columns: Vec<u64> = words(line).map_while(hexadecimal).collect();
        let cpu = columns.get(12).copied().unwrap_or(at.try_into().ok()?);
        let [processed, dropped, squeezed] = *columns.first_chunk::<3>()?;
        Some(Softnet { cpu: cpu.to_string(), processed, dropped, squeezed })
    });
    rows.take(MOST).collect()
}

fn hexadecimal(word: &[u8]) -> Option<u64> {
    u64::from_str_radix(std::str::from_utf8(word).ok()?, 16).ok()
}

/// Tracked connections: the first column of `/proc/net/stat/nf_conntrack`, the same in every line.
pub(super) fn conntrack(content: &[u8]) -> Option<u64> {
    words(lines(content).nth(1)?).next().and_then(hexadecimal)
}

/// Neighbours by interface, the last column of `/proc/net/arp`.
pub(super) fn arp(content: &[u8]) -> Vec<(String, u64)> {
    let mut counts: Vec<(String, u64)> = Vec::new();
    for line in lines(content).skip(1) {
        let Some(device) = words(line).nth(5).map(text) else { continue };
        if let Some((_, count)) = counts.iter_mut().find(|(known, _)| *known == device) {
            *count += 1;
        } else if counts.len() < MOST {
            counts.push((device, 1));
        }
    }
    counts
}

/// Open files and their limit: `890 0 2466174` of `/proc/sys/fs/file-nr`.
pub(super) fn file_nr(content: &[u8]) -> Result<(u64, u64), ParseError> {
    let [allocated, _, maximum] = *numbers(content).first_chunk::<3>().ok_or(ParseError("file-nr"))?;
    Ok((allocated, maximum))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn cpu_lines_are_ticks_and_the_sum_is_left_out() {
        let text =
            b"cpu  1 2 3 4 5 6 7 8 9 10\ncpu0 100 2 3 4 5 6 7 8 9 10\ncpu12 1 2 3 4 5 6 7 8\nintr 16511188 0 9\n\
                     ctxt 30826809\nbtime 1795904972\nprocesses 309002\nprocs_running 13\nprocs_blocked 0\nnew 1 2\n";
        let (cpus, kernel) = stat(text).unwrap();
        assert_eq!(cpus.iter().map(|cpu| cpu.cpu.as_str()).collect::<Vec<_>>(), ["0", "12"]);
        assert_eq!(cpus[0].modes[0].as_f64(), 1.0);
        assert_eq!(cpus[0].guest, [Seconds::from_ticks(9), Seconds::from_ticks(10)]);
        assert_eq!(cpus[1].guest, [Seconds::from_ticks(0); 2]);
        assert_eq!(kernel.boot_time, Some(Seconds::from_secs(1_795_904_972)));
        assert_eq!((kernel.interrupts, kernel.running, kernel.blocked), (Some(16_511_188), Some(13), Some(0)));
        assert_eq!((kernel.context_switches, kernel.forks), (Some(30_826_809), Some(309_002)));
        assert_eq!(stat(b"cpu0 1 2 3\n"), Err(ParseError("cpu time")));
        assert_eq!(stat(b"ctxt many\n"), Err(ParseError("stat")));
    }

    fn named(found: &[Named]) -> Vec<(&'static str, f64)> {
        found.iter().map(|named| (named.name, named.value.as_f64())).collect()
    }

    #[test]
    fn memory_fields_are_named_and_scaled_as_node_exporter_does() {
        let text =
            b"MemTotal:       2048 kB\nActive(anon):      1 kB\nHugePages_Total:       3\nBad: x kB\nno colon 1\n";
        let expected = [
            ("node_memory_MemTotal_bytes", 2_097_152.0),
            ("node_memory_Active_anon_bytes", 1024.0),
            ("node_memory_HugePages_Total", 3.0),
        ];
        assert_eq!(named(&meminfo(text)), expected);
    }

    #[test]
    fn only_the_usual_selection_of_vmstat_is_taken() {
        let text = b"nr_free_pages 1\npgpgin 2\npswpout 3\npgfault 4\npgmajfault 5\noom_kill 6\npgalloc_dma 7\n";
        let found = named(&vmstat(text));
        let names: Vec<&str> = found.iter().map(|(name, _)| name.trim_start_matches("node_vmstat_")).collect();
        assert_eq!(names, ["pgpgin", "pswpout", "pgfault", "pgmajfault", "oom_kill"]);
    }

    #[test]
    fn protocol_counters_come_from_pairs_of_lines() {
        let text = b"Ip: Forwarding DefaultTTL\nIp: 2 64\nTcp: MaxConn InErrs CurrEstab\nTcp: -1 7 4\nUdpLite: InErrors\nUdpLite: 1\n";
        let expected = [
            ("node_netstat_Ip_Forwarding", 2.0),
            ("node_netstat_Tcp_InErrs", 7.0),
            ("node_netstat_Tcp_CurrEstab", 4.0),
            ("node_netstat_UdpLite_InErrors", 1.0),
        ];
        assert_eq!(named(&netstat(text)), expected);
        assert_eq!(named(&netstat(b"Tcp: InErrs\nUdp: 1\n")), [], "two protocols' lines");
        let six = b"Ip6InOctets   673732\nIcmp6InErrors 2\nIcmp6InType134 9\nUdpLite6InErrors 0\n";
        let expected = [
            ("node_netstat_Ip6_InOctets", 673_732.0),
            ("node_netstat_Icmp6_InErrors", 2.0),
            ("node_netstat_UdpLite6_InErrors", 0.0),
        ];
        assert_eq!(named(&snmp6(six)), expected);
    }

    #[test]
    fn socket_memory_is_told_in_pages_and_in_bytes() {
        let text = b"sockets: used 20\nTCP: inuse 1 mem 214\nFRAG: inuse 0 memory 5\n";
        let expected = [
            ("node_sockstat_sockets_used", 20.0),
            ("node_sockstat_TCP_inuse", 1.0),
            ("node_sockstat_TCP_mem", 214.0),
            ("node_sockstat_TCP_mem_bytes", 876_544.0),
            ("node_sockstat_FRAG_inuse", 0.0),
            ("node_sockstat_FRAG_memory", 5.0),
        ];
        assert_eq!(named(&sockstat(text, 4096)), expected);
    }

    #[test]
    fn disk_lines_of_every_age_are_read() {
        let text =
            b" 254 0 vda 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n 8 0 sda 1 2 3 4 5 6 7 8 9 10 11\n 8 1 sda1 1\n";
        let disks = diskstats(text, &Exclude::new("[0-9]$").unwrap()).unwrap();
        assert_eq!((disks[0].written.sectors, disks[0].in_progress), (7, 9));
        assert_eq!(disks[0].discards.map(|discards| discards.time), Some(Seconds::from_millis(15)));
        assert_eq!(disks[0].flushes, Some((16, Seconds::from_millis(17))));
        assert_eq!((disks[1].discards, disks[1].flushes), (None, None));
        assert_eq!(diskstats(b" 8 0 sda 1 2\n", &Exclude::default()), Err(ParseError("diskstats")));
    }

    #[test]
    fn every_interface_is_taken_with_all_columns() {
        let text = b"head|\n face |x\n    lo: 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16\neth0:1: 0 0 0 0 0 0 0 0 0 0 0 0 0 0 0 1\n";
        let found = net_dev(text).unwrap();
        assert_eq!((found[0].device.as_str(), found[1].device.as_str()), ("lo", "eth0:1"));
        assert_eq!(found[0].receive, Some([1, 2, 3, 4, 5, 6, 7, 8]));
        assert_eq!(found[1].transmit, Some([0, 0, 0, 0, 0, 0, 0, 1]));
        assert!(net_dev(b"eth0: 1 2\n").is_err());
    }

    #[test]
    fn hexadecimal_tables_are_read() {
        let rows = softnet(b"00170119 00000000 00000008 0 0 0 0 0 0 0 0 0 00000005 0 0\n0000000a 1 2\n");
        assert_eq!((rows[0].cpu.as_str(), rows[0].processed, rows[0].squeezed), ("5", 1_507_609, 8));
        assert_eq!((rows[1].cpu.as_str(), rows[1].processed, rows[1].dropped), ("1", 10, 1));
        assert_eq!(conntrack(b"entries  clashres\n0000001f  00000000\n"), Some(31));
        assert_eq!(conntrack(b"entries\n"), None);
    }

    #[test]
    fn neighbours_are_counted_by_interface() {
        let text = b"IP address HW type Flags HW address Mask Device\n1 0x1 0x2 aa * eth0\n2 0x1 0x2 bb * eth1\n3 0x1 0x2 cc * eth0\n";
        assert_eq!(arp(text), [("eth0".to_owned(), 2), ("eth1".to_owned(), 1)]);
    }

    #[test]
    fn short_files_are_errors() {
        assert_eq!(loadavg(b"7.67 9.60 7.76 5/127 20972\n").unwrap().map(Value::as_f64), [7.67, 9.6, 7.76]);
        assert_eq!(loadavg(b"7.67 9.60"), Err(ParseError("loadavg")));
        assert_eq!(file_nr(b"890\t0\t2466174\n"), Ok((890, 2_466_174)));
        assert_eq!(file_nr(b"890\n"), Err(ParseError("file-nr")));
    }

    proptest! {
        #[test]
        fn any_bytes_do_no_harm(bytes in proptest::collection::vec(any::<u8>(), 0..300)) {
            let _ = (stat(&bytes), loadavg(&bytes), net_dev(&bytes), file_nr(&bytes));
            let _ = diskstats(&bytes, &Exclude::default());
            let _ = (meminfo(&bytes), vmstat(&bytes), netstat(&bytes));
            let _ = (snmp6(&bytes), sockstat(&bytes, 4096));
            let _ = (softnet(&bytes), conntrack(&bytes), arp(&bytes));
        }
    }
}
