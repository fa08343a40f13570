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
use crate::model::inventory::{Inventory, Runtime, SandboxState};
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

#[derive(Debug, Default)]
struct Last {
    asked: Option<Instant>,
    /// Sandboxes that were asked about.
    sandboxes: HashSet<SandboxId>,
    layers: Arc<HashMap<ContainerId, Layer>>,
}

impl WritableLayers {
    /// The last known sizes.
    pub fn known(&self) -> Arc<HashMap<ContainerId, Layer>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner).layers)
    }

    /// Claims the next refresh if one is due; whoever gets `true` must call [`WritableLayers::refresh`]. A sandbox that
    /// has never been asked about does not wait for the whole interval.
    pub fn claim_if_due(&self, measured: &[SandboxReport]) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let is_new = |report: &&SandboxReport| report.up == Some(true) && !last.sandboxes.contains(&report.sandbox.id);
        let interval = if measured.iter().any(|report| is_new(&report)) { INTERVAL_NEW } else { INTERVAL };
        let due = last.asked.is_none_or(|asked| asked.elapsed() >= interval);
        if due {
            last.asked = Some(Instant::now());
        }
        due
    }

    /// Asks the runtime. A Kata sandbox is left out until it has been `measured` itself: the runtime would ask its
    /// shim, and a hung guest would hold up the answer.
    pub async fn refresh(&self, cri: &Cri, inventory: &Inventory, measured: &[SandboxReport]) {
        if !cri.is_configured() {
            return;
        }
        let is_up = |id: &SandboxId| measured.iter().any(|report| report.sandbox.id == *id && report.up == Some(true));
        let ready = || inventory.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        let mut asked = HashSet::new();
        let mut stats = Vec::new();
        if ready().any(|sandbox| sandbox.runtime == Runtime::Kata) {
            for sandbox in ready().filter(|sandbox| sandbox.runtime == Runtime::Runc || is_up(&sandbox.id)) {
                stats.extend(cri.sandbox_container_stats(sandbox.id.as_str()).await.unwrap_or_default());
                asked.insert(sandbox.id.clone());
            }
        } else {
            match cri.container_stats().await {
                Ok(all) => stats = all,
                Err(error) => tracing::debug!(error = error.chain(), "writable layers not refreshed"),
            }
            asked.extend(ready().map(|sandbox| sandbox.id.clone()));
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
        last.sandboxes = asked;
        if !layers.is_empty() {
            last.layers = Arc::new(layers);
        }
    }
}
