//! `/metrics/resource`: the kubelet's families for metrics-server, under its names, types and labels.

use crate::expose::families::{Put, family, some};
use crate::expose::family::Kind::{Counter, Gauge};
use crate::expose::family::{Family, Kind, Meta, Profile};
use crate::expose::resource::{Consumer, Who};
use crate::model::snapshot::Snapshot;
use crate::model::units::Value;

const NONE: &[&str] = &[];

const POD: &[&str] = &["namespace", "pod"];

const CONTAINER: &[&str] = &["container", "namespace", "pod"];

/// The collectors without which the page is not what it should be.
const COLLECTORS: [&str; 2] = ["cgroup", "kata"];

fn container(consumer: &Consumer, put: Put<'_>, value: Option<impl Into<Value>>) {
    if let (Who::Container(subject), Some(value)) = (&consumer.who, value) {
        let labels = &subject.labels;
        put(&[&labels.container, &labels.namespace, &labels.pod], value.into());
    }
}

fn pod(consumer: &Consumer, put: Put<'_>, value: Option<impl Into<Value>>) {
    if let (Who::Pod(sandbox), Some(value)) = (&consumer.who, value) {
        put(&[&sandbox.namespace, &sandbox.pod_name], value.into());
    }
}

fn node(consumer: &Consumer, put: Put<'_>, value: Option<impl Into<Value>>) {
    if matches!(consumer.who, Who::Node) {
        some(put, value);
    }
}

/// A row of the table. Every profile has all of them: metrics-server takes the page as a whole or not at all.
const fn row(
    kind: Kind,
    name: &'static str,
    labels: &'static [&'static str],
    help: &'static str,
    source: &'static str,
    read: fn(&Consumer, Put<'_>),
) -> Family<Consumer> {
    let Family { meta, read } = family(kind, Profile::Dashboards, name, labels, help, source, read);
    Family { meta: Meta { stamped: true, ..meta }, read }
}

/// The table, sorted by name.
pub const RESOURCE: &[Family<Consumer>] = &[
    row(
        Counter,
        "container_cpu_usage_seconds_total",
        CONTAINER,
        "CPU time the container has consumed.",
        "its cgroup; for Kata the guest",
        |consumer, put| container(consumer, put, consumer.uses.cpu),
    ),
    row(
        Gauge,
        "container_memory_working_set_bytes",
        CONTAINER,
        "Memory of the container without inactive file cache.",
        "its cgroup; for Kata the guest",
        |consumer, put| container(consumer, put, consumer.uses.working_set),
    ),
    // Without the time of measuring, since it is the same whenever one looks.
    family(
        Gauge,
        Profile::Dashboards,
        "container_start_time_seconds",
        CONTAINER,
        "When the container was started, Unix time.",
        "CRI `started_at`, else the cgroup's modification time",
        |consumer, put| container(consumer, put, consumer.started_at),
    ),
    row(
        Gauge,
        "container_swap_limit_bytes",
        CONTAINER,
        "Most swap the container may use, if it is bounded.",
        "v2 `memory.swap.max`; v1 `memory.memsw.limit_in_bytes` less `memory.limit_in_bytes`",
        |consumer, put| container(consumer, put, consumer.uses.swap_limit),
    ),
    row(
        Gauge,
        "container_swap_usage_bytes",
        CONTAINER,
        "Swap the container uses.",
        "its cgroup; for Kata the guest",
        |consumer, put| container(consumer, put, consumer.uses.swap),
    ),
    row(
        Counter,
        "node_cpu_usage_seconds_total",
        NONE,
        "CPU time consumed on the node.",
        "the root cgroup",
        |consumer, put| node(consumer, put, consumer.uses.cpu),
    ),
    row(
        Gauge,
        "node_memory_working_set_bytes",
        NONE,
        "Memory of the node in use, without inactive file cache.",
        "the root cgroup",
        |consumer, put| node(consumer, put, consumer.uses.working_set),
    ),
    row(
        Gauge,
        "node_swap_usage_bytes",
        NONE,
        "Swap of the node in use.",
        "the root cgroup, else `/proc/meminfo`",
        |consumer, put| node(consumer, put, consumer.uses.swap),
    ),
    row(
        Counter,
        "pod_cpu_usage_seconds_total",
        POD,
        "CPU time the node has spent on the pod.",
        "its cgroup; for Kata all cgroups of its machine",
        |consumer, put| pod(consumer, put, consumer.uses.cpu),
    ),
    row(
        Gauge,
        "pod_memory_working_set_bytes",
        POD,
        "Memory of the node that the pod takes and that cannot be reclaimed at once.",
        "its cgroup; for Kata all cgroups of its machine, without file cache",
        |consumer, put| pod(consumer, put, consumer.uses.working_set),
    ),
    row(
        Gauge,
        "pod_swap_usage_bytes",
        POD,
        "Swap of the node that the pod uses.",
        "its cgroup; not known for Kata",
        |consumer, put| pod(consumer, put, consumer.uses.swap),
    ),
];

/// Whether the page is whole.
pub const RESOURCE_ERROR: &[Family<Snapshot>] = &[family(
    Gauge,
    Profile::Dashboards,
    "resource_scrape_error",
    NONE,
    "1 when cgroups or Kata sandboxes could not be read as they should.",
    "the cgroup and kata collectors",
    |snapshot: &Snapshot, put| {
        let failed =
            snapshot.collectors.iter().any(|report| COLLECTORS.contains(&report.name) && report.error.is_some());
        put(&[], failed.into());
    },
)];
