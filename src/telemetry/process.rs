//! The agent's own process under the names that every Prometheus client library uses.
//!
//! The `prometheus` crate has such a collector, but it counts whole seconds of CPU time, of which this agent needs one in
//! many minutes, and lists the thousands of descriptors held to learn how many they are.

use std::path::Path;
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use procfs::WithCurrentSystemInfo;
use procfs::process::Process;
use prometheus::core::{Collector, Desc};
use prometheus::proto::MetricFamily;
use prometheus::{Counter, Gauge, IntGauge};
use rustix::process::{Resource, getrlimit};
use rustix::time::{ClockId, clock_gettime};

use crate::open_fds;

/// Descriptors counted one by one at most, on kernels that do not tell their number: more than may be open by default.
const MAX_COUNTED_FDS: usize = 1 << 20;

/// Reads the process when it is gathered. What cannot be read has no sample.
#[derive(Debug)]
pub struct ProcessMetrics {
    cpu: Counter,
    open_fds: IntGauge,
    max_fds: IntGauge,
    virtual_memory: IntGauge,
    resident_memory: IntGauge,
    start_time: Option<Gauge>,
    threads: IntGauge,
    /// Two who gather at once must not add the same CPU time twice.
    gathering: Mutex<()>,
}

impl ProcessMetrics {
    /// Of the calling process.
    pub fn new() -> Result<Self, prometheus::Error> {
        let start_time = match started_at() {
            Some(started) => {
                let gauge = Gauge::new("process_start_time_seconds", "When the process was started, Unix time.")?;
                gauge.set(started.as_secs_f64());
                Some(gauge)
            }
            None => None,
        };
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

    /// Reads everything, and gives what could be read.
    fn read(&self) -> Vec<&dyn Collector> {
        let mut read: Vec<&dyn Collector> = vec![&self.cpu];
        self.cpu.inc_by((cpu_seconds() - self.cpu.get()).max(0.0));
        let stat = Process::myself().and_then(|process| process.stat()).ok();
        let facts = [
            (&self.open_fds, open_fds::count(Path::new("/proc/self/fd"), true, MAX_COUNTED_FDS)),
            (&self.max_fds, getrlimit(Resource::Nofile).current),
            (&self.virtual_memory, stat.as_ref().map(|stat| stat.vsize)),
            (&self.resident_memory, stat.as_ref().map(|stat| stat.rss_bytes().get())),
            (&self.threads, stat.as_ref().and_then(|stat| u64::try_from(stat.num_threads).ok())),
        ];
        for (gauge, value) in facts {
            if let Some(value) = value.and_then(|value| i64::try_from(value).ok()) {
                gauge.set(value);
                read.push(gauge);
            }
        }
        read.extend(self.start_time.as_ref().map(|gauge| gauge as &dyn Collector));
        read
    }
}

impl Collector for ProcessMetrics {
    fn desc(&self) -> Vec<&Desc> {
        let Self { cpu, open_fds, max_fds, virtual_memory, resident_memory, start_time, threads, .. } = self;
        let always: [&dyn Collector; 6] = [cpu, open_fds, max_fds, virtual_memory, resident_memory, threads];
        let start_time = start_time.as_ref().map(|gauge| gauge as &dyn Collector);
        always.into_iter().chain(start_time).flat_map(|part| part.desc()).collect()
    }

    fn collect(&self) -> Vec<MetricFamily> {
        let _alone = self.gathering.lock().unwrap_or_else(PoisonError::into_inner);
        self.read().into_iter().flat_map(|part| part.collect()).collect()
    }
}

fn cpu_seconds() -> f64 {
    let used = clock_gettime(ClockId::ProcessCPUTime);
    let part = |part: i64| u64::try_from(part).unwrap_or_default();
    (Duration::from_secs(part(used.tv_sec)) + Duration::from_nanos(part(used.tv_nsec))).as_secs_f64()
}

/// Since 1970, to a clock tick.
fn started_at() -> Option<Duration> {
    let ticks = Process::myself().and_then(|process| process.stat()).ok()?.starttime;
    let second = procfs::ticks_per_second();
    let tick = Duration::from_secs(1).checked_div(u32::try_from(second).ok()?)?;
    let since_boot = Duration::from_secs(ticks / second) + tick * u32::try_from(ticks % second).ok()?;
    Some(Duration::from_secs(procfs::boot_time_secs().ok()?) + since_boot)
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
    fn descriptors_opened_are_in_the_count() {
        let process = ProcessMetrics::new().unwrap();
        let before = value(&process.collect(), "process_open_fds");
        let more: Vec<std::fs::File> = (0..500).map(|_| std::fs::File::open("/dev/null").unwrap()).collect();
        let grown = value(&process.collect(), "process_open_fds") - before;
        // Other tests of this process open and close files meanwhile.
        assert!((300.0..700.0).contains(&grown), "{grown}");
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
