//! Sizes of containers' writable layers, from CRI `ListContainerStats` on an interval of its own.
//!
//! The runtime itself measures layers about every ten seconds at best and the call makes it ask every shim, so the
//! answer is fetched once a minute, only while someone scrapes, and reused in between.

use std::collections::HashMap;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use crate::cri::Cri;
use crate::model::identity::ContainerId;
use crate::model::inventory::{Inventory, Runtime, SandboxState};
use crate::model::units::Bytes;

/// Pause between two calls.
const INTERVAL: Duration = Duration::from_secs(60);

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
    layers: Arc<HashMap<ContainerId, Layer>>,
}

impl WritableLayers {
    /// The last known sizes.
    pub fn known(&self) -> Arc<HashMap<ContainerId, Layer>> {
        Arc::clone(&self.last.lock().unwrap_or_else(PoisonError::into_inner).layers)
    }

    /// Claims the next refresh if one is due; whoever gets `true` must call [`WritableLayers::refresh`].
    pub fn claim_if_due(&self) -> bool {
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        let due = last.asked.is_none_or(|asked| asked.elapsed() >= INTERVAL);
        if due {
            last.asked = Some(Instant::now());
        }
        due
    }

    /// Asks the runtime. Kata sandboxes are left out: the runtime would ask their shims, and a hung guest would hold
    /// up the whole answer.
    pub async fn refresh(&self, cri: &Cri, inventory: &Inventory) {
        let ready = || inventory.sandboxes.iter().filter(|sandbox| sandbox.state == SandboxState::Ready);
        let mixed = ready().any(|sandbox| sandbox.runtime == Runtime::Kata);
        let mut stats = Vec::new();
        if mixed {
            for sandbox in ready().filter(|sandbox| sandbox.runtime == Runtime::Runc) {
                stats.extend(cri.container_stats(Some(sandbox.id.as_str())).await.unwrap_or_default());
            }
        } else if cri.is_configured() {
            match cri.container_stats(None).await {
                Ok(all) => stats = all,
                Err(error) => tracing::debug!(error = error.chain(), "writable layers not refreshed"),
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
        if !layers.is_empty() {
            self.last.lock().unwrap_or_else(PoisonError::into_inner).layers = Arc::new(layers);
        }
    }
}
