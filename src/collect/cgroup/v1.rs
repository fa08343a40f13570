//! One cgroup of the legacy hierarchies, a directory per controller.

use std::path::{Path, PathBuf};

use crate::collect::cgroup::layout::{V1, directory};
use crate::collect::cgroup::parse::{self, CpuStatV1, CpuacctStat, MemoryEvents, MemoryStatV1};
use crate::collect::cgroup::v2::PressureFiles;
use crate::collect::cgroup::{Hugepages, Wanted};
use crate::collect::held::{HeldFile, Reader, Vanished};
use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::{Cfs, Cpu, DeviceIo, DeviceNumber, Hugetlb, Memory, Spec, Tasks, Usage};

/// Pairs of blkio files with bytes and operations, best first. A pair is used when its first file has entries: BFQ's
/// files exist, empty, beside the throttle ones when another scheduler is in charge. The third is the pair that has
/// the same and what is below: while that one is empty, so is this, and it need not be read.
const BLKIO_PAIRS: [(&str, &str, Option<usize>); 5] = [
    ("blkio.bfq.io_service_bytes_recursive", "blkio.bfq.io_serviced_recursive", None),
    ("blkio.io_service_bytes_recursive", "blkio.io_serviced_recursive", None),
    ("blkio.throttle.io_service_bytes_recursive", "blkio.throttle.io_serviced_recursive", None),
    ("blkio.bfq.io_service_bytes", "blkio.bfq.io_serviced", Some(0)),
    ("blkio.throttle.io_service_bytes", "blkio.throttle.io_serviced", Some(2)),
];

/// Held files of one cgroup, and its directory under each controller.
#[derive(Debug)]
pub struct Handles {
    dirs: V1,
    primary: PathBuf,
    cpu_stat: HeldFile,
    cpuacct_usage: HeldFile,
    cpuacct_stat: HeldFile,
    memory_usage: HeldFile,
    memory_stat: HeldFile,
    memory_max_usage: HeldFile,
    memory_failcnt: HeldFile,
    memory_kmem: HeldFile,
    memory_oom_control: HeldFile,
    pids_current: HeldFile,
    procs: HeldFile,
    blkio: [(HeldFile, HeldFile); BLKIO_PAIRS.len()],
    pressure: PressureFiles,
    hugetlb: Vec<[HeldFile; 3]>,
    cpu_shares: HeldFile,
    cfs_period: HeldFile,
    cfs_quota: HeldFile,
    memory_limit: HeldFile,
    memory_soft_limit: HeldFile,
    memsw_limit: HeldFile,
    pids_max: HeldFile,
    /// Memory is counted with that of child cgroups unless this was switched off, which only very old set-ups do and
    /// no later change undoes: asked once.
    use_hierarchy: Option<bool>,
}

impl Handles {
    /// Handles for a cgroup; nothing is opened yet.
    pub fn new(roots: &V1, primary: &Path, cgroup: &str) -> Self {
        let below = |root: &Option<PathBuf>| root.as_deref().map(|root| directory(root, cgroup));
        let V1 { cpu, cpuacct, memory, blkio, pids, hugetlb, unified } = roots;
        Self {
            dirs: V1 {
                cpu: below(cpu),
                cpuacct: below(cpuacct),
                memory: below(memory),
                blkio: below(blkio),
                pids: below(pids),
                hugetlb: below(hugetlb),
                unified: below(unified),
            },
            primary: directory(primary, cgroup),
            cpu_stat: HeldFile::default(),
            cpuacct_usage: HeldFile::default(),
            cpuacct_stat: HeldFile::default(),
            memory_usage: HeldFile::default(),
            memory_stat: HeldFile::default(),
            memory_max_usage: HeldFile::default(),
            memory_failcnt: HeldFile::default(),
            memory_kmem: HeldFile::default(),
            memory_oom_control: HeldFile::default(),
            pids_current: HeldFile::default(),
            procs: HeldFile::default(),
            blkio: Default::default(),
            pressure: PressureFiles::default(),
            hugetlb: Vec::new(),
            cpu_shares: HeldFile::default(),
            cfs_period: HeldFile::default(),
            cfs_quota: HeldFile::default(),
            memory_limit: HeldFile::default(),
            memory_soft_limit: HeldFile::default(),
            memsw_limit: HeldFile::default(),
            pids_max: HeldFile::default(),
            use_hierarchy: None,
        }
    }

    /// Lets files that were absent be looked for again.
    pub fn look_again(&mut self) {
        let Self { cpu_stat, cpuacct_usage, cpuacct_stat, memory_usage, memory_stat, memory_max_usage, .. } = self;
        for file in [cpu_stat, cpuacct_usage, cpuacct_stat, memory_usage, memory_stat, memory_max_usage] {
            file.look_again();
        }
        let Self { memory_failcnt, memory_kmem, memory_oom_control, pids_current, procs, .. } = self;
        for file in [memory_failcnt, memory_kmem, memory_oom_control, pids_current, procs] {
            file.look_again();
        }
        let Self { cpu_shares, cfs_period, cfs_quota, memory_limit, memory_soft_limit, memsw_limit, pids_max, .. } =
            self;
        for file in [cpu_shares, cfs_period, cfs_quota, memory_limit, memory_soft_limit, memsw_limit, pids_max] {
            file.look_again();
        }
        for (bytes, operations) in &mut self.blkio {
            bytes.look_again();
            operations.look_again();
        }
        self.pressure.look_again();
    }

    /// The cgroup's directory in the primary hierarchy.
    pub fn dir(&self) -> &Path {
        &self.primary
    }

    /// Reads what is wanted into `usage`. Only the primary hierarchy decides whether the cgroup is gone: a runtime
    /// need not have made it under every controller.
    pub fn read(&mut self, reader: &mut Reader, wanted: &Wanted, usage: &mut Usage) -> Result<(), Vanished> {
        let procs = reader.parse(&mut self.procs, &self.primary, "cgroup.procs", |text| Ok(parse::procs(text)))?;
        if procs.is_none() && !self.primary.exists() {
            return Err(Vanished);
        }
        let threads = self.dirs.pids.as_deref().map_or(Ok(None), |dir| {
            reader.parse(&mut self.pids_current, dir, "pids.current", |b| parse::single(b, "pids.current"))
        });
        usage.tasks = Tasks {
            processes: procs.map(|(processes, _)| processes),
            threads: threads.unwrap_or_default(),
            threads_max: None,
        };
        usage.spec = self.read_spec(reader).ok();
        if let Some(dir) = self.dirs.pids.as_deref() {
            let max = reader.parse(&mut self.pids_max, dir, "pids.max", |b| parse::limit(b, "pids.max"));
            usage.tasks.threads_max = max.unwrap_or_default();
        }
        usage.cpu = self.read_cpu(reader).unwrap_or_default();
        usage.memory = self.read_memory(reader, wanted, usage).unwrap_or_default();
        if wanted.io {
            usage.io = self.read_blkio(reader).unwrap_or_default();
        }
        if wanted.pressure
            && let Some(dir) = self.dirs.unified.as_deref()
        {
            usage.pressure = self.pressure.read(reader, dir).unwrap_or_default();
        }
        if wanted.hugetlb {
            usage.hugetlb = self.read_hugetlb(reader, &wanted.hugepages).unwrap_or_default();
        }
        Ok(())
    }

    fn read_cpu(&mut self, reader: &mut Reader) -> Result<Option<Cpu>, Vanished> {
        let Some(dir) = self.dirs.cpuacct.as_deref() else { return Ok(None) };
        let usage = reader.parse(&mut self.cpuacct_usage, dir, "cpuacct.usage", |b| parse::single(b, "usage"))?;
        let stat = reader.parse(&mut self.cpuacct_stat, dir, "cpuacct.stat", CpuacctStat::parse)?.unwrap_or_default();
        let cfs = match self.dirs.cpu.as_deref() {
            Some(dir) => reader.parse(&mut self.cpu_stat, dir, "cpu.stat", CpuStatV1::parse)?,
            None => None,
        };
        Ok(usage.map(|usage| Cpu {
            usage: Seconds::from_nanos(usage),
            user: stat.user.map(Seconds::from_ticks),
            system: stat.system.map(Seconds::from_ticks),
            cfs: cfs.and_then(|cfs| {
                Some(Cfs {
                    periods: cfs.nr_periods?,
                    throttled_periods: cfs.nr_throttled?,
                    throttled: cfs.throttled_time.map(Seconds::from_nanos),
                    burst_periods: cfs.nr_bursts,
                    burst: cfs.burst_time.map(Seconds::from_nanos),
                })
            }),
        }))
    }

    fn read_memory(
        &mut self,
        reader: &mut Reader,
        wanted: &Wanted,
        usage: &mut Usage,
    ) -> Result<Option<Memory>, Vanished> {
        let Some(dir) = self.dirs.memory.clone() else { return Ok(None) };
        let use_hierarchy = self.use_hierarchy(reader, &dir)?;
        let dir = dir.as_path();
        let Some(stat) = reader.parse(&mut self.memory_stat, dir, "memory.stat", MemoryStatV1::parse)? else {
            return Ok(None);
        };
        let mut single = |held: &mut HeldFile, name| reader.parse(held, dir, name, |b| parse::single(b, "number"));
        let in_use = single(&mut self.memory_usage, "memory.usage_in_bytes")?;
        let (mut max_usage, mut failcnt, mut kernel) = (None, None, None);
        if wanted.memory_details {
            max_usage = single(&mut self.memory_max_usage, "memory.max_usage_in_bytes")?;
            failcnt = single(&mut self.memory_failcnt, "memory.failcnt")?;
            kernel = single(&mut self.memory_kmem, "memory.kmem.usage_in_bytes")?;
        }
        let oom = reader.parse(&mut self.memory_oom_control, dir, "memory.oom_control", MemoryEvents::parse)?;
        usage.oom_kills = oom.and_then(|control| control.oom_kill);
        let pick = |total: Option<u64>, own: Option<u64>| if use_hierarchy { total } else { own }.map(Bytes);
        let inactive_file = pick(stat.total_inactive_file, stat.inactive_file);
        Ok(Some(Memory {
            usage: in_use.map(Bytes),
            working_set: in_use.zip(inactive_file).map(|(all, inactive)| Bytes(all.saturating_sub(inactive.0))),
            rss: pick(stat.total_rss, stat.rss),
            cache: pick(stat.total_cache, stat.cache),
            mapped_file: pick(stat.total_mapped_file, stat.mapped_file),
            swap: pick(stat.total_swap, stat.swap),
            max_usage: max_usage.map(Bytes),
            failcnt,
            kernel: kernel.map(Bytes),
            active_file: pick(stat.total_active_file, stat.active_file),
            inactive_file,
            file_dirty: pick(stat.total_dirty, stat.dirty),
            file_writeback: pick(stat.total_writeback, stat.writeback),
            page_faults: stat.pgfault,
            major_page_faults: stat.pgmajfault,
            page_faults_hierarchy: stat.total_pgfault.or(stat.pgfault),
            major_page_faults_hierarchy: stat.total_pgmajfault.or(stat.pgmajfault),
            ..Memory::default()
        }))
    }

    fn read_blkio(&mut self, reader: &mut Reader) -> Result<Vec<DeviceIo>, Vanished> {
        let Some(dir) = self.dirs.blkio.as_deref() else { return Ok(Vec::new()) };
        let mut is_there = [false; BLKIO_PAIRS.len()];
        for (at, (pair, (bytes, operations))) in BLKIO_PAIRS.iter().zip(&mut self.blkio).enumerate() {
            let (bytes_name, operations_name, recursive) = pair;
            if recursive.is_some_and(|recursive| is_there[recursive]) {
                continue;
            }
            let mut devices = Vec::new();
            is_there[at] = reader.parse(bytes, dir, bytes_name, |text| add_bytes(text, &mut devices))?.is_some();
            if devices.is_empty() {
                continue;
            }
            reader.parse(operations, dir, operations_name, |text| add_operations(text, &mut devices))?;
            return Ok(devices);
        }
        Ok(Vec::new())
    }

    fn read_hugetlb(&mut self, reader: &mut Reader, pages: &Hugepages) -> Result<Vec<Hugetlb>, Vanished> {
        let Some(dir) = self.dirs.hugetlb.as_deref() else { return Ok(Vec::new()) };
        self.hugetlb.resize_with(pages.sizes.len(), Default::default);
        let mut sizes = Vec::new();
        for (size, [usage, max_usage, failcnt]) in pages.sizes.iter().zip(&mut self.hugetlb) {
            let mut read = |held: &mut HeldFile, what: &str| {
                reader.parse(held, dir, &format!("hugetlb.{size}.{what}"), |b| parse::single(b, "hugetlb"))
            };
            if let Some(bytes) = read(usage, "usage_in_bytes")? {
                sizes.push(Hugetlb {
                    page_size: size.clone(),
                    usage: Bytes(bytes),
                    max_usage: read(max_usage, "max_usage_in_bytes")?.map(Bytes),
                    failcnt: read(failcnt, "failcnt")?,
                });
            }
        }
        Ok(sizes)
    }

    fn read_spec(&mut self, reader: &mut Reader) -> Result<Spec, Vanished> {
        let mut spec = Spec::default();
        if let Some(dir) = self.dirs.cpu.as_deref() {
            let mut single = |held: &mut HeldFile, name| reader.parse(held, dir, name, |b| parse::single(b, "number"));
            spec.cpu_shares = single(&mut self.cpu_shares, "cpu.shares")?;
            spec.cpu_period_micros = single(&mut self.cfs_period, "cpu.cfs_period_us")?;
            spec.cpu_quota_micros = reader.parse(&mut self.cfs_quota, dir, "cpu.cfs_quota_us", parse::cfs_quota)?;
        }
        if let Some(dir) = self.dirs.memory.as_deref() {
            let mut bytes = |held: &mut HeldFile, name| {
                let read = reader.parse(held, dir, name, |b| parse::single(b, "bytes"))?;
                Ok::<_, Vanished>(read.map(Limit::from_v1_bytes))
            };
            spec.memory_limit = bytes(&mut self.memory_limit, "memory.limit_in_bytes")?;
            spec.memory_reservation = bytes(&mut self.memory_soft_limit, "memory.soft_limit_in_bytes")?;
            spec.memory_swap_limit = bytes(&mut self.memsw_limit, "memory.memsw.limit_in_bytes")?;
            spec.swap_limit = swap_alone(spec.memory_swap_limit, spec.memory_limit);
        }
        Ok(spec)
    }

    fn use_hierarchy(&mut self, reader: &mut Reader, dir: &Path) -> Result<bool, Vanished> {
        if let Some(known) = self.use_hierarchy {
            return Ok(known);
        }
        let read =
            reader.parse(&mut HeldFile::default(), dir, "memory.use_hierarchy", |b| parse::single(b, "number"))?;
        Ok(*self.use_hierarchy.insert(read != Some(0)))
    }
}

/// The limit of swap, where memory and both together have one. A limit of both alone bounds swap only by what memory
/// leaves of it.
fn swap_alone(both: Option<Limit>, memory: Option<Limit>) -> Option<Limit> {
    match (both?, memory?) {
        (Limit::At(both), Limit::At(memory)) => Some(Limit::At(both.saturating_sub(memory))),
        (Limit::Max, _) => Some(Limit::Max),
        (Limit::At(_), Limit::Max) => None,
    }
}

fn entry(devices: &mut Vec<DeviceIo>, number: DeviceNumber) -> &mut DeviceIo {
    let index = devices.iter().position(|device| device.number == number).unwrap_or_else(|| {
        devices.push(DeviceIo::new(number));
        devices.len() - 1
    });
    &mut devices[index]
}

/// Adds what `blkio.throttle.io_service_bytes` or its like says.
pub fn add_bytes(text: &[u8], devices: &mut Vec<DeviceIo>) -> Result<(), parse::ParseError> {
    for found in parse::blkio(text)? {
        let device = entry(devices, found.number);
        let bytes = Bytes(found.value);
        match found.operation {
            b"Read" => device.read_bytes = Some(bytes),
            b"Write" => device.written_bytes = Some(bytes),
            b"Sync" => set_other(device, "Sync", bytes),
            b"Async" => set_other(device, "Async", bytes),
            b"Discard" => set_other(device, "Discard", bytes),
            b"Total" => set_other(device, "Total", bytes),
            _ => {}
        }
    }
    Ok(())
}

/// Once per operation, whatever the file says: a second one would be the same series again.
fn set_other(device: &mut DeviceIo, operation: &'static str, bytes: Bytes) {
    if !device.other_bytes.iter().any(|(known, _)| *known == operation) {
        device.other_bytes.push((operation, bytes));
    }
}

/// Adds what `blkio.throttle.io_serviced` or its like says.
pub fn add_operations(text: &[u8], devices: &mut Vec<DeviceIo>) -> Result<(), parse::ParseError> {
    for found in parse::blkio(text)? {
        let device = entry(devices, found.number);
        match found.operation {
            b"Read" => device.reads = Some(found.value),
            b"Write" => device.writes = Some(found.value),
            _ => {}
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;

    #[test]
    fn swap_is_bounded_where_memory_and_both_are() {
        let at = |bytes| Some(Limit::At(bytes));
        assert_eq!(swap_alone(at(300), at(100)), at(200));
        assert_eq!(swap_alone(at(100), at(100)), at(0));
        assert_eq!(swap_alone(Some(Limit::Max), at(100)), Some(Limit::Max));
        assert_eq!(swap_alone(at(300), Some(Limit::Max)), None, "as much as memory leaves of it");
        assert_eq!(swap_alone(None, at(100)), None, "swap is not accounted");
    }

    #[test]
    fn of_the_files_of_one_policy_the_recursive_one_is_enough() {
        use crate::collect::held::Budget;
        use crate::model::usage::DeviceNumber;

        let root = tempfile::tempdir().unwrap();
        let read = |files: &[(&str, &str)]| {
            let cgroup = tempfile::tempdir_in(root.path()).unwrap();
            for (name, content) in files {
                std::fs::write(cgroup.path().join(name), content).unwrap();
            }
            let blkio = Some(root.path().to_owned());
            let (cpu, cpuacct, memory, pids, hugetlb, unified) = Default::default();
            let roots = V1 { cpu, cpuacct, memory, blkio, pids, hugetlb, unified };
            let name = format!("/{}", cgroup.path().file_name().unwrap().to_str().unwrap());
            let budget = Budget::new(16);
            let mut handles = Handles::new(&roots, root.path(), &name);
            let devices = handles.read_blkio(&mut Reader::new(Arc::clone(&budget))).unwrap();
            (devices.iter().map(|device| (device.number, device.read_bytes)).collect::<Vec<_>>(), budget.held())
        };
        let (bfq, bfq_own) = (BLKIO_PAIRS[0].0, BLKIO_PAIRS[3].0);
        let (throttle, throttle_own) = (BLKIO_PAIRS[2].0, BLKIO_PAIRS[4].0);
        let (none, some) = ("Total 0\n", "8:0 Read 4096\nTotal 4096\n");
        let found = vec![(DeviceNumber { major: 8, minor: 0 }, Some(Bytes(4096)))];
        assert_eq!(read(&[(bfq, none), (throttle, none), (bfq_own, none), (throttle_own, none)]), (Vec::new(), 2));
        assert_eq!(read(&[(bfq, none), (throttle, some), (bfq_own, none)]), (found.clone(), 2));
        // Kernels that have no recursive files.
        assert_eq!(read(&[(bfq_own, none), (throttle_own, some)]), (found.clone(), 2));
        assert_eq!(read(&[(throttle, none), (bfq_own, some)]), (found, 2));
    }
}
