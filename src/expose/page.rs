//! Bodies, encoded and compressed once for all who ask for them at the same time.
//!
//! None is kept once nobody is being answered: it is the largest piece of memory the agent has, would lie there until the
//! next scrape, and the metrics about the agent itself would stand still in it.

use std::collections::HashMap;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError, RwLock, Weak};

use actix_web::web::{self, Bytes};
use futures_util::future::{BoxFuture, FutureExt, Shared};

use crate::expose::family::Profile;
use crate::expose::text::{Format, Text};
use crate::expose::walk::{View, walk};
use crate::model::snapshot::Snapshot;
use crate::telemetry::Telemetry;

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
    under_way: Mutex<UnderWay>,
    last_size: AtomicUsize,
}

/// The body could not be encoded: that broke down.
#[derive(Clone, Copy, Debug)]
pub struct BrokeDown;

type Encoding = BoxFuture<'static, Result<Bytes, BrokeDown>>;

/// What is being encoded, or was for somebody who is still being answered.
#[derive(Debug, Default)]
struct UnderWay {
    of: Weak<Snapshot>,
    bodies: HashMap<Key, Shared<Encoding>>,
}

impl Pages {
    /// Encodes what the profile has.
    pub fn new(profile: Profile, telemetry: Arc<Telemetry>) -> Self {
        let profile = RwLock::new(profile);
        Self { profile, telemetry, under_way: Mutex::default(), last_size: AtomicUsize::new(0) }
    }

    /// Changes the profile of bodies to come.
    pub fn set_profile(&self, profile: Profile) {
        *self.profile.write().unwrap_or_else(PoisonError::into_inner) = profile;
        self.forget();
    }

    /// Lets go of bodies. While others wait for the same collection they are kept: a worker that comes to it last finds
    /// what the first has long encoded.
    pub fn forget(&self) {
        *self.under_way.lock().unwrap_or_else(PoisonError::into_inner) = UnderWay::default();
    }

    /// The body. Concurrent requests for the same one share the work.
    pub async fn body(self: &Arc<Self>, snapshot: &Arc<Snapshot>, key: Key) -> Result<Bytes, BrokeDown> {
        if matches!(key.view, View::Sandbox(_)) {
            return self.encoding(snapshot, key).await;
        }
        self.shared(snapshot, key).await
    }

    fn shared(self: &Arc<Self>, snapshot: &Arc<Snapshot>, key: Key) -> Shared<Encoding> {
        let mut under_way = self.under_way.lock().unwrap_or_else(PoisonError::into_inner);
        if !std::ptr::eq(under_way.of.as_ptr(), Arc::as_ptr(snapshot)) {
            *under_way = UnderWay { of: Arc::downgrade(snapshot), bodies: HashMap::new() };
        }
        let body = under_way.bodies.entry(key);
        body.or_insert_with_key(|key| self.encoding(snapshot, key.clone()).shared()).clone()
    }

    /// A large body takes tens of milliseconds, and a worker has other connections to serve.
    fn encoding(self: &Arc<Self>, snapshot: &Arc<Snapshot>, key: Key) -> Encoding {
        let (pages, snapshot) = (Arc::clone(self), Arc::clone(snapshot));
        let encoded = web::block(move || Bytes::from(pages.encode(&snapshot, &key)));
        encoded.map(|encoded| encoded.map_err(|_| BrokeDown)).boxed()
    }

    fn encode(&self, snapshot: &Snapshot, key: &Key) -> Vec<u8> {
        let profile = *self.profile.read().unwrap_or_else(PoisonError::into_inner);
        let mut text = if key.gzip {
            Text::compressed(key.format)
        } else {
            Text::new(key.format, self.last_size.load(Ordering::Relaxed) + (4 << 10))
        };
        walk(snapshot, &key.view, profile, &mut text);
        if key.view == View::All {
            text.gathered(&self.telemetry.gather());
        }
        let body = text.finish();
        if key.view == View::All && !key.gzip {
            self.last_size.store(body.len(), Ordering::Relaxed);
        }
        body
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn who_waits_for_the_same_shares_a_body_that_nobody_keeps() {
        let pages = Arc::new(Pages::new(Profile::All, Arc::new(Telemetry::new().unwrap())));
        let snapshot = Arc::new(Snapshot::default());
        let key = |gzip| Key { view: View::All, format: Format::Prometheus, gzip };
        let ask = |gzip| pages.body(&snapshot, key(gzip));
        let (one, other, packed) = tokio::join!(ask(false), ask(false), ask(true));
        let (one, other, packed) = (one.unwrap(), other.unwrap(), packed.unwrap());
        assert!(std::ptr::eq(one.as_ptr(), other.as_ptr()) && one.len() > 1000);
        assert!(packed.starts_with(&[0x1f, 0x8b]));
        drop(other);
        let late = ask(false).await.unwrap();
        assert!(std::ptr::eq(one.as_ptr(), late.as_ptr()), "who comes late has the same one");
        drop(late);
        pages.forget();
        assert!(one.is_unique(), "somebody keeps the body");
        let later = ask(false).await.unwrap();
        assert!(!std::ptr::eq(one.as_ptr(), later.as_ptr()));
    }
}
