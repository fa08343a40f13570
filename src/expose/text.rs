//! The two text formats: Prometheus 0.0.4 and OpenMetrics 1.0.0, plain or compressed as they are written.
//!
//! One sample is a copy of the family's name, a copy of the subject's ready-made labels and a number. Nothing is
//! allocated per sample.

use std::io::Write;

use flate2::Compression;
use flate2::write::GzEncoder;
use memchr::memchr3;
use prometheus::proto::{Metric, MetricFamily, MetricType};

use crate::expose::family::{Meta, unit_suffix};
use crate::expose::number;
use crate::expose::walk::{Output, Sample};
use crate::model::identity::{LabelBlock, Labels, bounded, escape_label_value};
use crate::model::passthrough::{PassedKind, PassedSample};
use crate::model::units::{Seconds, Value};

/// How hard gzip tries. Measured on a kubelet's body of 1.4 MB, one core of a slow virtual machine: level 1 makes
/// 122 kB of it in 1.3 ms, level 3 87 kB in 1.9 ms, level 6 71 kB in 3.2 ms.
const EFFORT: u32 = 3;

/// How much text is compressed at once. A body is twenty times as large as what becomes of it, and is never there whole.
const PIECE: usize = 64 << 10;

/// Which text format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Format {
    /// Prometheus text 0.0.4.
    Prometheus,
    /// OpenMetrics 1.0.0.
    OpenMetrics,
}

impl Format {
    /// The content type, to the letter: Prometheus 3 fails a scrape over an odd one.
    pub const fn content_type(self) -> &'static str {
        match self {
            Self::Prometheus => "text/plain; version=0.0.4; charset=utf-8",
            Self::OpenMetrics => "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores",
        }
    }
}

/// Writes a body.
#[derive(Debug)]
pub struct Text {
    format: Format,
    out: Vec<u8>,
    scratch: String,
    /// Where `out` goes whenever it has become a piece.
    gzip: Option<GzEncoder<Vec<u8>>>,
}

impl Text {
    /// An empty body with room for `capacity` bytes.
    pub fn new(format: Format, capacity: usize) -> Self {
        Self { format, out: Vec::with_capacity(capacity), scratch: String::new(), gzip: None }
    }

    /// An empty body that is compressed as it is written.
    pub fn compressed(format: Format) -> Self {
        let gzip = Some(GzEncoder::new(Vec::new(), Compression::new(EFFORT)));
        // The line that completes a piece goes beyond it.
        Self { gzip, ..Self::new(format, PIECE + (4 << 10)) }
    }

    /// The body, closed as the format asks.
    pub fn finish(mut self) -> Vec<u8> {
        if self.format == Format::OpenMetrics {
            self.out.extend_from_slice(b"# EOF\n");
        }
        self.compress();
        // A Vec takes every write, so this does not fail, nor does `compress`.
        self.gzip.map_or(self.out, |gzip| gzip.finish().unwrap_or_default())
    }

    fn end_line(&mut self) {
        self.out.push(b'\n');
        if self.gzip.is_some() && self.out.len() >= PIECE {
            self.compress();
        }
    }

    fn compress(&mut self) {
        if let Some(gzip) = &mut self.gzip {
            let _ = gzip.write_all(&self.out);
            self.out.clear();
        }
    }

    /// Writes families kept by the `prometheus` crate.
    pub fn gathered(&mut self, families: &[MetricFamily]) {
        for family in families {
            let name = family.name();
            let kind = match family.get_field_type() {
                MetricType::COUNTER => "counter",
                MetricType::GAUGE => "gauge",
                MetricType::HISTOGRAM => "histogram",
                MetricType::SUMMARY => "summary",
                MetricType::UNTYPED => "untyped",
            };
            self.header(name, kind, family.help());
            for metric in family.get_metric() {
                self.gathered_metric(name, family.get_field_type(), metric);
            }
        }
    }

    fn gathered_metric(&mut self, name: &str, kind: MetricType, metric: &Metric) {
        match kind {
            MetricType::COUNTER => self.plain(name, "", metric, None, metric.get_counter().get_value()),
            MetricType::HISTOGRAM => {
                let histogram = metric.get_histogram();
                let mut infinite = false;
                for bucket in histogram.get_bucket() {
                    infinite |= bucket.upper_bound().is_infinite();
                    let count = Value::Int(bucket.cumulative_count()).as_f64();
                    self.plain(name, "_bucket", metric, Some(bucket.upper_bound()), count);
                }
                let count = Value::Int(histogram.get_sample_count()).as_f64();
                if !infinite {
                    self.plain(name, "_bucket", metric, Some(f64::INFINITY), count);
                }
                self.plain(name, "_sum", metric, None, histogram.get_sample_sum());
                self.plain(name, "_count", metric, None, count);
            }
            _ => self.plain(name, "", metric, None, metric.get_gauge().get_value()),
        }
    }

    /// The header of a family that is passed on. Where its name `clashes` with another's in OpenMetrics, it has no type
    /// there.
    pub fn passed_header(&mut self, name: &str, kind: &str, help: &str, clashes: bool) {
        let kind = if clashes && self.format == Format::OpenMetrics { "untyped" } else { kind };
        self.header(name, kind, help);
    }

    /// One sample that is passed on, with labels that are ready to be written.
    pub fn passed_sample(&mut self, name: &str, kind: PassedKind, sample: &PassedSample, identity: &str) {
        let PassedSample { suffix, labels, bound, value } = sample;
        for part in [name, suffix, "{", labels, if labels.is_empty() { "" } else { "," }] {
            self.out.extend_from_slice(part.as_bytes());
        }
        match (bound, kind) {
            (Some(bound), PassedKind::Histogram) => {
                self.bound("le", *bound);
                self.out.push(b',');
            }
            (Some(bound), _) => {
                self.bound("quantile", *bound);
                self.out.push(b',');
            }
            (None, _) => {}
        }
        self.out.extend_from_slice(identity.as_bytes());
        self.out.extend_from_slice(b"} ");
        number::write_float(*value, &mut self.out);
        self.end_line();
    }

    /// One sample whose labels come from the `prometheus` crate, sorted by name there.
    fn plain(&mut self, name: &str, suffix: &str, metric: &Metric, le: Option<f64>, value: f64) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(suffix.as_bytes());
        let labels = metric.get_label();
        let before_le = labels.partition_point(|label| label.name() < "le");
        let mut separator = b'{';
        for (at, label) in labels.iter().enumerate() {
            if let (true, Some(bound)) = (at == before_le, le) {
                self.bucket_bound(&mut separator, bound);
            }
            self.out.push(separator);
            separator = b',';
            self.label(label.name(), label.value());
        }
        if let (true, Some(bound)) = (before_le == labels.len(), le) {
            self.bucket_bound(&mut separator, bound);
        }
        if separator == b',' {
            self.out.push(b'}');
        }
        self.out.push(b' ');
        number::write_float(value, &mut self.out);
        self.end_line();
    }

    fn bucket_bound(&mut self, separator: &mut u8, bound: f64) {
        self.out.push(std::mem::replace(separator, b','));
        self.bound("le", bound);
    }

    fn bound(&mut self, label: &str, bound: f64) {
        self.out.extend_from_slice(label.as_bytes());
        self.out.extend_from_slice(b"=\"");
        number::write_float(bound, &mut self.out);
        // A bound is a float to OpenMetrics even when it is whole.
        if self.format == Format::OpenMetrics && bound.is_finite() && bound.fract() == 0.0 {
            self.out.extend_from_slice(b".0");
        }
        self.out.push(b'"');
    }

    fn header(&mut self, name: &str, kind: &str, help: &str) {
        let mut line = |parts: &[&str]| {
            for part in parts {
                self.out.extend_from_slice(part.as_bytes());
            }
            self.out.push(b'\n');
        };
        match self.format {
            Format::Prometheus => {
                line(&["# HELP ", name, " ", help]);
                line(&["# TYPE ", name, " ", kind]);
            }
            Format::OpenMetrics => {
                // A counter's family is named without `_total`. cAdvisor has counters without it; a parser would
                // look for `<name>_total`, so they are served as of unknown type under their own name.
                let (family, kind) = match (kind, name.strip_suffix("_total")) {
                    ("counter", Some(stem)) => (stem, "counter"),
                    ("counter", None) | ("untyped", _) => (name, "unknown"),
                    _ => (name, kind),
                };
                line(&["# TYPE ", family, " ", kind]);
                if let Some(unit) = unit_suffix(family) {
                    line(&["# UNIT ", family, " ", unit]);
                }
                line(&["# HELP ", family, " ", help]);
            }
        }
    }

    fn label(&mut self, name: &str, value: &str) {
        self.out.extend_from_slice(name.as_bytes());
        self.out.extend_from_slice(b"=\"");
        let value = bounded(value);
        if memchr3(b'\\', b'"', b'\n', value.as_bytes()).is_some() {
            self.scratch.clear();
            escape_label_value(value, &mut self.scratch);
            self.out.extend_from_slice(self.scratch.as_bytes());
        } else {
            self.out.extend_from_slice(value.as_bytes());
        }
        self.out.push(b'"');
    }

    /// Milliseconds in Prometheus' format, seconds in OpenMetrics. Never with an exponent: Python's parser of OpenMetrics
    /// takes `1.6e+09` for one second and a fraction.
    fn timestamp(&mut self, at: Seconds) {
        let mut buffer = itoa::Buffer::new();
        self.out.push(b' ');
        match self.format {
            Format::Prometheus => self.out.extend_from_slice(buffer.format(at.whole_millis()).as_bytes()),
            Format::OpenMetrics => {
                self.out.extend_from_slice(buffer.format(at.whole()).as_bytes());
                let millis = at.whole_millis() % 1000;
                // A Vec takes every write.
                let _ = write!(self.out, ".{millis:03}");
            }
        }
    }

    /// The six identity labels with the family's own ones put in where the sorted order wants them.
    fn identity_and(&mut self, block: &LabelBlock, names: &[&str], values: &[&str]) {
        let mut written = 0;
        let mut separator: &[u8] = b"";
        for (name, value) in names.iter().zip(values) {
            let before = Labels::NAMES.partition_point(|identity| identity < name);
            let upto = before.checked_sub(1).map_or(0, |last| block.ends[last]);
            if upto > written {
                self.out.extend_from_slice(&block.text.as_bytes()[written..upto]);
                written = upto;
                separator = b",";
            }
            self.out.extend_from_slice(separator);
            separator = b",";
            self.label(name, value);
        }
        if written == 0 && !separator.is_empty() {
            self.out.push(b',');
        }
        self.out.extend_from_slice(&block.text.as_bytes()[written..]);
    }
}

impl Output for Text {
    fn begin(&mut self, family: &Meta) {
        self.header(family.name, family.kind.as_str(), family.help);
    }

    fn sample(&mut self, family: &Meta, sample: &Sample<'_>) {
        let Sample { subject, values, value, at } = *sample;
        self.out.extend_from_slice(family.name.as_bytes());
        match subject {
            Some(subject) => {
                self.out.push(b'{');
                self.identity_and(&subject.block, family.labels, values);
                self.out.push(b'}');
            }
            None => {
                let mut separator = b'{';
                for (name, value) in family.labels.iter().zip(values) {
                    self.out.push(separator);
                    separator = b',';
                    self.label(name, value);
                }
                if separator == b',' {
                    self.out.push(b'}');
                }
            }
        }
        self.out.push(b' ');
        number::write(value, &mut self.out);
        if let Some(at) = at {
            self.timestamp(at);
        }
        self.end_line();
    }
}

#[cfg(test)]
mod tests;
