//! Bodies, encoded and compressed once per snapshot however many ask for them.

use std::collections::HashMap;
use std::io::Write;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};
use std::time::{Duration, Instant};

use actix_web::error::BlockingError;
use actix_web::web::{self, Bytes};
use flate2::Compression;
use flate2::write::GzEncoder;
use tokio::sync::OnceCell;

use crate::expose::family::Profile;
use crate::expose::text::{Format, Text};
use crate::expose::walk::{View, walk};
use crate::model::snapshot::Snapshot;
use crate::telemetry::Telemetry;

/// How long a body is kept for others: for scrapes at the same moment. The agent's metrics about itself are in it and
/// must not stand still however long a snapshot is reused.
const KEPT: Duration = Duration::from_secs(1);

/// Which body.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Key {
    /// What is in it.
    pub view: View,
    /// How it is written.
    pub format: Format,
    /// Whether it is compressed.
    pub gzip: bool,
}

/// Encodes snapshots.
#[derive(Debug)]
pub struct Pages {
    profile: RwLock<Profile>,
    telemetry: Arc<Telemetry>,
    cache: Mutex<Cache>,
    last_size: AtomicUsize,
}

type Cell = Arc<OnceCell<Bytes>>;

#[derive(Debug, Default)]
struct Cache {
    of: Weak<Snapshot>,
    cells: HashMap<Key, (Instant, Cell)>,
}

impl Pages {
    /// Encodes what the profile has.
    pub fn new(profile: Profile, telemetry: Arc<Telemetry>) -> Self {
        let profile = RwLock::new(profile);
        Self { profile, telemetry, cache: Mutex::default(), last_size: AtomicUsize::new(0) }
    }

    /// Changes the profile of bodies to come.
    pub fn set_profile(&self, profile: Profile) {
        *self.profile.write().unwrap_or_else(PoisonError::into_inner) = profile;
        *self.cache.lock().unwrap_or_else(PoisonError::into_inner) = Cache::default();
    }

    /// The body. Concurrent requests for the same one share the work.
    pub async fn body(self: &Arc<Self>, snapshot: &Arc<Snapshot>, key: Key) -> Result<Bytes, BlockingError> {
        let encode = |key: Key| {
            let (pages, snapshot) = (Arc::clone(self), Arc::clone(snapshot));
            // A large body takes tens of milliseconds, and a worker has other connections to serve.
            web::block(move || Bytes::from(pages.encode(&snapshot, &key)))
        };
        if matches!(key.view, View::Sandbox(_)) {
            return encode(key).await;
        }
        let cell = {
            let mut cache = self.cache.lock().unwrap_or_else(PoisonError::into_inner);
            if !std::ptr::eq(cache.of.as_ptr(), Arc::as_ptr(snapshot)) {
                *cache = Cache { of: Arc::downgrade(snapshot), cells: HashMap::new() };
            }
            let (begun, cell) = cache.cells.entry(key.clone()).or_insert_with(|| (Instant::now(), Cell::default()));
            if begun.elapsed() > KEPT {
                (*begun, *cell) = (Instant::now(), Cell::default());
            }
            Arc::clone(cell)
        };
        cell.get_or_try_init(|| encode(key)).await.cloned()
    }

    fn encode(&self, snapshot: &Snapshot, key: &Key) -> Vec<u8> {
        let profile = *self.profile.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = Text::new(key.format, self.last_size.load(Ordering::Relaxed) + (4 << 10));
        walk(snapshot, &key.view, profile, &mut text);
        if key.view == View::All {
            text.gathered(&self.telemetry.gather());
        }
        let body = text.finish();
        if key.view == View::All {
            self.last_size.store(body.len(), Ordering::Relaxed);
        }
        if key.gzip { compress(&body) } else { body }
    }
}

/// How hard gzip tries. Measured on a kubelet's body of 1.4 MB, one core of a slow virtual machine: level 1 makes
/// 122 kB of it in 1.3 ms, level 3 87 kB in 1.9 ms, level 6 71 kB in 3.2 ms.
const EFFORT: u32 = 3;

/// A body as gzip.
pub fn compress(body: &[u8]) -> Vec<u8> {
    let mut encoder = GzEncoder::new(Vec::with_capacity(body.len() / 8), Compression::new(EFFORT));
    // A Vec takes every write, so neither step can fail.
    let written = encoder.write_all(body).and_then(|()| encoder.finish());
    written.unwrap_or_default()
}
