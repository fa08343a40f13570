//! What one collection has heard of one sandbox so far.

use std::collections::{BTreeMap, HashMap, HashSet};

use super::{BACKOFF, NO_TIME};
use crate::collect::kata::exposition::Report;
use crate::collect::kata::network_choice::Heard;
use crate::collect::now;
use crate::model::guest::Guest;
use crate::model::identity::ContainerId;
use crate::model::snapshot::SourceState;
use crate::model::usage::Usage;

/// Answers gathered in one collection.
#[derive(Default)]
pub(super) struct Answers {
    pub(super) sources: BTreeMap<&'static str, SourceState>,
    pub(super) containers: HashMap<ContainerId, Usage>,
    pub(super) containers_from: Option<&'static str>,
    pub(super) guest: Option<Guest>,
    pub(super) guest_from: Option<&'static str>,
    pub(super) reading: Report,
    pub(super) unknown: HashSet<ContainerId>,
    /// Who is being asked, or was the last to be.
    pub(super) asking: Option<&'static str>,
    pub(super) error: Option<String>,
}

impl Answers {
    pub(super) fn note(&mut self, source: &'static str, state: SourceState) {
        if let (SourceState::Failed(problem), None) = (&state, &self.error) {
            self.error = Some(format!("{source}: {problem}"));
        }
        self.sources.insert(source, state);
    }

    /// Takes what a source has said of a container just now.
    pub(super) fn container(&mut self, source: &'static str, id: ContainerId, usage: Usage) {
        self.containers_from = Some(source);
        self.containers.insert(id, Usage { measured_at: Some(now()), ..usage });
    }

    /// What this collection says about whether the guest will ever tell its network.
    pub(super) fn heard(&self) -> Heard {
        let stays =
            |state: &SourceState| matches!(state, SourceState::Skipped(_)) && ![BACKOFF, NO_TIME].contains(state);
        let text = |source: &&str| self.sources.get(*source).is_some_and(stays);
        match &self.guest {
            Some(_) => Heard::Text,
            // The agent's text is refused by itself ("guest") or the agent cannot be reached at all.
            None if text(&"shim") && (text(&"guest") || text(&"agent")) => Heard::NeverWill,
            None => Heard::Nothing,
        }
    }
}
