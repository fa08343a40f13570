//! The agent's own process under the names that every Prometheus client library uses.
//!
//! The `prometheus` crate has such a collector, but it counts whole seconds of CPU time, of which this agent needs one in
//! many minutes, and lists the thousands of descriptors held to learn how many they are.

use std::path::Path;
use std::sync::{Mutex, PoisonError};

use procfs::process::Process;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

/// Reads the process when it is gathered.
#[derive(Debug)]
pub struct ProcessMetrics {
    cpu: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start_time: Gauge,
    threads: IntGauge,
    /// Two who gather at once must not add the same CPU time twice.
    gathering: Mutex<()>,
}

impl ProcessMetrics {
    /// Of the calling process.
    pub fn new() -> Result<Self, prometheus::Error> {
        let start_time = Gauge::new("process_start_time_seconds", "When the process was started, Unix time.")?;
        if let Some(started) = started_at() {
            start_time.set(started);
        }
        Ok(Self {
            cpu: Counter::new("process_cpu_seconds_total", "CPU time used by the process, user and system.")?,
            open_fds: IntGauge::new("process_open_fds", "Open file descriptors.")?,
            max_fds: IntGauge::new("process_max_fds", "Most file descriptors that may be open.")?,
            virtual_memory: IntGauge::new("process_virtual_memory_bytes", "Size of the virtual memory.")?,
            resident_memory: IntGauge::new("process_resident_memory_bytes", "Size of the resident memory.")?,
            start_time,
            threads: IntGauge::new("process_threads", "Threads of the process.")?,
            gathering: Mutex::new(()),
        })
    }

    fn parts(&self) -> [&dyn Collector; 7] {
        let Self { cpu, open_fds, max_fds, virtual_memory, resident_memory, start_time, threads, .. } = self;
        [cpu, open_fds, max_fds, virtual_memory, resident_memory, start_time, threads]
    }

    fn read(&self) {
        self.cpu.inc_by((cpu_seconds() - self.cpu.get()).max(0.0));
        if let Some(open) = open_descriptors(Path::new("/proc/self/fd")) {
            self.open_fds.set(whole(open));
        }
        // Without a limit there is no number to compare with, and -1 is what other libraries say then.
        self.max_fds.set(getrlimit(Resource::Nofile).current.map_or(-1, whole));
        if let Ok(stat) = Process::myself().and_then(|process| process.stat()) {
            self.virtual_memory.set(whole(stat.vsize));
            self.resident_memory.set(whole(stat.rss.saturating_mul(procfs::page_size())));
            self.threads.set(stat.num_threads);
        }
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        self.parts().into_iter().flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _alone = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        self.read();
        self.parts().into_iter().flat_map(|part| part.collect()).collect()
    }
}

fn whole(number: u64) -> i64 {
    i64::try_from(number).unwrap_or(i64::MAX)
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    used.tv_sec as f64 + used.tv_nsec as f64 / 1e9
}

/// Unix time in seconds, to a hundredth.
fn started_at() -> Option<f64> {
    let ticks = Process::myself().and_then(|process| process.stat()).ok()?.starttime;
    let booted = procfs::boot_time_secs().ok()?;
    Some(booted as f64 + ticks as f64 / procfs::ticks_per_second() as f64)
}

/// Number of entries in a directory of descriptors. Since Linux 6.2 its size is that number; before it is 0.
fn open_descriptors(directory: &Path) -> Option<u64> {
    match std::fs::metadata(directory).ok()?.len() {
        // One is the listing itself.
        0 => u64::try_from(std::fs::read_dir(directory).ok()?.count().saturating_sub(1)).ok(),
        open => Some(open),
    }
}

#[cfg(test)]
mod tests {
    use prometheus::proto::MetricType;

    use super::*;

    fn value(families: &[MetricFamily], name: &str) -> f64 {
        let family = families.iter().find(|family| family.name() == name).unwrap();
        let metric = &family.get_metric()[0];
        match family.get_field_type() {
            MetricType::COUNTER => metric.get_counter().get_value(),
            _ => metric.get_gauge().get_value(),
        }
    }

    #[test]
    fn cpu_time_below_a_second_is_counted() {
        let process = ProcessMetrics::new().unwrap();
        let mut before = value(&process.collect(), "process_cpu_seconds_total");
        assert!(before > 0.0);
        for _ in 0..3 {
            let begun = cpu_seconds();
            while cpu_seconds() - begun < 0.01 {
                std::hint::spin_loop();
            }
            let now = value(&process.collect(), "process_cpu_seconds_total");
            assert!(now >= before + 0.01, "{before} {now}");
            before = now;
        }
    }

    #[test]
    fn descriptors_are_counted_with_and_without_the_kernels_help() {
        let own = Path::new("/proc/self/fd");
        let listed = u64::try_from(std::fs::read_dir(own).unwrap().count()).unwrap() - 1;
        let more: Vec<std::fs::File> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let open = open_descriptors(own).unwrap();
        // Other tests of this process open and close files meanwhile.
        assert!(open.abs_diff(listed + 500) < 200, "{listed} {open}");
        drop(more);
    }

    #[test]
    fn it_started_before_now_and_after_boot() {
        let process = ProcessMetrics::new().unwrap();
        let families = process.collect();
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH).unwrap().as_secs_f64();
        let started = value(&families, "process_start_time_seconds");
        assert!(started < now + 1.0 && started > now - 3600.0, "{started} {now}");
        for name in ["process_resident_memory_bytes", "process_virtual_memory_bytes", "process_threads"] {
            assert!(value(&families, name) > 0.0, "{name}");
        }
        assert!(value(&families, "process_max_fds") >= value(&families, "process_open_fds"));
    }
}
