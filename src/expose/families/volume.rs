//! Volumes of pods: those of claims under the kubelet's names, and all of them under our own.

use crate::expose::families::{Put, family, some};
use crate::expose::family::Kind::Gauge;
use crate::expose::family::Profile::{Dashboards, Kubelet};
use crate::expose::family::{Family, Profile};
use crate::model::units::Value;
use crate::model::volume::{Claim, Volume, VolumeState, VolumeUsage, Volumes};

const OF_CLAIM: &[&str] = &["namespace", "persistentvolumeclaim"];

const OF_VOLUME: &[&str] = &["namespace", "plugin", "pod", "volume"];

const SOURCE: &str = "`statfs` of mounts below the kubelet's directory of pods; of a device its size";

/// A fact of a volume, under its claim's name.
fn claim<V: Into<Value>>(volume: &Volume, put: Put<'_>, fact: fn(&VolumeUsage) -> Option<V>) {
    if let (Some(claim), Some(value)) = (volume.claim_name(), volume.usage().and_then(fact)) {
        put(&[&volume.namespace, claim], value.into());
    }
}

/// The same, under the volume's own.
fn own<V: Into<Value>>(volume: &Volume, put: Put<'_>, fact: fn(&VolumeUsage) -> Option<V>) {
    if let Some(value) = volume.usage().and_then(fact) {
        put(&[&volume.namespace, &volume.plugin, &volume.pod, &volume.name], value.into());
    }
}

const fn of_claim(name: &'static str, help: &'static str, read: fn(&Volume, Put<'_>)) -> Family<Volume> {
    family(Gauge, Dashboards, name, OF_CLAIM, help, SOURCE, read)
}

const fn of_volume(
    profile: Profile,
    name: &'static str,
    help: &'static str,
    read: fn(&Volume, Put<'_>),
) -> Family<Volume> {
    family(Gauge, profile, name, OF_VOLUME, help, SOURCE, read)
}

/// Families of a claim, read from one volume of it; sorted by name.
pub const CLAIM: &[Family<Volume>] = &[
    of_claim(
        "kubelet_volume_stats_available_bytes",
        "Space in the claim's volume free for whoever is not root.",
        |volume, put| claim(volume, put, |usage| usage.available),
    ),
    of_claim("kubelet_volume_stats_capacity_bytes", "Size of the claim's volume.", |volume, put| {
        claim(volume, put, |usage| usage.capacity)
    }),
    of_claim("kubelet_volume_stats_inodes", "Inodes of the claim's volume.", |volume, put| {
        claim(volume, put, |usage| usage.inodes)
    }),
    of_claim("kubelet_volume_stats_inodes_free", "Free inodes of the claim's volume.", |volume, put| {
        claim(volume, put, |usage| usage.inodes_free)
    }),
    of_claim("kubelet_volume_stats_inodes_used", "Inodes in use of the claim's volume.", |volume, put| {
        claim(volume, put, |usage| usage.inodes_used)
    }),
    of_claim("kubelet_volume_stats_used_bytes", "Space in use of the claim's volume.", |volume, put| {
        claim(volume, put, |usage| usage.used)
    }),
];

/// Families of a volume, sorted by name.
pub const VOLUME: &[Family<Volume>] = &[
    of_volume(Kubelet, "kata_pulse_volume_available_bytes", "Space free for whoever is not root.", |volume, put| {
        own(volume, put, |usage| usage.available)
    }),
    of_volume(Kubelet, "kata_pulse_volume_capacity_bytes", "Size of the volume.", |volume, put| {
        own(volume, put, |usage| usage.capacity)
    }),
    of_volume(
        Kubelet,
        "kata_pulse_volume_error",
        "Whether the volume's filesystem gave an error or no answer.",
        |volume, put| {
            let silent = volume.state == VolumeState::Silent;
            if silent || volume.usage().is_some() {
                put(&[&volume.namespace, &volume.plugin, &volume.pod, &volume.name], silent.into());
            }
        },
    ),
    of_volume(Kubelet, "kata_pulse_volume_inodes", "Inodes.", |volume, put| own(volume, put, |usage| usage.inodes)),
    of_volume(Kubelet, "kata_pulse_volume_inodes_free", "Free inodes.", |volume, put| {
        own(volume, put, |usage| usage.inodes_free)
    }),
    of_volume(Kubelet, "kata_pulse_volume_inodes_used", "Inodes in use.", |volume, put| {
        own(volume, put, |usage| usage.inodes_used)
    }),
    of_volume(Kubelet, "kata_pulse_volume_used_bytes", "Space in use.", |volume, put| {
        own(volume, put, |usage| usage.used)
    }),
];

const WALK: &str = "the walk over emptyDirs";

/// Families of all volumes together, sorted by name.
pub const VOLUMES: &[Family<Volumes>] = &[
    family(
        Gauge,
        Kubelet,
        "kata_pulse_emptydir_walk_duration_seconds",
        &[],
        "How long the last walk over emptyDirs took.",
        WALK,
        |volumes: &Volumes, put| some(put, volumes.walk.map(|walk| walk.took)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_emptydir_walk_entries",
        &[],
        "Files and directories that the last walk over emptyDirs looked at.",
        WALK,
        |volumes, put| some(put, volumes.walk.map(|walk| walk.entries)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_emptydir_walk_incomplete",
        &[],
        "EmptyDirs that the last walk could not finish or did not come to: their figures are older, or missing.",
        WALK,
        |volumes, put| some(put, volumes.walk.map(|walk| walk.incomplete)),
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_volumes",
        &["state"],
        "Volumes of pods by what could be learnt of them.",
        "`/proc/1/mountinfo`, Kata's list of direct-assigned volumes",
        |volumes, put| {
            for state in VolumeState::NAMES {
                let count = match state {
                    "left_out" => volumes.left_out,
                    _ => volumes.count(|volume| volume.state.as_str() == state),
                };
                put(&[state], Value::Int(count));
            }
        },
    ),
    family(
        Gauge,
        Kubelet,
        "kata_pulse_volumes_unnamed",
        &[],
        "Volumes that may have a claim of which nobody has told the name: these have no kubelet_volume_stats.",
        "`vol_data.json`, the API server",
        |volumes, put| put(&[], Value::Int(volumes.count(|volume| volume.claim == Claim::Unknown))),
    ),
];
