//! What a round over the Kata sandboxes has learnt, and how it gets into the snapshot.

use std::collections::HashMap;
use std::time::Duration;

use crate::collect::exclude::Exclude;
use crate::collect::kata::network_choice::{Heard, NetworkSide};
use crate::collect::kata::{allowance, devices};
use crate::collect::oom::Ledger;
use crate::model::host_side::HostSide;
use crate::model::identity::{ContainerId, SandboxId};
use crate::model::inventory::Kind;
use crate::model::snapshot::{CollectorReport, KataReport, Snapshot, SourceState};
use crate::model::units::Bytes;
use crate::model::usage::{Spec, Usage};
use crate::telemetry::Telemetry;

/// What was learnt of one sandbox.
#[derive(Debug)]
pub struct Measured {
    /// About the sandbox as a whole.
    pub report: KataReport,
    /// By container; under the sandbox's own id the pause container.
    pub containers: HashMap<ContainerId, Usage>,
    /// Why not every container was measured; `None` when every one was.
    pub failure: Option<Failure>,
    /// Whether the guest's text came.
    pub heard: Heard,
    /// The guest does not know a container that it knew before: the inventory may be out of date.
    pub outdated: bool,
}

/// A sandbox that was not measured in full.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Failure {
    /// In a word.
    pub reason: Reason,
    /// In a sentence for people.
    pub error: String,
}

/// Why a sandbox was not measured in full.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Reason {
    /// Some source hung, or hung a moment ago and is left alone.
    Timeout,
    /// No source told of any container.
    Unreachable,
    /// Some containers were told of, and not all.
    Incomplete,
}

impl Reason {
    /// All of them.
    pub const ALL: [Self; 3] = [Self::Timeout, Self::Unreachable, Self::Incomplete];

    /// As a label's value.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Timeout => "timeout",
            Self::Unreachable => "unreachable",
            Self::Incomplete => "incomplete",
        }
    }
}

impl Default for Measured {
    /// Nothing was learnt in time.
    fn default() -> Self {
        Self {
            report: KataReport::default(),
            containers: HashMap::new(),
            failure: Some(Failure { reason: Reason::Timeout, error: "not finished in time".to_owned() }),
            heard: Heard::Nothing,
            outdated: false,
        }
    }
}

/// A finished round.
#[derive(Debug)]
pub struct Round {
    /// By sandbox.
    pub measured: HashMap<SandboxId, Measured>,
    /// How the collector fared.
    pub report: CollectorReport,
}

impl Measured {
    /// Every container told what it uses. The pause container counts as well, unless nobody knows of one: what it uses
    /// would pass for overhead.
    fn is_whole(&self, sandbox: &SandboxId) -> bool {
        let answered = |source| self.report.sources.get(source) == Some(&SourceState::Up);
        self.failure.is_none()
            && (self.containers.contains_key(sandbox.as_str()) || answered("agent") || answered("task"))
    }

    /// Adds what the node pays, and what of it the containers do not use. Both sides must be whole for that.
    pub fn add_host(&mut self, sandbox: &SandboxId, side: HostSide) {
        let mut used = self.containers.values().map(|usage| usage.memory.as_ref()?.usage.map(|bytes| bytes.0));
        // A guest may claim numbers that have no sum.
        let used = used.try_fold(0u64, |sum, bytes| sum.checked_add(bytes?));
        if let (true, Some(memory), Some(used)) = (self.is_whole(sandbox), side.memory, used) {
            self.report.overhead_memory = Some(Bytes(memory.0.saturating_sub(used)));
        }
        self.report.host = Some(side);
    }

    /// Names devices, bounds what the guest named, and puts the pod's network where rows look for it.
    pub fn settle(&mut self, network: Option<NetworkSide>, disks: &[String], exclude: &Exclude) {
        for usage in self.containers.values_mut() {
            devices::name(&mut usage.io, disks);
        }
        let over = allowance::bound(self);
        if over > 0 {
            *self.report.dropped.entry("too_many").or_default() += over;
        }
        let KataReport { guest, host, network: interfaces, values_from, .. } = &mut self.report;
        *interfaces = match network {
            Some(NetworkSide::Guest) => guest.as_ref().map(|guest| guest.interfaces.clone()).unwrap_or_default(),
            Some(NetworkSide::Host) => host.as_ref().map(|host| host.network.clone()).unwrap_or_default(),
            None => Vec::new(),
        };
        interfaces.retain(|interface| !exclude.has(&interface.name));
        if let (Some(side), false) = (network, interfaces.is_empty()) {
            values_from.insert("network", side.as_str());
        }
    }
}

impl Round {
    /// Containers of the inventory may have gone. Said once of each: one that stays listed is missing indeed.
    pub fn is_outdated(&self) -> bool {
        self.measured.values().any(|measured| measured.outdated)
    }

    /// Adds how many sandboxes were to be measured, and how many were not.
    pub fn count(&self, telemetry: &Telemetry) {
        telemetry.sandbox_scrapes.inc_by(u64::try_from(self.measured.len()).unwrap_or(u64::MAX));
        for reason in Reason::ALL {
            let fits = |measured: &&Measured| measured.failure.as_ref().is_some_and(|failure| failure.reason == reason);
            let failed = u64::try_from(self.measured.values().filter(fits).count()).unwrap_or(u64::MAX);
            // Also none: a rate needs a counter that was there before the first failure.
            telemetry.sandbox_scrape_failures.with_label_values(&[reason.as_str()]).inc_by(failed);
        }
    }

    /// How long it took.
    pub const fn took(&self) -> Duration {
        self.report.took
    }

    /// Puts what was learnt into the snapshot: rows in guests get their usage or go, sandboxes their report.
    /// Out-of-memory kills inside guests come from the ledger.
    pub fn merge_into(mut self, snapshot: &mut Snapshot, oom: &Ledger) {
        snapshot.rows.retain_mut(|row| {
            if !row.subject.in_guest {
                return true;
            }
            let sandbox = row.subject.sandbox.as_ref().and_then(|id| self.measured.get_mut(id));
            let usage = sandbox.and_then(|sandbox| {
                let usage = sandbox.containers.remove(row.subject.container.as_ref()?.as_str());
                if row.subject.kind != Kind::Sandbox {
                    return usage;
                }
                // The pod's network, on the row that carries it for every pod; the runtime tells of a network's
                // sandbox but not of its pause container.
                let network = std::mem::take(&mut sandbox.report.network);
                let usage = usage.or_else(|| (!network.is_empty()).then(Usage::default))?;
                Some(Usage { network, ..usage })
            });
            let Some(usage) = usage else { return false };
            let is_app = |_: &&ContainerId| row.subject.kind == Kind::Container;
            let Usage { measured_at, filesystems, .. } = std::mem::take(&mut row.usage);
            let asked = row.subject.spec.clone().unwrap_or_default();
            row.usage = Usage {
                // A guest answers after the node's files were read, and a slow one long after.
                measured_at: usage.measured_at.or(measured_at),
                start_time: row.subject.started_at,
                creation_time: row.subject.created_at,
                spec: Some(combine(asked, usage.spec.clone().unwrap_or_default())),
                // The writable layer, which is the node's to tell.
                filesystems,
                oom_kills: row.subject.container.as_ref().filter(is_app).and_then(|id| oom.in_guest(id)),
                ..usage
            };
            true
        });
        for report in &mut snapshot.sandboxes {
            let Some(measured) = self.measured.remove(report.sandbox.id.as_str()) else { continue };
            report.up = Some(measured.failure.is_none());
            report.last_error = measured.failure.map(|failure| failure.error).unwrap_or_default();
            report.kata = Some(Box::new(measured.report));
        }
        snapshot.collectors.push(self.report);
    }
}

/// What was asked for, with what the guest says where nobody was asked: the guest's limit may be rounded to pages.
fn combine(asked: Spec, guest: Spec) -> Spec {
    Spec {
        cpu_shares: asked.cpu_shares.or(guest.cpu_shares),
        cpu_period_micros: asked.cpu_period_micros.or(guest.cpu_period_micros),
        cpu_quota_micros: asked.cpu_quota_micros.or(guest.cpu_quota_micros),
        memory_limit: asked.memory_limit.or(guest.memory_limit),
        memory_reservation: asked.memory_reservation.or(guest.memory_reservation),
        memory_swap_limit: asked.memory_swap_limit.or(guest.memory_swap_limit),
        swap_limit: asked.swap_limit.or(guest.swap_limit),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::usage::Memory;

    fn using(bytes: u64) -> Usage {
        let memory = Memory { usage: Some(Bytes(bytes)), ..Memory::default() };
        Usage { memory: Some(memory), ..Usage::default() }
    }

    fn overhead(containers: &[(&str, u64)], task: SourceState) -> Option<Bytes> {
        let containers = containers.iter().map(|(id, bytes)| (ContainerId::from(*id), using(*bytes))).collect();
        let mut measured = Measured { containers, failure: None, ..Measured::default() };
        measured.report.sources.insert("task", task);
        let side = HostSide { memory: Some(Bytes(1000)), ..HostSide::default() };
        measured.add_host(&SandboxId::from("pod"), side);
        measured.report.overhead_memory
    }

    #[test]
    fn what_a_pause_container_did_not_tell_is_no_overhead() {
        let broken = || SourceState::Failed("broken connection".to_owned());
        assert_eq!(overhead(&[("app", 100), ("pod", 10)], SourceState::Up), Some(Bytes(890)));
        assert_eq!(overhead(&[("app", 100), ("pod", 10)], broken()), Some(Bytes(890)), "it failed after that");
        assert_eq!(overhead(&[("app", 100)], broken()), None);
        assert_eq!(overhead(&[("app", 100)], SourceState::Up), Some(Bytes(900)), "there is no pause container");
        assert_eq!(overhead(&[("app", u64::MAX), ("pod", 10)], SourceState::Up), None);
    }
}
