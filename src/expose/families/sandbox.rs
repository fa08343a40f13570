//! `kata_pulse_sandbox_*`: one pod sandbox each, runc or Kata.

use crate::expose::families::family;
use crate::expose::family::Family;
use crate::expose::family::Kind::Gauge;
use crate::expose::family::Profile::Dashboards;
use crate::model::inventory::SandboxState;
use crate::model::snapshot::SandboxReport;
use crate::model::units::Value;

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
                let hypervisor = sandbox.hypervisor.as_deref().unwrap_or_default();
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
