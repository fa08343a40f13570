//! What everybody shares: the node, the agent, the ledger, and the breaches that were found.

use std::collections::BTreeMap;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use crate::agent::Agent;
use crate::ledger::{Ledger, Patience};
use crate::node::Node;

/// Breaches of one kind that are told in words; of the others there is a count.
const TOLD: u64 = 5;

/// Fields are dropped in their order: the agent first, so that the node does not vanish under it.
#[derive(Debug)]
pub struct Stage {
    pub agent: Agent,
    pub node: Node,
    pub patience: Patience,
    ledger: Mutex<Ledger>,
    breaches: Mutex<BTreeMap<&'static str, (u64, Vec<String>)>>,
    stopping: AtomicBool,
    lull: AtomicBool,
    pub begun: Instant,
    /// Answers that were checked, and bytes of them.
    pub scrapes: AtomicU64,
    pub bytes: AtomicU64,
    /// What was done to the node, by name.
    done: Mutex<BTreeMap<String, u64>>,
}

impl Stage {
    pub fn new(agent: Agent, node: Node, patience: Patience) -> Self {
        Self {
            agent,
            node,
            patience,
            ledger: Mutex::new(Ledger::new(patience)),
            breaches: Mutex::default(),
            stopping: AtomicBool::new(false),
            lull: AtomicBool::new(false),
            begun: Instant::now(),
            scrapes: AtomicU64::new(0),
            bytes: AtomicU64::new(0),
            done: Mutex::default(),
        }
    }

    pub fn ledger(&self) -> MutexGuard<'_, Ledger> {
        lock(&self.ledger)
    }

    /// Notes what must not be, with the time since the beginning.
    pub fn breach(&self, kind: &'static str, what: impl std::fmt::Display) {
        let mut breaches = lock(&self.breaches);
        let (count, told) = breaches.entry(kind).or_default();
        *count += 1;
        if *count <= TOLD {
            told.push(format!("{:.1} s: {what}", self.begun.elapsed().as_secs_f64()));
        }
    }

    /// The same, of an error.
    pub fn expect<T>(&self, kind: &'static str, outcome: anyhow::Result<T>) -> Option<T> {
        outcome.map_err(|error| self.breach(kind, format!("{error:#}"))).ok()
    }

    /// All breaches, by kind: how many, and the first of them.
    pub fn breaches(&self) -> BTreeMap<&'static str, (u64, Vec<String>)> {
        lock(&self.breaches).clone()
    }

    /// Counts something that was done to the node or the agent.
    pub fn did(&self, what: &str) {
        *lock(&self.done).entry(what.to_owned()).or_default() += 1;
    }

    pub fn done(&self) -> BTreeMap<String, u64> {
        lock(&self.done).clone()
    }

    pub fn stop(&self) {
        self.stopping.store(true, Ordering::Relaxed);
    }

    /// Lets everybody who makes something go wrong rest, or go on.
    pub fn set_lull(&self, lull: bool) {
        self.lull.store(lull, Ordering::Relaxed);
    }

    /// Nothing is to go wrong at present, and no pod is to come or go.
    pub fn is_lull(&self) -> bool {
        self.lull.load(Ordering::Relaxed)
    }

    /// Waits for so long, or until the end: false then.
    pub fn pause(&self, time: Duration) -> bool {
        let until = Instant::now() + time;
        loop {
            let left = until.saturating_duration_since(Instant::now());
            if self.stopping.load(Ordering::Relaxed) {
                return false;
            }
            if left.is_zero() {
                return true;
            }
            std::thread::sleep(left.min(Duration::from_millis(50)));
        }
    }
}

/// A panic in one thread must not turn every other into one.
fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
