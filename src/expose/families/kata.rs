//! `kata_pulse_sandbox_*`, `kata_pulse_guest_*` and `kata_pulse_vmm_*`: a Kata sandbox seen from the node, from inside
//! the guest, and from its VMM. What a sandbox costs stands here and never under a `container_*` name, so that sums over
//! containers go on meaning containers.

use crate::expose::families::{Put, family};
use crate::expose::family::Family;
use crate::expose::family::Kind::{Counter, Gauge};
use crate::expose::family::Profile::{All, Kubelet};
use crate::model::guest::{Guest, GuestFilesystem, GuestMemory, Latency, Vmm, VmmDisk, VmmNetwork};
use crate::model::host_side::{HostSide, ProcessUse};
use crate::model::snapshot::{KataReport, SandboxReport, SourceState};
use crate::model::units::{Bytes, Seconds, Value};
use crate::model::usage::Disk;

const SANDBOX: &[&str] = &["namespace", "pod", "sandbox_id"];
const COMPONENT: &[&str] = &["component", "namespace", "pod", "sandbox_id"];
const DEVICE: &[&str] = &["device", "namespace", "pod", "sandbox_id"];
const FILESYSTEM: &[&str] = &["device", "mount", "namespace", "pod", "sandbox_id"];
const MODE: &[&str] = &["mode", "namespace", "pod", "sandbox_id"];
const DEVICE_STAT: &[&str] = &["device", "namespace", "pod", "sandbox_id", "stat"];
const STATE: &[&str] = &["namespace", "pod", "sandbox_id", "state"];
const REASON: &[&str] = &["namespace", "pod", "reason", "sandbox_id"];

fn identity(report: &SandboxReport) -> [&str; 3] {
    let sandbox = &report.sandbox;
    [&sandbox.namespace, &sandbox.pod_name, sandbox.id.as_str()]
}

fn one(report: &SandboxReport, put: Put<'_>, fact: impl Fn(&KataReport) -> Option<Value>) {
    if let Some(value) = report.kata.as_ref().and_then(|kata| fact(kata)) {
        put(&identity(report), value);
    }
}

fn host(report: &SandboxReport, put: Put<'_>, fact: fn(&HostSide) -> Option<Value>) {
    one(report, put, |kata| kata.host.as_ref().and_then(fact));
}

fn process(report: &SandboxReport, put: Put<'_>, fact: fn(&ProcessUse) -> Option<Value>) {
    let Some(host) = report.kata.as_ref().and_then(|kata| kata.host.as_ref()) else { return };
    let [namespace, pod, id] = identity(report);
    let components = [("shim", &host.shim), ("hypervisor", &host.hypervisor), ("virtiofsd", &host.virtiofsd)];
    for (component, process) in components {
        if let Some(value) = process.as_ref().and_then(fact) {
            put(&[component, namespace, pod, id], value);
        }
    }
}

fn guest(report: &SandboxReport, put: Put<'_>, fact: fn(&Guest) -> Option<Value>) {
    one(report, put, |kata| kata.guest.as_ref().and_then(fact));
}

fn memory(report: &SandboxReport, put: Put<'_>, fact: fn(&GuestMemory) -> Option<Bytes>) {
    one(report, put, |kata| fact(&kata.guest.as_ref()?.memory).map(Value::from));
}

fn guest_disk(report: &SandboxReport, put: Put<'_>, fact: fn(&Disk) -> Value) {
    let Some(guest) = report.kata.as_ref().and_then(|kata| kata.guest.as_ref()) else { return };
    let [namespace, pod, id] = identity(report);
    for disk in &guest.disks {
        put(&[&disk.device, namespace, pod, id], fact(disk));
    }
}

fn filesystem(report: &SandboxReport, put: Put<'_>, fact: fn(&GuestFilesystem) -> Option<Value>) {
    let Some(guest) = report.kata.as_ref().and_then(|kata| kata.guest.as_ref()) else { return };
    let [namespace, pod, id] = identity(report);
    for filesystem in &guest.filesystems {
        if let Some(value) = fact(filesystem) {
            put(&[&filesystem.device, &filesystem.mount, namespace, pod, id], value);
        }
    }
}

fn vmm(report: &SandboxReport) -> Option<&Vmm> {
    report.kata.as_ref()?.vmm.as_ref()
}

fn vmm_disk(report: &SandboxReport, put: Put<'_>, fact: fn(&VmmDisk) -> Option<Value>) {
    let [namespace, pod, id] = identity(report);
    for disk in vmm(report).iter().flat_map(|vmm| &vmm.disks) {
        if let Some(value) = fact(disk) {
            put(&[&disk.device, namespace, pod, id], value);
        }
    }
}

fn vmm_latency(report: &SandboxReport, put: Put<'_>, of: fn(&VmmDisk) -> &Latency) {
    let [namespace, pod, id] = identity(report);
    for disk in vmm(report).iter().flat_map(|vmm| &vmm.disks) {
        let Latency { min, max, mean } = *of(disk);
        for (stat, value) in [("max", max), ("mean", mean), ("min", min)] {
            if let Some(value) = value {
                put(&[&disk.device, namespace, pod, id, stat], value.value());
            }
        }
    }
}

fn vmm_network(report: &SandboxReport, put: Put<'_>, fact: fn(&VmmNetwork) -> Option<Value>) {
    let [namespace, pod, id] = identity(report);
    for network in vmm(report).iter().flat_map(|vmm| &vmm.networks) {
        if let Some(value) = fact(network) {
            put(&[&network.device, namespace, pod, id], value);
        }
    }
}

fn seconds(seconds: Option<Seconds>) -> Option<Value> {
    seconds.map(Value::from)
}

fn bytes(bytes: Option<Bytes>) -> Option<Value> {
    bytes.map(Value::from)
}

fn int(count: Option<u64>) -> Option<Value> {
    count.map(Value::Int)
}

fn float(number: Option<f64>) -> Option<Value> {
    number.map(Value::Float)
}

const AGENT: &str = "kata-agent `GetMetrics`";
const CLOUD_HYPERVISOR: &str = "Cloud Hypervisor `vm.counters`";
const PROC: &str = "`/proc/<pid>` of the component";

/// The table, sorted by name.
pub const KATA: &[Family<SandboxReport>] = &[
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_cpu_seconds_total",
        MODE,
        "CPU time of the whole guest by mode; guest is also counted in user, guest_nice in nice.",
        AGENT,
        |report: &SandboxReport, put| {
            let Some(guest) = report.kata.as_ref().and_then(|kata| kata.guest.as_ref()) else { return };
            let [namespace, pod, id] = identity(report);
            for (mode, time) in guest.cpu.known() {
                put(&[mode.as_str(), namespace, pod, id], time.value());
            }
        },
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_disk_read_bytes_total",
        DEVICE,
        "Bytes the guest has read from one of its disks, agent and kernel included.",
        AGENT,
        |report, put| guest_disk(report, put, |disk| Bytes::from_sectors(disk.sectors_read).into()),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_disk_reads_total",
        DEVICE,
        "Reads of one of the guest's disks.",
        AGENT,
        |report, put| guest_disk(report, put, |disk| Value::Int(disk.reads)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_disk_writes_total",
        DEVICE,
        "Writes to one of the guest's disks.",
        AGENT,
        |report, put| guest_disk(report, put, |disk| Value::Int(disk.writes)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_disk_written_bytes_total",
        DEVICE,
        "Bytes the guest has written to one of its disks, agent and kernel included.",
        AGENT,
        |report, put| guest_disk(report, put, |disk| Bytes::from_sectors(disk.sectors_written).into()),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_filesystem_free_bytes",
        FILESYSTEM,
        "Free bytes of a filesystem on a block device inside the guest.",
        AGENT,
        |report, put| filesystem(report, put, |filesystem| bytes(filesystem.free)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_filesystem_inodes",
        FILESYSTEM,
        "Inodes of a filesystem inside the guest.",
        AGENT,
        |report, put| filesystem(report, put, |filesystem| int(filesystem.inodes)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_filesystem_inodes_free",
        FILESYSTEM,
        "Free inodes of a filesystem inside the guest.",
        AGENT,
        |report, put| filesystem(report, put, |filesystem| int(filesystem.inodes_free)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_filesystem_size_bytes",
        FILESYSTEM,
        "Size of a filesystem on a block device inside the guest.",
        AGENT,
        |report, put| filesystem(report, put, |filesystem| bytes(filesystem.size)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_filesystem_used_bytes",
        FILESYSTEM,
        "Bytes used on a filesystem on a block device inside the guest.",
        AGENT,
        |report, put| filesystem(report, put, |filesystem| bytes(filesystem.used)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_load1",
        SANDBOX,
        "Load of the guest over one minute.",
        AGENT,
        |report, put| guest(report, put, |guest| float(guest.load.one)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_load15",
        SANDBOX,
        "Load of the guest over fifteen minutes.",
        AGENT,
        |report, put| guest(report, put, |guest| float(guest.load.fifteen)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_load5",
        SANDBOX,
        "Load of the guest over five minutes.",
        AGENT,
        |report, put| guest(report, put, |guest| float(guest.load.five)),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_guest_memory_anon_bytes",
        SANDBOX,
        "Anonymous memory of the guest.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.anon_pages),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_memory_available_bytes",
        SANDBOX,
        "Memory the guest could give to new work without swapping.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.available),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_guest_memory_buffers_bytes",
        SANDBOX,
        "Block device cache of the guest.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.buffers),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_memory_cached_bytes",
        SANDBOX,
        "Page cache of the guest, shared memory included.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.cached),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_memory_free_bytes",
        SANDBOX,
        "Memory the guest does not use.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.free),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_guest_memory_slab_bytes",
        SANDBOX,
        "Kernel objects of the guest.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.slab),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_guest_memory_total_bytes",
        SANDBOX,
        "Memory of the guest, less what its kernel took at boot.",
        AGENT,
        |report, put| memory(report, put, |memory| memory.total),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_guest_oom_kills_total",
        SANDBOX,
        "Processes killed for lack of memory anywhere in the guest.",
        AGENT,
        |report, put| guest(report, put, |guest| int(guest.oom_kills)),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_guest_threads",
        SANDBOX,
        "Threads in the guest, its kernel's included.",
        AGENT,
        |report, put| guest(report, put, |guest| int(guest.threads)),
    ),
    family(Gauge, Kubelet, "kata_pulse_guest_vcpus", SANDBOX, "Virtual CPUs of the guest.", AGENT, |report, put| {
        guest(report, put, |guest| int(guest.vcpus))
    }),
    family(
        Counter,
        Kubelet,
        "kata_pulse_sandbox_host_cpu_seconds_total",
        SANDBOX,
        "CPU time the node has spent on the sandbox, guest included: its cgroup and its overhead cgroup.",
        "sandbox and overhead cgroup",
        |report, put| host(report, put, |host| seconds(host.cpu)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_host_memory_bytes",
        SANDBOX,
        "Memory the node spends on the sandbox, guest included: its cgroup and its overhead cgroup.",
        "sandbox and overhead cgroup: anonymous, shared, kernel and huge pages",
        |report, put| host(report, put, |host| bytes(host.memory)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_overhead_memory_bytes",
        SANDBOX,
        "Memory the node spends on the sandbox beyond what its containers use in the guest.",
        "host memory − Σ containers' usage, both read in one collection",
        |report, put| one(report, put, |kata| bytes(kata.overhead_memory)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_sandbox_process_cpu_seconds_total",
        COMPONENT,
        "CPU time of a component of the sandbox on the node; the hypervisor's includes the guest's.",
        PROC,
        |report, put| process(report, put, |process| seconds(process.cpu)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_process_open_fds",
        COMPONENT,
        "Open descriptors of a component.",
        PROC,
        |report, put| process(report, put, |process| int(process.open_fds)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_sandbox_process_read_bytes_total",
        COMPONENT,
        "Bytes a component has fetched from storage; needs the right to trace it.",
        PROC,
        |report, put| process(report, put, |process| bytes(process.read_bytes)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_process_resident_memory_bytes",
        COMPONENT,
        "Resident memory of a component; guest memory that is shared shows in hypervisor and virtiofsd alike.",
        PROC,
        |report, put| process(report, put, |process| bytes(process.resident)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_process_threads",
        COMPONENT,
        "Threads of a component.",
        PROC,
        |report, put| process(report, put, |process| int(process.threads)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_sandbox_process_written_bytes_total",
        COMPONENT,
        "Bytes a component has sent to storage; needs the right to trace it.",
        PROC,
        |report, put| process(report, put, |process| bytes(process.written_bytes)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_samples_dropped",
        REASON,
        "What the guest said in this collection and is not served, by reason; absent when all of it is.",
        "the kata collector",
        |report, put| {
            let [namespace, pod, id] = identity(report);
            for (reason, count) in report.kata.iter().flat_map(|kata| &kata.dropped) {
                put(&[namespace, pod, reason, id], Value::Int(*count));
            }
        },
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_scrape_duration_seconds",
        SANDBOX,
        "How long measuring the sandbox took.",
        "clock",
        |report, put| {
            one(report, put, |kata| {
                let nanos = u64::try_from(kata.took.as_nanos()).unwrap_or(u64::MAX);
                Some(Seconds::from_nanos(nanos).value())
            });
        },
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_sandbox_scrape_skipped",
        REASON,
        "1 for every reason why a source of the sandbox was not asked.",
        "the kata collector",
        |report, put| {
            let [namespace, pod, id] = identity(report);
            let sources = report.kata.iter().flat_map(|kata| kata.sources.values());
            let mut reasons: Vec<&str> = sources
                .filter_map(|state| match state {
                    SourceState::Skipped(reason) => Some(*reason),
                    SourceState::Up | SourceState::Failed(_) => None,
                })
                .collect();
            reasons.sort_unstable();
            reasons.dedup();
            for reason in reasons {
                put(&[namespace, pod, reason, id], Value::Int(1));
            }
        },
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_block_read_bytes_total",
        DEVICE,
        "Bytes the guest has read from a virtual block device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_disk(report, put, |disk| bytes(disk.read_bytes)),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_vmm_block_read_latency_seconds",
        DEVICE_STAT,
        "How long reads of a virtual block device took since the machine was booted: fastest, slowest, running mean.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_latency(report, put, |disk| &disk.read_latency),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_block_reads_total",
        DEVICE,
        "Reads of a virtual block device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_disk(report, put, |disk| int(disk.reads)),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_vmm_block_write_latency_seconds",
        DEVICE_STAT,
        "How long writes of a virtual block device took since the machine was booted: fastest, slowest, running mean.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_latency(report, put, |disk| &disk.write_latency),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_block_writes_total",
        DEVICE,
        "Writes to a virtual block device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_disk(report, put, |disk| int(disk.writes)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_block_written_bytes_total",
        DEVICE,
        "Bytes the guest has written to a virtual block device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_disk(report, put, |disk| bytes(disk.written_bytes)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_vmm_memory_bytes",
        SANDBOX,
        "Size of the machine's memory, balloon taken off; not what it uses.",
        "Cloud Hypervisor `vm.info`",
        |report, put| one(report, put, |kata| bytes(kata.vmm.as_ref()?.memory)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_net_receive_bytes_total",
        DEVICE,
        "Bytes the guest has received on a virtual network device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_network(report, put, |network| bytes(network.receive_bytes)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_net_receive_frames_total",
        DEVICE,
        "Frames the guest has received on a virtual network device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_network(report, put, |network| int(network.receive_frames)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_net_transmit_bytes_total",
        DEVICE,
        "Bytes the guest has sent on a virtual network device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_network(report, put, |network| bytes(network.transmit_bytes)),
    ),
    family(
        Counter,
        Kubelet,
        "kata_pulse_vmm_net_transmit_frames_total",
        DEVICE,
        "Frames the guest has sent on a virtual network device.",
        CLOUD_HYPERVISOR,
        |report, put| vmm_network(report, put, |network| int(network.transmit_frames)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_vmm_state",
        STATE,
        "1 for what the machine is doing: running, paused, created, shutdown, not_running.",
        "Cloud Hypervisor `vm.info`",
        |report, put| {
            let [namespace, pod, id] = identity(report);
            if let Some(state) = vmm(report).and_then(|vmm| vmm.state.as_ref()) {
                put(&[namespace, pod, id, state.as_str()], Value::Int(1));
            }
        },
    ),
];
