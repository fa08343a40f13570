//! What is true of the pods of the node, so that a page can be held against it.

use std::collections::HashMap;
use std::time::{Duration, Instant};

/// How long after its removal a pod may still be told of: what a scrape waits for discovery at most, and what a
/// collection takes that was under way; more while hanging guests are waited for.
pub const GONE_WITHIN: Duration = Duration::from_secs(10);

/// How long a pod may take until all of it is told: until it is found, asked, and its site looked at again if it was ill.
pub const TOLD_WITHIN: Duration = Duration::from_secs(20);

/// How long all pods may take once a runtime is well that was not: reconnecting has a back-off.
const RECOVERED_WITHIN: Duration = Duration::from_secs(20);

/// How much longer a debug build or a machine under load may take for all of these.
#[derive(Clone, Copy, Debug)]
pub struct Patience(pub f64);

/// A pod's life.
#[derive(Clone, Debug)]
struct Life {
    sandbox: String,
    containers: Vec<String>,
    is_kata: bool,
    /// Since when nothing is wrong with it; `None` while something is.
    well_since: Option<Instant>,
    /// It has lied: its counters may fall.
    has_lied: bool,
    removed: Option<Instant>,
}

/// A pod that has to be told of in full.
#[derive(Clone, Debug)]
pub struct Due {
    pub pod: String,
    pub sandbox: String,
    pub containers: Vec<String>,
    pub is_kata: bool,
}

/// The book. Pods are known by their names, which no two ever share.
#[derive(Debug)]
pub struct Ledger {
    pods: HashMap<String, Life>,
    patience: Patience,
    /// Since when the runtime answers; `None` while it does not.
    runtime_well_since: Option<Instant>,
    /// When its last illness began; those that follow each other closely are one.
    runtime_ill_since: Option<Instant>,
    /// Pods that were ever removed.
    pub churned: usize,
}

impl Ledger {
    pub fn new(patience: Patience) -> Self {
        Self {
            pods: HashMap::new(),
            patience,
            runtime_well_since: Some(Instant::now()),
            runtime_ill_since: None,
            churned: 0,
        }
    }

    pub fn added(&mut self, pod: &str, sandbox: &str, containers: &[String], is_kata: bool) {
        let life = Life {
            sandbox: sandbox.to_owned(),
            containers: containers.to_vec(),
            is_kata,
            well_since: Some(Instant::now()),
            has_lied: false,
            removed: None,
        };
        self.pods.insert(pod.to_owned(), life);
    }

    /// Notes the beginning of a removal; [`removed`](Self::removed) notes its end.
    pub fn leaving(&mut self, pod: &str) {
        self.with(pod, |life| life.well_since = None);
    }

    pub fn removed(&mut self, pod: &str) {
        self.with(pod, |life| life.removed = Some(Instant::now()));
        self.churned += 1;
    }

    pub fn fell_ill(&mut self, pod: &str) {
        self.with(pod, |life| life.well_since = None);
    }

    pub fn lied(&mut self, pod: &str) {
        self.with(pod, |life| {
            life.well_since = None;
            life.has_lied = true;
        });
    }

    pub fn recovered(&mut self, pod: &str) {
        self.with(pod, |life| life.well_since = life.removed.is_none().then(Instant::now));
    }

    pub fn runtime_fell_ill(&mut self) {
        let now = Instant::now();
        if self.runtime_ill_since.is_none() || self.runtime_is_well(now) {
            self.runtime_ill_since = Some(now);
        }
        self.runtime_well_since = None;
    }

    pub fn runtime_recovered(&mut self) {
        self.runtime_well_since = Some(Instant::now());
    }

    /// Whether the runtime has answered for so long that nothing can be excused by it.
    fn runtime_is_well(&self, at: Instant) -> bool {
        self.runtime_well_since.is_some_and(|since| since + self.within(RECOVERED_WITHIN) < at)
    }

    /// Who has to be on a page that was asked for at `begun`. To be taken when the page has come, so that whoever fell ill
    /// meanwhile is not among them.
    pub fn due(&self, begun: Instant) -> Vec<Due> {
        let is_well = self.runtime_is_well(begun);
        let told_by = |life: &Life| life.well_since.map(|since| since + self.within(TOLD_WITHIN));
        // A pod that was told of before the runtime fell ill goes on being told of; one that came later may wait.
        let known = |by: Instant| is_well || self.runtime_ill_since.is_none_or(|ill| by < ill);
        let due = self.pods.iter().filter(|(_, life)| told_by(life).is_some_and(|by| by < begun && known(by)));
        due.map(|(pod, life)| Due {
            pod: pod.clone(),
            sandbox: life.sandbox.clone(),
            containers: life.containers.clone(),
            is_kata: life.is_kata,
        })
        .collect()
    }

    /// Whether this pod must not be on a page that was asked for at `begun`; how long ago it was removed.
    pub fn gone(&self, pod: &str, begun: Instant) -> Option<Duration> {
        let removed = self.pods.get(pod)?.removed?;
        let gone = removed + self.within(GONE_WITHIN) < begun && self.runtime_is_well(begun);
        gone.then(|| begun.duration_since(removed))
    }

    /// Whether counters of this pod may fall.
    pub fn may_fall(&self, pod: &str) -> bool {
        self.pods.get(pod).is_some_and(|life| life.has_lied)
    }

    /// Whether anything may still be told of it.
    pub fn lives(&self, pod: &str) -> bool {
        self.pods.get(pod).is_none_or(|life| life.removed.is_none())
    }

    fn within(&self, time: Duration) -> Duration {
        time.mul_f64(self.patience.0)
    }

    fn with(&mut self, pod: &str, change: impl FnOnce(&mut Life)) {
        if let Some(life) = self.pods.get_mut(pod) {
            change(life);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A second is a microsecond here, so that nothing has to be waited for.
    const HASTE: Patience = Patience(1e-6);

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(HASTE);
        ledger.added("a", "1", &["app".to_owned()], true);
        ledger.added("b", "2", &["app".to_owned()], false);
        ledger
    }

    fn later() -> Instant {
        Instant::now() + Duration::from_millis(1)
    }

    fn due(ledger: &Ledger) -> Vec<String> {
        let mut due: Vec<_> = ledger.due(later()).into_iter().map(|due| due.pod).collect();
        due.sort();
        due
    }

    #[test]
    fn who_is_ill_or_gone_is_not_due() {
        let mut ledger = ledger();
        assert_eq!(due(&ledger), ["a", "b"]);
        assert!(ledger.due(Instant::now() - Duration::from_secs(1)).is_empty(), "nobody was there");
        ledger.fell_ill("a");
        assert_eq!(due(&ledger), ["b"]);
        ledger.recovered("a");
        ledger.leaving("b");
        ledger.removed("b");
        ledger.recovered("b");
        assert_eq!(due(&ledger), ["a"]);
        assert_eq!(ledger.gone("a", later()), None);
        assert!(ledger.gone("b", later()).is_some() && !ledger.lives("b") && ledger.lives("a"));
        assert!(!ledger.may_fall("a"));
        ledger.lied("a");
        ledger.recovered("a");
        assert!(ledger.may_fall("a"));
    }

    #[test]
    fn an_ill_runtime_excuses_who_came_and_went_and_nobody_else() {
        let mut ledger = ledger();
        std::thread::sleep(Duration::from_millis(1));
        ledger.runtime_fell_ill();
        ledger.added("c", "3", &[], true);
        assert_eq!(due(&ledger), ["a", "b"]);
        ledger.removed("b");
        assert_eq!(ledger.gone("b", later()), None);
        ledger.runtime_recovered();
        assert!(ledger.gone("b", later()).is_some());
        assert!(due(&ledger).contains(&"c".to_owned()));
    }
}
