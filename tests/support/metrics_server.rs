//! metrics-server as a reader of `/metrics/resource`, after its decoder and its store: bytes are compared, labels are cut
//! out where their name first stands, a 0 is taken for something missing, and whoever lacks something is dropped whole.

use std::collections::BTreeMap;

/// A container, or the node, at one moment.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Point {
    pub cpu_nanos: u64,
    pub memory_bytes: u64,
    pub swap_bytes: u64,
    /// Of its last sample that is neither a start time nor unknown, Unix time.
    pub at_millis: i64,
    pub started_nanos: i64,
}

/// Containers by name.
pub type Containers = BTreeMap<String, Point>;

/// What a page is to metrics-server.
#[derive(Debug, Default)]
pub struct Batch {
    pub node: Option<Point>,
    /// By namespace and name.
    pub pods: BTreeMap<(String, String), Containers>,
    /// Pods that are on the page and not in the batch.
    pub dropped: Vec<(String, String)>,
}

impl Batch {
    /// A pod's containers.
    #[track_caller]
    pub fn pod(&self, namespace: &str, name: &str) -> &Containers {
        let found = self.pods.get(&(namespace.to_owned(), name.to_owned()));
        found.unwrap_or_else(|| panic!("no {namespace}/{name}: {self:?}"))
    }
}

/// Reads a page that was asked for at this moment.
pub fn decode(page: &str, asked_millis: i64) -> Batch {
    let mut node = Point::default();
    let mut pods: BTreeMap<(String, String), Containers> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.is_empty() && !line.starts_with('#')) {
        let (series, value, at) = split(line);
        let at = at.unwrap_or(asked_millis);
        let name = &series[..series.find('{').unwrap_or(series.len())];
        let labels = &series[name.len()..];
        let point = match name.split_once('_') {
            Some(("node", _)) => &mut node,
            Some(("container", _)) => {
                let [container, pod, namespace] = ["container", "pod", "namespace"].map(|label| cut(labels, label));
                pods.entry((namespace, pod)).or_default().entry(container).or_default()
            }
            _ => continue,
        };
        match name.split_once('_').map(|(_, fact)| fact) {
            Some("cpu_usage_seconds_total") => (point.cpu_nanos, point.at_millis) = (whole(value * 1e9), at),
            Some("memory_working_set_bytes") => (point.memory_bytes, point.at_millis) = (whole(value), at),
            Some("swap_usage_bytes") => (point.swap_bytes, point.at_millis) = (whole(value), at),
            Some("start_time_seconds") => point.started_nanos = whole(value * 1e9).try_into().expect("a time"),
            _ => {}
        }
    }
    let is_whole = |point: &Point| point.cpu_nanos != 0 && point.memory_bytes != 0;
    let mut batch = Batch { node: Some(node).filter(is_whole), ..Batch::default() };
    for (name, containers) in pods {
        let mut known = containers.values().filter(|point| **point != Point::default());
        if known.all(is_whole) {
            batch.pods.insert(name, containers);
        } else {
            batch.dropped.push(name);
        }
    }
    batch
}

#[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "Go's conversion, which is the reader's")]
fn whole(value: f64) -> u64 {
    value as u64
}

/// Series, value and timestamp. There are no blanks in names of pods and containers.
fn split(line: &str) -> (&str, f64, Option<i64>) {
    let mut words = line.split(' ');
    let series = words.next().expect("a series");
    let value = words.next().expect("a value").parse().expect("a number");
    (series, value, words.next().map(|at| at.parse().expect("milliseconds")))
}

/// The value of a label: from where its name first stands to the next quotation mark.
fn cut(labels: &str, name: &str) -> String {
    let name = format!("{name}=\"");
    let start = labels.find(&name).expect("the label") + name.len();
    let end = labels[start..].find('"').expect("an end");
    labels[start..start + end].to_owned()
}

/// Nanoseconds of CPU time in a second between two points of one container, or `None` where the store would wait for
/// another point: it has begun anew, or no time has passed.
pub fn cpu_rate(before: &Point, now: &Point) -> Option<f64> {
    let restarted = now.started_nanos >= before.at_millis * 1_000_000;
    let millis = now.at_millis - before.at_millis;
    (!restarted && millis > 0).then(|| (now.cpu_nanos as f64 - before.cpu_nanos as f64) / (millis as f64 / 1e3))
}
