//! Shims' own metrics on their way through: what a scrape of every shim gives, each sandbox's samples by family.
//!
//! Label names and values come from a shim or a guest. They are checked, bounded and escaped before they get here, and
//! a sandbox's samples carry no identity: that is added where they are written.

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::Duration;

use crate::model::inventory::Sandbox;
use crate::model::snapshot::SourceState;

/// One round over all sandboxes, or over one.
#[derive(Debug, Default)]
pub struct Passthrough {
    /// Every sandbox that was asked, sorted by id.
    pub sandboxes: Vec<PassedSandbox>,
    /// How long it took.
    pub took: Duration,
}

/// What came of one sandbox.
#[derive(Debug)]
pub struct PassedSandbox {
    /// Which.
    pub sandbox: Arc<Sandbox>,
    /// Its families by name; empty when neither shim nor agent could be asked.
    pub families: BTreeMap<Box<str>, PassedFamily>,
    /// How its shim fared.
    pub shim: SourceState,
    /// Samples that are not passed on: malformed, twice, or too many.
    pub dropped: u64,
}

/// One family of one sandbox.
#[derive(Debug, PartialEq)]
pub struct PassedFamily {
    /// Its true type, which often is not the one that the shim declares.
    pub kind: PassedKind,
    /// One sentence.
    pub help: &'static str,
    /// Its samples in order; parts of one histogram or summary stand together.
    pub samples: Vec<PassedSample>,
}

/// Types of families.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PassedKind {
    /// All of it only rises.
    Counter,
    /// None of it is cumulative.
    Gauge,
    /// Buckets by upper bound.
    Histogram,
    /// Quantiles.
    Summary,
    /// Cumulative values beside others, or nobody knows.
    Untyped,
}

/// One sample.
#[derive(Debug, PartialEq)]
pub struct PassedSample {
    /// What follows the family's name: blank, `_bucket`, `_sum`, `_count`.
    pub suffix: &'static str,
    /// Labels as they are written, `cpu="0",item="user"`, sorted by name; blank without any.
    pub labels: Arc<str>,
    /// Upper bound of a bucket, or a quantile.
    pub bound: Option<f64>,
    /// The value.
    pub value: f64,
}
