//! What a test does at the doors of a sandbox, whoever answers there.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use super::fault::Fault;
use super::kind::Endpoint;
use super::ledger::Counts;
use super::serve::Doors;

/// A handle on the doors of one sandbox. Clones share them.
#[derive(Debug, Clone)]
pub struct DoorHandle(pub(super) Arc<Doors>);

impl DoorHandle {
    /// Lets every request at an endpoint go wrong, from now on.
    pub fn fail(&self, endpoint: Endpoint, fault: Fault) {
        self.0.set_fault(endpoint, Some(fault));
    }

    /// Lets every request at every endpoint go wrong.
    pub fn fail_all(&self, fault: &Fault) {
        Endpoint::ALL.into_iter().for_each(|endpoint| self.fail(endpoint, fault.clone()));
    }

    /// Lets an endpoint answer properly again. What hangs there is answered.
    pub fn heal(&self, endpoint: Endpoint) {
        self.0.set_fault(endpoint, None);
    }

    /// Lets every endpoint answer properly again.
    pub fn heal_all(&self) {
        Endpoint::ALL.into_iter().for_each(|endpoint| self.heal(endpoint));
    }

    /// Closes every connection of an endpoint, and goes on listening.
    pub fn cut_connections(&self, endpoint: Endpoint) {
        self.0.cut(endpoint);
    }

    /// The socket of an endpoint, if the sandbox has one.
    #[must_use]
    pub fn socket(&self, endpoint: Endpoint) -> Option<&Path> {
        self.0.path(endpoint)
    }

    /// The socket of an endpoint.
    ///
    /// # Panics
    /// When the sandbox has none, as QEMU's has none for the agent.
    #[must_use]
    pub fn path(&self, endpoint: Endpoint) -> PathBuf {
        self.socket(endpoint).unwrap_or_else(|| panic!("no socket for {endpoint:?}")).to_owned()
    }

    /// Whether the sandbox has this endpoint.
    #[must_use]
    pub fn has(&self, endpoint: Endpoint) -> bool {
        self.0.has(endpoint)
    }

    /// What an endpoint has seen.
    #[must_use]
    pub fn counts(&self, endpoint: Endpoint) -> Counts {
        self.0.ledger.counts(endpoint)
    }

    /// What all endpoints together have seen.
    #[must_use]
    pub fn all_counts(&self) -> Counts {
        self.0.ledger.all()
    }

    /// How often a route was asked for: `GET /metrics`, `grpc.AgentService/GetMetrics`,
    /// `containerd.task.v2.Task/Stats`.
    #[must_use]
    pub fn requests(&self, endpoint: Endpoint, route: &str) -> u64 {
        self.0.ledger.requests(endpoint, route)
    }

    /// Waits until a route was asked for so many times in all. Returns false when that took longer than `patience`.
    #[must_use]
    pub fn wait_for_requests(&self, endpoint: Endpoint, route: &str, times: u64, patience: Duration) -> bool {
        self.0.ledger.wait(patience, |requests| requests(endpoint, route) >= times)
    }

    /// The request of which the sandbox died, if one has killed it.
    #[must_use]
    pub fn death(&self) -> Option<String> {
        self.0.death()
    }
}
