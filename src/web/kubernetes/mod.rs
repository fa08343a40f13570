//! Authentication and authorization by the Kubernetes API server: who holds this bearer token (TokenReview), and may they
//! read this path (SubjectAccessReview)?
//!
//! Answers are remembered for a while by the tag of token and path, never by the token. What cannot be found out is no
//! permission: nobody passes while the API server does not answer, unless it has allowed them a moment ago.

mod client;
pub mod review;

use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use tokio::sync::Semaphore;

use super::remembered::Remembered;
use super::secret::{Secret, Tag, Tagger};
use crate::kubernetes::{Api, ApiError, Options};

/// How long a permission is remembered: so long may a token that was revoked still be good here.
const ALLOW_FOR: Duration = Duration::from_secs(120);

/// How long a refusal is remembered: so long waits who was granted something just now.
const DENY_FOR: Duration = Duration::from_secs(10);

/// How long nobody asks again after the API server could not be asked.
const UNREACHABLE_FOR: Duration = Duration::from_secs(1);

/// Permissions remembered.
const MAX_ALLOWED: usize = 256;

/// Refusals remembered. Apart from permissions: a flood of bad tokens pushes out no good one.
const MAX_DENIED: usize = 1024;

/// Tokens asked about at once.
const MAX_ASKING: usize = 4;

/// The same for those that were good before: a flood of others must not keep them out when their time is over.
const MAX_ASKING_AGAIN: usize = 2;

/// Tokens that may wait for that.
const MAX_WAITING: usize = 32;

/// All that a request may wait for, both questions and the wait before them included.
const DEADLINE: Duration = Duration::from_secs(4);

/// What the API server says of a token and a path.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// The token is good and its holder may.
    Allowed,
    /// It is good and they may not.
    Forbidden,
    /// It is not good.
    Unauthenticated,
    /// Nobody knows.
    Unknown,
}

/// Asks the API server and remembers its answers.
#[derive(Debug)]
pub struct Reviewer {
    api: Api,
    tagger: Tagger,
    allowed: Mutex<Remembered<()>>,
    denied: Mutex<Remembered<Decision>>,
    asking: Semaphore,
    asking_again: Semaphore,
    waiting: AtomicUsize,
    unreachable_until: Mutex<Option<Instant>>,
    /// The last question failed, which was logged.
    failing: AtomicBool,
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

impl Reviewer {
    /// A reviewer that has asked nothing yet.
    pub fn new(options: Options) -> Self {
        Self {
            api: Api::new(options),
            tagger: Tagger::with_random_key(),
            allowed: Mutex::new(Remembered::new(MAX_ALLOWED)),
            denied: Mutex::new(Remembered::new(MAX_DENIED)),
            asking: Semaphore::new(MAX_ASKING),
            asking_again: Semaphore::new(MAX_ASKING_AGAIN),
            waiting: AtomicUsize::new(0),
            unreachable_until: Mutex::new(None),
            failing: AtomicBool::new(false),
        }
    }

    /// Whether whoever holds this token may read this path.
    pub async fn decide(&self, token: &Secret, path: &str) -> Decision {
        let tag = self.tagger.tag(&[token.expose().as_bytes(), path.as_bytes()]);
        if let Some(known) = self.recall(&tag) {
            return known;
        }
        // There are at most as many as permissions remembered, so they need no other limit.
        let returns = lock(&self.allowed).holds(&tag);
        let _place = if returns { None } else { Some(Place(&self.waiting)) };
        if !returns && (self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING || self.is_unreachable()) {
            return Decision::Unknown;
        }
        let turns = if returns { &self.asking_again } else { &self.asking };
        let began = Instant::now();
        let asked = tokio::time::timeout(DEADLINE, self.ask_in_turn(turns, &tag, token, path)).await;
        match asked.unwrap_or(Err(ApiError::Late(DEADLINE))) {
            Ok(decision) => {
                if self.failing.swap(false, Ordering::Relaxed) {
                    tracing::info!("the API server answers again");
                }
                decision
            }
            Err(error) => {
                self.note_failure(&error, began);
                Decision::Unknown
            }
        }
    }

    fn recall(&self, tag: &Tag) -> Option<Decision> {
        let now = Instant::now();
        if lock(&self.allowed).recall(tag, now).is_some() {
            return Some(Decision::Allowed);
        }
        lock(&self.denied).recall(tag, now)
    }

    fn is_unreachable(&self) -> bool {
        lock(&self.unreachable_until).is_some_and(|until| Instant::now() < until)
    }

    async fn ask_in_turn(
        &self,
        turns: &Semaphore,
        tag: &Tag,
        token: &Secret,
        path: &str,
    ) -> Result<Decision, ApiError> {
        // It is never closed; were it, nobody could be asked.
        let Ok(_turn) = turns.acquire().await else { return Ok(Decision::Unknown) };
        if let Some(known) = self.recall(tag) {
            return Ok(known);
        }
        let decision = client::ask(&self.api, token, path).await?;
        let now = Instant::now();
        match decision {
            Decision::Allowed => lock(&self.allowed).keep(*tag, (), now + ALLOW_FOR, now),
            _ => lock(&self.denied).keep(*tag, decision, now + DENY_FOR, now),
        }
        Ok(decision)
    }

    fn note_failure(&self, error: &ApiError, began: Instant) {
        let now = Instant::now();
        *lock(&self.unreachable_until) = Some(now + UNREACHABLE_FOR);
        let error = super::policy::chain(error);
        if self.failing.swap(true, Ordering::Relaxed) {
            tracing::debug!(error, "the API server cannot be asked");
        } else {
            let waited_ms = u64::try_from((now - began).as_millis()).unwrap_or(u64::MAX);
            tracing::warn!(error, waited_ms, "the API server cannot be asked who a token is; nobody new gets in");
        }
    }
}

/// Gives a place in the queue back, also when the client went away.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use super::*;

    /// A reviewer that can ask nobody: it has no token of its own.
    fn reviewer() -> Reviewer {
        Reviewer::new(Options { host: "127.0.0.1".to_owned(), port: 1, service_account: PathBuf::from("/nowhere") })
    }

    fn has_asked(reviewer: &Reviewer) -> bool {
        reviewer.failing.swap(false, Ordering::Relaxed)
    }

    #[tokio::test]
    async fn a_token_that_was_good_before_is_asked_about_whatever_others_do() {
        let reviewer = reviewer();
        let (prometheus, other) = (Secret::new("prometheus"), Secret::new("other"));
        assert_eq!(reviewer.decide(&other, "/metrics").await, Decision::Unknown);
        assert!(has_asked(&reviewer));
        assert_eq!(reviewer.decide(&other, "/metrics").await, Decision::Unknown);
        assert!(!has_asked(&reviewer), "not again within a second");
        let now = Instant::now();
        let tag = reviewer.tagger.tag(&[b"prometheus", b"/metrics"]);
        lock(&reviewer.allowed).keep(tag, (), now, now);
        reviewer.waiting.fetch_add(MAX_WAITING, Ordering::Relaxed);
        assert_eq!(reviewer.decide(&prometheus, "/metrics").await, Decision::Unknown, "its time is over");
        assert!(has_asked(&reviewer));
        assert_eq!(reviewer.waiting.load(Ordering::Relaxed), MAX_WAITING);
        *lock(&reviewer.unreachable_until) = None;
        assert_eq!(reviewer.decide(&other, "/metrics").await, Decision::Unknown);
        assert!(!has_asked(&reviewer), "no place to wait");
        assert_eq!(reviewer.waiting.load(Ordering::Relaxed), MAX_WAITING);
    }

    #[tokio::test]
    async fn what_is_remembered_is_not_asked_and_does_not_open_another_path() {
        let reviewer = reviewer();
        let now = Instant::now();
        let later = now + Duration::from_secs(60);
        let tag = |token: &[u8], path: &[u8]| reviewer.tagger.tag(&[token, path]);
        lock(&reviewer.allowed).keep(tag(b"a", b"/metrics"), (), later, now);
        lock(&reviewer.denied).keep(tag(b"b", b"/metrics"), Decision::Unauthenticated, later, now);
        lock(&reviewer.denied).keep(tag(b"c", b"/metrics"), Decision::Forbidden, later, now);
        for (token, expected) in
            [("a", Decision::Allowed), ("b", Decision::Unauthenticated), ("c", Decision::Forbidden)]
        {
            assert_eq!(reviewer.decide(&Secret::new(token), "/metrics").await, expected);
            assert!(!has_asked(&reviewer));
        }
        assert_eq!(reviewer.decide(&Secret::new("a"), "/sandboxes").await, Decision::Unknown);
        assert!(has_asked(&reviewer));
    }
}
