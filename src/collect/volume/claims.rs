//! Whose a volume is. Nothing on the node says which claim a persistent volume is bound to; the API server does, if the
//! agent may ask it.
//!
//! It is asked in the background and never waited for, once for each volume of each pod: while a pod has a volume, the
//! volume stays bound.

mod persistent_volume;

use std::collections::{HashMap, HashSet};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use hyper::StatusCode;
use tokio::sync::Notify;

use crate::kubernetes::{Api, ApiError, Connection};
use crate::model::identity::PodUid;
use crate::model::volume::Claim;
pub use persistent_volume::{Source, claim};

/// How long one question may take, with the connection it may need.
const DEADLINE: Duration = Duration::from_secs(5);

/// Pause between two questions: a node that starts must not be a burden, and neither must a thousand of them.
const PAUSE: Duration = Duration::from_millis(200);

/// Pause after a question in vain, twice as long each time until [`LONGEST_RETRY`]: a server that starts again is soon back,
/// and a missing permission is not.
const RETRY: Duration = Duration::from_secs(1);

/// See [`RETRY`].
const LONGEST_RETRY: Duration = Duration::from_secs(32);

/// Longest name of a persistent volume.
const LONGEST_NAME: usize = 253;

/// A volume of a pod.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    /// The pod.
    pub uid: PodUid,
    /// The persistent volume's name, if there is a persistent volume.
    pub volume: String,
}

/// A volume whose claim is wanted.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Wanted {
    /// Which.
    pub key: Key,
    /// The pod's namespace, in which the claim must be.
    pub namespace: String,
    /// What the persistent volume must be made of.
    pub source: Source,
}

/// The claims that are known, and the volumes whose claims are wanted.
#[derive(Debug, Default)]
pub struct Claims {
    state: Mutex<State>,
    changed: Notify,
}

#[derive(Debug, Default)]
struct State {
    wanted: Vec<Wanted>,
    known: HashMap<Key, Option<String>>,
}

impl Claims {
    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Says which claims are wanted from now on; all others are forgotten.
    pub fn want(&self, wanted: Vec<Wanted>) {
        let mut state = self.state();
        let keys: HashSet<&Key> = wanted.iter().map(|wanted| &wanted.key).collect();
        state.known.retain(|key, _| keys.contains(key));
        state.wanted = wanted;
        drop(state);
        self.changed.notify_one();
    }

    /// What is known by now.
    pub fn of(&self, key: &Key) -> Claim {
        match self.state().known.get(key) {
            Some(Some(name)) => Claim::Named(name.clone()),
            Some(None) => Claim::None,
            None => Claim::Unknown,
        }
    }

    fn missing(&self) -> Vec<Wanted> {
        let state = self.state();
        let missing = state.wanted.iter().filter(|wanted| !state.known.contains_key(&wanted.key));
        missing.filter(|wanted| is_name(&wanted.key.volume)).cloned().collect()
    }

    fn learn(&self, wanted: &Wanted, claim: Option<String>) {
        let mut state = self.state();
        // It may have gone meanwhile, and would never be forgotten.
        if state.wanted.contains(wanted) {
            state.known.insert(wanted.key.clone(), claim);
        }
    }

    /// Asks for what is missing, for ever.
    pub async fn follow(&self, api: &Api) {
        let mut retry = RETRY;
        loop {
            match self.ask(api).await {
                Ok(()) => {
                    if std::mem::replace(&mut retry, RETRY) > RETRY {
                        tracing::info!("claims of volumes are known again");
                    }
                    self.changed.notified().await;
                }
                Err(error) => {
                    let error = crate::collect::chain(&error);
                    if retry > RETRY {
                        tracing::debug!(error, "claims of volumes are not known");
                    } else {
                        tracing::warn!(error, "claims of volumes are not known");
                    }
                    tokio::time::sleep(retry).await;
                    retry = (retry * 2).min(LONGEST_RETRY);
                }
            }
        }
    }

    async fn ask(&self, api: &Api) -> Result<(), ApiError> {
        let mut connection = None;
        let mut failure = None;
        for wanted in self.missing() {
            match ask_one(api, &mut connection, &wanted).await {
                Ok(claim) => self.learn(&wanted, claim),
                Err(error @ (ApiError::Nonsense(_) | ApiError::Body(_))) => {
                    // It is this volume's alone. What is left of the answer must not be the next one's.
                    connection = None;
                    failure = failure.or(Some(error));
                }
                Err(error) => return Err(error),
            }
            tokio::time::sleep(PAUSE).await;
        }
        failure.map_or(Ok(()), Err)
    }
}

/// The claim that a volume is bound to, if it is bound to one, on a connection that is made if there is none.
async fn ask_one(api: &Api, connection: &mut Option<Connection>, wanted: &Wanted) -> Result<Option<String>, ApiError> {
    let Wanted { key: Key { volume, .. }, namespace, source } = wanted;
    let path = format!("/api/v1/persistentvolumes/{volume}");
    let open = match connection {
        Some(open) => open,
        None => connection.insert(in_time(api.connect()).await?),
    };
    match in_time(open.get(path.clone())).await {
        Ok(answer) => persistent_volume::claim(&answer, volume, namespace, source)
            .map_err(|persistent_volume::Nonsense| ApiError::Nonsense(path.into())),
        Err(ApiError::Status { status: StatusCode::NOT_FOUND, .. }) => {
            // What it says beside the status was not read, and must not be in the way of the next question.
            *connection = None;
            Ok(None)
        }
        Err(error) => Err(error),
    }
}

async fn in_time<T>(asking: impl Future<Output = Result<T, ApiError>>) -> Result<T, ApiError> {
    tokio::time::timeout(DEADLINE, asking).await.unwrap_or(Err(ApiError::Late(DEADLINE)))
}

/// Whether this can be a persistent volume's name, and nothing that changes the meaning of a path.
fn is_name(text: &str) -> bool {
    let fits = |byte: u8| byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'.';
    text.len() <= LONGEST_NAME && text.bytes().all(fits) && text.bytes().any(|byte| byte.is_ascii_alphanumeric())
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wanted(uid: &str, volume: &str) -> Wanted {
        let key = Key { uid: PodUid::from(uid), volume: volume.to_owned() };
        Wanted { key, namespace: "shop".to_owned(), source: Source::InTree("nfs") }
    }

    #[test]
    fn what_is_not_wanted_any_more_is_forgotten() {
        let claims = Claims::default();
        let (one, other) = (wanted("a", "pv"), wanted("b", "pv"));
        claims.want(vec![one.clone(), other.clone()]);
        assert_eq!(claims.missing(), [one.clone(), other.clone()]);
        claims.learn(&one, Some("data".to_owned()));
        claims.learn(&other, None);
        assert_eq!(claims.of(&one.key), Claim::Named("data".to_owned()));
        assert_eq!(claims.of(&other.key), Claim::None);
        claims.want(vec![other.clone()]);
        claims.learn(&one, Some("late".to_owned()));
        claims.want(vec![one.clone(), other.clone()]);
        assert_eq!(claims.of(&one.key), Claim::Unknown, "the volume may have been bound anew meanwhile");
        assert_eq!(claims.missing(), [one]);
    }

    #[test]
    fn only_names_are_asked_for() {
        for name in ["pvc-2c", "disk.1", "0"] {
            assert!(is_name(name), "{name}");
        }
        for other in ["", "..", ".", "a/b", "a?b", "A", "a%2f", "ä", &"a".repeat(254)] {
            assert!(!is_name(other), "{other}");
        }
        let claims = Claims::default();
        claims.want(vec![wanted("a", "../secrets")]);
        assert_eq!(claims.missing(), []);
    }
}
