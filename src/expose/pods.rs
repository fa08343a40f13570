//! The pods of a snapshot, each with what belongs to it: rows are sorted by cgroup, and whoever tells of pods wants them
//! together and each once. Pure.

use std::cmp::Reverse;
use std::collections::HashMap;
use std::sync::Arc;

use crate::model::host_side::HostSide;
use crate::model::identity::{ContainerId, SandboxId};
use crate::model::inventory::{ContainerState, Kind, Runtime, SandboxState, Subject};
use crate::model::snapshot::{Row, SandboxReport, Snapshot};
use crate::model::units::Seconds;

/// A pod that is not known to have stopped.
#[derive(Debug)]
pub struct Pod<'s> {
    /// Its sandbox; of several the newest.
    pub report: &'s SandboxReport,
    /// Its cgroup on the node.
    pub cgroup: Option<&'s Row>,
    /// Its pause container, which has the pod's network.
    pub pause: Option<&'s Row>,
    /// Its containers that run, by name.
    pub containers: Vec<Running<'s>>,
}

/// A container that runs.
#[derive(Clone, Copy, Debug)]
pub struct Running<'s> {
    /// Which.
    pub subject: &'s Arc<Subject>,
    /// What it uses; `None` if it could not be measured.
    pub row: Option<&'s Row>,
}

impl Pod<'_> {
    /// What all cgroups of a Kata pod's machine take; `None` for other pods. The pod's own cgroup may have next to nothing
    /// of it.
    pub fn machine(&self) -> Option<&HostSide> {
        self.report.kata.as_ref()?.host.as_ref()
    }

    /// Whether it is a machine and not a group of processes.
    pub fn is_kata(&self) -> bool {
        self.report.sandbox.runtime == Runtime::Kata
    }
}

/// The pods with a name, by namespace and name.
pub fn pods(snapshot: &Snapshot) -> Vec<Pod<'_>> {
    let live =
        |report: &&SandboxReport| report.sandbox.state != SandboxState::NotReady && !report.sandbox.pod_name.is_empty();
    let name = |report: &SandboxReport| (report.sandbox.namespace.clone(), report.sandbox.pod_name.clone());
    let mut reports: Vec<&SandboxReport> = snapshot.sandboxes.iter().filter(live).collect();
    reports.sort_by_cached_key(|report| (name(report), Reverse(millis(report.sandbox.created_at))));
    reports.dedup_by(|other, first| name(other) == name(first));
    let mut parts = parts(snapshot);
    let pods = reports.into_iter().map(|report| {
        let Parts { cgroup, pause, containers } = parts.remove(&report.sandbox.id).unwrap_or_default();
        Pod { report, cgroup, pause, containers: running(report, containers) }
    });
    pods.collect()
}

/// Rows by sandbox, and subjects without.
#[derive(Default)]
struct Parts<'s> {
    cgroup: Option<&'s Row>,
    pause: Option<&'s Row>,
    containers: Vec<Running<'s>>,
}

fn parts(snapshot: &Snapshot) -> HashMap<&SandboxId, Parts<'_>> {
    let mut parts: HashMap<&SandboxId, Parts<'_>> = HashMap::new();
    let mut rows = snapshot.rows.iter().peekable();
    // Rows are those of the subjects that were measured, in the same order.
    for subject in &snapshot.inventory.subjects {
        let row = rows.next_if(|row| Arc::ptr_eq(&row.subject, subject));
        let Some(sandbox) = &subject.sandbox else { continue };
        let part = parts.entry(sandbox).or_default();
        match subject.kind {
            Kind::Pod => part.cgroup = row,
            Kind::Sandbox => part.pause = row,
            Kind::Container => part.containers.push(Running { subject, row }),
            Kind::Root | Kind::Group => {}
        }
    }
    parts
}

/// Those that have not ended. Of two with the same name the one that began last: the other is about to go.
fn running<'s>(report: &SandboxReport, mut containers: Vec<Running<'s>>) -> Vec<Running<'s>> {
    let known = report.sandbox.containers.iter().map(|container| (&container.id, container.state));
    let states: HashMap<&ContainerId, ContainerState> = known.collect();
    containers.retain(|Running { subject, .. }| {
        let state = subject.container.as_ref().and_then(|id| states.get(id));
        state != Some(&ContainerState::Exited)
    });
    let name = |container: &Running<'s>| container.subject.labels.container.as_str();
    containers.sort_by(|one, other| {
        (name(one), Reverse(millis(one.subject.started_at)))
            .cmp(&(name(other), Reverse(millis(other.subject.started_at))))
    });
    containers.dedup_by(|other, first| name(other) == name(first));
    containers
}

fn millis(time: Option<Seconds>) -> u64 {
    time.map_or(0, Seconds::whole_millis)
}
