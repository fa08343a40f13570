//! What is known of the families that shims serve: their true type, one unit whatever the runtime, and a sentence.
//!
//! Shims declare nearly everything a gauge. A family that holds counts beside sizes (`proc_status`, `diskstat`,
//! `vm_stat`) has no type. As of Kata Containers 4.1.0 (`shim_metrics.go`, `shim_metrics.rs`, `agent/src/metrics.rs`,
//! `hypervisor_metrics.rs`).

use crate::model::inventory::KataRuntime;
use crate::model::passthrough::PassedKind::{self, Counter, Gauge, Histogram, Summary, Untyped};

/// Type and sentence of a family.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Known {
    pub kind: PassedKind,
    pub help: &'static str,
}

const fn known(kind: PassedKind, help: &'static str) -> Known {
    Known { kind, help }
}

/// Sorted by name.
const FAMILIES: &[(&str, Known)] = &[
    ("kata_agent_io_stat", known(Counter, "I/O of the kata-agent, bytes and calls.")),
    ("kata_agent_proc_stat", known(Counter, "CPU time of the kata-agent in ticks of the guest.")),
    ("kata_agent_proc_status", known(Untyped, "Memory of the kata-agent in KiB, and its context switches.")),
    ("kata_agent_scrape_count", known(Counter, "How often the kata-agent has been asked for metrics.")),
    ("kata_agent_threads", known(Gauge, "Threads of the kata-agent.")),
    ("kata_agent_total_rss", known(Gauge, "Resident memory of the kata-agent in bytes.")),
    ("kata_agent_total_time", known(Counter, "CPU time of the kata-agent in seconds.")),
    ("kata_agent_total_vm", known(Gauge, "Virtual memory of the kata-agent in bytes.")),
    ("kata_guest_cpu_time", known(Counter, "CPU time of the guest in milliseconds.")),
    ("kata_guest_diskstat", known(Untyped, "Disks of the guest: requests, sectors of 512 bytes, milliseconds.")),
    ("kata_guest_filesystem_bytes", known(Gauge, "Filesystems of the guest in bytes.")),
    ("kata_guest_filesystem_inodes", known(Gauge, "Filesystems of the guest in inodes.")),
    ("kata_guest_load", known(Gauge, "Load averages of the guest.")),
    ("kata_guest_meminfo", known(Gauge, "Memory of the guest in bytes, huge pages in pages.")),
    ("kata_guest_netdev_stat", known(Counter, "Network interfaces of the guest.")),
    ("kata_guest_tasks", known(Gauge, "Tasks of the guest: those that can run, and all.")),
    ("kata_guest_vm_stat", known(Untyped, "Virtual memory of the guest: pages and events.")),
    ("kata_hypervisor_fds", known(Gauge, "Open descriptors of the hypervisor.")),
    ("kata_hypervisor_io_stat", known(Counter, "I/O of the hypervisor, bytes and calls.")),
    ("kata_hypervisor_netdev", known(Counter, "Interfaces of the pod's network namespace on the node.")),
    ("kata_hypervisor_proc_stat", known(Counter, "CPU time of the hypervisor, vCPUs included, in ticks.")),
    ("kata_hypervisor_proc_status", known(Untyped, "Memory of the hypervisor in bytes, and its context switches.")),
    ("kata_hypervisor_scrape_count", known(Counter, "How often the hypervisor has been asked for metrics.")),
    ("kata_hypervisor_seccomp", known(Counter, "System calls of the hypervisor refused by seccomp.")),
    ("kata_hypervisor_signals", known(Counter, "Fatal signals the hypervisor has received.")),
    ("kata_hypervisor_threads", known(Gauge, "Threads of the hypervisor.")),
    ("kata_hypervisor_vcpu", known(Counter, "Exits and failures of each vCPU.")),
    (
        "kata_shim_agent_rpc_durations_histogram_milliseconds",
        known(Histogram, "How long the shim's calls of the kata-agent took."),
    ),
    ("kata_shim_fds", known(Gauge, "Open descriptors of the shim.")),
    ("kata_shim_go_gc_duration_seconds", known(Summary, "Pauses of the shim's garbage collection.")),
    ("kata_shim_io_stat", known(Counter, "I/O of the shim, bytes and calls.")),
    ("kata_shim_proc_stat", known(Counter, "CPU time of the shim in ticks.")),
    ("kata_shim_proc_status", known(Untyped, "Memory of the shim in bytes, and its context switches.")),
    (
        "kata_shim_rpc_durations_histogram_milliseconds",
        known(Histogram, "How long the runtime's calls of the shim took."),
    ),
    ("kata_shim_threads", known(Gauge, "Threads of the shim.")),
    ("kata_virtiofsd_fds", known(Gauge, "Open descriptors of virtiofsd.")),
    ("kata_virtiofsd_io_stat", known(Counter, "I/O of virtiofsd, bytes and calls.")),
    ("kata_virtiofsd_proc_stat", known(Counter, "CPU time of virtiofsd in ticks.")),
    ("kata_virtiofsd_proc_status", known(Untyped, "Memory of virtiofsd in bytes, and its context switches.")),
    ("kata_virtiofsd_threads", known(Gauge, "Threads of virtiofsd.")),
];

/// What is never passed on. Kata computes the overhead from microseconds less nanoseconds, and from an unsigned
/// difference that wraps (kata-containers issue 7145).
const WRONG: [&str; 2] = ["kata_shim_pod_overhead_cpu", "kata_shim_pod_overhead_memory_in_bytes"];

/// Names that are ours to give.
const RESERVED: [&str; 2] = ["kata_pulse_", "kata_monitor_"];

/// Longest name of a family.
const MAX_NAME_BYTES: usize = 120;

/// Where a sample belongs.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Place {
    /// The family's name.
    pub family: Box<str>,
    /// What the family is.
    pub known: Known,
    /// What follows the family's name.
    pub suffix: &'static str,
}

/// Where the sample of this name belongs; `None` when it is not passed on at all.
pub fn place(name: &str) -> Option<Place> {
    let family: Box<str> = match name {
        // The Go shim's own runtime, under the name that kata-monitor gives it.
        _ if name.starts_with("go_") || name.starts_with("process_") => format!("kata_shim_{name}").into(),
        _ if name.starts_with("kata_") => name.into(),
        _ => return None,
    };
    let legal = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'_';
    let refused = WRONG.contains(&&*family) || RESERVED.iter().any(|prefix| family.starts_with(prefix));
    if refused || family.len() > MAX_NAME_BYTES || !family.bytes().all(legal) {
        return None;
    }
    for suffix in ["_bucket", "_sum", "_count", "_created"] {
        let Some(stem) = family.strip_suffix(suffix) else { continue };
        match look_up(stem) {
            Some(known) if matches!(known.kind, Histogram | Summary) => {
                // A summary has no buckets, and nobody needs to know when a series began.
                let fits = suffix != "_created" && (suffix != "_bucket" || known.kind == Histogram);
                return fits.then(|| Place { family: stem.into(), known, suffix });
            }
            _ => {}
        }
    }
    let known = look_up(&family).unwrap_or(known(Untyped, "Passed on as it came."));
    // A histogram has no sample of its own name.
    (known.kind != Histogram).then_some(Place { family, known, suffix: "" })
}

fn look_up(family: &str) -> Option<Known> {
    if let Ok(at) = FAMILIES.binary_search_by(|(name, _)| (*name).cmp(family)) {
        return FAMILIES.get(at).map(|(_, known)| *known);
    }
    if family.starts_with("kata_firecracker_") {
        return Some(known(Gauge, "Firecracker's own numbers, each over its last interval."));
    }
    let of_runtime = family.starts_with("kata_shim_go_") || family.starts_with("kata_shim_process_");
    of_runtime.then(|| {
        let kind = if family.ends_with("_total") { Counter } else { Gauge };
        known(kind, "The shim's Go runtime and process, as its client library tells them.")
    })
}

/// One spelling and one unit: the item as the Go runtime names it, and what the value has to be multiplied by.
pub fn harmonise<'a>(runtime: KataRuntime, family: &str, item: &'a str) -> (&'a str, f64) {
    if runtime == KataRuntime::Go {
        return (item, 1.0);
    }
    match (family, item) {
        ("kata_shim_io_stat", "read_bytes") => ("readbytes", 1.0),
        ("kata_shim_io_stat", "write_bytes") => ("writebytes", 1.0),
        ("kata_shim_io_stat", "cancelled_write_bytes") => ("cancelledwritebytes", 1.0),
        ("kata_shim_proc_status", item) if !item.ends_with("ctxt_switches") => (item, 1024.0),
        _ => (item, 1.0),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted() {
        assert!(FAMILIES.is_sorted_by(|(one, _), (other, _)| one < other));
    }

    #[test]
    fn names_find_their_family() {
        let at = |name: &str| place(name).map(|place| (place.family.into_string(), place.known.kind, place.suffix));
        let some = |family: &str, kind, suffix| Some((family.to_owned(), kind, suffix));
        assert_eq!(at("kata_guest_cpu_time"), some("kata_guest_cpu_time", Counter, ""));
        assert_eq!(at("go_goroutines"), some("kata_shim_go_goroutines", Gauge, ""));
        assert_eq!(at("process_cpu_seconds_total"), some("kata_shim_process_cpu_seconds_total", Counter, ""));
        assert_eq!(at("go_gc_duration_seconds"), some("kata_shim_go_gc_duration_seconds", Summary, ""));
        assert_eq!(at("go_gc_duration_seconds_sum"), some("kata_shim_go_gc_duration_seconds", Summary, "_sum"));
        assert_eq!(at("go_gc_duration_seconds_bucket"), None);
        let rpc = "kata_shim_rpc_durations_histogram_milliseconds";
        assert_eq!(at(&format!("{rpc}_bucket")), some(rpc, Histogram, "_bucket"));
        assert_eq!(at(rpc), None);
        assert_eq!(at(&format!("{rpc}_created")), None);
        assert_eq!(at("kata_agent_scrape_count"), some("kata_agent_scrape_count", Counter, ""));
        assert_eq!(at("kata_something_new"), some("kata_something_new", Untyped, ""));
        assert_eq!(at("kata_firecracker_net"), some("kata_firecracker_net", Gauge, ""));
        for refused in [
            "up",
            "container_cpu_usage_seconds_total",
            "kata_pulse_sandbox_up",
            "kata_monitor_scrape_count",
            "kata_shim_pod_overhead_cpu",
            "kata_a b",
            "kata_a:b",
            "kata_ä",
            "",
        ] {
            assert_eq!(at(refused), None, "{refused}");
        }
        assert_eq!(at(&format!("kata_{}", "x".repeat(200))), None);
    }

    #[test]
    fn runtimes_become_alike() {
        let (go, rs) = (KataRuntime::Go, KataRuntime::Rs);
        assert_eq!(harmonise(rs, "kata_shim_proc_status", "vmrss"), ("vmrss", 1024.0));
        assert_eq!(harmonise(go, "kata_shim_proc_status", "vmrss"), ("vmrss", 1.0));
        let switches = "nonvoluntary_ctxt_switches";
        assert_eq!(harmonise(rs, "kata_shim_proc_status", switches), (switches, 1.0));
        assert_eq!(harmonise(rs, "kata_shim_io_stat", "read_bytes"), ("readbytes", 1.0));
        assert_eq!(harmonise(rs, "kata_agent_io_stat", "read_bytes"), ("read_bytes", 1.0), "both runtimes say so");
        assert_eq!(harmonise(rs, "kata_agent_proc_status", "vmrss"), ("vmrss", 1.0));
    }
}
