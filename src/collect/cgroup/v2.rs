//! One cgroup of the unified hierarchy.

use std::path::PathBuf;

use crate::collect::cgroup::parse::{self, CpuStatV2, MemoryEvents, MemoryStatV2};
use crate::collect::cgroup::{Hugepages, Wanted};
use crate::collect::held::{HeldFile, Reader, Vanished};
use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::{Cfs, Cpu, Hugetlb, Memory, Pressure, Spec, Usage};

/// Held files of one cgroup directory.
#[derive(Debug)]
pub struct Handles {
    dir: PathBuf,
    cpu_stat: HeldFile,
    memory_current: HeldFile,
    memory_stat: HeldFile,
    memory_events: HeldFile,
    memory_swap: HeldFile,
    memory_peak: HeldFile,
    pids_current: HeldFile,
    procs: HeldFile,
    io_stat: HeldFile,
    pressure: PressureFiles,
    hugetlb: Vec<(HeldFile, HeldFile)>,
    cpu_max: HeldFile,
    cpu_weight: HeldFile,
    memory_max: HeldFile,
    memory_min: HeldFile,
    memory_swap_max: HeldFile,
    pids_max: HeldFile,
}

/// The three pressure files; also found in the empty unified hierarchy of a hybrid node.
#[derive(Debug, Default)]
pub struct PressureFiles {
    cpu: HeldFile,
    memory: HeldFile,
    io: HeldFile,
}

impl PressureFiles {
    /// Reads the three totals. `None` when the kernel has none of them.
    pub fn read(&mut self, reader: &mut Reader, dir: &std::path::Path) -> Result<Option<Pressure>, Vanished> {
        let cpu = reader.parse(&mut self.cpu, dir, "cpu.pressure", parse::pressure)?;
        let memory = reader.parse(&mut self.memory, dir, "memory.pressure", parse::pressure)?;
        let io = reader.parse(&mut self.io, dir, "io.pressure", parse::pressure)?;
        let any = cpu.is_some() || memory.is_some() || io.is_some();
        Ok(any.then_some(Pressure { cpu, memory, io }))
    }

    /// Lets absent files be looked for again.
    pub fn look_again(&mut self) {
        for file in [&mut self.cpu, &mut self.memory, &mut self.io] {
            file.look_again();
        }
    }
}

impl Handles {
    /// Handles for a directory; nothing is opened yet.
    pub fn new(dir: PathBuf) -> Self {
        Self {
            dir,
            cpu_stat: HeldFile::default(),
            memory_current: HeldFile::default(),
            memory_stat: HeldFile::default(),
            memory_events: HeldFile::default(),
            memory_swap: HeldFile::default(),
            memory_peak: HeldFile::default(),
            pids_current: HeldFile::default(),
            procs: HeldFile::default(),
            io_stat: HeldFile::default(),
            pressure: PressureFiles::default(),
            hugetlb: Vec::new(),
            cpu_max: HeldFile::default(),
            cpu_weight: HeldFile::default(),
            memory_max: HeldFile::default(),
            memory_min: HeldFile::default(),
            memory_swap_max: HeldFile::default(),
            pids_max: HeldFile::default(),
        }
    }

    /// Lets files that were absent be looked for again: a controller may have been enabled since.
    pub fn look_again(&mut self) {
        let Self { dir: _, cpu_stat, memory_current, memory_stat, memory_events, memory_swap, memory_peak, .. } = self;
        for file in [cpu_stat, memory_current, memory_stat, memory_events, memory_swap, memory_peak] {
            file.look_again();
        }
        let Self { pids_current, procs, io_stat, cpu_max, cpu_weight, memory_max, memory_min, .. } = self;
        for file in [pids_current, procs, io_stat, cpu_max, cpu_weight, memory_max, memory_min] {
            file.look_again();
        }
        self.memory_swap_max.look_again();
        self.pids_max.look_again();
        self.pressure.look_again();
    }

    /// The cgroup's directory.
    pub fn dir(&self) -> &std::path::Path {
        &self.dir
    }

    /// Reads what is wanted into `usage`.
    pub fn read(&mut self, reader: &mut Reader, wanted: &Wanted, usage: &mut Usage) -> Result<(), Vanished> {
        // cgroup.procs is in every cgroup, whatever its controllers: it tells a removed cgroup from a bare one.
        if let Some((processes, _)) =
            reader.parse(&mut self.procs, &self.dir, "cgroup.procs", |text| Ok(parse::procs(text)))?
        {
            usage.tasks.processes = Some(processes);
        } else if !self.dir.exists() {
            return Err(Vanished);
        }
        usage.tasks.threads =
            reader.parse(&mut self.pids_current, &self.dir, "pids.current", |b| parse::single(b, "pids.current"))?;
        let (spec, threads_max) = self.read_spec(reader)?;
        usage.spec = Some(spec);
        usage.tasks.threads_max = threads_max;
        usage.cpu = self.read_cpu(reader)?;
        usage.memory = self.read_memory(reader, wanted, usage)?;
        if wanted.io {
            usage.io = reader.parse(&mut self.io_stat, &self.dir, "io.stat", parse::io_stat)?.unwrap_or_default();
        }
        if wanted.pressure {
            usage.pressure = self.pressure.read(reader, &self.dir)?;
        }
        if wanted.hugetlb {
            self.read_hugetlb(reader, &wanted.hugepages, usage)?;
        }
        Ok(())
    }

    fn read_cpu(&mut self, reader: &mut Reader) -> Result<Option<Cpu>, Vanished> {
        let Some(stat) = reader.parse(&mut self.cpu_stat, &self.dir, "cpu.stat", CpuStatV2::parse)? else {
            return Ok(None);
        };
        let CpuStatV2 { usage_usec, user_usec, system_usec, nr_periods, nr_throttled, .. } = stat;
        Ok(usage_usec.map(|usage| Cpu {
            usage: Seconds::from_micros(usage),
            user: user_usec.map(Seconds::from_micros),
            system: system_usec.map(Seconds::from_micros),
            cfs: nr_periods.zip(nr_throttled).map(|(periods, throttled_periods)| Cfs {
                periods,
                throttled_periods,
                throttled: stat.throttled_usec.map(Seconds::from_micros),
                burst_periods: stat.nr_bursts,
                burst: stat.burst_usec.map(Seconds::from_micros),
            }),
        }))
    }

    fn read_memory(
        &mut self,
        reader: &mut Reader,
        wanted: &Wanted,
        usage: &mut Usage,
    ) -> Result<Option<Memory>, Vanished> {
        let dir = &self.dir;
        let Some(stat) = reader.parse(&mut self.memory_stat, dir, "memory.stat", MemoryStatV2::parse)? else {
            return Ok(None);
        };
        let mut single = |held: &mut HeldFile, name| reader.parse(held, dir, name, |b| parse::single(b, "bytes"));
        let current = single(&mut self.memory_current, "memory.current")?;
        let swap = single(&mut self.memory_swap, "memory.swap.current")?;
        let peak = if wanted.memory_details { single(&mut self.memory_peak, "memory.peak")? } else { None };
        let events =
            reader.parse(&mut self.memory_events, dir, "memory.events", MemoryEvents::parse)?.unwrap_or_default();
        usage.oom_kills = events.oom_kill;
        // The root cgroup has no memory.current, nor a limit; the kubelet shows its anonymous and file memory instead.
        // Anywhere else that is another number, and none is better.
        let is_root = [&self.memory_current, &self.memory_max].iter().all(|file| matches!(file, HeldFile::Absent));
        let in_use =
            if is_root { stat.anon.zip(stat.file).and_then(|(anon, file)| anon.checked_add(file)) } else { current };
        Ok(Some(Memory {
            usage: in_use.map(Bytes),
            working_set: in_use.zip(stat.inactive_file).map(|(all, inactive)| Bytes(all.saturating_sub(inactive))),
            rss: stat.anon.map(Bytes),
            cache: stat.file.map(Bytes),
            mapped_file: stat.file_mapped.map(Bytes),
            swap: swap.map(Bytes),
            max_usage: peak.map(Bytes),
            failcnt: None,
            kernel: stat.kernel.map(Bytes),
            active_file: stat.active_file.map(Bytes),
            inactive_file: stat.inactive_file.map(Bytes),
            file_dirty: stat.file_dirty.map(Bytes),
            file_writeback: stat.file_writeback.map(Bytes),
            // Every key of memory.stat counts child cgroups as well: the same number is served in both scopes, as
            // the kubelet does.
            page_faults: stat.pgfault,
            major_page_faults: stat.pgmajfault,
            page_faults_hierarchy: stat.pgfault,
            major_page_faults_hierarchy: stat.pgmajfault,
            events_high: events.high,
            events_max: events.max,
            pgscan: stat.pgscan,
            pgsteal: stat.pgsteal,
            refault_file: stat.workingset_refault_file,
            refault_anon: stat.workingset_refault_anon,
        }))
    }

    fn read_hugetlb(&mut self, reader: &mut Reader, pages: &Hugepages, usage: &mut Usage) -> Result<(), Vanished> {
        self.hugetlb.resize_with(pages.sizes.len(), Default::default);
        for (size, (current, events)) in pages.sizes.iter().zip(&mut self.hugetlb) {
            let name = format!("hugetlb.{size}.current");
            let Some(bytes) = reader.parse(current, &self.dir, &name, |b| parse::single(b, "hugetlb"))? else {
                continue;
            };
            let name = format!("hugetlb.{size}.events");
            let failcnt = reader.parse(events, &self.dir, &name, MemoryEvents::parse)?.and_then(|events| events.max);
            let page_size = size.clone();
            usage.hugetlb.push(Hugetlb { page_size, usage: Bytes(bytes), max_usage: None, failcnt });
        }
        Ok(())
    }

    fn read_spec(&mut self, reader: &mut Reader) -> Result<(Spec, Option<Limit>), Vanished> {
        let dir = &self.dir;
        let mut limit = |held: &mut HeldFile, name| reader.parse(held, dir, name, |b| parse::limit(b, "limit"));
        let memory_limit = limit(&mut self.memory_max, "memory.max")?;
        let memory_reservation = limit(&mut self.memory_min, "memory.min")?;
        let memory_swap_limit = limit(&mut self.memory_swap_max, "memory.swap.max")?;
        let threads_max = limit(&mut self.pids_max, "pids.max")?;
        let cpu_max = reader.parse(&mut self.cpu_max, dir, "cpu.max", parse::cpu_max)?;
        let weight = reader.parse(&mut self.cpu_weight, dir, "cpu.weight", |b| parse::single(b, "cpu.weight"))?;
        let spec = Spec {
            cpu_shares: weight.map(parse::shares_from_weight),
            cpu_period_micros: cpu_max.and_then(|(_, period)| period),
            cpu_quota_micros: cpu_max.map(|(quota, _)| quota),
            memory_limit,
            memory_reservation,
            memory_swap_limit,
            swap_limit: memory_swap_limit,
        };
        Ok((spec, threads_max))
    }
}
