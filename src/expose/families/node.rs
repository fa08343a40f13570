//! `machine_*`, `cadvisor_version_info` and the two scrape-error gauges: the kubelet's families about the node.

use crate::expose::families::{Put, family, some};
use crate::expose::family::Family;
use crate::expose::family::Kind::Gauge;
use crate::expose::family::Profile::Kubelet;
use crate::model::machine::Machine;
use crate::model::snapshot::Snapshot;
use crate::model::units::Value;

const IDENTITY: &[&str] = &["boot_id", "machine_id", "system_uuid"];

fn machine(snapshot: &Snapshot, put: Put<'_>, fact: fn(&Machine) -> Option<Value>) {
    if let Some(machine) = &snapshot.machine
        && let Some(value) = fact(machine)
    {
        put(&[&machine.boot_id, &machine.machine_id, &machine.system_uuid], value);
    }
}

fn dimms(snapshot: &Snapshot, put: Put<'_>, fact: fn(&crate::model::machine::Dimm) -> Value) {
    let Some(machine) = &snapshot.machine else { return };
    for dimm in &machine.dimms {
        put(&[&machine.boot_id, &machine.machine_id, &machine.system_uuid, &dimm.kind], fact(dimm));
    }
}

fn failed(snapshot: &Snapshot, put: Put<'_>, collector: &str) {
    let report = snapshot.collectors.iter().find(|report| report.name == collector);
    some(put, report.map(|report| report.error.is_some()));
}

/// The table, sorted by name.
pub const NODE: &[Family<Snapshot>] = &[
    family(
        Gauge,
        Kubelet,
        "cadvisor_version_info",
        &["cadvisorRevision", "cadvisorVersion", "dockerVersion", "kernelVersion", "osVersion"],
        "Kernel and operating system of the node; the other labels are blank, as the kubelet leaves them.",
        "`/proc/sys/kernel/osrelease`, `os-release`",
        |snapshot: &Snapshot, put| {
            if let Some(machine) = &snapshot.machine {
                put(&["", "", "", &machine.kernel_version, &machine.os_version], Value::Int(1));
            }
        },
    ),
    family(
        Gauge,
        Kubelet,
        "container_scrape_error",
        &[],
        "1 when cgroups could not be read without error.",
        "the cgroup collector",
        |snapshot, put| failed(snapshot, put, "cgroup"),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_cpu_books",
        IDENTITY,
        "CPU books; s390 only.",
        "`/sys/devices/system/cpu/cpu*/topology`",
        |snapshot, put| machine(snapshot, put, |machine| machine.books.map(Value::from)),
    ),
    family(Gauge, Kubelet, "machine_cpu_cores", IDENTITY, "Logical CPUs online.", "`/proc/stat`", |snapshot, put| {
        machine(snapshot, put, |machine| machine.cores.map(Value::from))
    }),
    family(
        Gauge,
        Kubelet,
        "machine_cpu_drawers",
        IDENTITY,
        "CPU drawers; s390 only.",
        "`/sys/devices/system/cpu/cpu*/topology`",
        |snapshot, put| machine(snapshot, put, |machine| machine.drawers.map(Value::from)),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_cpu_physical_cores",
        IDENTITY,
        "Physical cores.",
        "`/sys/devices/system/cpu`, else `/proc/cpuinfo`",
        |snapshot, put| machine(snapshot, put, |machine| machine.physical_cores.map(Value::from)),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_cpu_sockets",
        IDENTITY,
        "CPU sockets.",
        "`/sys/devices/system/cpu`, else `/proc/cpuinfo`",
        |snapshot, put| machine(snapshot, put, |machine| machine.sockets.map(Value::from)),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_dimm_capacity_bytes",
        &["boot_id", "machine_id", "system_uuid", "type"],
        "Memory modules' capacity by type, where the kernel knows them.",
        "`/sys/devices/system/edac`",
        |snapshot, put| dimms(snapshot, put, |dimm| dimm.capacity.into()),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_dimm_count",
        &["boot_id", "machine_id", "system_uuid", "type"],
        "Memory modules by type, where the kernel knows them.",
        "`/sys/devices/system/edac`",
        |snapshot, put| dimms(snapshot, put, |dimm| dimm.count.into()),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_memory_bytes",
        IDENTITY,
        "Memory of the node.",
        "`/proc/meminfo` `MemTotal`",
        |snapshot, put| machine(snapshot, put, |machine| machine.memory.map(Value::from)),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_scrape_error",
        &[],
        "1 when the node's hardware could not be read.",
        "the machine collector",
        |snapshot, put| failed(snapshot, put, "machine"),
    ),
    family(
        Gauge,
        Kubelet,
        "machine_swap_bytes",
        IDENTITY,
        "Swap of the node.",
        "`/proc/meminfo` `SwapTotal`",
        |snapshot, put| machine(snapshot, put, |machine| machine.swap.map(Value::from)),
    ),
];
