//! `/stats/summary`: the kubelet's Summary API, v1alpha1, as far as there is something to say. Pure.
//!
//! A field that is not known is left out, and so is an object in which nothing is known.

use std::collections::HashMap;
use std::time::{Duration, SystemTime};

use serde_json::{Map, Value as Json, json};

use crate::expose::pods::{Pod, Running, pods};
use crate::expose::rates::{Rates, Reading};
use crate::model::inventory::Kind;
use crate::model::snapshot::{Row, Snapshot};
use crate::model::units::{Bytes, Limit, Seconds};
use crate::model::usage::{Filesystem, Interface, Memory, Stall, Usage};

/// Interface whose numbers stand for all of them, which is the kubelet's choice as well.
const MAIN_INTERFACE: &str = "eth0";

/// How much is asked for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Extent {
    /// All there is.
    Whole,
    /// CPU, memory and swap.
    CpuAndMemory,
}

/// The object, with rates since the readings that `rates` remembers.
pub fn summary(snapshot: &Snapshot, extent: Extent, rates: &Rates) -> Json {
    let pods = pods(snapshot);
    let rates = rates.of(&readings(snapshot, &pods));
    let writer = Writer { extent, rates };
    let pods: Vec<Json> = pods.iter().map(|pod| writer.pod(pod)).collect();
    json!({ "node": writer.node(snapshot), "pods": pods })
}

type Fields = Vec<(&'static str, Option<Json>)>;

/// An object with the fields that are known.
fn object(fields: Fields) -> Json {
    Json::Object(known(fields))
}

/// The same with the time of measuring; nothing if that would be all.
fn timed(usage_at: Option<Seconds>, fields: Fields) -> Option<Json> {
    let mut known = known(fields);
    if known.is_empty() {
        return None;
    }
    known.extend(usage_at.map(|at| ("time".to_owned(), time(at))));
    Some(Json::Object(known))
}

fn known(fields: Fields) -> Map<String, Json> {
    fields.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

/// RFC 3339, to the millisecond: who computes rates from counters needs it.
fn time(at: Seconds) -> Json {
    let at = SystemTime::UNIX_EPOCH + Duration::from_millis(at.whole_millis());
    json!(humantime::format_rfc3339_millis(at).to_string())
}

fn bytes(bytes: Option<Bytes>) -> Option<Json> {
    bytes.map(|bytes| json!(bytes.0))
}

fn count(count: Option<u64>) -> Option<Json> {
    count.map(|count| json!(count))
}

/// Totals in microseconds, which is what the kubelet serves. Averages are not read, so there are none.
fn psi(stall: Option<&Stall>) -> Option<Json> {
    let total = |total: Option<Seconds>| total.map(|total| json!({ "total": total.whole_micros() }));
    let stall = stall?;
    let fields = known(vec![("full", total(stall.stalled)), ("some", total(stall.waiting))]);
    (!fields.is_empty()).then_some(Json::Object(fields))
}

fn interface(Interface { name, receive, transmit }: &Interface) -> Map<String, Json> {
    known(vec![
        ("name", Some(json!(name))),
        ("rxBytes", Some(json!(receive.bytes.0))),
        ("rxErrors", Some(json!(receive.errors))),
        ("txBytes", Some(json!(transmit.bytes.0))),
        ("txErrors", Some(json!(transmit.errors))),
    ])
}

fn network(usage: &Usage) -> Option<Json> {
    let all: Vec<Json> = usage.network.iter().map(|one| Json::Object(interface(one))).collect();
    let main = usage.network.iter().find(|one| one.name == MAIN_INTERFACE);
    let mut fields: Fields = vec![("interfaces", (!all.is_empty()).then_some(Json::Array(all)))];
    let main = main.map(interface);
    for name in ["name", "rxBytes", "rxErrors", "txBytes", "txErrors"] {
        fields.push((name, main.as_ref().and_then(|main| main.get(name).cloned())));
    }
    timed(usage.measured_at, fields)
}

/// Of a writable layer. What is free of its filesystem for others is not known.
fn rootfs(usage: &Usage) -> Option<Json> {
    let [Filesystem { usage: used, limit, .. }] = usage.filesystems.as_slice() else { return None };
    timed(usage.measured_at, vec![("capacityBytes", bytes(*limit)), ("usedBytes", bytes(*used))])
}

/// What is left below the bound, where there is one.
fn left(bound: Option<Limit>, used: Option<Bytes>) -> Option<Json> {
    match (bound?, used?) {
        (Limit::At(bound), Bytes(used)) => Some(json!(bound.saturating_sub(used))),
        (Limit::Max, _) => None,
    }
}

/// Whom a CPU counter is of.
fn name_of(row: &Row) -> String {
    row.subject.key().to_owned()
}

fn name_of_machine(pod: &Pod<'_>) -> String {
    format!("machine of {}", pod.report.sandbox.id)
}

fn readings(snapshot: &Snapshot, pods: &[Pod<'_>]) -> Vec<Reading> {
    let of_row = |row: &Row| {
        let cpu = row.usage.cpu.as_ref()?.usage;
        Some(Reading { of: name_of(row), cpu, at: row.usage.measured_at? })
    };
    let of_machine = |pod: &Pod<'_>| {
        let side = pod.machine()?;
        Some(Reading { of: name_of_machine(pod), cpu: side.cpu?, at: side.measured_at? })
    };
    snapshot.rows.iter().filter_map(of_row).chain(pods.iter().filter_map(of_machine)).collect()
}

struct Writer {
    extent: Extent,
    rates: HashMap<String, u64>,
}

impl Writer {
    /// What is left out of the short answer.
    fn further(&self, part: impl FnOnce() -> Option<Json>) -> Option<Json> {
        (self.extent == Extent::Whole).then(part).flatten()
    }

    fn cpu(&self, of: &str, usage: Option<Seconds>, at: Option<Seconds>, stall: Option<&Stall>) -> Option<Json> {
        let nanos = usage.map(Seconds::whole_nanos);
        let rate = self.rates.get(of).copied();
        timed(at, vec![("usageCoreNanoSeconds", count(nanos)), ("usageNanoCores", count(rate)), ("psi", psi(stall))])
    }

    /// CPU, memory, swap and I/O of a row.
    fn uses(&self, row: &Row) -> Fields {
        let usage = &row.usage;
        let pressure = usage.pressure.as_ref();
        let stall = |part: fn(&crate::model::usage::Pressure) -> Option<&Stall>| pressure.and_then(part);
        let used = usage.cpu.as_ref().map(|cpu| cpu.usage);
        vec![
            ("cpu", self.cpu(&name_of(row), used, usage.measured_at, stall(|all| all.cpu.as_ref()))),
            ("memory", memory(usage, stall(|all| all.memory.as_ref()))),
            ("swap", swap(usage)),
            ("io", self.further(|| timed(usage.measured_at, vec![("psi", psi(stall(|all| all.io.as_ref())))]))),
        ]
    }

    fn node(&self, snapshot: &Snapshot) -> Json {
        let mut groups = snapshot.rows.iter().filter(|row| row.subject.kind == Kind::Group);
        // The parent of the others, which its path puts first.
        let pods = groups.next().map(|row| {
            let mut fields = self.uses(row);
            fields.extend([("name", Some(json!("pods"))), ("startTime", row.usage.start_time.map(time))]);
            json!([object(fields)])
        });
        let Some(root) = snapshot.rows.iter().find(|row| row.subject.kind == Kind::Root) else {
            return object(vec![("systemContainers", pods)]);
        };
        let mut fields = self.uses(root);
        fields.extend([
            ("startTime", root.usage.start_time.map(time)),
            ("network", self.further(|| network(&root.usage))),
            ("systemContainers", pods),
        ]);
        object(fields)
    }

    fn pod(&self, pod: &Pod<'_>) -> Json {
        let sandbox = &pod.report.sandbox;
        let mut fields: Fields = match (pod.is_kata(), pod.machine(), pod.cgroup) {
            (true, Some(side), _) => vec![
                ("cpu", self.cpu(&name_of_machine(pod), side.cpu, side.measured_at, None)),
                ("memory", timed(side.measured_at, vec![("workingSetBytes", bytes(side.memory))])),
            ],
            (false, _, Some(row)) => self.uses(row),
            _ => Vec::new(),
        };
        let reference =
            json!({ "name": sandbox.pod_name, "namespace": sandbox.namespace, "uid": sandbox.uid.as_str() });
        let containers: Vec<Json> = pod.containers.iter().map(|running| self.container(running)).collect();
        fields.extend([
            ("podRef", Some(reference)),
            ("startTime", sandbox.created_at.map(time)),
            ("containers", Some(Json::Array(containers))),
            ("network", self.further(|| network(&pod.pause.or(pod.cgroup)?.usage))),
            ("process_stats", self.further(|| processes(pod))),
        ]);
        object(fields)
    }

    fn container(&self, Running { subject, row }: &Running<'_>) -> Json {
        let mut fields = row.map(|row| self.uses(row)).unwrap_or_default();
        let started_at = row.map_or(subject.started_at, |row| row.usage.start_time);
        fields.extend([
            ("name", Some(json!(subject.labels.container))),
            ("startTime", started_at.map(time)),
            ("rootfs", self.further(|| rootfs(&(*row)?.usage))),
        ]);
        object(fields)
    }
}

fn memory(usage: &Usage, stall: Option<&Stall>) -> Option<Json> {
    let Memory { usage: used, working_set, rss, page_faults, major_page_faults, .. } = usage.memory.as_ref()?;
    let limit = usage.spec.as_ref().and_then(|spec| spec.memory_limit);
    let fields = vec![
        ("availableBytes", left(limit, *working_set)),
        ("usageBytes", bytes(*used)),
        ("workingSetBytes", bytes(*working_set)),
        ("rssBytes", bytes(*rss)),
        ("pageFaults", count(*page_faults)),
        ("majorPageFaults", count(*major_page_faults)),
        ("psi", psi(stall)),
    ];
    timed(usage.measured_at, fields)
}

fn swap(usage: &Usage) -> Option<Json> {
    let swap = usage.memory.as_ref()?.swap;
    let limit = usage.spec.as_ref().and_then(|spec| spec.swap_limit);
    timed(usage.measured_at, vec![("swapAvailableBytes", left(limit, swap)), ("swapUsageBytes", bytes(swap))])
}

/// Processes of all containers together, if all are known. The pause process is nobody's.
fn processes(pod: &Pod<'_>) -> Option<Json> {
    let of = |running: &Running<'_>| running.row?.usage.tasks.processes;
    let together = pod.containers.iter().map(of).sum::<Option<u64>>()?;
    (!pod.containers.is_empty()).then(|| json!({ "process_count": together }))
}
