//! Whether a page is what it should be: it parses strictly, no counter steps back, who is well is told of in full, and who
//! has gone is not.

use std::collections::{HashMap, HashSet};
use std::time::Instant;

use crate::exposition::{Kind, Page, Sample};
use crate::ledger::Ledger;

/// Counters as a scraper has seen them last, by the pod they are of; those without are below the empty name.
#[derive(Debug, Default)]
pub struct Counters {
    seen: HashMap<String, HashMap<String, f64>>,
}

impl Counters {
    /// Says which counters are below what they were, and remembers them as they are.
    pub fn fallen(&mut self, page: &Page, ledger: &Ledger) -> Vec<String> {
        let mut fallen = Vec::new();
        for family in &page.families {
            if !matches!(family.kind, Some(Kind::Counter | Kind::Histogram)) {
                continue;
            }
            for sample in &family.samples {
                let pod = sample.label("pod").unwrap_or_default();
                let series = self.seen.entry(pod.to_owned()).or_default();
                let before = series.insert(name_of(sample), sample.value).unwrap_or(f64::NEG_INFINITY);
                if sample.value < before && !ledger.may_fall(pod) {
                    fallen.push(format!("{} fell from {before} to {}", name_of(sample), sample.value));
                }
            }
        }
        // A pod's name never comes back, so what was counted of it need not be kept.
        self.seen.retain(|pod, _| ledger.lives(pod));
        fallen
    }
}

fn name_of(sample: &Sample) -> String {
    let labels: Vec<String> = sample.labels.iter().map(|(name, value)| format!("{name}={value:?}")).collect();
    format!("{}{{{}}}", sample.name, labels.join(","))
}

/// Who is lacking on a whole page that was asked for at `begun`, or is there and must not be.
pub fn wrong(page: &Page, ledger: &Ledger, begun: Instant) -> Vec<String> {
    let told = Told::on(page);
    let mut wrong = Vec::new();
    for due in ledger.due(begun) {
        if due.is_kata && !told.up.contains(due.sandbox.as_str()) {
            wrong.push(format!("{} is well and not up", due.pod));
        }
        for container in &due.containers {
            let container = (due.pod.as_str(), container.as_str());
            if !told.used_cpu.contains(&container) || !told.used_memory.contains(&container) {
                wrong.push(format!("{container:?} is well and lacks CPU or memory"));
            }
        }
    }
    for pod in told.pods {
        if let Some(since) = ledger.gone(pod, begun) {
            wrong.push(format!("{pod} was removed {since:?} before this scrape"));
        }
    }
    wrong
}

/// Who is told of.
struct Told<'a> {
    pods: HashSet<&'a str>,
    up: HashSet<&'a str>,
    used_cpu: HashSet<(&'a str, &'a str)>,
    used_memory: HashSet<(&'a str, &'a str)>,
}

impl<'a> Told<'a> {
    fn on(page: &'a Page) -> Self {
        let containers = |family| {
            let samples = page.family(family).into_iter().flat_map(|family| &family.samples);
            samples.filter_map(|sample| Some((sample.label("pod")?, sample.label("container")?))).collect()
        };
        let up = page.family("kata_pulse_sandbox_up").into_iter().flat_map(|family| &family.samples);
        Self {
            pods: page.samples().filter_map(|sample| sample.label("pod")).collect(),
            up: up.filter(|up| up.value == 1.0).filter_map(|up| up.label("sandbox_id")).collect(),
            used_cpu: containers("container_cpu_usage_seconds_total"),
            used_memory: containers("container_memory_working_set_bytes"),
        }
    }
}

/// A page in OpenMetrics as one in the text format, so that the strict parser of that can read it: counters get their
/// names back, and the end, which must be there, goes.
pub fn as_text(openmetrics: &str) -> Result<String, String> {
    let body = openmetrics.strip_suffix("# EOF\n").ok_or("no # EOF at the end")?;
    let kind = |line: &'_ str| line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')).map(owned);
    let kinds: HashMap<String, String> = body.lines().filter_map(kind).collect();
    let mut text = String::with_capacity(body.len());
    for line in body.lines() {
        let meta = ["# HELP ", "# TYPE "].iter().find_map(|word| Some((*word, line.strip_prefix(word)?)));
        let Some((word, (name, rest))) = meta.and_then(|(word, rest)| Some((word, rest.split_once(' ')?))) else {
            text.push_str(line);
            text.push('\n');
            continue;
        };
        let (suffix, kind) = match kinds.get(name).map(String::as_str) {
            Some("counter") => ("_total", "counter"),
            Some("info") => ("_info", "gauge"),
            Some("unknown") => ("", "untyped"),
            Some(other) => ("", other),
            None => return Err(format!("no TYPE of {name}")),
        };
        let rest = if word == "# TYPE " { kind } else { rest };
        // OpenMetrics escapes quotes in HELP as well.
        text.push_str(&format!("{word}{name}{suffix} {}\n", rest.replace("\\\"", "\"")));
    }
    Ok(text)
}

fn owned((name, kind): (&str, &str)) -> (String, String) {
    (name.to_owned(), kind.to_owned())
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ledger::Patience;

    fn ledger() -> Ledger {
        let mut ledger = Ledger::new(Patience(1e-6));
        ledger.added("a", "1", &["app".to_owned()], true);
        ledger
    }

    fn page(cpu: u32, up: u32) -> Page {
        let text = format!(
            "# TYPE container_cpu_usage_seconds_total counter\n\
             container_cpu_usage_seconds_total{{container=\"app\",pod=\"a\"}} {cpu}\n\
             # TYPE container_memory_working_set_bytes gauge\n\
             container_memory_working_set_bytes{{container=\"app\",pod=\"a\"}} {cpu}\n\
             # TYPE kata_pulse_sandbox_up gauge\nkata_pulse_sandbox_up{{pod=\"a\",sandbox_id=\"1\"}} {up}\n"
        );
        Page::parse(&text).unwrap()
    }

    #[test]
    fn a_page_must_tell_of_who_is_well_and_not_of_who_has_gone() {
        let later = Instant::now() + std::time::Duration::from_secs(1);
        let mut ledger = ledger();
        assert_eq!(wrong(&page(1, 1), &ledger, later), Vec::<String>::new());
        assert_eq!(wrong(&page(1, 0), &ledger, later), ["a is well and not up"]);
        assert_eq!(wrong(&Page::parse("").unwrap(), &ledger, later).len(), 2);
        ledger.leaving("a");
        ledger.removed("a");
        assert_eq!(wrong(&page(1, 1), &ledger, later).len(), 1);
        assert_eq!(wrong(&Page::parse("").unwrap(), &ledger, later), Vec::<String>::new());
    }

    #[test]
    fn counters_must_not_fall_and_gauges_may() {
        let mut counters = Counters::default();
        assert_eq!(counters.fallen(&page(5, 1), &ledger()), Vec::<String>::new());
        assert_eq!(counters.fallen(&page(5, 0), &ledger()), Vec::<String>::new());
        assert_eq!(counters.fallen(&page(4, 1), &ledger()).len(), 1);
        let mut lied = ledger();
        lied.lied("a");
        assert_eq!(counters.fallen(&page(3, 1), &lied), Vec::<String>::new());
    }

    #[test]
    fn openmetrics_reads_like_the_text_format() {
        let text =
            as_text("# HELP a A \\\"b\\\".\n# TYPE a counter\na_total{x=\"1\"} 2\n# TYPE b unknown\nb 1\n# EOF\n");
        let page = Page::parse(&text.unwrap()).unwrap();
        assert_eq!(page.family("a_total").unwrap().kind, Some(Kind::Counter));
        assert_eq!(page.value("a_total", &[("x", "1")]), 2.0);
        assert_eq!(page.families.len(), 2);
        assert!(as_text("a 1\n").is_err() && as_text("# HELP a A.\n# EOF\n").is_err());
    }
}
