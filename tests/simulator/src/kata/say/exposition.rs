//! Prometheus text in the two dialects that shims speak.
//!
//! The Rust encoder prints plain decimals, the Go one shortest `%g`: `491552768` and `4.91552768e+08`.

use std::fmt::Write;

/// Who prints.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Dialect {
    /// `prometheus/common`, in Go.
    Go,
    /// The crate `prometheus`.
    Rust,
}

/// A family's type.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
}

/// A family with its samples.
#[derive(Debug, Clone)]
pub(crate) struct Family {
    pub(crate) name: &'static str,
    pub(crate) help: &'static str,
    pub(crate) kind: Kind,
    pub(crate) samples: Vec<Sample>,
}

/// A sample: what follows the family's name, labels in the order in which they are printed, and the value.
#[derive(Debug, Clone)]
pub(crate) struct Sample {
    suffix: &'static str,
    labels: Vec<(&'static str, String)>,
    value: f64,
}

impl Family {
    /// A family of gauges without samples.
    pub(crate) fn gauge(name: &'static str, help: &'static str) -> Self {
        Self { name, help, kind: Kind::Gauge, samples: Vec::new() }
    }

    /// The same with another type.
    pub(crate) fn of(mut self, kind: Kind) -> Self {
        self.kind = kind;
        self
    }

    /// With one sample without labels.
    pub(crate) fn value(mut self, value: f64) -> Self {
        self.push("", &[], value);
        self
    }

    /// With one sample per item.
    pub(crate) fn items<'a>(mut self, items: impl IntoIterator<Item = (&'a str, u64)>) -> Self {
        for (item, value) in items {
            self.push("", &[("item", item)], float(value));
        }
        self
    }

    /// One more sample.
    pub(crate) fn push(&mut self, suffix: &'static str, labels: &[(&'static str, &str)], value: f64) {
        let labels = labels.iter().map(|(name, value)| (*name, (*value).to_owned())).collect();
        self.samples.push(Sample { suffix, labels, value });
    }
}

/// Prints families one after the other.
pub(crate) fn print(families: &[Family], dialect: Dialect) -> String {
    let mut text = String::new();
    for family in families {
        print_family(&mut text, family, dialect);
    }
    text
}

fn print_family(text: &mut String, family: &Family, dialect: Dialect) {
    let kind = match family.kind {
        Kind::Counter => "counter",
        Kind::Gauge => "gauge",
        Kind::Histogram => "histogram",
        Kind::Summary => "summary",
    };
    // Writing to a string cannot fail.
    write!(text, "# HELP {0} {1}\n# TYPE {0} {kind}\n", family.name, family.help).ok();
    for sample in &family.samples {
        text.push_str(family.name);
        text.push_str(sample.suffix);
        for (number, (name, value)) in sample.labels.iter().enumerate() {
            let open = if number == 0 { '{' } else { ',' };
            let value = value.replace('\\', "\\\\").replace('\n', "\\n").replace('"', "\\\"");
            write!(text, "{open}{name}=\"{value}\"").ok();
        }
        if !sample.labels.is_empty() {
            text.push('}');
        }
        writeln!(text, " {}", number(sample.value, dialect)).ok();
    }
}

/// A counter as the double that every exposition makes of it.
#[expect(clippy::cast_precision_loss, reason = "the programs that are simulated lose it, too")]
pub(crate) fn float(value: u64) -> f64 {
    value as f64
}

fn number(value: f64, dialect: Dialect) -> String {
    match dialect {
        Dialect::Rust => value.to_string(),
        Dialect::Go => go_number(value),
    }
}

/// Go's `strconv.FormatFloat(value, 'g', -1, 64)`: the shortest digits that stand for the value, with an exponent
/// of two digits at least when it is below -4 or above 5.
fn go_number(value: f64) -> String {
    if !value.is_finite() {
        return if value.is_nan() { "NaN".to_owned() } else { format!("{}Inf", if value > 0.0 { '+' } else { '-' }) };
    }
    let scientific = format!("{value:e}");
    let (digits, exponent) = scientific.split_once('e').unwrap_or((&scientific, "0"));
    let exponent: i32 = exponent.parse().unwrap_or_default();
    if !(-4..6).contains(&exponent) {
        let sign = if exponent < 0 { '-' } else { '+' };
        format!("{digits}e{sign}{:02}", exponent.abs())
    } else {
        value.to_string()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn go_prints_shortest_digits() {
        for (value, text) in [
            (0.0, "0"),
            (1.0, "1"),
            (918_343.0, "918343"),
            (1_000_000.0, "1e+06"),
            (3_146_101.0, "3.146101e+06"),
            (491_552_768.0, "4.91552768e+08"),
            (0.379_999_995_231_628_4, "0.3799999952316284"),
            (3.142_1e-5, "3.1421e-05"),
            (0.000_101_223, "0.000101223"),
            (-0.742, "-0.742"),
            (1.844_674_407_370_955_2e19, "1.8446744073709552e+19"),
            (f64::INFINITY, "+Inf"),
        ] {
            assert_eq!(go_number(value), text);
        }
    }

    #[test]
    fn families_are_printed_in_both_dialects() {
        let mut family = Family::gauge("kata_x", "About x.").items([("a", 1), ("b", 1_000_000)]);
        family.push("_more", &[("name", "qu\"ote"), ("le", "+Inf")], 0.5);
        let head = "# HELP kata_x About x.\n# TYPE kata_x gauge\nkata_x{item=\"a\"} 1\n";
        let tail = "kata_x_more{name=\"qu\\\"ote\",le=\"+Inf\"} 0.5\n";
        let families = [family];
        assert_eq!(print(&families, Dialect::Rust), format!("{head}kata_x{{item=\"b\"}} 1000000\n{tail}"));
        assert_eq!(print(&families, Dialect::Go), format!("{head}kata_x{{item=\"b\"}} 1e+06\n{tail}"));
    }
}
