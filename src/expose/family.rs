//! A metric family: one row of a table.

use crate::model::units::Value;

/// One family, read from subjects of type `S`.
#[derive(Debug)]
pub struct Family<S: 'static> {
    /// Everything but the reading.
    pub meta: Meta,
    /// Puts the subject's samples: label values in the order of `meta.labels`, and the value. A subject without the
    /// fact puts nothing.
    pub read: fn(&S, Put<'_>),
}

/// Where a family puts its samples.
pub type Put<'a> = &'a mut dyn FnMut(&[&str], Value);

/// A family without its reading: what headers, documentation and tests need.
#[derive(Debug)]
pub struct Meta {
    /// Full name, `_total` included.
    pub name: &'static str,
    /// Type.
    pub kind: Kind,
    /// One sentence.
    pub help: &'static str,
    /// Labels beside those every sample of the table carries; sorted.
    pub labels: &'static [&'static str],
    /// Its samples carry the time at which they were measured.
    pub stamped: bool,
    /// The smallest profile that has it.
    pub profile: Profile,
    /// Where the number comes from, for the documentation.
    pub source: &'static str,
}

/// Type of a family, as cAdvisor types it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// Only rises, until what it counts is made anew.
    Counter,
    /// Goes up and down.
    Gauge,
    /// Either: node_exporter does not say.
    Untyped,
}

impl Kind {
    /// In Prometheus' words.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Counter => "counter",
            Self::Gauge => "gauge",
            Self::Untyped => "untyped",
        }
    }
}

/// How much is served. Each profile has all of the one before it.
#[derive(
    Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord, clap::ValueEnum, serde::Deserialize, serde::Serialize,
)]
#[serde(rename_all = "lowercase")]
pub enum Profile {
    /// What stock dashboards, recording rules and autoscalers read.
    Dashboards,
    /// What the kubelet exports.
    #[default]
    Kubelet,
    /// Everything that has a source.
    All,
}

impl Profile {
    /// Its name.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Dashboards => "dashboards",
            Self::Kubelet => "kubelet",
            Self::All => "all",
        }
    }
}

/// The unit a name ends in, before any `_total`; the base units of OpenMetrics that occur here.
pub fn unit_suffix(name: &str) -> Option<&'static str> {
    let stem = name.strip_suffix("_total").unwrap_or(name);
    ["seconds", "bytes"].into_iter().find(|unit| stem.ends_with(&format!("_{unit}")))
}
