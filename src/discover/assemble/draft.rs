//! A row of the inventory in the making.

use crate::discover::runtime_view::KnownSandbox;
use crate::model::identity::{CgroupPath, ContainerId, LabelBlock, Labels, SandboxId};
use crate::model::inventory::{Kind, Network, Subject};
use crate::model::units::Seconds;
use crate::model::usage::Spec;

/// A subject without its rendered labels.
#[derive(Debug, PartialEq)]
pub(super) struct Draft {
    pub(super) kind: Kind,
    pub(super) labels: Labels,
    pub(super) cgroup: Option<CgroupPath>,
    pub(super) in_guest: bool,
    pub(super) sandbox: Option<SandboxId>,
    pub(super) container: Option<ContainerId>,
    pub(super) spec: Option<Spec>,
    pub(super) started_at: Option<Seconds>,
    pub(super) created_at: Option<Seconds>,
    pub(super) network: Network,
}

impl Draft {
    /// One without names.
    pub(super) fn new(kind: Kind, path: &CgroupPath) -> Self {
        Self {
            kind,
            labels: Labels { id: path.to_string(), ..Labels::default() },
            cgroup: Some(path.clone()),
            in_guest: false,
            sandbox: None,
            container: None,
            spec: None,
            started_at: None,
            created_at: None,
            network: if kind == Kind::Root { Network::Node } else { Network::None },
        }
    }

    /// With the names of its pod, if it has one.
    pub(super) fn of_pod(mut self, pod: Option<(&SandboxId, &KnownSandbox)>) -> Self {
        if let Some((id, sandbox)) = pod {
            self.labels.namespace.clone_from(&sandbox.namespace);
            self.labels.pod.clone_from(&sandbox.name);
            self.sandbox = Some(id.clone());
        }
        self
    }

    /// Whether the subject says the same.
    pub(super) fn is(&self, subject: &Subject) -> bool {
        let Subject {
            kind,
            labels,
            block: _,
            cgroup,
            in_guest,
            sandbox,
            container,
            spec,
            started_at,
            created_at,
            network,
        } = subject;
        self.kind == *kind
            && self.in_guest == *in_guest
            && self.labels == *labels
            && self.cgroup == *cgroup
            && self.sandbox == *sandbox
            && self.container == *container
            && self.spec == *spec
            && self.started_at == *started_at
            && self.created_at == *created_at
            && self.network == *network
    }

    /// With its labels rendered.
    pub(super) fn finish(self) -> Subject {
        let Self { kind, labels, cgroup, in_guest, sandbox, container, spec, started_at, created_at, network } = self;
        let block = LabelBlock::render(&labels);
        Subject { kind, labels, block, cgroup, in_guest, sandbox, container, spec, started_at, created_at, network }
    }
}
