//! The metrics of a sandbox's shim, asked for to be passed on.

use std::collections::BTreeMap;

use tokio::time::timeout_at;

use super::{Probe, Target, is_timeout, monitor};
use crate::collect::chain;
use crate::collect::kata::passthrough::Reading;
use crate::collect::kata::shim;
use crate::model::inventory::KataDirectory;
use crate::model::passthrough::PassedFamily;
use crate::model::snapshot::SourceState;
use crate::transport::TransportError;

/// A sandbox's own metrics, to be passed on.
#[derive(Debug)]
pub struct Passed {
    /// By family.
    pub families: BTreeMap<Box<str>, PassedFamily>,
    /// Samples that are not among them.
    pub dropped: u64,
    /// How the shim fared.
    pub shim: SourceState,
}

impl Default for Passed {
    /// Nothing was learnt in time.
    fn default() -> Self {
        let shim = SourceState::Failed("not finished in time".to_owned());
        Self { families: BTreeMap::new(), dropped: 0, shim }
    }
}

impl Probe {
    /// The sandbox's own metrics: what its shim serves where that is safe to ask for, else its agent's part.
    pub async fn pass_on(&mut self, target: Target<'_>) -> Passed {
        let Some(directory) = &target.sandbox.kata else {
            let shim = SourceState::Failed("the sandbox's directory is not to be seen".to_owned());
            return Passed { shim, ..Passed::default() };
        };
        if let Ok(passed) = timeout_at(target.until, self.ask_for_text(target, directory)).await {
            return passed;
        }
        // What was half asked is closed, and both who may have been asked rest.
        self.agent = None;
        self.agent_rest.begin();
        self.shim_rest.begin();
        Passed::default()
    }

    async fn ask_for_text(&mut self, target: Target<'_>, directory: &KataDirectory) -> Passed {
        self.url_rests = self.url_rest.is_due();
        let mut reading = Reading::new(directory.runtime);
        let shim = match self.permit(target, directory).await {
            Ok(permit) => {
                let outcome = monitor(directory).text(shim::DEADLINE, &permit, |piece| reading.feed(piece)).await;
                match outcome {
                    Ok(()) => SourceState::Up,
                    Err(error) => {
                        if is_timeout(&error) {
                            self.shim_rest.begin();
                        }
                        SourceState::Failed(chain(&error))
                    }
                }
            }
            Err(state) => state,
        };
        if shim != SourceState::Up {
            // A text that broke off is not believed.
            reading = Reading::new(directory.runtime);
            self.agent_text(target, directory, &mut reading).await;
        }
        let (families, dropped) = reading.finish();
        Passed { families, dropped, shim }
    }

    /// Reads the agent's text, if it gives it.
    async fn agent_text(&mut self, target: Target<'_>, directory: &KataDirectory, reading: &mut Reading) {
        if self.text_denied || self.agent_rest.is_due() || self.connect_agent(target, directory).await.is_err() {
            return;
        }
        let Some(agent) = &mut self.agent else { return };
        match agent.guest_metrics(|text| reading.feed(text.as_bytes())).await {
            Ok(()) => {}
            Err(TransportError::Denied { .. }) => self.text_denied = true,
            Err(error) => self.judge_agent(Some(&error)),
        }
    }
}
