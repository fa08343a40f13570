//! The token bucket of `rate_limit`, and the durations it is written with. Pure: the time is an argument.

use std::time::{Duration, Instant};

/// Holds up to `burst` tokens and gets one back every `interval`; a request takes one.
#[derive(Debug)]
pub struct Bucket {
    interval: Duration,
    burst: u32,
    tokens: f64,
    filled: Instant,
}

impl Bucket {
    /// A full bucket.
    pub fn new(interval: Duration, burst: u32, now: Instant) -> Self {
        Self { interval, burst, tokens: f64::from(burst), filled: now }
    }

    /// Whether a request may pass now.
    pub fn take(&mut self, now: Instant) -> bool {
        let gained = now.saturating_duration_since(self.filled).as_secs_f64() / self.interval.as_secs_f64();
        self.tokens = (self.tokens + gained).min(f64::from(self.burst));
        self.filled = now;
        if self.tokens < 1.0 {
            return false;
        }
        self.tokens -= 1.0;
        true
    }
}

/// Reads a duration as Go writes it: `0`, `1s`, `1m30s`, `1.5h`, `250ms`.
pub fn parse_duration(text: &str) -> Option<Duration> {
    if text == "0" {
        return Some(Duration::ZERO);
    }
    let mut rest = text;
    let mut total = Duration::ZERO;
    while !rest.is_empty() {
        let number_ends = rest.find(|c: char| !c.is_ascii_digit() && c != '.')?;
        let (number, tail) = rest.split_at(number_ends);
        let unit_ends = tail.find(|c: char| c.is_ascii_digit() || c == '.').unwrap_or(tail.len());
        let (unit, tail) = tail.split_at(unit_ends);
        let unit = match unit {
            "ns" => 1e-9,
            "us" | "µs" | "μs" => 1e-6,
            "ms" => 1e-3,
            "s" => 1.0,
            "m" => 60.0,
            "h" => 3600.0,
            _ => return None,
        };
        let part = Duration::try_from_secs_f64(number.parse::<f64>().ok()? * unit).ok()?;
        total = total.checked_add(part)?;
        rest = tail;
    }
    (!text.is_empty()).then_some(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_bucket_gives_its_burst_and_then_one_per_interval() {
        let start = Instant::now();
        let mut bucket = Bucket::new(Duration::from_secs(2), 3, start);
        let taken: Vec<bool> = (0..5).map(|_| bucket.take(start)).collect();
        assert_eq!(taken, [true, true, true, false, false]);
        assert!(!bucket.take(start + Duration::from_millis(1900)));
        assert!(bucket.take(start + Duration::from_millis(2100)));
        assert!(!bucket.take(start + Duration::from_millis(2100)));
        let much_later = start + Duration::from_secs(1000);
        let taken: Vec<bool> = (0..5).map(|_| bucket.take(much_later)).collect();
        assert_eq!(taken, [true, true, true, false, false], "it never holds more than its burst");
        assert!(!bucket.take(start), "a clock that went back gives nothing");
    }

    #[test]
    fn durations_are_read_as_go_writes_them() {
        for (text, millis) in [
            ("0", 0),
            ("0s", 0),
            ("1s", 1000),
            ("250ms", 250),
            ("1m30s", 90_000),
            ("1.5h", 5_400_000),
            ("2m0.5s", 120_500),
        ] {
            assert_eq!(parse_duration(text), Some(Duration::from_millis(millis)), "{text}");
        }
        for text in ["", "1", "s", "1 s", "-1s", "+1s", "1d", "1.2.3s", "s1", "1e3s", "NaNs", "9999999999999999999999h"]
        {
            assert_eq!(parse_duration(text), None, "{text}");
        }
    }
}
