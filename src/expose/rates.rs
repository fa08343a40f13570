//! CPU rates between two readings of a counter, for the one page that must say rates.

use std::collections::HashMap;
use std::sync::{Mutex, PoisonError};

use crate::model::units::Seconds;

/// Readings that are closer than this in time tell no rate: counters of processes move in ticks and bursts. The kubelet's
/// rates are over ten seconds as well.
const SHORTEST: u64 = 10_000;

/// Counters by who they are of, as they were the last time that somebody asked.
#[derive(Debug, Default)]
pub struct Rates {
    known: Mutex<HashMap<String, Known>>,
}

/// A counter that was read at some moment.
#[derive(Clone, Debug)]
pub struct Reading {
    /// Of whom: a name that nobody gets again.
    pub of: String,
    /// CPU time.
    pub cpu: Seconds,
    /// When, Unix time.
    pub at: Seconds,
}

#[derive(Clone, Copy, Debug)]
struct Known {
    nanos: u64,
    millis: u64,
    rate: Option<u64>,
}

impl Rates {
    /// Billionths of a CPU that each has used since the last reading that was long enough ago, and for readings in
    /// between what was said then. Who was not read before has none, and who is not among the readings is forgotten.
    pub fn of(&self, readings: &[Reading]) -> HashMap<String, u64> {
        let mut known = self.known.lock().unwrap_or_else(PoisonError::into_inner);
        let next: HashMap<String, Known> =
            readings.iter().map(|reading| (reading.of.clone(), after(known.get(&reading.of), reading))).collect();
        let rates = next.iter().filter_map(|(of, known)| Some((of.clone(), known.rate?))).collect();
        *known = next;
        rates
    }
}

fn after(before: Option<&Known>, reading: &Reading) -> Known {
    let (nanos, millis) = (reading.cpu.whole_nanos(), reading.at.whole_millis());
    let anew = Known { nanos, millis, rate: None };
    let Some(before) = before else { return anew };
    // A counter or a clock that has gone back begins anew.
    let (Some(used), Some(passed)) = (nanos.checked_sub(before.nanos), millis.checked_sub(before.millis)) else {
        return anew;
    };
    if passed < SHORTEST {
        return *before;
    }
    let rate = u128::from(used) * 1000 / u128::from(passed);
    Known { rate: u64::try_from(rate).ok(), ..anew }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn reading(of: &str, millis: u64, cpu_millis: u64) -> Reading {
        Reading { of: of.to_owned(), cpu: Seconds::from_millis(cpu_millis), at: Seconds::from_millis(millis) }
    }

    #[test]
    fn a_rate_is_over_ten_seconds_at_least_and_stays_until_the_next() {
        let rates = Rates::default();
        let ask = |millis, cpu| rates.of(&[reading("a", millis, cpu)]).get("a").copied();
        assert_eq!(ask(5_000, 100), None);
        assert_eq!(ask(14_999, 900), None, "too soon");
        // 5 s of CPU time in 20 s.
        assert_eq!(ask(25_000, 5_100), Some(250_000_000));
        assert_eq!(ask(25_000, 5_100), Some(250_000_000), "the same collection");
        assert_eq!(ask(34_999, 9_000), Some(250_000_000), "what it was, and the same beginning");
        assert_eq!(ask(35_000, 10_100), Some(500_000_000));
        assert_eq!(ask(45_000, 10_100), Some(0), "nothing used is a rate");
    }

    #[test]
    fn what_went_back_or_went_away_begins_anew() {
        let rates = Rates::default();
        let ask = |readings: &[Reading]| rates.of(readings).get("a").copied();
        assert_eq!(ask(&[reading("a", 10_000, 100), reading("b", 10_000, 1)]), None);
        assert_eq!(ask(&[reading("a", 20_000, 90), reading("b", 20_000, 2)]), None, "the counter");
        assert_eq!(ask(&[reading("a", 30_000, 190)]), Some(10_000_000));
        assert_eq!(ask(&[reading("a", 29_000, 290)]), None, "the clock");
        assert_eq!(ask(&[reading("a", 39_000, 390)]), Some(10_000_000));
        assert_eq!(ask(&[]), None);
        assert_eq!(ask(&[reading("a", 49_000, 490)]), None, "it was not there in between");
    }
}
