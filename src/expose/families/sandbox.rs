//! `kata_pulse_sandbox_*`, one pod sandbox each, runc or Kata; and the out-of-memory kills of its containers' names.

use crate::expose::families::family;
use crate::expose::family::Family;
use crate::expose::family::Kind::{Counter, Gauge};
use crate::expose::family::Profile::Dashboards;
use crate::model::inventory::SandboxState;
use crate::model::snapshot::{OomKills, SandboxReport};
use crate::model::units::Value;

/// Families of a container's name, whichever life it is in.
pub const OOM: &[Family<OomKills>] = &[family(
    Counter,
    Dashboards,
    "kata_pulse_container_oom_kills_total",
    &["container", "namespace", "pod"],
    "Out-of-memory kills of a container name, over all its restarts.",
    "the cgroup's `oom_kill`, CRI exit reason `OOMKilled`",
    |kills, put| put(&[&kills.container, &kills.namespace, &kills.pod], Value::Int(kills.kills)),
)];

/// The table, sorted by name.
pub const SANDBOX: &[Family<SandboxReport>] = &[
    family(
        Gauge,
        Dashboards,
        "kata_pulse_sandbox_info",
        &["hypervisor", "namespace", "pod", "runtime", "runtime_handler", "sandbox_id", "uid"],
        "A pod sandbox that is ready; always 1. Joins pods to their runtime.",
        "CRI, cgroup tree",
        |report: &SandboxReport, put| {
            let sandbox = &report.sandbox;
            if sandbox.state != SandboxState::NotReady {
                let hypervisor = report.hypervisor();
                let (id, uid) = (sandbox.id.as_str(), sandbox.uid.as_str());
                let runtime = sandbox.runtime.as_str();
                let handler = sandbox.runtime_handler.as_str();
                put(&[hypervisor, &sandbox.namespace, &sandbox.pod_name, runtime, handler, id, uid], Value::Int(1));
            }
        },
    ),
    family(
        Gauge,
        Dashboards,
        "kata_pulse_sandbox_up",
        &["namespace", "pod", "sandbox_id"],
        "Whether a ready sandbox could be measured.",
        "the collectors",
        |report, put| {
            let sandbox = &report.sandbox;
            if let (true, Some(up)) = (sandbox.state != SandboxState::NotReady, report.up) {
                put(&[&sandbox.namespace, &sandbox.pod_name, sandbox.id.as_str()], up.into());
            }
        },
    ),
];
