//! What a page about a real node must say: facts that the test itself reads from cgroupfs and procfs.
//!
//! Pods go on living while they are measured, so facts are read right before and right after a scrape, and what was
//! served must lie between the two. The formulas are cAdvisor's for cgroup v1, written here a second time on purpose.

use std::fs;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use anyhow::{Context, Result};
use kata_pulse_realnode::{APP_IMAGE, Cgroup, Container, PAUSE_IMAGE, Pod};

use super::agent::Agent;
use super::cadvisor::scrape;
use super::exposition::{Labels, Page};

/// Ticks of `cpuacct.stat` per second: the kernel says 100 to user space on every architecture.
const TICKS: f64 = 100.0;

/// cAdvisor takes a v1 limit above this for no limit, and says 0.
const UNLIMITED: u64 = 1 << 62;

/// How much the memory of a container may move up and down within one scrape while it starts and ends processes.
const RESTLESS_BYTES: f64 = 524_288.0;

/// How many processes and threads such a container may start or end within one scrape.
const RESTLESS_TASKS: f64 = 3.0;

/// A pod and what became of its containers.
pub struct Resident<'node> {
    pub pod: Pod<'node>,
    pub running: Vec<Container<'node>>,
    /// Not removed: the runtime still lists them.
    pub exited: Vec<Container<'node>>,
    /// Its containers start and end processes all the time, so its gauges move.
    pub restless: bool,
    /// The pod has completed: it is on the runtime's list and nowhere else.
    pub stopped: bool,
}

impl<'node> Resident<'node> {
    pub fn new(pod: Pod<'node>) -> Self {
        Self { pod, running: Vec::new(), exited: Vec::new(), restless: false, stopped: false }
    }

    pub fn with(mut self, container: Container<'node>) -> Self {
        self.running.push(container);
        self
    }

    pub fn with_exited(mut self, container: Container<'node>) -> Self {
        self.exited.push(container);
        self
    }

    pub fn restless(mut self) -> Self {
        self.restless = true;
        self
    }

    pub fn stopped(mut self) -> Self {
        self.stopped = true;
        self
    }

    /// The `id` labels of the rows that the pod must have: its own, the sandbox's, the running containers'.
    pub fn ids(&self) -> Vec<String> {
        if self.stopped {
            return Vec::new();
        }
        let mut ids = vec![self.pod.cgroup().path().to_owned(), self.pod.sandbox_cgroup().path().to_owned()];
        ids.extend(self.running.iter().map(|container| container.cgroup().path().to_owned()));
        ids
    }
}

/// One sample as it must be served.
#[derive(Debug)]
pub struct Fact {
    pub name: &'static str,
    /// All labels that the sample has, no more and no fewer.
    pub labels: Labels,
    pub claim: Claim,
}

/// What can be said of the sample's value at the moment of reading.
#[derive(Clone, Copy, Debug)]
pub enum Claim {
    /// A counter: a value served later is not below this.
    Counter(f64),
    /// A gauge that may move by so much between two readings.
    Gauge { value: f64, slack: f64 },
    /// There must be no such sample.
    Absent,
}

/// How often the kernel and the page are read before a difference is believed.
const ATTEMPTS: usize = 3;

/// Every value lies between what the kernel said right before and right after the scrape. A process that comes and goes
/// between the two readings is on the page and in neither of them: what differs has to differ again.
#[track_caller]
pub fn values_are_the_kernels(agent: &Agent, residents: &[Resident<'_>]) -> Result<()> {
    let mut differing = Vec::new();
    for _ in 0..ATTEMPTS {
        let before = read(residents)?;
        let page = scrape(agent);
        let after = read(residents)?;
        differing = differences(&before, &page, &after);
        if differing.is_empty() {
            break;
        }
    }
    assert!(differing.is_empty(), "{} differ:\n{}", differing.len(), differing.join("\n"));
    Ok(())
}

/// Reads every fact of these pods.
fn read(residents: &[Resident<'_>]) -> Result<Vec<Fact>> {
    let mut facts = Vec::new();
    for resident in residents.iter().filter(|resident| !resident.stopped) {
        facts.extend(pod_facts(resident)?);
        facts.extend(sandbox_facts(resident)?);
        for container in &resident.running {
            facts.extend(container_facts(resident, container)?);
        }
    }
    Ok(facts)
}

/// Says where a page differs from what was read before and after it.
fn differences(before: &[Fact], page: &Page, after: &[Fact]) -> Vec<String> {
    assert_eq!(before.len(), after.len(), "the same facts are read twice");
    before.iter().zip(after).filter_map(|(before, after)| difference(before, page, after)).collect()
}

fn difference(before: &Fact, page: &Page, after: &Fact) -> Option<String> {
    let served = page.samples().find(|sample| sample.name == before.name && sample.labels == before.labels);
    let served = served.map(|sample| sample.value);
    let right = match (before.claim, served, after.claim) {
        (Claim::Absent, served, _) => served.is_none(),
        (Claim::Counter(least), Some(served), Claim::Counter(most)) => least <= served && served <= most,
        (Claim::Gauge { value: one, slack }, Some(served), Claim::Gauge { value: other, .. }) => {
            one.min(other) - slack <= served && served <= one.max(other) + slack
        }
        _ => false,
    };
    let served = served.map_or("nothing".to_owned(), |value| value.to_string());
    let (name, labels) = (before.name, brief(&before.labels));
    (!right).then(|| format!("{name}{{{labels}}}: served {served}, read {:?} then {:?}", before.claim, after.claim))
}

/// Labels for a message: of ids and paths the end is enough to tell them apart.
fn brief(labels: &Labels) -> String {
    let brief = |value: &str| {
        let cut = value.char_indices().rev().nth(39).map_or(0, |(at, _)| at);
        format!("{}{}", if cut > 0 { "…" } else { "" }, &value[cut..])
    };
    labels.iter().map(|(name, value)| format!("{name}={:?}", brief(value))).collect::<Vec<_>>().join(",")
}

/// Facts of one row: they share the six identity labels.
struct Row {
    identity: Labels,
    facts: Vec<Fact>,
}

impl Row {
    fn new(identity: Labels) -> Self {
        Self { identity, facts: Vec::new() }
    }

    fn counter(&mut self, name: &'static str, more: &[(&str, &str)], value: f64) {
        self.put(name, more, Claim::Counter(value));
    }

    fn gauge(&mut self, name: &'static str, value: f64, slack: f64) {
        self.put(name, &[], Claim::Gauge { value, slack });
    }

    fn put(&mut self, name: &'static str, more: &[(&str, &str)], claim: Claim) {
        let mut labels = self.identity.clone();
        labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
        self.facts.push(Fact { name, labels, claim });
    }
}

/// Blank labels are there too: a label that is missing gets the scrape target's value in Prometheus.
fn identity(pod: &Pod<'_>, container: &str, cgroup: &Cgroup, image: &str, name: &str) -> Labels {
    [
        ("container", container),
        ("id", cgroup.path()),
        ("image", image),
        ("name", name),
        ("namespace", pod.namespace()),
        ("pod", pod.name()),
    ]
    .into_iter()
    .map(|(name, value)| (name.to_owned(), value.to_owned()))
    .collect()
}

fn pod_facts(resident: &Resident<'_>) -> Result<Vec<Fact>> {
    let cgroup = resident.pod.cgroup();
    let mut row = Row::new(identity(&resident.pod, "", cgroup, "", ""));
    cgroup_facts(&mut row, cgroup, resident.restless)?;
    row.put("container_network_receive_bytes_total", &[("interface", "eth0")], Claim::Absent);
    Ok(row.facts)
}

fn sandbox_facts(resident: &Resident<'_>) -> Result<Vec<Fact>> {
    let pod = &resident.pod;
    let cgroup = pod.sandbox_cgroup();
    let mut row = Row::new(identity(pod, "", &cgroup, PAUSE_IMAGE, pod.id()));
    cgroup_facts(&mut row, &cgroup, false)?;
    process_facts(&mut row, pod.pause_pid())?;
    if !pod.uses_host_network() {
        network_facts(&mut row, pod.pause_pid())?;
    }
    Ok(row.facts)
}

fn container_facts(resident: &Resident<'_>, container: &Container<'_>) -> Result<Vec<Fact>> {
    let cgroup = container.cgroup();
    let mut row = Row::new(identity(&resident.pod, container.name(), cgroup, APP_IMAGE, container.id()));
    cgroup_facts(&mut row, cgroup, resident.restless)?;
    process_facts(&mut row, container.pid())?;
    // Whole seconds are served, and the cgroup is made a moment before the process starts.
    row.gauge("container_start_time_seconds", container.started_at().as_secs_f64(), 2.0);
    // Of a container itself there is nothing below it, so both scopes tell the same.
    for (kind, key) in [("pgfault", "pgfault"), ("pgmajfault", "pgmajfault")] {
        for scope in ["container", "hierarchy"] {
            let faults = decimal(cgroup.key("memory", "memory.stat", key)?);
            row.counter("container_memory_failures_total", &[("failure_type", kind), ("scope", scope)], faults);
        }
    }
    row.put("container_network_receive_bytes_total", &[("interface", "eth0")], Claim::Absent);
    Ok(row.facts)
}

fn cgroup_facts(row: &mut Row, cgroup: &Cgroup, restless: bool) -> Result<()> {
    cpu_facts(row, cgroup)?;
    memory_facts(row, cgroup, if restless { RESTLESS_BYTES } else { 0.0 })?;
    spec_facts(row, cgroup)?;
    io_facts(row, cgroup)?;
    let slack = if restless { RESTLESS_TASKS } else { 0.0 };
    row.gauge("container_processes", decimal(cgroup.processes()?.len() as u64), slack);
    row.gauge("container_threads", decimal(cgroup.number("pids", "pids.current")?), slack);
    let most = cgroup.read("pids", "pids.max")?;
    row.gauge("container_threads_max", most.trim().parse().unwrap_or(0.0), 0.0);
    row.gauge("container_last_seen", now().as_secs_f64(), 1.0);
    Ok(())
}

fn cpu_facts(row: &mut Row, cgroup: &Cgroup) -> Result<()> {
    let nanos = cgroup.number("cpuacct", "cpuacct.usage")?;
    row.counter("container_cpu_usage_seconds_total", &[("cpu", "total")], decimal(nanos) / 1e9);
    for (name, key) in [("container_cpu_user_seconds_total", "user"), ("container_cpu_system_seconds_total", "system")]
    {
        row.counter(name, &[], decimal(cgroup.key("cpuacct", "cpuacct.stat", key)?) / TICKS);
    }
    let limited = cpu_quota(cgroup)?.is_some();
    for (name, key, unit) in [
        ("container_cpu_cfs_periods_total", "nr_periods", 1.0),
        ("container_cpu_cfs_throttled_periods_total", "nr_throttled", 1.0),
        ("container_cpu_cfs_throttled_seconds_total", "throttled_time", 1e9),
    ] {
        let value = decimal(cgroup.key("cpu", "cpu.stat", key)?) / unit;
        row.put(name, &[], if limited { Claim::Counter(value) } else { Claim::Absent });
    }
    Ok(())
}

fn memory_facts(row: &mut Row, cgroup: &Cgroup, slack: f64) -> Result<()> {
    let usage = cgroup.number("memory", "memory.usage_in_bytes")?;
    let inactive = cgroup.key("memory", "memory.stat", "total_inactive_file")?;
    row.gauge("container_memory_usage_bytes", decimal(usage), slack);
    row.gauge("container_memory_working_set_bytes", decimal(usage.saturating_sub(inactive)), slack);
    for (name, key) in [
        ("container_memory_rss", "total_rss"),
        ("container_memory_cache", "total_cache"),
        ("container_memory_mapped_file", "total_mapped_file"),
        ("container_memory_swap", "total_swap"),
        ("container_memory_total_active_file_bytes", "total_active_file"),
        ("container_memory_total_inactive_file_bytes", "total_inactive_file"),
    ] {
        row.gauge(name, decimal(cgroup.key("memory", "memory.stat", key)?), slack);
    }
    row.gauge("container_memory_kernel_usage", decimal(cgroup.number("memory", "memory.kmem.usage_in_bytes")?), slack);
    // Both only ever rise.
    row.counter(
        "container_memory_max_usage_bytes",
        &[],
        decimal(cgroup.number("memory", "memory.max_usage_in_bytes")?),
    );
    row.counter("container_memory_failcnt", &[], decimal(cgroup.number("memory", "memory.failcnt")?));
    Ok(())
}

fn spec_facts(row: &mut Row, cgroup: &Cgroup) -> Result<()> {
    row.gauge("container_spec_cpu_shares", decimal(cgroup.number("cpu", "cpu.shares")?), 0.0);
    row.gauge("container_spec_cpu_period", decimal(cgroup.number("cpu", "cpu.cfs_period_us")?), 0.0);
    match cpu_quota(cgroup)? {
        Some(quota) => row.gauge("container_spec_cpu_quota", quota, 0.0),
        None => row.put("container_spec_cpu_quota", &[], Claim::Absent),
    }
    for (name, file) in [
        ("container_spec_memory_limit_bytes", "memory.limit_in_bytes"),
        ("container_spec_memory_swap_limit_bytes", "memory.memsw.limit_in_bytes"),
        ("container_spec_memory_reservation_limit_bytes", "memory.soft_limit_in_bytes"),
    ] {
        let limit = cgroup.number("memory", file)?;
        row.gauge(name, if limit > UNLIMITED { 0.0 } else { decimal(limit) }, 0.0);
    }
    Ok(())
}

/// Block I/O, of the first set of files that has anything: which ones the kernel fills depends on the I/O scheduler.
fn io_facts(row: &mut Row, cgroup: &Cgroup) -> Result<()> {
    for scheduler in ["bfq", "throttle"] {
        let bytes = io_counters(cgroup, &format!("blkio.{scheduler}.io_service_bytes_recursive"))?;
        let operations = io_counters(cgroup, &format!("blkio.{scheduler}.io_serviced_recursive"))?;
        for (counters, reads, writes) in [
            (&bytes, "container_fs_reads_bytes_total", "container_fs_writes_bytes_total"),
            (&operations, "container_fs_reads_total", "container_fs_writes_total"),
        ] {
            for (device, operation, value) in counters {
                let name = match operation.as_str() {
                    "Read" => reads,
                    "Write" => writes,
                    _ => continue,
                };
                row.counter(name, &[("device", device)], *value);
            }
        }
        if !bytes.is_empty() {
            break;
        }
    }
    Ok(())
}

/// Lines like `254:0 Write 4194304`, with the device's name in place of its number.
fn io_counters(cgroup: &Cgroup, file: &str) -> Result<Vec<(String, String, f64)>> {
    let mut counters = Vec::new();
    for line in cgroup.read("blkio", file).unwrap_or_default().lines() {
        let &[number, operation, value] = line.split(' ').collect::<Vec<_>>().as_slice() else {
            continue; // The total of all devices.
        };
        let device = fs::canonicalize(format!("/sys/dev/block/{number}")).context("name of the block device")?;
        let name = device.file_name().context("name of the block device")?.to_string_lossy();
        counters.push((format!("/dev/{name}"), operation.to_owned(), value.parse().context("blkio")?));
    }
    Ok(counters)
}

fn process_facts(row: &mut Row, pid: u32) -> Result<()> {
    let limits = fs::read_to_string(format!("/proc/{pid}/limits")).context("read limits")?;
    let line = limits.lines().find_map(|line| line.strip_prefix("Max open files")).context("limit of open files")?;
    let soft = line.split_whitespace().next().context("soft limit")?;
    // `unlimited` is said as -1.
    let value = soft.parse().unwrap_or(-1.0);
    row.put("container_ulimits_soft", &[("ulimit", "max_open_files")], Claim::Gauge { value, slack: 0.0 });
    Ok(())
}

/// The interfaces of a process's network namespace but `lo`.
fn network_facts(row: &mut Row, pid: u32) -> Result<()> {
    let text = fs::read_to_string(format!("/proc/{pid}/net/dev")).context("read net/dev")?;
    for line in text.lines().skip(2) {
        let (interface, columns) = line.split_once(':').context("net/dev")?;
        let interface = interface.trim();
        if interface == "lo" {
            continue;
        }
        let columns: Vec<f64> = columns.split_whitespace().filter_map(|column| column.parse().ok()).collect();
        for (column, name) in [
            (0, "container_network_receive_bytes_total"),
            (1, "container_network_receive_packets_total"),
            (2, "container_network_receive_errors_total"),
            (3, "container_network_receive_packets_dropped_total"),
            (8, "container_network_transmit_bytes_total"),
            (9, "container_network_transmit_packets_total"),
            (10, "container_network_transmit_errors_total"),
            (11, "container_network_transmit_packets_dropped_total"),
        ] {
            let value = *columns.get(column).context("columns of net/dev")?;
            row.counter(name, &[("interface", interface)], value);
        }
    }
    Ok(())
}

/// In microseconds; `None` for the kernel's -1.
fn cpu_quota(cgroup: &Cgroup) -> Result<Option<f64>> {
    let quota: f64 = cgroup.read("cpu", "cpu.cfs_quota_us")?.trim().parse().context("cpu.cfs_quota_us")?;
    Ok((quota > 0.0).then_some(quota))
}

/// Exact below 2^53, as every number of a test is.
#[expect(clippy::cast_precision_loss, reason = "the exposition's numbers are doubles anyway")]
fn decimal(number: u64) -> f64 {
    number as f64
}

fn now() -> Duration {
    SystemTime::now().duration_since(UNIX_EPOCH).expect("the clock is past 1970")
}
