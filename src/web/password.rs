//! Basic authentication: users and their bcrypt hashes.
//!
//! bcrypt is slow on purpose, and anybody may ask. So one password is verified at a time, on a thread of its own; few
//! may wait for that; after a wrong one the place stays taken for as long as it took, which leaves half of one processor
//! to the node; and a right one is remembered, so that whoever has scraped before does not wait behind a flood.

use std::collections::HashMap;
use std::str::FromStr;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant};

use base64::Engine;
use tokio::sync::{Semaphore, oneshot};

use super::file::shortened;
use super::remembered::Remembered;
use super::secret::{Secret, Tag, Tagger, random};

/// Passwords that may wait to be verified; with the usual cost of 10 the last of them waits two seconds or so.
const MAX_WAITING: usize = 16;

/// Right passwords remembered. There are as many as users, unless passwords are equal in their first 72 bytes.
const MAX_PROVEN: usize = 256;

/// How long a right password is remembered after its last use: whoever scrapes never has to prove it again.
const PROVEN_FOR: Duration = Duration::from_secs(3600);

/// Highest bcrypt cost taken: each step doubles the time, and 16 takes several seconds.
const MAX_COST: u32 = 16;

/// Verifies passwords, one at a time, through reloads.
#[derive(Debug)]
pub struct Verifier {
    turn: Arc<Semaphore>,
    waiting: AtomicUsize,
}

impl Default for Verifier {
    fn default() -> Self {
        Self { turn: Arc::new(Semaphore::new(1)), waiting: AtomicUsize::new(0) }
    }
}

/// Too many passwords are waiting already.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Busy;

/// Who may come in by password.
pub struct Users {
    tagger: Tagger,
    /// By the tag of the name: looking one up tells nothing about those that there are.
    hashes: HashMap<Tag, Secret>,
    /// What an unknown user's password is verified against: as much work as for a known one, and never right.
    nobody: Secret,
    proven: Mutex<Remembered<()>>,
}

impl std::fmt::Debug for Users {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(formatter, "Users({})", self.hashes.len())
    }
}

impl Users {
    /// Takes users with their hashes. The error names the user and nothing else, and no name as long as a hash.
    pub fn new<'u>(users: impl IntoIterator<Item = (&'u String, &'u Secret)>) -> Result<Self, String> {
        let tagger = Tagger::with_random_key();
        let mut hashes = HashMap::new();
        let mut highest = 0;
        for (name, hash) in users {
            let shown = shortened(name);
            if name.contains(':') {
                return Err(format!("{shown:?}: a name with a colon cannot be sent"));
            }
            let cost = cost(hash.expose()).map_err(|problem| format!("{shown:?}: {problem}"))?;
            highest = highest.max(cost);
            hashes.insert(tagger.tag(&[name.as_bytes()]), hash.clone());
        }
        Ok(Self { tagger, hashes, nobody: nobody(highest), proven: Mutex::new(Remembered::new(MAX_PROVEN)) })
    }

    /// Whether the password is this user's.
    pub async fn admits(&self, user: &Secret, password: &Secret, verifier: &Verifier) -> Result<bool, Busy> {
        let known = self.hashes.get(&self.tagger.tag(&[user.expose().as_bytes()]));
        let hash = known.unwrap_or(&self.nobody);
        let parts = [user.expose().as_bytes(), password.expose().as_bytes(), hash.expose().as_bytes()];
        let tag = self.tagger.tag(&parts);
        let right =
            self.is_proven(&tag) || verifier.verify(password, hash, || self.is_proven(&tag)).await? && known.is_some();
        if right {
            let now = Instant::now();
            self.proven.lock().unwrap_or_else(PoisonError::into_inner).keep(tag, (), now + PROVEN_FOR, now);
        }
        Ok(right)
    }

    fn is_proven(&self, tag: &Tag) -> bool {
        self.proven.lock().unwrap_or_else(PoisonError::into_inner).recall(tag, Instant::now()).is_some()
    }
}

impl Verifier {
    /// Verifies when its turn comes, unless somebody has proven the same by then.
    async fn verify(&self, password: &Secret, hash: &Secret, proven: impl Fn() -> bool) -> Result<bool, Busy> {
        if self.waiting.fetch_add(1, Ordering::Relaxed) >= MAX_WAITING {
            self.waiting.fetch_sub(1, Ordering::Relaxed);
            return Err(Busy);
        }
        let place = Place(&self.waiting);
        let Ok(turn) = Arc::clone(&self.turn).acquire_owned().await else { return Err(Busy) };
        drop(place);
        if proven() {
            return Ok(true);
        }
        let (password, hash) = (password.clone(), hash.clone());
        let (tell, told) = oneshot::channel();
        tokio::task::spawn_blocking(move || {
            let began = Instant::now();
            let right = bcrypt::verify(password.expose(), hash.expose()).unwrap_or(false);
            let took = began.elapsed();
            // Whoever asked may have gone.
            let _ = tell.send(right);
            if !right {
                std::thread::sleep(took);
            }
            drop(turn);
        });
        told.await.map_err(|_| Busy)
    }
}

/// Gives a place in the queue back, also when the client went away.
struct Place<'a>(&'a AtomicUsize);

impl Drop for Place<'_> {
    fn drop(&mut self) {
        self.0.fetch_sub(1, Ordering::Relaxed);
    }
}

/// The cost of a hash that can be verified against.
fn cost(hash: &str) -> Result<u32, String> {
    let broken = || "not a bcrypt hash".to_owned();
    // `$2y$10$`, 22 characters of salt, 31 of digest; the parser is not strict about the beginning.
    if hash.len() != 60 || !hash.starts_with("$2") {
        return Err(broken());
    }
    let parts = bcrypt::HashParts::from_str(hash).map_err(|_| broken())?;
    let digest = hash.get(29..).unwrap_or_default();
    if bcrypt::BASE_64.decode(parts.get_salt()).is_err() || bcrypt::BASE_64.decode(digest).is_err() {
        return Err(broken());
    }
    match parts.get_cost() {
        cost @ 4..=MAX_COST => Ok(cost),
        cost => Err(format!("bcrypt cost {cost} is not between 4 and {MAX_COST}")),
    }
}

/// A hash of this cost to which nobody knows a password: made of random bytes, not of one.
fn nobody(cost: u32) -> Secret {
    let (salt, digest) = (random::<16>(), random::<23>());
    Secret::new(format!("$2b${cost:02}${}{}", bcrypt::BASE_64.encode(salt), bcrypt::BASE_64.encode(digest)))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn users(pairs: &[(&str, String)]) -> Result<Users, String> {
        let pairs: Vec<(String, Secret)> =
            pairs.iter().map(|(name, hash)| ((*name).to_owned(), Secret::new(hash.clone()))).collect();
        Users::new(pairs.iter().map(|(name, hash)| (name, hash)))
    }

    fn hash(password: &str) -> String {
        bcrypt::hash(password, 4).unwrap()
    }

    #[tokio::test]
    async fn only_the_right_password_of_a_known_user_is_admitted() {
        let verifier = Verifier::default();
        let users = users(&[("alice", hash("wonder")), ("bob", hash("builder"))]).unwrap();
        let admits = async |user: &str, password: &str| {
            users.admits(&Secret::new(user), &Secret::new(password), &verifier).await.unwrap()
        };
        for _ in 0..2 {
            assert!(admits("alice", "wonder").await);
            assert!(!admits("alice", "builder").await);
            assert!(!admits("bob", "wonder").await);
            assert!(!admits("Alice", "wonder").await);
            assert!(!admits("mallory", "wonder").await);
            assert!(!admits("", "").await);
        }
        assert!(!admits("alice", &"x".repeat(1 << 16)).await);
        assert!(!admits("alice", "a\0b").await);
    }

    #[tokio::test]
    async fn who_is_proven_does_not_wait_behind_a_flood_and_the_flood_is_sent_away() {
        let verifier = Arc::new(Verifier::default());
        let users = Arc::new(users(&[("alice", hash("wonder"))]).unwrap());
        let alice = || (Secret::new("alice"), Secret::new("wonder"));
        assert_eq!(users.admits(&alice().0, &alice().1, &verifier).await, Ok(true));
        let turn = Arc::clone(&verifier.turn).acquire_owned().await.unwrap();
        let mut flood = Vec::new();
        for number in 0..MAX_WAITING {
            let (users, verifier) = (Arc::clone(&users), Arc::clone(&verifier));
            flood.push(tokio::spawn(async move {
                users.admits(&Secret::new("alice"), &Secret::new(number.to_string()), &verifier).await
            }));
        }
        while verifier.waiting.load(Ordering::Relaxed) < MAX_WAITING {
            tokio::task::yield_now().await;
        }
        assert_eq!(users.admits(&Secret::new("eve"), &Secret::new("x"), &verifier).await, Err(Busy));
        assert_eq!(users.admits(&alice().0, &alice().1, &verifier).await, Ok(true), "remembered");
        // Whoever gives up leaves the queue.
        flood.pop().unwrap().abort();
        while verifier.waiting.load(Ordering::Relaxed) == MAX_WAITING {
            tokio::task::yield_now().await;
        }
        drop(turn);
        for one in flood {
            assert_eq!(one.await.unwrap(), Ok(false));
        }
    }

    #[test]
    fn what_is_no_hash_is_refused_without_being_shown() {
        let good = hash("x");
        let bad = [
            String::new(),
            "plaintext".to_owned(),
            good[1..].to_owned(),
            good[..59].to_owned(),
            format!("{good}x"),
            good.replacen("$2b$", "$1$", 1),
            good.replacen("$04$", "$03$", 1),
            good.replacen("$04$", "$17$", 1),
            good.replacen("$04$", "$4294967300$", 1),
            good.replacen("$04$", "$x$", 1),
            format!("{}!{}", &good[..29], &good[30..]),
            format!("{}!{}", &good[..10], &good[11..]),
        ];
        for hash in bad {
            let error = users(&[("alice", hash.clone())]).expect_err(&hash);
            assert!(error.starts_with("\"alice\": ") && (hash.is_empty() || !error.contains(&hash)), "{error}");
        }
        assert!(users(&[("a:b", hash("x"))]).is_err());
        for misplaced in [good.clone(), format!("alice:{good}")] {
            let error = users(&[(misplaced.as_str(), String::new())]).expect_err("no hash");
            assert!(!error.contains(&good[..20]), "{error}");
        }
        for version in ["2a", "2b", "2x", "2y"] {
            users(&[("alice", good.replacen("2b", version, 1))]).unwrap();
        }
    }

    #[test]
    fn nobody_costs_what_the_dearest_user_costs() {
        let users = users(&[("a", bcrypt::hash("x", 4).unwrap()), ("b", bcrypt::hash("x", 5).unwrap())]).unwrap();
        assert_eq!(cost(users.nobody.expose()), Ok(5));
        assert_ne!(nobody(5), nobody(5));
    }
}
