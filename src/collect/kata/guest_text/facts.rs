//! From samples to a [`Guest`]: which family and item is which fact, in which unit.

use memchr::memchr3;

use super::table::{NoRow, Row, Table};
use crate::collect::cgroup::parse;
use crate::collect::kata::exposition::{Labels, Malformed, Quoted, Report, Sample, integer, measure};
use crate::model::guest::{CpuMode, CpuTimes, Guest, GuestFilesystem, GuestMemory, Load};
use crate::model::units::{Bytes, Seconds};
use crate::model::usage::{Disk, Interface, Traffic};

/// Words of 64 vCPUs each that are told apart; Kata boots no more than 1024.
const CPU_WORDS: usize = 16;

/// Families that are read.
#[derive(Clone, Copy, Debug)]
enum Family {
    CpuTime,
    Meminfo,
    VmStat,
    Netdev,
    Diskstat,
    Load,
    Tasks,
    FilesystemBytes,
    FilesystemInodes,
    AgentScrapes,
}

impl Family {
    /// From the name less `kata_`.
    fn named(name: &[u8]) -> Option<Self> {
        Some(match name {
            b"guest_vm_stat" => Self::VmStat,
            b"guest_diskstat" => Self::Diskstat,
            b"guest_meminfo" => Self::Meminfo,
            b"guest_netdev_stat" => Self::Netdev,
            b"guest_cpu_time" => Self::CpuTime,
            b"guest_load" => Self::Load,
            b"guest_tasks" => Self::Tasks,
            b"guest_filesystem_bytes" => Self::FilesystemBytes,
            b"guest_filesystem_inodes" => Self::FilesystemInodes,
            b"agent_scrape_count" => Self::AgentScrapes,
            _ => return None,
        })
    }
}

/// Facts found so far.
#[derive(Debug, Default)]
pub(super) struct Facts {
    cpu: CpuTimes,
    /// One bit per vCPU seen.
    cpus: [u64; CPU_WORDS],
    memory: GuestMemory,
    load: Load,
    runnable_tasks: Option<u64>,
    threads: Option<u64>,
    page_faults: Option<u64>,
    major_page_faults: Option<u64>,
    oom_kills: Option<u64>,
    agent_scrapes: Option<u64>,
    interfaces: Table<8>,
    disks: Table<11>,
    /// Bytes and inodes: total, used, available.
    filesystems: Table<6>,
    scratch: [Vec<u8>; 2],
}

impl Facts {
    /// Takes one line, which is neither blank nor a comment and has no blanks around it.
    pub(super) fn take(&mut self, line: &[u8], report: &mut Report) -> Result<(), Malformed> {
        let Some(family) = line.strip_prefix(b"kata_") else { return begins_a_name(line) };
        let end = memchr3(b'{', b' ', b'\t', family).unwrap_or(family.len());
        let (family, rest) = family.split_at(end);
        let Some(family) = Family::named(family) else { return Ok(()) };
        if matches!(family, Family::VmStat) && is_unread_counter(rest) {
            return Ok(());
        }
        if !rest.is_ascii() && std::str::from_utf8(rest).is_err() {
            return Err(Malformed);
        }
        let Sample { labels, value } = Sample::parse(rest)?;
        match family {
            Family::CpuTime => self.cpu_time(&labels, value),
            Family::Meminfo => self.meminfo(&labels, value),
            Family::VmStat => self.vm_stat(&labels, value),
            Family::Netdev => self.netdev(&labels, value, report),
            Family::Diskstat => self.diskstat(&labels, value, report),
            Family::Load => self.load(&labels, value),
            Family::Tasks => self.tasks(&labels, value),
            Family::FilesystemBytes => self.filesystem(&labels, value, 0, report),
            Family::FilesystemInodes => self.filesystem(&labels, value, 3, report),
            Family::AgentScrapes => count(&mut self.agent_scrapes, value),
        }
    }

    fn cpu_time(&mut self, labels: &Labels, value: &[u8]) -> Result<(), Malformed> {
        let cpu = labels.cpu.ok_or(Malformed)?.text;
        let item = labels.item.ok_or(Malformed)?.text;
        if cpu == b"total" {
            let Some(mode) = CpuMode::ALL.into_iter().find(|mode| mode.as_str().as_bytes() == item) else {
                return Ok(());
            };
            let millis = integer(value);
            self.cpu.set_millis(mode, millis);
            return millis.map(drop).ok_or(Malformed);
        }
        let index = parse::number(cpu).and_then(|number| usize::try_from(number).ok()).ok_or(Malformed)?;
        if let Some(word) = self.cpus.get_mut(index / 64) {
            *word |= 1 << (index % 64);
        }
        Ok(())
    }

    fn meminfo(&mut self, labels: &Labels, value: &[u8]) -> Result<(), Malformed> {
        let memory = &mut self.memory;
        let place = match labels.item.ok_or(Malformed)?.text {
            b"mem_total" => &mut memory.total,
            b"mem_free" => &mut memory.free,
            b"mem_available" => &mut memory.available,
            b"buffers" => &mut memory.buffers,
            b"cached" => &mut memory.cached,
            b"active_file" => &mut memory.active_file,
            b"inactive_file" => &mut memory.inactive_file,
            b"anon_pages" => &mut memory.anon_pages,
            b"mapped" => &mut memory.mapped,
            b"shmem" => &mut memory.shmem,
            b"dirty" => &mut memory.dirty,
            b"writeback" => &mut memory.writeback,
            b"slab" => &mut memory.slab,
            b"s_reclaimable" => &mut memory.slab_reclaimable,
            b"s_unreclaim" => &mut memory.slab_unreclaimable,
            b"kernel_stack" => &mut memory.kernel_stack,
            b"page_tables" => &mut memory.page_tables,
            b"per_cpu" => &mut memory.per_cpu,
            b"swap_total" => &mut memory.swap_total,
            b"swap_free" => &mut memory.swap_free,
            b"swap_cached" => &mut memory.swap_cached,
            b"committed_as" => &mut memory.committed,
            b"hugepagesize" => &mut memory.hugepage_size,
            b"hugepages_total" => return count(&mut memory.hugepages_total, value),
            b"hugepages_free" => return count(&mut memory.hugepages_free, value),
            _ => return Ok(()),
        };
        *place = integer(value).map(Bytes);
        place.map(drop).ok_or(Malformed)
    }

    fn vm_stat(&mut self, labels: &Labels, value: &[u8]) -> Result<(), Malformed> {
        let place = match labels.item.ok_or(Malformed)?.text {
            b"pgfault" => &mut self.page_faults,
            b"pgmajfault" => &mut self.major_page_faults,
            b"oom_kill" => &mut self.oom_kills,
            _ => return Ok(()),
        };
        count(place, value)
    }

    fn load(&mut self, labels: &Labels, value: &[u8]) -> Result<(), Malformed> {
        let place = match labels.item.ok_or(Malformed)?.text {
            b"load1" => &mut self.load.one,
            b"load5" => &mut self.load.five,
            b"load15" => &mut self.load.fifteen,
            _ => return Ok(()),
        };
        *place = measure(value);
        place.map(drop).ok_or(Malformed)
    }

    fn tasks(&mut self, labels: &Labels, value: &[u8]) -> Result<(), Malformed> {
        let place = match labels.item.ok_or(Malformed)?.text {
            b"cur" => &mut self.runnable_tasks,
            // Not a bound but how many there are: the second half of `/proc/loadavg`'s `1/51`.
            b"max" => &mut self.threads,
            _ => return Ok(()),
        };
        count(place, value)
    }

    fn netdev(&mut self, labels: &Labels, value: &[u8], report: &mut Report) -> Result<(), Malformed> {
        let name = labels.interface.ok_or(Malformed)?;
        let counter = match labels.item.ok_or(Malformed)?.text {
            b"recv_bytes" => 0,
            b"recv_packets" => 1,
            b"recv_errs" => 2,
            b"recv_drop" => 3,
            b"sent_bytes" => 4,
            b"sent_packets" => 5,
            b"sent_errs" => 6,
            b"sent_drop" => 7,
            _ => return Ok(()),
        };
        if name.text == b"lo" {
            return Ok(());
        }
        let row = self.interfaces.row([name, Quoted::default()], &mut self.scratch);
        set(row, counter, value, report)
    }

    fn diskstat(&mut self, labels: &Labels, value: &[u8], report: &mut Report) -> Result<(), Malformed> {
        let name = labels.disk.ok_or(Malformed)?;
        let counter = match labels.item.ok_or(Malformed)?.text {
            b"reads" => 0,
            b"merged" => 1,
            b"sectors_read" => 2,
            b"time_reading" => 3,
            b"writes" => 4,
            b"writes_merged" => 5,
            b"sectors_written" => 6,
            b"time_writing" => 7,
            b"in_progress" => 8,
            b"time_in_progress" => 9,
            b"weighted_time_in_progress" => 10,
            _ => return Ok(()),
        };
        if [&b"loop"[..], b"ram", b"zram"].iter().any(|prefix| name.text.starts_with(prefix)) {
            return Ok(());
        }
        let row = self.disks.row([name, Quoted::default()], &mut self.scratch);
        set(row, counter, value, report)
    }

    fn filesystem(
        &mut self,
        labels: &Labels,
        value: &[u8],
        offset: usize,
        report: &mut Report,
    ) -> Result<(), Malformed> {
        let name = [labels.mount.ok_or(Malformed)?, labels.device.ok_or(Malformed)?];
        let counter = match labels.item.ok_or(Malformed)?.text {
            b"total" => offset,
            b"used" => offset + 1,
            b"available" => offset + 2,
            _ => return Ok(()),
        };
        let row = self.filesystems.row(name, &mut self.scratch);
        set(row, counter, value, report)
    }

    /// The guest, with devices that are incomplete or repeat another left out.
    pub(super) fn finish(self, report: &mut Report) -> Guest {
        let vcpus = self.cpus.iter().map(|word| u64::from(word.count_ones())).sum();
        let mut memory = self.memory;
        memory.available = memory.available.filter(|bytes| bytes.0 != 0);
        Guest {
            cpu: self.cpu,
            vcpus: Some(vcpus).filter(|count| *count != 0),
            memory,
            load: self.load,
            runnable_tasks: self.runnable_tasks,
            threads: self.threads,
            interfaces: whole(self.interfaces.into_rows(), interface, report),
            disks: disks(self.disks, report),
            filesystems: self.filesystems.into_rows().into_iter().map(filesystem).collect(),
            page_faults: self.page_faults,
            major_page_faults: self.major_page_faults,
            oom_kills: self.oom_kills,
            agent_scrapes: self.agent_scrapes,
        }
    }
}

/// Nearly half of a guest's lines are counters of its memory management that are not read, and as good as of another family.
fn is_unread_counter(rest: &[u8]) -> bool {
    let item = rest.strip_prefix(br#"{item=""#);
    item.is_some_and(|item| ![&b"pgfault"[..], b"pgmajfault", b"oom_kill"].iter().any(|read| item.starts_with(read)))
}

/// A line of a family nobody asked for is fine as long as it begins like one.
fn begins_a_name(line: &[u8]) -> Result<(), Malformed> {
    match line.first() {
        Some(byte) if byte.is_ascii_alphabetic() || matches!(byte, b'_' | b':') => Ok(()),
        _ => Err(Malformed),
    }
}

fn count(place: &mut Option<u64>, value: &[u8]) -> Result<(), Malformed> {
    *place = integer(value);
    place.map(drop).ok_or(Malformed)
}

fn set<const N: usize>(
    row: Result<&mut Row<N>, NoRow>,
    counter: usize,
    value: &[u8],
    report: &mut Report,
) -> Result<(), Malformed> {
    match row {
        Ok(row) => row.values.get_mut(counter).map_or(Ok(()), |place| count(place, value)),
        Err(NoRow::TooMany) => {
            report.over_devices += 1;
            Ok(())
        }
        Err(NoRow::Malformed) => Err(Malformed),
    }
}

/// The rows that have all their counters; the others are counted.
fn whole<const N: usize, T>(rows: Vec<Row<N>>, fact: impl Fn(&str, [u64; N]) -> T, report: &mut Report) -> Vec<T> {
    let mut facts = Vec::new();
    for row in rows {
        match row.complete() {
            Some(values) => facts.push(fact(&row.name[0], values)),
            None => report.incomplete += 1,
        }
    }
    facts
}

fn interface(name: &str, values: [u64; 8]) -> Interface {
    let [rx_bytes, rx_packets, rx_errors, rx_dropped, tx_bytes, tx_packets, tx_errors, tx_dropped] = values;
    let traffic = |bytes, packets, errors, dropped| Traffic { bytes: Bytes(bytes), packets, errors, dropped };
    Interface {
        name: name.to_owned(),
        receive: traffic(rx_bytes, rx_packets, rx_errors, rx_dropped),
        transmit: traffic(tx_bytes, tx_packets, tx_errors, tx_dropped),
    }
}

/// Whole disks: partitions repeat what their disk counts, and mapped devices what the disk below them does.
fn disks(table: Table<11>, report: &mut Report) -> Vec<Disk> {
    let mut rows = table.into_rows();
    let names: Vec<Box<str>> = rows.iter().map(|row| row.name[0].clone()).collect();
    let only_mapped = names.iter().all(|name| name.starts_with("dm-"));
    rows.retain(|row| {
        let name = &row.name[0];
        let mapped = name.starts_with("dm-") && !only_mapped;
        !mapped && !names.iter().any(|whole| is_partition(name, whole))
    });
    whole(rows, disk, report)
}

/// `vda1` is one of `vda`, `nvme0n1p2` of `nvme0n1`: a disk whose name ends in a digit has a `p` before the number.
fn is_partition(name: &str, disk: &str) -> bool {
    let Some(rest) = name.strip_prefix(disk) else { return false };
    let number = if disk.ends_with(|last: char| last.is_ascii_digit()) { rest.strip_prefix('p') } else { Some(rest) };
    number.is_some_and(|number| !number.is_empty() && number.bytes().all(|byte| byte.is_ascii_digit()))
}

fn disk(name: &str, values: [u64; 11]) -> Disk {
    let [reads, reads_merged, sectors_read, read_ms, writes, writes_merged, sectors_written, ..] = values;
    let [.., write_ms, in_progress, io_ms, weighted_ms] = values;
    Disk {
        device: format!("/dev/{name}"),
        reads,
        reads_merged,
        sectors_read,
        read_time: Seconds::from_millis(read_ms),
        writes,
        writes_merged,
        sectors_written,
        write_time: Seconds::from_millis(write_ms),
        in_progress,
        io_time: Seconds::from_millis(io_ms),
        weighted_io_time: Seconds::from_millis(weighted_ms),
    }
}

fn filesystem(row: Row<6>) -> GuestFilesystem {
    let [mount, device] = row.name;
    let [size, used, free, inodes, inodes_used, inodes_free] = row.values;
    GuestFilesystem {
        mount: mount.into(),
        device: device.into(),
        size: size.map(Bytes),
        used: used.map(Bytes),
        free: free.map(Bytes),
        inodes,
        inodes_used,
        inodes_free,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn partitions_are_told_from_disks_that_are_named_alike() {
        for (name, disk) in [("vda1", "vda"), ("sdaa12", "sdaa"), ("nvme0n1p2", "nvme0n1"), ("pmem0p1", "pmem0")] {
            assert!(is_partition(name, disk), "{name} {disk}");
        }
        for (name, disk) in [
            ("vda", "vda"),
            ("vdb1", "vda"),
            ("sdaa", "sda"),
            ("md12", "md1"),
            ("nvme0n1p", "nvme0n1"),
            ("vda1x", "vda"),
        ] {
            assert!(!is_partition(name, disk), "{name} {disk}");
        }
    }
}
