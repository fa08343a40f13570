//! Quantities with their unit in the type, and the only place where units are converted.
//!
//! Kernel counters are integers of some decimal fraction of a second. They stay exact: a [`Seconds`] keeps the
//! integer and its scale, so that the exposition prints what the kernel counted and no conversion rounds.

/// A number of bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Bytes(pub u64);

impl Bytes {
    /// From kibibytes, the unit of `/proc/meminfo`.
    pub fn from_kib(kib: u64) -> Self {
        Self(kib.saturating_mul(1024))
    }

    /// From pages of so many bytes, the unit of `/proc/<pid>/stat`.
    pub fn from_pages(pages: u64, size: u64) -> Self {
        Self(pages.saturating_mul(size))
    }

    /// From 512-byte sectors, the unit of `/proc/diskstats` whatever the device's own sector size.
    pub fn from_sectors(sectors: u64) -> Self {
        Self(sectors.saturating_mul(512))
    }
}

/// A duration or a point in time in seconds, held exactly as `mantissa / 10^scale`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Seconds {
    mantissa: u64,
    scale: u8,
}

impl Seconds {
    /// Zero seconds.
    pub const ZERO: Self = Self { mantissa: 0, scale: 0 };

    /// From whole seconds.
    pub const fn from_secs(secs: u64) -> Self {
        Self { mantissa: secs, scale: 0 }
    }

    /// From milliseconds (`/proc/diskstats`).
    pub const fn from_millis(millis: u64) -> Self {
        Self { mantissa: millis, scale: 3 }
    }

    /// From microseconds (cgroup v2 `cpu.stat`, pressure files).
    pub const fn from_micros(micros: u64) -> Self {
        Self { mantissa: micros, scale: 6 }
    }

    /// From nanoseconds (cgroup v1 `cpuacct.usage`, CRI times).
    pub const fn from_nanos(nanos: u64) -> Self {
        Self { mantissa: nanos, scale: 9 }
    }

    /// From clock ticks of `USER_HZ`, which is 100 on every Linux the agent can meet.
    pub const fn from_ticks(ticks: u64) -> Self {
        Self { mantissa: ticks, scale: 2 }
    }

    /// The moment so many clock ticks after this one, of which whole seconds count: what `starttime` of `/proc/<pid>/stat`
    /// is to the time of boot.
    pub fn plus_ticks(self, ticks: u64) -> Self {
        Self::from_ticks(self.whole().saturating_mul(100).saturating_add(ticks))
    }

    /// The value for the exposition.
    pub const fn value(self) -> Value {
        Value::Decimal { mantissa: self.mantissa, scale: self.scale }
    }

    /// Whether it is no time at all.
    pub const fn is_zero(self) -> bool {
        self.mantissa == 0
    }

    /// Whole seconds, the fraction cut off.
    pub fn whole(self) -> u64 {
        self.whole_at(0)
    }

    /// Whole milliseconds, the rest cut off.
    pub fn whole_millis(self) -> u64 {
        self.whole_at(3)
    }

    /// Whole microseconds, the rest cut off.
    pub fn whole_micros(self) -> u64 {
        self.whole_at(6)
    }

    /// Whole nanoseconds, the rest cut off.
    pub fn whole_nanos(self) -> u64 {
        self.whole_at(9)
    }

    fn whole_at(self, scale: u8) -> u64 {
        match self.scale.checked_sub(scale) {
            Some(surplus) => self.mantissa / 10u64.pow(u32::from(surplus)),
            None => self.mantissa.saturating_mul(10u64.pow(u32::from(scale - self.scale))),
        }
    }

    /// As a float, for JSON and for comparisons in tests.
    pub fn as_f64(self) -> f64 {
        self.value().as_f64()
    }
}

/// An upper bound that may be absent: `max`, `-1`, or so large that the kernel means "none".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Limit {
    /// No bound.
    Max,
    /// Bounded at this many units.
    At(u64),
}

impl Limit {
    /// From a cgroup v1 byte limit, where "none" is a page-rounded `i64::MAX`. cAdvisor calls everything above
    /// 2^62 unlimited; so do we.
    pub fn from_v1_bytes(raw: u64) -> Self {
        if raw > 1 << 62 { Self::Max } else { Self::At(raw) }
    }

    /// What the kubelet exports: 0 for "no limit".
    pub fn or_zero(self) -> u64 {
        match self {
            Self::Max => 0,
            Self::At(units) => units,
        }
    }
}

/// A sample's value, as exact as its source.
#[derive(Clone, Copy, Debug, PartialEq)]
pub enum Value {
    /// A count or a number of bytes.
    Int(u64),
    /// `mantissa / 10^scale`.
    Decimal {
        /// The integer the kernel counted.
        mantissa: u64,
        /// How many decimal places it has.
        scale: u8,
    },
    /// Anything else.
    Float(f64),
}

impl Value {
    /// The nearest float: what Prometheus stores.
    #[expect(clippy::cast_precision_loss, reason = "samples are 64-bit floats on the other side as well")]
    pub fn as_f64(self) -> f64 {
        match self {
            Self::Int(count) => count as f64,
            Self::Decimal { mantissa, scale } => mantissa as f64 / 10f64.powi(i32::from(scale)),
            Self::Float(number) => number,
        }
    }
}

impl Value {
    /// From digits with or without decimal places: `7.67`. `None` for anything else, signs and exponents included.
    pub fn from_decimal(text: &[u8]) -> Option<Self> {
        let text = std::str::from_utf8(text).ok()?;
        let (whole, places) = text.split_once('.').unwrap_or((text, ""));
        let digits = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
        if !digits(whole) || (text.contains('.') && !digits(places)) || places.len() > 18 {
            return None;
        }
        let scale = u8::try_from(places.len()).ok()?;
        let mantissa = format!("{whole}{places}").parse().ok()?;
        Some(if scale == 0 { Self::Int(mantissa) } else { Self::Decimal { mantissa, scale } })
    }
}

impl From<u64> for Value {
    fn from(count: u64) -> Self {
        Self::Int(count)
    }
}

impl From<Bytes> for Value {
    fn from(bytes: Bytes) -> Self {
        Self::Int(bytes.0)
    }
}

impl From<Seconds> for Value {
    fn from(seconds: Seconds) -> Self {
        seconds.value()
    }
}

impl From<bool> for Value {
    fn from(yes: bool) -> Self {
        Self::Int(u64::from(yes))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn seconds_keep_the_kernels_integer() {
        assert_eq!(Seconds::from_micros(98_701_325_189).as_f64(), 98701.325189);
        assert_eq!(Seconds::from_nanos(124_659_500_366_912).as_f64(), 124659.500366912);
        assert_eq!(Seconds::from_ticks(10_848_891).as_f64(), 108488.91);
        assert_eq!(Seconds::from_nanos(1_999_999_999).whole(), 1);
        assert_eq!(Seconds::from_nanos(1_999_999_999).whole_millis(), 1999);
        assert_eq!(Seconds::from_ticks(123).whole_millis(), 1230);
        assert_eq!(Seconds::from_millis(7).whole_millis(), 7);
        assert_eq!(Seconds::from_nanos(7_999).whole_micros(), 7);
        assert_eq!(Seconds::from_micros(98_701_325_189).whole_nanos(), 98_701_325_189_000);
    }

    #[test]
    fn decimals_keep_their_places() {
        assert_eq!(Value::from_decimal(b"7.67"), Some(Value::Decimal { mantissa: 767, scale: 2 }));
        assert_eq!(Value::from_decimal(b"12"), Some(Value::Int(12)));
        for nonsense in [&b""[..], b".5", b"1.", b"-1", b"1e3", b"1.2.3", b"99999999999999999999", b"\xff"] {
            assert_eq!(Value::from_decimal(nonsense), None, "{nonsense:?}");
        }
    }

    #[test]
    fn v1_limits_above_two_to_the_62_are_no_limits() {
        assert_eq!(Limit::from_v1_bytes(9_223_372_036_854_771_712), Limit::Max);
        assert_eq!(Limit::from_v1_bytes(2_147_483_648).or_zero(), 2_147_483_648);
    }
}
