//! A strict parser of the Prometheus text format 0.0.4, written from the format's description and not from our encoder.
//!
//! It takes what an exporter should write, which is less than what a scraper accepts: `name{label="value",…} value` with
//! single spaces and no trailing comma. On top of the grammar it refuses what scrapers drop or mix up in silence: a
//! second HELP or TYPE, one after the family's samples, a family in two places, the same series twice.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;

/// The labels of a sample; the order in the text means nothing.
pub type Labels = BTreeMap<String, String>;

/// One exposition.
#[derive(Debug)]
pub struct Page {
    pub families: Vec<Family>,
}

/// The samples under one HELP and TYPE.
#[derive(Debug)]
pub struct Family {
    pub name: String,
    pub kind: Option<Kind>,
    pub help: Option<String>,
    pub samples: Vec<Sample>,
}

/// What TYPE says.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    Counter,
    Gauge,
    Histogram,
    Summary,
    Untyped,
}

/// One line with a value.
#[derive(Clone, Debug, PartialEq)]
pub struct Sample {
    /// The family's name, but for the parts of histograms and summaries.
    pub name: String,
    pub labels: Labels,
    pub value: f64,
    /// In milliseconds since the epoch.
    pub timestamp: Option<i64>,
}

/// What is wrong, and in which line.
#[derive(Debug, PartialEq, Eq)]
pub struct Fault {
    pub line: usize,
    pub problem: String,
}

impl fmt::Display for Fault {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(out, "line {}: {}", self.line, self.problem)
    }
}

impl Page {
    /// Reads a whole exposition.
    pub fn parse(text: &str) -> Result<Self, Fault> {
        let mut reader = Reader::default();
        for (index, line) in text.split_inclusive('\n').enumerate() {
            line.strip_suffix('\n')
                .ok_or_else(|| "the page does not end with a newline".to_owned())
                .and_then(|line| reader.line(line))
                .map_err(|problem| Fault { line: index + 1, problem })?;
        }
        Ok(Self { families: reader.families })
    }

    /// The family of this name, if the page has it.
    pub fn family(&self, name: &str) -> Option<&Family> {
        self.families.iter().find(|family| family.name == name)
    }

    /// All samples, in the order of the page.
    pub fn samples(&self) -> impl Iterator<Item = &Sample> {
        self.families.iter().flat_map(|family| &family.samples)
    }

    /// The samples of this name that have at least these labels.
    pub fn matching(&self, name: &str, labels: &[(&str, &str)]) -> Vec<&Sample> {
        self.samples().filter(|sample| sample.name == name && sample.has(labels)).collect()
    }

    /// The value of the one sample of this name that has at least these labels, or `None` without one. Two are a
    /// mistake of the test, which has to say more labels.
    #[track_caller]
    pub fn lookup(&self, name: &str, labels: &[(&str, &str)]) -> Option<f64> {
        match self.matching(name, labels).as_slice() {
            [] => None,
            [sample] => Some(sample.value),
            several => panic!("{name}{labels:?} matches several:\n{}", lines(several)),
        }
    }

    /// Like [`Page::lookup`] where there must be a sample.
    #[track_caller]
    pub fn value(&self, name: &str, labels: &[(&str, &str)]) -> f64 {
        self.lookup(name, labels).unwrap_or_else(|| {
            panic!("no sample {name}{labels:?}; the name has:\n{}", lines(&self.matching(name, &[])))
        })
    }
}

fn lines(samples: &[&Sample]) -> String {
    samples.iter().map(|sample| format!("{:?} {}\n", sample.labels, sample.value)).collect()
}

impl Sample {
    /// Whether the sample has at least these labels.
    pub fn has(&self, labels: &[(&str, &str)]) -> bool {
        labels.iter().all(|(name, value)| self.label(name) == Some(value))
    }

    /// The value of a label, or `None` if the sample does not have it.
    pub fn label(&self, name: &str) -> Option<&str> {
        self.labels.get(name).map(String::as_str)
    }
}

#[derive(Default)]
struct Reader {
    families: Vec<Family>,
    series: BTreeSet<(String, Labels)>,
}

impl Reader {
    fn line(&mut self, line: &str) -> Result<(), String> {
        if let Some(rest) = line.strip_prefix("# HELP ") {
            return self.help(rest);
        }
        if let Some(rest) = line.strip_prefix("# TYPE ") {
            return self.kind(rest);
        }
        if line.is_empty() || line.starts_with('#') {
            return Ok(());
        }
        let sample = sample(line)?;
        let series = (sample.name.clone(), sample.labels.clone());
        if !self.series.insert(series) {
            return Err(format!("the series is there twice: {line}"));
        }
        let name = self.family_of(&sample.name);
        self.family(&name)?.samples.push(sample);
        Ok(())
    }

    fn help(&mut self, rest: &str) -> Result<(), String> {
        let (name, text) = rest.split_once(' ').unwrap_or((rest, ""));
        let family = self.family(name)?;
        if family.help.is_some() {
            return Err(format!("second HELP of {name}"));
        }
        if !family.samples.is_empty() {
            return Err(format!("HELP of {name} after its samples"));
        }
        family.help = Some(unescape(text, "\\n")?);
        Ok(())
    }

    fn kind(&mut self, rest: &str) -> Result<(), String> {
        let (name, word) = rest.split_once(' ').ok_or_else(|| format!("TYPE without a type: {rest}"))?;
        let family = self.family(name)?;
        if family.kind.is_some() {
            return Err(format!("second TYPE of {name}"));
        }
        if !family.samples.is_empty() {
            return Err(format!("TYPE of {name} after its samples"));
        }
        family.kind = Some(match word {
            "counter" => Kind::Counter,
            "gauge" => Kind::Gauge,
            "histogram" => Kind::Histogram,
            "summary" => Kind::Summary,
            "untyped" => Kind::Untyped,
            _ => return Err(format!("unknown type of {name}: {word}")),
        });
        Ok(())
    }

    /// The family that a line belongs to: the last one, or a new one. Going back to an earlier one is a fault.
    fn family(&mut self, name: &str) -> Result<&mut Family, String> {
        if !is_metric_name(name) {
            return Err(format!("not a metric name: {name:?}"));
        }
        if self.families.last().is_none_or(|last| last.name != name) {
            if self.families.iter().any(|family| family.name == name) {
                return Err(format!("the family {name} is in two places"));
            }
            let name = name.to_owned();
            self.families.push(Family { name, kind: None, help: None, samples: Vec::new() });
        }
        Ok(self.families.last_mut().expect("a family was pushed if there was none"))
    }

    /// `x_bucket`, `x_sum` and `x_count` belong to `x` if that is what TYPE calls a histogram or summary.
    fn family_of(&self, name: &str) -> String {
        let parts: &[&str] = match self.families.last().and_then(|last| last.kind) {
            Some(Kind::Histogram) => &["_bucket", "_sum", "_count"],
            Some(Kind::Summary) => &["_sum", "_count"],
            _ => &[],
        };
        let last = self.families.last().map(|last| last.name.as_str());
        let whole = parts.iter().find_map(|part| name.strip_suffix(part)).filter(|whole| Some(*whole) == last);
        whole.unwrap_or(name).to_owned()
    }
}

fn sample(line: &str) -> Result<Sample, String> {
    let end = line.find(['{', ' ']).ok_or_else(|| format!("no value: {line}"))?;
    let (name, rest) = line.split_at(end);
    let (labels, rest) = match rest.strip_prefix('{') {
        Some(rest) => labels(rest)?,
        None => (Labels::new(), rest),
    };
    let numbers = rest.strip_prefix(' ').ok_or_else(|| format!("no space before the value: {line}"))?;
    let (value, timestamp) = match numbers.split_once(' ') {
        Some((value, timestamp)) => {
            let timestamp = timestamp.parse().map_err(|_| format!("not a timestamp: {timestamp:?}"))?;
            (value, Some(timestamp))
        }
        None => (numbers, None),
    };
    Ok(Sample { name: name.to_owned(), labels, value: number(value)?, timestamp })
}

/// Reads labels up to the closing brace, and gives what follows it.
fn labels(text: &str) -> Result<(Labels, &str), String> {
    let mut labels = Labels::new();
    if let Some(rest) = text.strip_prefix('}') {
        return Ok((labels, rest));
    }
    let mut rest = text;
    loop {
        let (name, after) = rest.split_once("=\"").ok_or_else(|| format!("not a label: {rest}"))?;
        if !is_label_name(name) {
            return Err(format!("not a label name: {name:?}"));
        }
        let end = closing_quote(after).ok_or_else(|| format!("no quote ends the value of {name}"))?;
        let value = unescape(&after[..end], "\\n\"")?;
        if labels.insert(name.to_owned(), value).is_some() {
            return Err(format!("the label {name} is there twice"));
        }
        rest = &after[end + 1..];
        match rest.split_at_checked(1) {
            Some((",", more)) => rest = more,
            Some(("}", more)) => return Ok((labels, more)),
            _ => return Err(format!("neither comma nor brace after the label {name}")),
        }
    }
}

fn closing_quote(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.bytes().position(|byte| {
        let closes = byte == b'"' && !escaped;
        escaped = byte == b'\\' && !escaped;
        closes
    })
}

/// Resolves the escapes whose second character is among `known`.
fn unescape(text: &str, known: &str) -> Result<String, String> {
    let mut plain = String::with_capacity(text.len());
    let mut characters = text.chars();
    while let Some(character) = characters.next() {
        if character != '\\' {
            plain.push(character);
            continue;
        }
        match characters.next() {
            Some('n') => plain.push('\n'),
            Some(escaped) if known.contains(escaped) => plain.push(escaped),
            other => return Err(format!("unknown escape \\{} in {text:?}", other.map_or(String::new(), String::from))),
        }
    }
    Ok(plain)
}

/// Go's words for the values that are no numbers, and decimal notation for the rest.
fn number(text: &str) -> Result<f64, String> {
    match text {
        "NaN" => return Ok(f64::NAN),
        "+Inf" => return Ok(f64::INFINITY),
        "-Inf" => return Ok(f64::NEG_INFINITY),
        _ => {}
    }
    // Rust also reads words like `infinity`, which scrapers may not.
    let decimal = text.bytes().all(|byte| byte.is_ascii_digit() || b"+-.eE".contains(&byte));
    text.parse().ok().filter(|_| decimal).ok_or_else(|| format!("not a value: {text:?}"))
}

fn is_metric_name(name: &str) -> bool {
    is_label_name(&name.replace(':', "_"))
}

fn is_label_name(name: &str) -> bool {
    name.starts_with(|first: char| first.is_ascii_alphabetic() || first == '_')
        && name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_')
}

/// Counters that are below what they were, and durations below zero, in words.
pub fn backward(before: &Page, after: &Page) -> Vec<String> {
    let is_counter = |name: &str| ["_total", "_count", "_sum", "_bucket"].iter().any(|end| name.ends_with(end));
    let before: BTreeMap<(&str, &Labels), &Sample> =
        before.samples().map(|was| ((was.name.as_str(), &was.labels), was)).collect();
    let mut wrong = Vec::new();
    for sample in after.samples() {
        let was = before.get(&(sample.name.as_str(), &sample.labels));
        if sample.name.contains("duration") && sample.value < 0.0 {
            wrong.push(format!("{} is {}", sample.name, sample.value));
        }
        if let Some(was) = was.filter(|was| is_counter(&was.name) && was.value > sample.value) {
            wrong.push(format!("{}{:?} was {} and is {}", was.name, was.labels, was.value, sample.value));
        }
    }
    wrong
}

#[cfg(test)]
mod tests {
    use super::{Kind, Page};

    #[track_caller]
    fn fault(text: &str) -> (usize, String) {
        let fault = Page::parse(text).expect_err("the page has a fault");
        (fault.line, fault.problem)
    }

    #[test]
    fn reads_families_labels_and_values() {
        let page = Page::parse(concat!(
            "# HELP cpu_seconds_total Time,\\nin a \\\\ sentence.\n",
            "# TYPE cpu_seconds_total counter\n",
            "cpu_seconds_total{pod=\"web\",container=\"\"} 1.5\n",
            "cpu_seconds_total{pod=\"a\\\\b\\\"c\\nd,}\",container=\"app\"} 2e-05\n",
            "# A comment.\n",
            "\n",
            "up 1 1700000000000\n",
            "limit{} +Inf\n",
        ))
        .expect("a good page");
        let family = page.family("cpu_seconds_total").expect("the family");
        assert_eq!(family.kind, Some(Kind::Counter));
        assert_eq!(family.help.as_deref(), Some("Time,\nin a \\ sentence."));
        assert_eq!(page.value("cpu_seconds_total", &[("pod", "web")]), 1.5);
        assert_eq!(page.value("cpu_seconds_total", &[("pod", "a\\b\"c\nd,}")]), 2e-5);
        assert_eq!(page.lookup("cpu_seconds_total", &[("pod", "other")]), None);
        assert_eq!(page.value("limit", &[]), f64::INFINITY);
        let up = page.matching("up", &[]);
        assert_eq!((up[0].value, up[0].timestamp), (1.0, Some(1_700_000_000_000)));
        assert_eq!(page.samples().count(), 4);
    }

    #[test]
    fn parts_of_a_histogram_are_one_family() {
        let page = Page::parse(concat!(
            "# TYPE wait_seconds histogram\n",
            "wait_seconds_bucket{le=\"1\"} 2\n",
            "wait_seconds_bucket{le=\"+Inf\"} 3\n",
            "wait_seconds_sum 4\n",
            "wait_seconds_count 3\n",
        ))
        .expect("a good page");
        assert_eq!(page.families.len(), 1);
        assert_eq!(page.value("wait_seconds_bucket", &[("le", "1")]), 2.0);
    }

    #[test]
    fn the_last_line_ends_with_a_newline() {
        assert_eq!(fault("a 1\nb 2"), (2, "the page does not end with a newline".to_owned()));
    }

    #[test]
    fn help_and_type_come_once_and_first() {
        assert_eq!(fault("# HELP a x\n# HELP a y\n").1, "second HELP of a");
        assert_eq!(fault("# TYPE a gauge\n# TYPE a gauge\n").1, "second TYPE of a");
        assert_eq!(fault("a 1\n# HELP a x\n"), (2, "HELP of a after its samples".to_owned()));
        assert_eq!(fault("a 1\n# TYPE a gauge\n"), (2, "TYPE of a after its samples".to_owned()));
        assert_eq!(fault("# TYPE a gage\n").1, "unknown type of a: gage");
        assert_eq!(fault("# TYPE a\n").1, "TYPE without a type: a");
    }

    #[test]
    fn a_family_is_in_one_place() {
        assert_eq!(fault("a{x=\"1\"} 1\nb 2\na{x=\"2\"} 1\n"), (3, "the family a is in two places".to_owned()));
        assert_eq!(fault("a 1\nb 2\n# TYPE a gauge\n"), (3, "the family a is in two places".to_owned()));
    }

    #[test]
    fn a_series_is_there_once_whatever_the_order_of_its_labels() {
        let (line, problem) = fault("a{x=\"1\",y=\"2\"} 1\na{y=\"2\",x=\"1\"} 1\n");
        assert_eq!(line, 2);
        assert!(problem.starts_with("the series is there twice"), "{problem}");
    }

    #[test]
    fn labels_follow_the_grammar() {
        for (line, problem) in [
            ("a{x=\"1\",} 1", "not a label: } 1"),
            ("a{x=1} 1", "not a label: x=1} 1"),
            ("a{x=\"1\" 1", "neither comma nor brace after the label x"),
            ("a{x=\"1} 1", "no quote ends the value of x"),
            ("a{x=\"\\t\"} 1", "unknown escape \\t in \"\\\\t\""),
            ("a{1x=\"1\"} 1", "not a label name: \"1x\""),
            ("a{x-y=\"1\"} 1", "not a label name: \"x-y\""),
            ("a{x=\"1\",x=\"2\"} 1", "the label x is there twice"),
            ("a{x=\"1\"}1", "no space before the value: a{x=\"1\"}1"),
        ] {
            assert_eq!(fault(&format!("{line}\n")).1, problem, "{line}");
        }
    }

    #[test]
    fn names_and_values_follow_the_grammar() {
        for (line, problem) in [
            ("1a 1", "not a metric name: \"1a\""),
            ("a-b 1", "not a metric name: \"a-b\""),
            ("a", "no value: a"),
            ("a one", "not a value: \"one\""),
            ("a inf", "not a value: \"inf\""),
            ("a  1", "not a value: \"\""),
            ("a 1 soon", "not a timestamp: \"soon\""),
            ("a 1\r", "not a value: \"1\\r\""),
            ("# HELP a \\q", "unknown escape \\q in \"\\\\q\""),
        ] {
            assert_eq!(fault(&format!("{line}\n")).1, problem, "{line}");
        }
        assert!(Page::parse("node:cpu:rate 1\n").is_ok());
    }
}
