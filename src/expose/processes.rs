//! `/processes`: the node's processes that use most, as JSON and as tables for people.

use std::fmt::Write;

use serde::Serialize;

use crate::expose::sandboxes::escape;
use crate::model::inventory::{Runtime, as_rfc3339};
use crate::model::snapshot::Snapshot;
use crate::model::top::{Owner, Process};
use crate::model::units::Seconds;

/// The whole answer.
#[derive(Debug, Serialize)]
pub struct Most<'a> {
    /// When they were looked at.
    #[serde(serialize_with = "as_rfc3339")]
    taken_at: Option<Seconds>,
    /// How many processes there are, the kernel's threads included.
    processes: u64,
    by_cpu: Vec<Entry<'a>>,
    by_memory: Vec<Entry<'a>>,
}

/// One process.
#[derive(Debug, Serialize)]
struct Entry<'a> {
    pid: u32,
    parent_pid: u32,
    comm: &'a str,
    state: char,
    threads: u64,
    #[serde(serialize_with = "as_rfc3339")]
    started_at: Option<Seconds>,
    cpu_seconds: f64,
    /// Cores in use, over the seconds beside it: since the last collection, or since the process was started.
    cpu_cores: f64,
    cpu_over_seconds: f64,
    resident_memory_bytes: u64,
    namespace: &'a str,
    pod: &'a str,
    container: &'a str,
    sandbox_id: Option<&'a str>,
    runtime: Option<Runtime>,
}

impl<'a> Most<'a> {
    /// As many as are wanted of each list; `None` when nobody has looked.
    pub fn of(snapshot: &'a Snapshot, wanted: usize) -> Option<Self> {
        let top = snapshot.top.as_ref()?;
        let entries =
            |listed: &'a [std::sync::Arc<Process>]| listed.iter().take(wanted).map(|one| Entry::of(one)).collect();
        Some(Self {
            taken_at: snapshot.taken_at,
            processes: top.processes,
            by_cpu: entries(&top.by_cpu),
            by_memory: entries(&top.by_memory),
        })
    }
}

impl<'a> Entry<'a> {
    fn of(process: &'a Process) -> Self {
        let Owner { namespace, pod, container, sandbox, runtime } = &*process.owner;
        Self {
            pid: process.pid,
            parent_pid: process.parent,
            comm: &process.comm,
            state: process.state,
            threads: process.threads,
            started_at: process.started_at,
            cpu_seconds: process.cpu.as_f64(),
            cpu_cores: thousandths(process.cores.used),
            cpu_over_seconds: thousandths(process.cores.over),
            resident_memory_bytes: process.resident.0,
            namespace,
            pod,
            container,
            sandbox_id: sandbox.as_ref().map(|id| id.as_str()),
            runtime: *runtime,
        }
    }

    /// Whose it is, for people.
    fn whose(&self) -> String {
        match (self.pod, self.container) {
            ("", _) => String::new(),
            (pod, "") => format!("{}/{pod}", self.namespace),
            (pod, container) => format!("{}/{pod}/{container}", self.namespace),
        }
    }

    fn mebibytes(&self) -> u64 {
        self.resident_memory_bytes >> 20
    }
}

/// More places would be noise: a tick of CPU time is 10 ms.
fn thousandths(number: f64) -> f64 {
    (number * 1000.0).round() / 1000.0
}

const LISTS: [&str; 2] = ["By CPU time", "By resident memory"];

/// Two tables of fixed width.
pub fn plain(most: &Most<'_>) -> String {
    let mut text = format!("{} processes\n", most.processes);
    for (title, list) in LISTS.iter().zip([&most.by_cpu, &most.by_memory]) {
        let _ =
            writeln!(text, "\n{title}\n{:>8} {:>9} {:>9} {:>7}  {:<16} POD", "PID", "CORES", "MIB", "THREADS", "COMM");
        for entry in list {
            let Entry { pid, cpu_cores, threads, comm, .. } = entry;
            let (memory, whose) = (entry.mebibytes(), entry.whose());
            let line = format!("{pid:>8} {cpu_cores:>9.3} {memory:>9} {threads:>7}  {comm:<16} {whose}");
            let _ = writeln!(text, "{}", line.trim_end());
        }
    }
    text
}

/// Two tables for browsers.
pub fn html(most: &Most<'_>) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>kata-pulse processes</title><style>\
         body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ddd}\
         </style></head><body><h1>Processes</h1>",
    );
    for (title, list) in LISTS.iter().zip([&most.by_cpu, &most.by_memory]) {
        let _ = write!(
            page,
            "<h2>{title}</h2><table><tr><th>PID</th><th>Name</th><th>Cores</th><th>Memory</th><th>Threads</th>\
             <th>Pod</th></tr>"
        );
        for entry in list {
            let _ = write!(
                page,
                "<tr><td>{}</td><td>{}</td><td>{:.3}</td><td>{} MiB</td><td>{}</td><td>{}</td></tr>",
                entry.pid,
                escape(entry.comm),
                entry.cpu_cores,
                entry.mebibytes(),
                entry.threads,
                escape(&entry.whose()),
            );
        }
        page.push_str("</table>");
    }
    page.push_str("</body></html>\n");
    page
}
