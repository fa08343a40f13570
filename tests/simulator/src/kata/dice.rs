//! Numbers that look alive and are the same in every run: all follow from a seed, a name and the tick.

/// A source of numbers.
#[derive(Debug, Clone, Copy)]
pub(super) struct Dice(u64);

impl Dice {
    /// The dice of one subject; other names and other seeds fall differently.
    pub(super) fn new(seed: u64, name: &str) -> Self {
        Self(mixed(seed ^ hashed(name)))
    }

    /// A number below `bound` that never changes.
    pub(super) fn roll(self, what: &str, bound: u64) -> u64 {
        mixed(self.0 ^ hashed(what)) % bound.max(1)
    }

    /// A number below `bound` that is another in every tick.
    fn roll_at(self, what: &str, tick: u64, bound: u64) -> u64 {
        mixed(self.0 ^ hashed(what) ^ tick.wrapping_mul(0x9e37_79b9_7f4a_7c15)) % bound.max(1)
    }

    /// A counter that grows in every tick, by `rate` on average, and has grown for a while already.
    pub(super) fn counter(self, what: &str, rate: u64, tick: u64) -> u64 {
        if rate == 0 {
            return 0;
        }
        // The part that falls anew is below the rate, so the sum never falls.
        self.roll(what, rate.saturating_mul(50)) + rate * tick + self.roll_at(what, tick, rate)
    }

    /// As [`counter`](Self::counter), but zero at tick 0.
    pub(super) fn counter_from_zero(self, what: &str, rate: u64, tick: u64) -> u64 {
        match tick.checked_sub(1) {
            Some(before) if rate > 0 => rate * before + 1 + self.roll_at(what, tick, rate),
            _ => 0,
        }
    }

    /// A gauge that moves between two bounds.
    pub(super) fn gauge(self, what: &str, low: u64, high: u64, tick: u64) -> u64 {
        low + self.roll_at(what, tick, high.saturating_sub(low))
    }
}

/// FNV-1a.
fn hashed(text: &str) -> u64 {
    text.bytes().fold(0xcbf2_9ce4_8422_2325, |hash, byte| (hash ^ u64::from(byte)).wrapping_mul(0x0100_0000_01b3))
}

/// The finisher of SplitMix64.
fn mixed(value: u64) -> u64 {
    let value = value.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let value = (value ^ (value >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let value = (value ^ (value >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    value ^ (value >> 31)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_only_grow_and_gauges_stay_between_their_bounds() {
        let dice = Dice::new(7, "container");
        for rate in [1, 2, 1000] {
            for tick in 0..200 {
                assert!(dice.counter("cpu", rate, tick + 1) > dice.counter("cpu", rate, tick));
                let from_zero = |tick| dice.counter_from_zero("io", rate, tick);
                assert!(from_zero(tick + 1) > from_zero(tick));
                assert!((10..20).contains(&dice.gauge("memory", 10, 20, tick)));
            }
        }
        assert_eq!(dice.counter_from_zero("io", 5, 0), 0);
        assert_eq!(dice.counter("none", 0, 9), 0);
        assert_eq!(dice.gauge("fixed", 3, 3, 9), 3);
    }

    #[test]
    fn the_same_seed_falls_the_same_and_another_does_not() {
        let rolls = |seed, name| (0..8).map(move |tick| Dice::new(seed, name).roll_at("x", tick, u64::MAX));
        assert!(rolls(1, "a").eq(rolls(1, "a")));
        assert!(rolls(1, "a").ne(rolls(2, "a")));
        assert!(rolls(1, "a").ne(rolls(1, "b")));
    }
}
