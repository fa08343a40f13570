//! What a shim's `/metrics` says: its own process, the hypervisor's and virtiofsd's, and the agent's text.
//!
//! The Go shim tells bytes, runtime-rs KiB; the Go shim says `readbytes`, runtime-rs `read_bytes`; the Go shim tells
//! of hypervisor and virtiofsd, runtime-rs only of Dragonball's own counters.

use super::agent_text::netdev_items;
use super::exposition::{Family, Kind, float};
use crate::kata::kind::{Hypervisor, Runtime};
use crate::kata::truth::{Component, GuestTruth, InterfaceTruth, ProcessTruth, Truth};

/// What the text depends on besides the truth.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Manner {
    pub(crate) runtime: Runtime,
    pub(crate) hypervisor: Hypervisor,
    /// How often the shim was asked, this time included.
    pub(crate) scrapes: u64,
    /// Memory in the other runtime's unit.
    pub(crate) wrong_units: bool,
}

/// Names and texts of the families of a process, in the order [`io`, `stat`, `status`, `threads`, `fds`].
struct Words {
    names: [&'static str; 5],
    helps: [&'static str; 5],
}

const SHIM: Words = Words {
    names: ["kata_shim_io_stat", "kata_shim_proc_stat", "kata_shim_proc_status", "kata_shim_threads", "kata_shim_fds"],
    helps: [
        "Kata containerd shim v2 process IO statistics.",
        "Kata containerd shim v2 process statistics.",
        "Kata containerd shim v2 process status.",
        "Kata containerd shim v2 process threads.",
        "Kata containerd shim v2 open FDs.",
    ],
};

const HYPERVISOR: Words = Words {
    names: [
        "kata_hypervisor_io_stat",
        "kata_hypervisor_proc_stat",
        "kata_hypervisor_proc_status",
        "kata_hypervisor_threads",
        "kata_hypervisor_fds",
    ],
    helps: [
        "Process IO statistics.",
        "Hypervisor process statistics.",
        "Hypervisor process status.",
        "Hypervisor process threads.",
        "Open FDs for hypervisor.",
    ],
};

const VIRTIOFSD: Words = Words {
    names: [
        "kata_virtiofsd_io_stat",
        "kata_virtiofsd_proc_stat",
        "kata_virtiofsd_proc_status",
        "kata_virtiofsd_threads",
        "kata_virtiofsd_fds",
    ],
    helps: [
        "Process IO statistics.",
        "Virtiofsd process statistics.",
        "Virtiofsd process status.",
        "Virtiofsd process threads.",
        "Open FDs for virtiofsd.",
    ],
};

/// What comes before the agent's families under Go, and after them under runtime-rs.
pub(crate) fn families(truth: &Truth, manner: Manner) -> Vec<Family> {
    let mut all = match manner.runtime {
        Runtime::Go => go(truth, manner),
        Runtime::Rust => rust(truth, manner),
    };
    if manner.runtime == Runtime::Go {
        all.sort_by_key(|family| family.name);
    }
    all
}

fn rust(truth: &Truth, manner: Manner) -> Vec<Family> {
    let mut all = Vec::new();
    if manner.hypervisor == Hypervisor::Dragonball {
        all.extend(dragonball(truth, manner.scrapes));
    }
    let mut shim = process(truth.process(Component::Shim), &SHIM, manner);
    shim.sort_by_key(|family| family.name);
    all.extend(shim);
    all
}

fn go(truth: &Truth, manner: Manner) -> Vec<Family> {
    let shim = truth.process(Component::Shim);
    let mut all = process(shim, &SHIM, manner);
    all.extend(process(truth.process(Component::Hypervisor), &HYPERVISOR, manner));
    all.push(host_network(&truth.host.network));
    // The parent alone: the child that does the work is not told of.
    if let Some(virtiofsd) = truth.host.processes.iter().find(|one| one.component == Component::Virtiofsd) {
        all.extend(process(virtiofsd, &VIRTIOFSD, manner));
    }
    all.extend(overhead(truth));
    all.push(latencies(
        "kata_shim_agent_rpc_durations_histogram_milliseconds",
        &["grpc.GetMetricsRequest", "grpc.StatsContainerRequest"],
        truth.tick + manner.scrapes,
    ));
    let actions = ["create", "start", "state", "stats"];
    all.push(latencies("kata_shim_rpc_durations_histogram_milliseconds", &actions, truth.tick + 4));
    if manner.hypervisor == Hypervisor::Firecracker {
        all.extend(firecracker(truth));
    }
    all.extend(go_client(shim));
    all
}

/// Deltas since the hypervisor's last flush, although they look like totals.
fn firecracker(truth: &Truth) -> [Family; 2] {
    let exits = exits(&truth.guest).next().unwrap_or_default().map(|(item, value)| (item, value % 1000));
    [
        Family::gauge("kata_firecracker_signals", "Metrics related to signals.").items([("sigbus", 0), ("sigsegv", 0)]),
        Family::gauge("kata_firecracker_vcpu", "Metrics specific to VCPUs' mode of functioning.").items(exits),
    ]
}

fn process(process: &ProcessTruth, words: &Words, manner: Manner) -> Vec<Family> {
    let Words { names, helps } = words;
    let go = manner.runtime == Runtime::Go;
    let (user, system) = process.ticks();
    let family = |index: usize| Family::gauge(names[index], helps[index]);
    vec![
        family(0).items(io_items(process, go)),
        family(1).items([("cstime", 0), ("cutime", 0), ("stime", system), ("utime", user)]),
        family(2).items(status_items(process, go, manner.wrong_units)),
        family(3).value(float(process.threads.len().try_into().unwrap_or(u64::MAX))),
        family(4).value(float(process.descriptors)),
    ]
}

fn io_items(process: &ProcessTruth, go: bool) -> [(&'static str, u64); 7] {
    let names = if go {
        ["cancelledwritebytes", "readbytes", "writebytes"]
    } else {
        ["cancelled_write_bytes", "read_bytes", "write_bytes"]
    };
    let io = process.io;
    let mut items = [
        (names[0], 0),
        ("rchar", io.rchar),
        (names[1], io.read_bytes),
        ("syscr", io.syscr),
        ("syscw", io.syscw),
        ("wchar", io.wchar),
        (names[2], io.write_bytes),
    ];
    items.sort_unstable();
    items
}

fn status_items(process: &ProcessTruth, go: bool, wrong_units: bool) -> Vec<(&'static str, u64)> {
    // procfs has KiB; the Go library multiplies, the Rust one does not.
    let unit = |bytes: u64| if go == wrong_units { bytes / 1024 } else { bytes };
    let mut items = vec![
        ("hugetlbpages", 0),
        ("nonvoluntary_ctxt_switches", 402),
        ("rssanon", unit(process.rss_anon)),
        ("rssfile", unit(process.rss_file)),
        ("rssshmem", unit(process.rss_shmem)),
        ("vmdata", unit(96 << 20)),
        ("vmexe", unit(21 << 20)),
        ("vmhwm", unit(process.rss())),
        ("vmlck", 0),
        ("vmlib", unit(8192)),
        ("vmpeak", unit(process.virtual_bytes)),
        ("vmpin", 0),
        ("vmpte", unit(1_331_200)),
        ("vmrss", unit(process.rss())),
        ("vmsize", unit(process.virtual_bytes)),
        ("vmstk", unit(135_168)),
        ("vmswap", 0),
        ("voluntary_ctxt_switches", 88_123),
    ];
    if go {
        items.push(("vmpmd", 0));
        items.sort_unstable();
    }
    items
}

fn host_network(interfaces: &[InterfaceTruth]) -> Family {
    let mut family = Family::gauge("kata_hypervisor_netdev", "Net devices statistics.");
    let mut sorted: Vec<_> = interfaces.iter().collect();
    sorted.sort_by_key(|interface| &interface.name);
    for interface in sorted {
        for (item, value) in netdev_items(interface) {
            family.push("", &[("interface", &interface.name), ("item", item)], float(value));
        }
    }
    family
}

/// Both families are broken: host microseconds minus guest nanoseconds, and an unsigned subtraction that wraps.
fn overhead(truth: &Truth) -> [Family; 2] {
    let guest: u64 = truth.containers.iter().map(|container| container.memory.usage()).sum();
    let wrapped = truth.host.sandbox_cgroup.memory_current().wrapping_sub(guest);
    [
        Family::gauge("kata_shim_pod_overhead_cpu", "Kata Pod overhead for CPU resources(percent).")
            .value(-11.003_783_331_398_94),
        Family::gauge("kata_shim_pod_overhead_memory_in_bytes", "Kata Pod overhead for memory resources(bytes).")
            .value(float(wrapped)),
    ]
}

/// A histogram of whole milliseconds in powers of two.
fn latencies(name: &'static str, actions: &[&str], calls: u64) -> Family {
    let mut family = Family::gauge(name, "RPC latency distributions.").of(Kind::Histogram);
    for action in actions {
        for bucket in [1_u64, 2, 4, 8, 16, 32, 64, 128, 256, 512] {
            let below = if bucket < 8 { calls * bucket / 8 } else { calls };
            family.push("_bucket", &[("action", action), ("le", &bucket.to_string())], float(below));
        }
        family.push("_bucket", &[("action", action), ("le", "+Inf")], float(calls));
        family.push("_sum", &[("action", action)], float(calls * 3));
        family.push("_count", &[("action", action)], float(calls));
    }
    family
}

/// What Go's client library adds of itself, without the prefix of the others.
fn go_client(shim: &ProcessTruth) -> Vec<Family> {
    let mut pauses = Family::gauge(
        "go_gc_duration_seconds",
        "A summary of the wall-time pause (stop-the-world) duration in garbage collection cycles.",
    )
    .of(Kind::Summary);
    for (quantile, seconds) in [("0", 3.142_1e-5), ("0.5", 7.312_2e-5), ("1", 0.000_522_911)] {
        pauses.push("", &[("quantile", quantile)], seconds);
    }
    pauses.push("_sum", &[], 0.012_218_331);
    pauses.push("_count", &[], 141.0);
    let mut version = Family::gauge("go_info", "Information about the Go environment.");
    version.push("", &[("version", "go1.25.13")], 1.0);
    let (user, system) = shim.ticks();
    vec![
        pauses,
        Family::gauge("go_goroutines", "Number of goroutines that currently exist.").value(31.0),
        version,
        Family::gauge("go_threads", "Number of OS threads created.").value(12.0),
        Family::gauge("process_cpu_seconds_total", "Total user and system CPU time spent in seconds.")
            .of(Kind::Counter)
            .value(float(user + system) / 100.0),
        Family::gauge("process_max_fds", "Maximum number of open file descriptors.").value(1_048_576.0),
        Family::gauge("process_open_fds", "Number of open file descriptors.").value(float(shim.descriptors)),
        Family::gauge("process_resident_memory_bytes", "Resident memory size in bytes.").value(float(shim.rss())),
    ]
}

fn dragonball(truth: &Truth, scrapes: u64) -> Vec<Family> {
    let mut vcpus = Family::gauge("kata_hypervisor_vcpu", "Hypervisor metrics specific to VCPUs' mode of functioning.");
    for (cpu, exits) in exits(&truth.guest).enumerate() {
        for (item, value) in exits {
            vcpus.push("", &[("cpu_id", &cpu.to_string()), ("item", item)], float(value));
        }
    }
    vec![
        Family::gauge("kata_hypervisor_scrape_count", "Hypervisor metrics scrape count.")
            .of(Kind::Counter)
            .value(float(scrapes)),
        Family::gauge("kata_hypervisor_seccomp", "Hypervisor metrics for the seccomp filtering.")
            .items([("num_faults", 0)]),
        Family::gauge("kata_hypervisor_signals", "Hypervisor metrics related to signals.")
            .items([("sigbus", 0), ("sigsegv", 0)]),
        vcpus,
    ]
}

/// Exits of each virtual CPU: a busy one leaves the guest more often.
fn exits(guest: &GuestTruth) -> impl Iterator<Item = [(&'static str, u64); 6]> + '_ {
    guest.cpus.iter().map(|cpu| {
        let busy = cpu.busy();
        [
            ("exit_io_in", busy * 2),
            ("exit_io_out", busy),
            ("exit_mmio_read", busy / 20),
            ("exit_mmio_write", busy / 10),
            ("failures", 0),
            ("filter_cpuid", 0),
        ]
    })
}
