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

use memchr::memchr3;

use crate::collect::kata::exposition::{Lines, Malformed, Quoted, each_label};
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
    families: Vec<Family>,
    /// Where a family is, by name.
    by_name: BTreeMap<Box<str>, usize>,
    /// The name on the line before: nearly always that of the next as well.
    last: Option<Name>,
    /// The labels of the sample in hand.
    labels: String,
    samples: usize,
    label_bytes: usize,
    dropped: u64,
}

/// A name as the shim writes it, and what is known of it.
#[derive(Debug)]
struct Name {
    text: Box<str>,
    place: Option<Place>,
    /// Where its family is, if it has any sample.
    family: Option<usize>,
}

/// One family.
#[derive(Debug)]
struct Family {
    known: Known,
    /// By labels, in the order of the text.
    plain: Vec<(Arc<str>, f64)>,
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

/// What a sample says beside its labels.
#[derive(Clone, Copy, Debug)]
struct Said {
    /// The label that is told apart: a bucket's upper bound, or a quantile.
    bound: Option<f64>,
    /// In our unit.
    value: f64,
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
        let mut found: Vec<Option<Family>> = kept.families.into_iter().map(Some).collect();
        for (name, at) in kept.by_name {
            let family = found.get_mut(at).and_then(Option::take);
            let Some(passed) = family.map(|family| family.finish(&mut kept.dropped)) else { continue };
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
        let (name, rest) = line.split_at(memchr3(b'{', b' ', b'\t', line.as_bytes()).ok_or(Malformed)?);
        let mut name = match self.last.take() {
            Some(last) if *last.text == *name => last,
            _ => Name { text: name.into(), place: place(name), family: None },
        };
        let taken = match &name.place {
            Some(place) => self.take_sample(runtime, place, &mut name.family, rest.as_bytes()),
            None => Ok(()),
        };
        self.last = Some(name);
        taken
    }

    /// Takes what follows a name. `at` is where its family is.
    fn take_sample(
        &mut self,
        runtime: KataRuntime,
        place: &Place,
        at: &mut Option<usize>,
        rest: &[u8],
    ) -> Result<(), Malformed> {
        let Place { family, known, suffix } = place;
        self.labels.clear();
        let said = render(runtime, place, rest, &mut self.labels)?;
        let fits = match known.kind {
            PassedKind::Counter | PassedKind::Histogram => said.value.is_finite() && said.value >= 0.0,
            PassedKind::Gauge | PassedKind::Summary | PassedKind::Untyped => said.value.is_finite(),
        };
        // Before 3.3.0 the agent counted no threads; it has one at least.
        let untrue = &**family == "kata_agent_threads" && said.value < 1.0;
        if !fits || untrue {
            return Err(Malformed);
        }
        self.label_bytes += self.labels.len();
        if self.samples >= MAX_SAMPLES || self.label_bytes > MAX_LABEL_BYTES {
            self.dropped += 1;
            return Ok(());
        }
        let at = *at.get_or_insert_with(|| *self.by_name.entry(family.clone()).or_insert(self.families.len()));
        if at == self.families.len() {
            self.families.push(Family::new(*known));
        }
        let kept = self.families.get_mut(at).is_some_and(|family| family.keep(suffix, &self.labels, said));
        self.samples += usize::from(kept);
        self.dropped += u64::from(!kept);
        Ok(())
    }
}

impl Family {
    const fn new(known: Known) -> Self {
        Self { known, plain: Vec::new(), compound: BTreeMap::new() }
    }

    /// Keeps a sample; of a compound only a part that is not there yet.
    fn keep(&mut self, suffix: &str, labels: &str, Said { bound, value }: Said) -> bool {
        if !matches!(self.known.kind, PassedKind::Histogram | PassedKind::Summary) {
            self.plain.push((labels.into(), value));
            return true;
        }
        if !self.compound.contains_key(labels) {
            self.compound.insert(labels.into(), Compound::default());
        }
        let Some(compound) = self.compound.get_mut(labels) else { return false };
        match (suffix, bound) {
            ("_sum", None) if compound.sum.is_none() => compound.sum = Some(value),
            ("_count", None) if compound.count.is_none() => compound.count = Some(value),
            ("_bucket" | "", Some(bound)) => compound.parts.push((bound, value)),
            _ => return false,
        }
        true
    }

    fn finish(self, dropped: &mut u64) -> PassedFamily {
        let Self { known: Known { kind, help }, mut plain, compound } = self;
        plain.sort_by(|(one, _), (other, _)| one.cmp(other));
        let found = plain.len();
        // The first of two stays.
        plain.dedup_by(|(later, _), (earlier, _)| later == earlier);
        *dropped += (found - plain.len()) as u64;
        let mut samples: Vec<PassedSample> =
            plain.into_iter().map(|(labels, value)| PassedSample { suffix: "", labels, bound: None, value }).collect();
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

/// Writes a sample's labels as they will stand, sorted, and gives the rest of what it says.
fn render(runtime: KataRuntime, place: &Place, rest: &[u8], labels: &mut String) -> Result<Said, Malformed> {
    let Place { family, known: Known { kind, .. }, suffix } = place;
    let mut found = [(&[][..], Quoted::default()); MAX_LABELS];
    let mut count = 0;
    let value = each_label(rest, |name, value| {
        let starts_well = name.first().is_some_and(|first| !first.is_ascii_digit()) && !name.starts_with(b"__");
        if name.len() > MAX_LABEL_NAME_BYTES || !starts_well || IDENTITY.contains(&name) {
            return Err(Malformed);
        }
        *found.get_mut(count).ok_or(Malformed)? = (name, value);
        count += 1;
        Ok(())
    })?;
    let found = found.get_mut(..count).unwrap_or_default();
    found.sort_unstable_by_key(|(name, _)| *name);
    if !found.is_sorted_by(|(one, _), (other, _)| one < other) {
        return Err(Malformed);
    }
    let bound_name: &[u8] = match (kind, *suffix) {
        (PassedKind::Histogram, "_bucket") => b"le",
        (PassedKind::Summary, "") => b"quantile",
        _ => b"",
    };
    let (mut bound, mut factor) = (None, 1.0);
    let mut scratch = Vec::new();
    for (name, value) in found {
        let text = std::str::from_utf8(value.value(&mut scratch)?).map_err(|_| Malformed)?;
        if *name == bound_name {
            bound = Some(text.parse().ok().filter(|bound: &f64| !bound.is_nan()).ok_or(Malformed)?);
            continue;
        }
        if matches!(*name, b"le" | b"quantile") {
            return Err(Malformed);
        }
        let text = if *name == b"item" {
            let (item, of_item) = harmonise(runtime, family, text);
            factor = of_item;
            item
        } else {
            text
        };
        if !labels.is_empty() {
            labels.push(',');
        }
        labels.push_str(std::str::from_utf8(name).map_err(|_| Malformed)?);
        labels.push_str("=\"");
        escape_label_value(bounded(text), labels);
        labels.push('"');
    }
    let value: f64 = std::str::from_utf8(value).ok().and_then(|text| text.parse().ok()).ok_or(Malformed)?;
    Ok(Said { bound, value: value * factor })
}
