//! Who stands on `/metrics/resource`, and with what: the node, its pods and their containers. Pure.
//!
//! The page is for metrics-server, which adds up a pod's containers and drops the whole pod when one of them has a 0 or
//! lacks one of its two numbers. What follows from that is decided here and explained in
//! `docs/decisions/0004-what-metrics-server-is-told.md`.

use std::collections::HashMap;
use std::sync::Arc;

use crate::model::identity::{ContainerId, SandboxId};
use crate::model::inventory::{ContainerState, Kind, Runtime, Sandbox, SandboxState, Subject};
use crate::model::snapshot::{Row, SandboxReport, Snapshot};
use crate::model::units::{Bytes, Limit, Seconds};

/// Somebody who uses the node, and how much of it.
#[derive(Clone, Debug)]
pub struct Consumer {
    /// Who.
    pub who: Who,
    /// How much. Nothing is known of a container that runs and was not measured.
    pub uses: Uses,
    /// When it was started, Unix time.
    pub started_at: Option<Seconds>,
    /// When it was measured, Unix time.
    pub measured_at: Option<Seconds>,
}

/// Who uses.
#[derive(Clone, Debug)]
pub enum Who {
    /// The node with everything on it.
    Node,
    /// A pod, with what it takes to run it.
    Pod(Arc<Sandbox>),
    /// A container.
    Container(Arc<Subject>),
}

/// The numbers of the page.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Uses {
    /// CPU time, cumulative.
    pub cpu: Option<Seconds>,
    /// Memory that cannot be reclaimed just so.
    pub working_set: Option<Bytes>,
    /// Swap in use.
    pub swap: Option<Bytes>,
    /// Bound on it.
    pub swap_limit: Option<Bytes>,
}

/// Everybody: containers, each once and in the order in which the kubelet lists them; then the node; then pods.
pub fn consumers(snapshot: &Snapshot) -> Vec<Consumer> {
    let mut all = containers(snapshot);
    all.extend(snapshot.rows.iter().filter(|row| row.subject.kind == Kind::Root).map(|row| of_row(Who::Node, row)));
    all.extend(pods(snapshot));
    all
}

fn of_row(who: Who, row: &Row) -> Consumer {
    let memory = row.usage.memory.as_ref();
    let limit = row.usage.spec.as_ref().and_then(|spec| spec.swap_limit);
    let uses = Uses {
        cpu: row.usage.cpu.as_ref().map(|cpu| cpu.usage),
        working_set: memory.and_then(|memory| memory.working_set),
        swap: memory.and_then(|memory| memory.swap),
        swap_limit: match limit {
            Some(Limit::At(bytes)) => Some(Bytes(bytes)),
            Some(Limit::Max) | None => None,
        },
    };
    Consumer { who, uses, started_at: row.usage.start_time, measured_at: row.usage.measured_at }
}

fn containers(snapshot: &Snapshot) -> Vec<Consumer> {
    let sandboxes = snapshot.inventory.sandboxes.iter();
    let ended: HashMap<&ContainerId, bool> = sandboxes
        .flat_map(|sandbox| &sandbox.containers)
        .map(|container| (&container.id, container.state == ContainerState::Exited))
        .collect();
    let has_ended = |subject: &Subject| subject.container.as_ref().is_some_and(|id| ended.get(id) == Some(&true));
    let mut rows = snapshot.rows.iter().peekable();
    let mut found: Vec<(&Arc<Subject>, Consumer)> = Vec::new();
    // Rows are those of the subjects that were measured, in the same order.
    for subject in &snapshot.inventory.subjects {
        let row = rows.next_if(|row| Arc::ptr_eq(&row.subject, subject));
        if subject.kind != Kind::Container || subject.labels.container.is_empty() || has_ended(subject) {
            continue;
        }
        let who = Who::Container(Arc::clone(subject));
        let consumer = match row {
            Some(row) => of_row(who, row),
            None => Consumer { who, uses: Uses::default(), started_at: subject.started_at, measured_at: None },
        };
        if !consumer.uses.are_nothing() {
            found.push((subject, consumer));
        }
    }
    // Of two with the same name in one pod, the one that began last is the pod's; the other is about to go.
    let names = |subject: &Subject| {
        let labels = &subject.labels;
        (labels.container.clone(), labels.namespace.clone(), labels.pod.clone())
    };
    found.sort_by_cached_key(|(subject, consumer)| (names(subject), std::cmp::Reverse(millis(consumer.started_at))));
    found.dedup_by(|(later, _), (earlier, _)| names(later) == names(earlier));
    found.into_iter().map(|(_, consumer)| consumer).collect()
}

impl Uses {
    /// Both numbers are known and one of them is 0: a container in which nothing has run, or that holds nothing.
    fn are_nothing(&self) -> bool {
        match (self.cpu, self.working_set) {
            (Some(cpu), Some(working_set)) => cpu.is_zero() || working_set.0 == 0,
            _ => false,
        }
    }
}

/// Pods whose sandbox is not known to have stopped.
fn pods(snapshot: &Snapshot) -> Vec<Consumer> {
    let rows: HashMap<&SandboxId, &Row> = snapshot
        .rows
        .iter()
        .filter(|row| row.subject.kind == Kind::Pod)
        .filter_map(|row| Some((row.subject.sandbox.as_ref()?, row)))
        .collect();
    let live =
        |report: &&SandboxReport| report.sandbox.state != SandboxState::NotReady && !report.sandbox.pod_name.is_empty();
    let of_report = |report: &SandboxReport| {
        let who = Who::Pod(Arc::clone(&report.sandbox));
        match report.sandbox.runtime {
            Runtime::Runc => rows.get(&report.sandbox.id).map(|row| of_row(who, row)),
            // Its cgroup on the node may hold next to nothing of it; all cgroups of its machine together do not mislead.
            Runtime::Kata => report.kata.as_ref()?.host.as_ref().map(|side| Consumer {
                who,
                uses: Uses { cpu: side.cpu, working_set: side.memory, ..Uses::default() },
                started_at: report.sandbox.created_at,
                measured_at: side.measured_at,
            }),
        }
    };
    let mut found: Vec<(&Sandbox, Consumer)> = snapshot
        .sandboxes
        .iter()
        .filter(live)
        .filter_map(|report| Some((&*report.sandbox, of_report(report)?)))
        .collect();
    let name = |sandbox: &Sandbox| (sandbox.namespace.clone(), sandbox.pod_name.clone());
    found.sort_by_cached_key(|(sandbox, _)| (name(sandbox), std::cmp::Reverse(millis(sandbox.created_at))));
    found.dedup_by(|(later, _), (earlier, _)| name(later) == name(earlier));
    found.into_iter().map(|(_, consumer)| consumer).collect()
}

fn millis(time: Option<Seconds>) -> u64 {
    time.map_or(0, Seconds::whole_millis)
}
