//! Sizes of containers' writable layers, from CRI `ListContainerStats` on an interval of its own.
//!
//! The runtime itself measures layers about every ten seconds at best and the call makes it ask every shim, so the
//! answer is fetched once a minute, only while someone scrapes, and reused in between.

use std::collections::{HashMap, HashSet};
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cri::Cri;
use crate::model::identity::{ContainerId, SandboxId};
use crate::model::inventory::{Inventory, Runtime, Sandbox, SandboxState};
use crate::model::snapshot::SandboxReport;
use crate::model::units::Bytes;

/// Pause between two calls.
const INTERVAL: Duration = Duration::from_secs(60);

/// The same while there are sandboxes that have never been asked about.
const INTERVAL_NEW: Duration = Duration::from_secs(5);

/// One container's writable layer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Layer {
    /// Bytes in use.
    pub used: Bytes,
    /// Where the snapshotter keeps it: tells the filesystem.
    pub mountpoint: PathBuf,
}

/// The last sizes the runtime gave.
#[derive(Debug, Default)]
pub struct WritableLayers {
    last: Mutex<Last>,
}

/// Whom to ask about.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Due {
    /// Every sandbox.
    All,
    /// These, which were never asked about.
    Only(HashSet<SandboxId>),
}

#[derive(Debug, Default)]
struct Last {
    asked: Option<Instant>,
    asked_new: Option<Instant>,
    /// Sandboxes that were asked about.
    sandboxes: HashSet<SandboxId>,
    layers: Arc<HashMap<ContainerId, Layer>>,
}

impl WritableLayers {
    /// The last known sizes.
    pub fn known(&self) -> Arc<HashMap<ContainerId, Layer>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner).layers)
    }

    /// Claims the next refresh if one is due; whoever gets one must call [`WritableLayers::refresh`]. Sandboxes that were
    /// never asked about do not wait for the whole interval, and do not make the others be asked about again.
    pub fn claim_if_due(&self, measured: &[SandboxReport]) -> Option<Due> {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = match last.asked {
            Some(asked) if asked.elapsed() < INTERVAL => {
                let soon = last.asked_new.max(Some(asked)).is_some_and(|asked| asked.elapsed() < INTERVAL_NEW);
                let new = measured.iter().filter(|report| is_well(report)).map(|report| &report.sandbox.id);
                let new: HashSet<SandboxId> = new.filter(|id| !last.sandboxes.contains(*id)).cloned().collect();
                (!soon && !new.is_empty()).then_some(Due::Only(new))
            }
            _ => Some(Due::All),
        };
        match due {
            Some(Due::All) => last.asked = Some(Instant::now()),
            Some(Due::Only(_)) => last.asked_new = Some(Instant::now()),
            None => {}
        }
        due
    }

    /// Asks the runtime. A Kata sandbox is left out until it has been `measured` itself: the runtime would ask its
    /// shim, and a hung guest would hold up the answer.
    pub async fn refresh(&self, due: Due, cri: &Cri, inventory: &Inventory, measured: &[SandboxReport]) {
        if !cri.is_configured() {
            return;
        }
        let well: HashSet<&SandboxId> =
            measured.iter().filter(|report| is_well(report)).map(|report| &report.sandbox.id).collect();
        let ready = || inventory.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        let may = |sandbox: &&Arc<Sandbox>| sandbox.runtime == Runtime::Runc || well.contains(&sandbox.id);
        let mixed = ready().any(|sandbox| sandbox.runtime == Runtime::Kata);
        let wanted: HashSet<SandboxId> = match &due {
            Due::All => ready().filter(may).map(|sandbox| sandbox.id.clone()).collect(),
            Due::Only(new) => new.clone(),
        };
        let mut stats = Vec::new();
        if due == Due::All && !mixed {
            match cri.container_stats().await {
                Ok(all) => stats = all,
                Err(error) => tracing::debug!(error = error.chain(), "writable layers not refreshed"),
            }
        } else {
            for id in &wanted {
                stats.extend(cri.sandbox_container_stats(id.as_str()).await.unwrap_or_default());
            }
        }
        let layers: HashMap<ContainerId, Layer> = stats
            .into_iter()
            .filter_map(|stats| {
                let layer = stats.writable_layer?;
                let used = Bytes(layer.used_bytes?.value);
                let mountpoint = PathBuf::from(layer.fs_id?.mountpoint);
                Some((ContainerId::from(stats.attributes?.id), Layer { used, mountpoint }))
            })
            .collect();
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        match due {
            Due::All => {
                last.sandboxes = wanted;
                if !layers.is_empty() {
                    last.layers = Arc::new(layers);
                }
            }
            Due::Only(_) => {
                last.sandboxes.extend(wanted);
                Arc::make_mut(&mut last.layers).extend(layers);
            }
        }
    }
}

/// A sandbox that the runtime may be asked about: its containers could be measured.
fn is_well(report: &SandboxReport) -> bool {
    report.up == Some(true) && report.sandbox.state == SandboxState::Ready
}
