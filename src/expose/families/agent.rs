//! `kata_pulse_*` about the node as a whole and about the collecting itself.

use std::collections::BTreeMap;

use crate::expose::families::family;
use crate::expose::family::Family;
use crate::expose::family::Kind::Gauge;
use crate::expose::family::Profile::Dashboards;
use crate::model::inventory::SandboxState;
use crate::model::snapshot::Snapshot;
use crate::model::units::{Seconds, Value};

/// The table, sorted by name.
pub const AGENT: &[Family<Snapshot>] = &[
    family(
        Gauge,
        Dashboards,
        "kata_pulse_collector_duration_seconds",
        &["collector"],
        "How long the collector took.",
        "clock",
        |snapshot: &Snapshot, put| {
            for report in &snapshot.collectors {
                let nanos = u64::try_from(report.took.as_nanos()).unwrap_or(u64::MAX);
                put(&[report.name], Seconds::from_nanos(nanos).value());
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "kata_pulse_collector_success",
        &["collector"],
        "Whether the collector read everything it should.",
        "the collectors",
        |snapshot, put| {
            for report in &snapshot.collectors {
                put(&[report.name], report.error.is_none().into());
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "kata_pulse_sandboxes",
        &["hypervisor", "runtime"],
        "Pod sandboxes that are ready.",
        "CRI, cgroup tree",
        |snapshot, put| {
            let mut counts: BTreeMap<(&str, &str), u64> = BTreeMap::new();
            for report in &snapshot.sandboxes {
                let sandbox = &report.sandbox;
                if sandbox.state != SandboxState::NotReady {
                    *counts.entry((report.hypervisor(), sandbox.runtime.as_str())).or_default() += 1;
                }
            }
            for ((hypervisor, runtime), count) in counts {
                put(&[hypervisor, runtime], Value::Int(count));
            }
        },
    ),
];
