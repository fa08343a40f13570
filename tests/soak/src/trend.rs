//! Whether a noisy series grows: the Theil–Sen slope, the median of the slopes of all pairs of points, with a confidence
//! interval after Sen (1968). A burst moves it no more than one wild point each; nothing is assumed of how the noise is
//! distributed, only that points are independent, so neighbours in time are drawn together into one point first.

/// A slope in units of y for each unit of x.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Trend {
    /// The best guess.
    pub slope: f64,
    /// The true slope is below with 2.5 %.
    pub low: f64,
    /// The true slope is above with 2.5 %.
    pub high: f64,
    /// The median of y.
    pub level: f64,
    /// Points it was taken from.
    pub points: usize,
}

/// Points that a trend is taken from at most: pairs grow with their square, and what is close in time is no news.
const POINTS: usize = 40;

/// Of a normal distribution, 95 % lie within so many standard deviations.
const CONFIDENCE: f64 = 1.96;

impl Trend {
    /// Of points `(x, y)` in the order of x; `None` of less than three that differ in x.
    pub fn of(points: &[(f64, f64)]) -> Option<Self> {
        let blocks = blocks(points);
        let pairs = (0..blocks.len()).flat_map(|left| (left + 1..blocks.len()).map(move |right| (left, right)));
        let slope = |(left, right): (usize, usize)| {
            let (from, to): ((f64, f64), (f64, f64)) = (blocks[left], blocks[right]);
            (to.0 > from.0).then(|| (to.1 - from.1) / (to.0 - from.0))
        };
        let mut slopes: Vec<f64> = pairs.filter_map(slope).collect();
        slopes.sort_by(f64::total_cmp);
        if slopes.len() < 3 {
            return None;
        }
        let (count, pairs) = (blocks.len() as f64, slopes.len() as f64);
        let spread = CONFIDENCE * (count * (count - 1.0) * (2.0 * count + 5.0) / 18.0).sqrt();
        Some(Self {
            slope: median(&slopes),
            low: at(&slopes, (pairs - spread) / 2.0),
            high: at(&slopes, (pairs + spread) / 2.0),
            level: median_of(points.iter().map(|point| point.1)),
            points: blocks.len(),
        })
    }
}

/// Medians of equally many neighbours each.
fn blocks(points: &[(f64, f64)]) -> Vec<(f64, f64)> {
    let chunks = points.chunks(points.len().div_ceil(POINTS).max(1));
    chunks.map(|chunk| (median_of(chunk.iter().map(|it| it.0)), median_of(chunk.iter().map(|it| it.1)))).collect()
}

/// The middle one.
pub fn median_of(values: impl Iterator<Item = f64>) -> f64 {
    let mut values: Vec<f64> = values.collect();
    values.sort_by(f64::total_cmp);
    median(&values)
}

/// Of sorted values.
fn median(sorted: &[f64]) -> f64 {
    let last = sorted.len().saturating_sub(1) as f64;
    f64::midpoint(at(sorted, (last / 2.0).floor()), at(sorted, (last / 2.0).ceil()))
}

/// The value at this place of the order, or the nearest there is.
#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "a place in a list, within its bounds")]
fn at(sorted: &[f64], place: f64) -> f64 {
    let place = place.round().clamp(0.0, sorted.len().saturating_sub(1) as f64) as usize;
    sorted.get(place).copied().unwrap_or(f64::NAN)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// 240 samples around a level, with noise of this height and bursts now and then, and growth for each unit of x.
    fn noisy(growth: f64, noise: f64) -> Vec<(f64, f64)> {
        let mut dice = fastrand::Rng::with_seed(7);
        let mut point = |x: f64| {
            let burst = if dice.u8(..) < 8 { 50.0 * noise } else { 0.0 };
            (x, 1000.0 + growth * x + noise * (dice.f64() - 0.5) + burst)
        };
        (0..240).map(|x| point(f64::from(x))).collect()
    }

    #[test]
    fn noise_and_bursts_are_no_trend() {
        let trend = Trend::of(&noisy(0.0, 20.0)).unwrap();
        assert!(trend.low < 0.0 && trend.high > 0.0, "{trend:?}");
        assert!(trend.high < 0.05, "{trend:?}");
        assert!((trend.level - 1000.0).abs() < 5.0, "{trend:?}");
    }

    #[test]
    fn growth_far_below_the_noise_is_found() {
        let trend = Trend::of(&noisy(0.1, 20.0)).unwrap();
        assert!(trend.low > 0.05 && trend.high < 0.15, "{trend:?}");
    }

    #[test]
    fn a_line_is_exact_and_a_point_is_no_line() {
        let line: Vec<_> = (0..10).map(|x| (f64::from(x), 3.0 * f64::from(x))).collect();
        let trend = Trend::of(&line).unwrap();
        assert!([trend.slope, trend.low, trend.high].iter().all(|slope| (slope - 3.0).abs() < 1e-9), "{trend:?}");
        assert_eq!(Trend::of(&[(1.0, 1.0); 9]), None);
        assert_eq!(Trend::of(&[]), None);
    }
}
