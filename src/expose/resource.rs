//! Who stands on `/metrics/resource`, and with what: the node, its pods and their containers. Pure.
//!
//! The page is for metrics-server, which adds up a pod's containers and drops the whole pod when one of them has a 0 or
//! lacks one of its two numbers. What follows from that is decided here and explained in
//! `docs/decisions/0004-what-metrics-server-is-told.md`.

use std::sync::Arc;

use crate::expose::pods::{Pod, Running, pods};
use crate::model::inventory::{Kind, Sandbox, Subject};
use crate::model::snapshot::{Row, Snapshot};
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

/// Everybody: containers, in the order in which the kubelet lists them; then the node; then pods.
pub fn consumers(snapshot: &Snapshot) -> Vec<Consumer> {
    let pods = pods(snapshot);
    let mut containers: Vec<(&Arc<Subject>, Consumer)> = pods
        .iter()
        .flat_map(|pod| &pod.containers)
        .map(|running| (running.subject, of_container(running)))
        .filter(|(_, consumer)| !consumer.uses.are_nothing())
        .collect();
    // Within a name the pods' order stays.
    containers.sort_by(|(one, _), (other, _)| one.labels.container.cmp(&other.labels.container));
    let mut all: Vec<Consumer> = containers.into_iter().map(|(_, consumer)| consumer).collect();
    let root = snapshot.rows.iter().filter(|row| row.subject.kind == Kind::Root);
    all.extend(root.map(|row| of_row(Who::Node, row)));
    all.extend(pods.iter().filter_map(of_pod));
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

fn of_container(Running { subject, row }: &Running<'_>) -> Consumer {
    let who = Who::Container(Arc::clone(subject));
    match row {
        Some(row) => of_row(who, row),
        None => Consumer { who, uses: Uses::default(), started_at: subject.started_at, measured_at: None },
    }
}

fn of_pod(pod: &Pod<'_>) -> Option<Consumer> {
    let who = Who::Pod(Arc::clone(&pod.report.sandbox));
    if !pod.is_kata() {
        return pod.cgroup.map(|row| of_row(who, row));
    }
    pod.machine().map(|side| Consumer {
        who,
        uses: Uses { cpu: side.cpu, working_set: side.memory, ..Uses::default() },
        started_at: pod.report.sandbox.created_at,
        measured_at: side.measured_at,
    })
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
