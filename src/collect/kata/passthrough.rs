//! A shim's text, read to be passed on: the families that kata-monitor serves, each with its true type and one unit.
//!
//! What cannot be passed on is left out and counted: samples that are malformed, twice there or too many, labels that
//! would forge another sandbox's, counters below zero, histograms whose buckets do not add up. Nothing of the text is
//! kept but the samples. Pure.

mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;
use std::sync::Arc;

use crate::collect::kata::exposition::{Lines, Malformed, each_label};
use crate::model::identity::{bounded, escape_label_value};
use crate::model::inventory::KataRuntime;
use crate::model::passthrough::{PassedFamily, PassedKind, PassedSample};

use table::{Known, Place, harmonise, place};

/// Samples kept of one sandbox. A Go shim's text has 500; a guest with 128 vCPUs and 64 disks 3 000.
pub const MAX_SAMPLES: usize = 10_000;

/// Bytes of labels kept of one sandbox: 100 for each sample.
const MAX_LABEL_BYTES: usize = MAX_SAMPLES * 100;

/// Labels of one sample, and the length of their names.
const MAX_LABELS: usize = 8;
const MAX_LABEL_NAME_BYTES: usize = 64;

/// Labels that are ours to give.
const IDENTITY: [&[u8]; 4] = [b"sandbox_id", b"cri_uid", b"cri_name", b"cri_namespace"];

/// Reads a text piece by piece.
#[derive(Debug)]
pub struct Reading {
    runtime: KataRuntime,
    lines: Lines,
    kept: Kept,
}

/// Samples found so far.
#[derive(Debug, Default)]
struct Kept {
    families: BTreeMap<Box<str>, Family>,
    samples: usize,
    label_bytes: usize,
    dropped: u64,
}

/// One family, by labels.
#[derive(Debug)]
struct Family {
    known: Known,
    plain: BTreeMap<Box<str>, f64>,
    compound: BTreeMap<Box<str>, Compound>,
}

/// One histogram or summary.
#[derive(Debug, Default)]
struct Compound {
    /// Upper bound of a bucket, or quantile, and its value.
    parts: Vec<(f64, f64)>,
    sum: Option<f64>,
    count: Option<f64>,
}

/// A sample's labels, sorted, and the one that is told apart.
#[derive(Debug, Default)]
struct Rendered {
    labels: String,
    bound: Option<f64>,
    factor: f64,
}

impl Reading {
    /// Reads a text of this runtime's shim.
    pub fn new(runtime: KataRuntime) -> Self {
        Self { runtime, lines: Lines::default(), kept: Kept::default() }
    }

    /// Reads the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        let Self { runtime, lines, kept } = self;
        lines.feed(piece, |line, _| kept.take(*runtime, line));
    }

    /// The families, and how many samples are not among them.
    pub fn finish(self) -> (BTreeMap<Box<str>, PassedFamily>, u64) {
        let Self { lines, mut kept, .. } = self;
        let report = lines.finish();
        let unread = report.malformed + report.overlong + u64::from(report.ignored_bytes > 0);
        let mut families = BTreeMap::new();
        for (name, family) in std::mem::take(&mut kept.families) {
            let passed = family.finish(&mut kept.dropped);
            if !passed.samples.is_empty() {
                families.insert(name, passed);
            }
        }
        (families, kept.dropped + unread)
    }
}

impl Kept {
    /// Takes one line, which is neither blank nor a comment and has no blanks around it.
    fn take(&mut self, runtime: KataRuntime, line: &[u8]) -> Result<(), Malformed> {
        let line = std::str::from_utf8(line).map_err(|_| Malformed)?;
        let (name, rest) = line.split_at(line.find(['{', ' ', '\t']).ok_or(Malformed)?);
        let Some(Place { family, known, suffix }) = place(name) else { return Ok(()) };
        let (rendered, value) = render(runtime, &family, known.kind, suffix, rest.as_bytes())?;
        let value = value * rendered.factor;
        let fits = match known.kind {
            PassedKind::Counter | PassedKind::Histogram => value.is_finite() && value >= 0.0,
            PassedKind::Gauge | PassedKind::Summary | PassedKind::Untyped => value.is_finite(),
        };
        // Before 3.3.0 the agent counted no threads; it has one at least.
        let untrue = &*family == "kata_agent_threads" && value < 1.0;
        if !fits || untrue {
            return Err(Malformed);
        }
        self.label_bytes += rendered.labels.len();
        if self.samples >= MAX_SAMPLES || self.label_bytes > MAX_LABEL_BYTES {
            self.dropped += 1;
            return Ok(());
        }
        let kept = self.families.entry(family).or_insert_with(|| Family::new(known)).keep(suffix, rendered, value);
        self.samples += usize::from(kept);
        self.dropped += u64::from(!kept);
        Ok(())
    }
}

impl Family {
    const fn new(known: Known) -> Self {
        Self { known, plain: BTreeMap::new(), compound: BTreeMap::new() }
    }

    /// Keeps a sample that is not there yet.
    fn keep(&mut self, suffix: &str, rendered: Rendered, value: f64) -> bool {
        let Rendered { labels, bound, .. } = rendered;
        if !matches!(self.known.kind, PassedKind::Histogram | PassedKind::Summary) {
            return match self.plain.entry(labels.into()) {
                std::collections::btree_map::Entry::Vacant(place) => {
                    place.insert(value);
                    true
                }
                std::collections::btree_map::Entry::Occupied(_) => false,
            };
        }
        let compound = self.compound.entry(labels.into()).or_default();
        match (suffix, bound) {
            ("_sum", None) if compound.sum.is_none() => compound.sum = Some(value),
            ("_count", None) if compound.count.is_none() => compound.count = Some(value),
            ("_bucket" | "", Some(bound)) => compound.parts.push((bound, value)),
            _ => return false,
        }
        true
    }

    fn finish(self, dropped: &mut u64) -> PassedFamily {
        let Self { known: Known { kind, help }, plain, compound } = self;
        let mut samples: Vec<PassedSample> = plain
            .into_iter()
            .map(|(labels, value)| PassedSample { suffix: "", labels: labels.into(), bound: None, value })
            .collect();
        for (labels, mut compound) in compound {
            compound.parts.sort_by(|(one, _), (other, _)| one.total_cmp(other));
            let (Some(sum), Some(count), true) = (compound.sum, compound.count, compound.is_sound(kind)) else {
                *dropped += compound.parts.len() as u64;
                continue;
            };
            let labels: Arc<str> = labels.into();
            let suffix = if kind == PassedKind::Histogram { "_bucket" } else { "" };
            let part = |(bound, value)| PassedSample { suffix, labels: Arc::clone(&labels), bound: Some(bound), value };
            samples.extend(compound.parts.into_iter().map(part));
            samples.push(PassedSample { suffix: "_sum", labels: Arc::clone(&labels), bound: None, value: sum });
            samples.push(PassedSample { suffix: "_count", labels, bound: None, value: count });
        }
        PassedFamily { kind, help, samples }
    }
}

impl Compound {
    /// The parts, sorted, make a whole.
    fn is_sound(&self, kind: PassedKind) -> bool {
        let rising = self.parts.is_sorted_by(|(one, _), (other, _)| one < other);
        match kind {
            PassedKind::Histogram => {
                let adds_up = self.parts.is_sorted_by(|(_, one), (_, other)| one <= other);
                let last = self.parts.last().is_some_and(|(bound, value)| {
                    bound.is_infinite() && self.count.is_some_and(|count| (count - value).abs() < 0.5)
                });
                rising && adds_up && last
            }
            _ => rising && self.parts.iter().all(|(quantile, _)| (0.0..=1.0).contains(quantile)),
        }
    }
}

/// A sample's labels as they will be written, and its value.
fn render(
    runtime: KataRuntime,
    family: &str,
    kind: PassedKind,
    suffix: &str,
    rest: &[u8],
) -> Result<(Rendered, f64), Malformed> {
    let mut found = Vec::with_capacity(MAX_LABELS);
    let value = each_label(rest, |name, value| {
        let starts_well = name.first().is_some_and(|first| !first.is_ascii_digit()) && !name.starts_with(b"__");
        if found.len() == MAX_LABELS || name.len() > MAX_LABEL_NAME_BYTES || !starts_well || IDENTITY.contains(&name) {
            return Err(Malformed);
        }
        found.push((name, value));
        Ok(())
    })?;
    found.sort_unstable_by_key(|(name, _)| *name);
    if !found.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Err(Malformed);
    }
    let bound_name: &[u8] = match (kind, suffix) {
        (PassedKind::Histogram, "_bucket") => b"le",
        (PassedKind::Summary, "") => b"quantile",
        _ => b"",
    };
    let mut rendered = Rendered { factor: 1.0, ..Rendered::default() };
    let mut scratch = Vec::new();
    for (name, value) in found {
        let text = std::str::from_utf8(value.value(&mut scratch)?).map_err(|_| Malformed)?;
        if name == bound_name {
            rendered.bound = Some(text.parse().ok().filter(|bound: &f64| !bound.is_nan()).ok_or(Malformed)?);
            continue;
        }
        if matches!(name, b"le" | b"quantile") {
            return Err(Malformed);
        }
        let text = if name == b"item" {
            let (item, factor) = harmonise(runtime, family, text);
            rendered.factor = factor;
            item
        } else {
            text
        };
        if !rendered.labels.is_empty() {
            rendered.labels.push(',');
        }
        rendered.labels.push_str(std::str::from_utf8(name).map_err(|_| Malformed)?);
        rendered.labels.push_str("=\"");
        escape_label_value(bounded(text), &mut rendered.labels);
        rendered.labels.push('"');
    }
    let value = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)?;
    Ok((rendered, value))
}
