//! Processes that use most, of one name in one container together.

use crate::expose::families::{Put, family};
use crate::expose::family::Family;
use crate::expose::family::Kind::{Counter, Gauge};
use crate::expose::family::Profile::All;
use crate::model::top::{Group, Owner};
use crate::model::units::Value;

const OF_GROUP: &[&str] = &["comm", "container", "namespace", "pod"];

const SOURCE: &str = "`/proc/<pid>/stat`";

fn put_of(group: &Group, put: Put<'_>, value: impl Into<Value>) {
    let Owner { namespace, pod, container, .. } = &*group.owner;
    put(&[&group.comm, container, namespace, pod], value.into());
}

/// The table, sorted by name.
pub const TOP: &[Family<Group>] = &[
    family(
        Counter,
        All,
        "kata_pulse_top_process_cpu_seconds_total",
        OF_GROUP,
        "CPU time of the node's processes of this name in this container, those that have ended included.",
        SOURCE,
        |group: &Group, put| put_of(group, put, group.cpu),
    ),
    family(
        Gauge,
        All,
        "kata_pulse_top_process_resident_memory_bytes",
        OF_GROUP,
        "Resident memory of the node's processes of this name in this container, shared memory once for each.",
        SOURCE,
        |group, put| put_of(group, put, group.resident),
    ),
];
