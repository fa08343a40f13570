//! Going through the tables for one snapshot.

use std::collections::HashSet;

use crate::expose::families::{
    AGENT, CLAIM, CONTAINER, HOST, KATA, NAMED, NODE, OOM, RESOURCE, RESOURCE_ERROR, SANDBOX, TOP, VOLUME, VOLUMES,
};
use crate::expose::family::{Family, Meta, Profile};
use crate::expose::resource;
use crate::model::identity::SandboxId;
use crate::model::inventory::{Kind, Subject};
use crate::model::node::{Named, Node};
use crate::model::snapshot::{OomKills, Row, SandboxReport, Snapshot};
use crate::model::units::{Seconds, Value};
use crate::model::volume::{Volume, Volumes};

/// Which part of a snapshot is asked for.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum View {
    /// Everything.
    All,
    /// Only the kubelet's families.
    Cadvisor,
    /// Only one sandbox's series.
    Sandbox(SandboxId),
    /// What metrics-server reads, whatever the profile.
    Resource,
}

/// Receives families and their samples in order: every sample of a family between its `begin` and the next one.
pub trait Output {
    /// A family that has samples begins.
    fn begin(&mut self, family: &Meta);

    /// One sample.
    fn sample(&mut self, family: &Meta, sample: &Sample<'_>);
}

/// One sample of a family.
#[derive(Clone, Copy, Debug)]
pub struct Sample<'a> {
    /// Gives the six identity labels, on tables whose samples carry them.
    pub subject: Option<&'a Subject>,
    /// Values of the family's own labels, in their order.
    pub values: &'a [&'a str],
    /// The number.
    pub value: Value,
    /// When it was measured, Unix time, if it is to be said.
    pub at: Option<Seconds>,
}

/// What the samples of one subject have in common.
#[derive(Clone, Copy, Debug, Default)]
struct Common<'s> {
    subject: Option<&'s Subject>,
    measured_at: Option<Seconds>,
}

/// Hands every sample of the view to the output. Families without samples are not begun.
pub fn walk(snapshot: &Snapshot, view: &View, profile: Profile, output: &mut impl Output) {
    if *view == View::Resource {
        return walk_resource(snapshot, output);
    }
    let of_view = |id: Option<&SandboxId>| match view {
        View::All | View::Cadvisor | View::Resource => true,
        View::Sandbox(wanted) => id == Some(wanted),
    };
    let wanted = |row: &&Row| {
        let group = matches!(row.subject.kind, Kind::Root | Kind::Group);
        (!group || profile >= Profile::Kubelet) && of_view(row.subject.sandbox.as_ref())
    };
    for family in in_profile(CONTAINER, profile) {
        let rows = snapshot.rows.iter().filter(wanted);
        table_row(family, rows, |row| Common { subject: Some(&row.subject), ..Common::default() }, output);
    }
    let node = (!matches!(view, View::Sandbox(_))).then_some(snapshot);
    if profile >= Profile::Kubelet {
        for family in in_profile(NODE, profile) {
            table_row(family, node.into_iter(), |_| Common::default(), output);
        }
    }
    if *view == View::Cadvisor {
        return;
    }
    let pod = |kills: &&OomKills| match view {
        View::All | View::Cadvisor | View::Resource => true,
        View::Sandbox(id) => snapshot.sandboxes.iter().filter(|report| report.sandbox.id == *id).any(
            |SandboxReport { sandbox, .. }| (&sandbox.namespace, &sandbox.pod_name) == (&kills.namespace, &kills.pod),
        ),
    };
    for family in in_profile(OOM, profile) {
        table_row(family, snapshot.oom_kills.iter().filter(pod), |_| Common::default(), output);
    }
    for family in in_profile(SANDBOX, profile).chain(in_profile(KATA, profile)) {
        let sandboxes = snapshot.sandboxes.iter().filter(|report| of_view(Some(&report.sandbox.id)));
        table_row(family, sandboxes, |_| Common::default(), output);
    }
    if let Some(volumes) = &snapshot.volumes {
        let of_view: Vec<&Volume> = volumes.all.iter().filter(|volume| of_view(Some(&volume.sandbox))).collect();
        walk_volumes(&of_view, node.map(|_| &**volumes), profile, output);
    }
    if let Some(top) = &snapshot.top {
        for family in in_profile(TOP, profile) {
            let groups = top.groups.iter().filter(|group| of_view(group.owner.sandbox.as_ref()));
            table_row(family, groups, |_| Common::default(), output);
        }
    }
    for family in in_profile(AGENT, profile) {
        table_row(family, node.into_iter(), |_| Common::default(), output);
    }
    if let Some(host) = node.and_then(|snapshot| snapshot.node.as_deref()) {
        walk_host(host, profile, output);
    }
}

fn walk_resource(snapshot: &Snapshot, output: &mut impl Output) {
    let consumers = resource::consumers(snapshot);
    for family in RESOURCE {
        let common = |consumer: &resource::Consumer| Common { subject: None, measured_at: consumer.measured_at };
        table_row(family, consumers.iter(), common, output);
    }
    for family in RESOURCE_ERROR {
        table_row(family, std::iter::once(snapshot), |_| Common::default(), output);
    }
}

fn walk_host(host: &Node, profile: Profile, output: &mut impl Output) {
    for family in in_profile(HOST, profile) {
        table_row(family, std::iter::once(host), |_| Common::default(), output);
    }
    for group in NAMED {
        for Named { name, value } in (group.facts)(host) {
            let meta = group.meta(name);
            output.begin(&meta);
            output.sample(&meta, &Sample { subject: None, values: &[], value: *value, at: None });
        }
    }
}

/// `all` is there in the views that have what is no single sandbox's.
fn walk_volumes(volumes: &[&Volume], all: Option<&Volumes>, profile: Profile, output: &mut impl Output) {
    // Pods can share a claim, which has one value.
    let mut seen = HashSet::new();
    let mut claims = volumes.to_vec();
    claims.retain(|volume| {
        let name = volume.claim_name().filter(|_| volume.usage().is_some());
        name.is_some_and(|name| seen.insert((volume.namespace.as_str(), name)))
    });
    for family in in_profile(CLAIM, profile) {
        table_row(family, claims.iter().copied(), |_| Common::default(), output);
    }
    for family in in_profile(VOLUME, profile) {
        table_row(family, volumes.iter().copied(), |_| Common::default(), output);
    }
    for family in in_profile(VOLUMES, profile) {
        table_row(family, all.into_iter(), |_| Common::default(), output);
    }
}

fn in_profile<S>(table: &'static [Family<S>], profile: Profile) -> impl Iterator<Item = &'static Family<S>> {
    table.iter().filter(move |family| family.meta.profile <= profile)
}

fn table_row<'s, S: 'static>(
    family: &Family<S>,
    subjects: impl Iterator<Item = &'s S>,
    common: impl Fn(&'s S) -> Common<'s>,
    output: &mut impl Output,
) {
    let mut begun = false;
    for subject in subjects {
        let Common { subject: identity, measured_at } = common(subject);
        let at = measured_at.filter(|_| family.meta.stamped);
        (family.read)(subject, &mut |values, value| {
            if !std::mem::replace(&mut begun, true) {
                output.begin(&family.meta);
            }
            output.sample(&family.meta, &Sample { subject: identity, values, value, at });
        });
    }
}
