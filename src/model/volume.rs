//! Facts of pods' volumes, behind `kubelet_volume_stats_*` and `kata_pulse_volume_*`.

use crate::model::identity::SandboxId;
use crate::model::units::{Bytes, Seconds};

/// The volumes of the node's pods.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Volumes {
    /// One entry each. Of two that pods of one name have under one name, which only happens while one pod follows the
    /// other, that of the newer pod.
    pub all: Vec<Volume>,
    /// How many there were no room for.
    pub left_out: u64,
    /// How the last walk over `emptyDir`s went; `None` unless there was one.
    pub walk: Option<Walk>,
}

/// A walk over `emptyDir`s on the node's disk.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Walk {
    /// How long it took.
    pub took: Seconds,
    /// How many files and directories it looked at.
    pub entries: u64,
    /// How many `emptyDir`s it could not finish, or did not come to.
    pub incomplete: u64,
}

impl Volumes {
    /// How many are in this state.
    pub fn count(&self, of: impl Fn(&Volume) -> bool) -> u64 {
        self.all.iter().filter(|volume| of(volume)).count() as u64
    }
}

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Volume {
    /// The pod's sandbox.
    pub sandbox: SandboxId,
    /// Kubernetes namespace.
    pub namespace: String,
    /// Pod name.
    pub pod: String,
    /// The kubelet's plugin: `csi`, `nfs`, `empty-dir`.
    pub plugin: String,
    /// Of a claim the persistent volume's name, else the name in the pod's specification.
    pub name: String,
    /// Whose it is.
    pub claim: Claim,
    /// What could be learnt of it.
    pub state: VolumeState,
}

impl Volume {
    /// Its name as a claim, if it has one that is known.
    pub fn claim_name(&self) -> Option<&str> {
        match &self.claim {
            Claim::Named(name) => Some(name),
            Claim::None | Claim::Unknown => None,
        }
    }

    /// What it holds, if that could be learnt.
    pub fn usage(&self) -> Option<&VolumeUsage> {
        match &self.state {
            VolumeState::Measured(usage) => Some(usage),
            VolumeState::Silent | VolumeState::Unseen | VolumeState::InGuest => None,
        }
    }
}

/// The persistent volume claim behind a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Claim {
    /// There is none: an `emptyDir`, or a volume that the pod's specification describes itself.
    None,
    /// There may be one, and nobody has said which.
    Unknown,
    /// This one, in the pod's namespace.
    Named(String),
}

/// What could be learnt of a volume.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum VolumeState {
    /// It was measured.
    Measured(VolumeUsage),
    /// Its filesystem gave an error, or does not answer.
    Silent,
    /// This process does not see it.
    Unseen,
    /// It is in a Kata guest: a block device that the guest has mounted by itself, or an `emptyDir`.
    InGuest,
}

impl VolumeState {
    /// Label values of all states, and of what was left out.
    pub const NAMES: [&'static str; 5] = ["in_guest", "left_out", "measured", "silent", "unseen"];

    /// Label value.
    pub const fn as_str(&self) -> &'static str {
        match self {
            Self::Measured(_) => "measured",
            Self::Silent => "silent",
            Self::Unseen => "unseen",
            Self::InGuest => "in_guest",
        }
    }
}

/// What a volume holds. A block device has a capacity and nothing else.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct VolumeUsage {
    /// Size.
    pub capacity: Option<Bytes>,
    /// Free for whoever is not root.
    pub available: Option<Bytes>,
    /// In use.
    pub used: Option<Bytes>,
    /// Files there can be; `None` where the filesystem makes them as needed.
    pub inodes: Option<u64>,
    /// Files there can still be.
    pub inodes_free: Option<u64>,
    /// Files there are.
    pub inodes_used: Option<u64>,
}
