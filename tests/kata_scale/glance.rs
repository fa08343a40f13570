//! A quick look at a page: which pods it tells of, whether what it says of each is what it said before, and who is up.
//! Parsing four megabytes strictly takes longer than serving them; a page that says of a pod, line by line, what a
//! parsed page said needs no second look.

use std::collections::{BTreeMap, HashMap};
use std::hash::{DefaultHasher, Hash, Hasher};

/// What a page says, in short.
#[derive(Debug, Default)]
pub struct Glance {
    /// How many lines there are about a pod, and their hash.
    pub pods: BTreeMap<String, (usize, u64)>,
    /// `kata_pulse_sandbox_up` by sandbox id.
    pub up: HashMap<String, bool>,
}

/// Families that say something new in every scrape, or that are there from the second after the start.
const RESTLESS: [&str; 5] = [
    "container_last_seen{",
    "container_oom_events_total{",
    "kata_pulse_container_oom_kills_total{",
    "kata_pulse_sandbox_scrape_duration_seconds{",
    "kata_pulse_sandbox_scrape_skipped{",
];

impl Glance {
    /// Looks at a page.
    pub fn at(text: &str) -> Self {
        let mut glance = Self::default();
        let mut hashers: BTreeMap<&str, (usize, DefaultHasher)> = BTreeMap::new();
        for line in text.lines() {
            // Names of simulated pods have nothing in them that would have to be escaped.
            let Some(pod) = label(line, "pod").filter(|pod| !pod.is_empty()) else { continue };
            if RESTLESS.iter().any(|family| line.starts_with(family)) {
                continue;
            }
            let (lines, hasher) = hashers.entry(pod).or_default();
            *lines += 1;
            line.hash(hasher);
            if let (true, Some(id)) = (line.starts_with("kata_pulse_sandbox_up{"), label(line, "sandbox_id")) {
                glance.up.insert(id.to_owned(), line.ends_with(" 1"));
            }
        }
        let finished =
            |(pod, (lines, hasher)): (&str, (usize, DefaultHasher))| (pod.to_owned(), (lines, hasher.finish()));
        glance.pods = hashers.into_iter().map(finished).collect();
        glance
    }
}

/// The value of a label whose name is not the end of another's.
fn label<'a>(line: &'a str, name: &str) -> Option<&'a str> {
    let quoted = line.match_indices(name).find_map(|(at, _)| {
        let before = line[..at].ends_with(['{', ',']);
        before.then(|| line[at + name.len()..].strip_prefix("=\"")).flatten()
    })?;
    quoted.split('"').next()
}
