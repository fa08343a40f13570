//! Whether what the agent holds grows: trends over the pods that came and went, and their bounds.

use crate::samples::Sample;
use crate::trend::{Trend, median_of};

/// Something held, and by how much it may grow for a thousand pods that came and went.
#[derive(Debug)]
pub struct Bound {
    name: &'static str,
    unit: &'static str,
    of: fn(&Sample) -> f64,
    most: f64,
}

/// What is forgotten is forgotten with a pod, a connection or a scrape, of which there are more than pods, so growth is
/// counted by pods.
///
/// Memory: the least that can be kept of a pod are its ids, names and row labels, more than 1 KiB; so 1000 KiB for 1000
/// pods is one small thing kept of each. It is also less than 0.5 KiB for each scrape, of which there are more than two
/// for every pod. Descriptors: a container has about 25, a guest three connections, so one descriptor kept of every 20th
/// pod is 50. Threads: none is started for a pod; those for blocking reads come and go.
///
/// All of it is looked at in lulls, and the median of each counts: a guest that lies or hangs moves it by as much as all
/// pods together, for minutes, and a body that is being sent, or a heap that has just been given back, for a moment.
const BOUNDS: [Bound; 3] = [
    Bound { name: "resident memory", unit: "KiB", of: |sample| sample.rss, most: 1000.0 },
    Bound { name: "descriptors", unit: "", of: |sample| sample.descriptors, most: 50.0 },
    Bound { name: "threads", unit: "", of: |sample| sample.threads, most: 5.0 },
];

/// One line of the report, and whether it is a breach.
#[derive(Debug)]
pub struct Line {
    pub text: String,
    pub breach: bool,
}

/// Judges samples, of which the first third is a warm-up: caches fill, and the allocator comes to rest.
pub fn judge(samples: &[Sample]) -> Vec<Line> {
    let samples = &samples[samples.len() / 3..];
    BOUNDS.iter().map(|bound| bound.judge(samples)).collect()
}

impl Bound {
    fn judge(&self, samples: &[Sample]) -> Line {
        let Self { name, unit, of, most } = self;
        let points = in_lulls(samples, *of);
        let Some(Trend { slope, low, high, level, points }) = Trend::of(&points) else {
            return Line { text: format!("{name}: too few samples for a trend"), breach: true };
        };
        let (first, last) = (samples.first(), samples.last());
        let passed = first.zip(last).map_or((0.0, 1.0), |(first, last)| {
            (last.pods_removed - first.pods_removed, (last.at - first.at) / 3600.0)
        });
        let hourly = slope * passed.0 / 1000.0 / passed.1;
        let verdict = match () {
            () if high <= *most => "flat",
            () if low > *most => "grows",
            () => "undecided: too noisy, run longer",
        };
        let unit = if unit.is_empty() { String::new() } else { format!(" {unit}") };
        let text = format!(
            "{name}: {verdict}: level {level:.0}{unit}, {slope:+.1}{unit} for 1000 pods \
             (95 % between {low:+.1} and {high:+.1}, bound {most:+.0}), {hourly:+.1}{unit} an hour; {points} points",
        );
        Line { text, breach: high > *most }
    }
}

/// One point for each lull.
fn in_lulls(samples: &[Sample], of: fn(&Sample) -> f64) -> Vec<(f64, f64)> {
    let lulls = samples.chunk_by(|one, next| one.calm == next.calm).filter(|part| part.iter().any(|it| it.calm));
    let middle = |lull: &[Sample], of: fn(&Sample) -> f64| median_of(lull.iter().map(of));
    lulls.map(|lull| (middle(lull, |sample| sample.pods_removed) / 1000.0, middle(lull, of))).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Half an hour with 1400 pods and a lull every 75 s, sampled every 5 s; memory moves by 4 MiB of itself and by a tenth
    /// of that in lulls, descriptors by 100 and by 10.
    fn samples(leak_kib: f64, leak_descriptors: f64) -> Vec<Sample> {
        let mut dice = fastrand::Rng::with_seed(3);
        let mut sample = |index: u32| {
            let (at, pods) = (f64::from(index) * 5.0, f64::from(index) * 4.0);
            let calm = index % 15 >= 13;
            Sample {
                at,
                pods_removed: pods,
                rss: 20_000.0 + if calm { 400.0 } else { 4000.0 } * dice.f64() + leak_kib * pods,
                calm,
                descriptors: 1500.0 + if calm { 10.0 } else { 100.0 } * dice.f64() + leak_descriptors * pods,
                threads: 10.0 + f64::from(dice.u8(..4)),
                ..Sample::default()
            }
        };
        (0..360).map(&mut sample).collect()
    }

    fn breaches(samples: &[Sample]) -> Vec<String> {
        judge(samples).into_iter().filter(|line| line.breach).map(|line| line.text).collect()
    }

    #[test]
    fn noise_passes_and_what_is_kept_of_every_pod_does_not() {
        assert_eq!(breaches(&samples(0.0, 0.0)), Vec::<String>::new());
        let leaking = breaches(&samples(2.0, 0.0));
        assert!(leaking.len() == 1 && leaking[0].starts_with("resident memory: grows"), "{leaking:?}");
        let leaking = breaches(&samples(0.0, 0.2));
        assert!(leaking.len() == 1 && leaking[0].starts_with("descriptors: grows"), "{leaking:?}");
        assert_eq!(breaches(&[]).len(), 3, "nothing was seen");
    }
}
