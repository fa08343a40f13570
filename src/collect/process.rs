//! The `process` collector: the open-file limit of each row's first process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use crate::collect::cgroup::parse::number;
use crate::collect::procs::Procs;
use crate::collect::{CollectError, Collector, Draft, Roots};
use crate::model::inventory::{Inventory, Kind, Subject};
use crate::model::units::Limit;

/// Limits of a running process change almost never.
const INTERVAL: Duration = Duration::from_secs(60);

/// Reads `/proc/<pid>/limits`.
#[derive(Debug)]
pub struct Processes {
    procs: Procs,
    known: HashMap<String, (Instant, Option<Limit>)>,
}

impl Processes {
    /// A collector that has read nothing yet.
    pub fn new(roots: Arc<Roots>) -> Self {
        Self { procs: Procs::new(roots), known: HashMap::new() }
    }

    /// The process that stands for a row: 1 for the node, else the first of its cgroup.
    fn first_of(&mut self, subject: &Subject) -> Option<u32> {
        match subject.kind {
            Kind::Root => Some(1),
            Kind::Sandbox | Kind::Container => self.procs.of(subject.cgroup.as_ref()?.as_str()).first().copied(),
            Kind::Group | Kind::Pod => None,
        }
    }

    fn max_open_files(&mut self, subject: &Subject) -> Option<Limit> {
        let pid = self.first_of(subject)?;
        let limits = std::fs::read(self.procs.proc().join(pid.to_string()).join("limits")).ok()?;
        // Meanwhile the process may have ended, and its pid may have been another's.
        if let (true, Some(cgroup)) = (pid != 1, &subject.cgroup)
            && !self.procs.holds(cgroup.as_str(), pid)
        {
            return None;
        }
        max_open_files(&limits)
    }
}

/// The soft limit of open files in `/proc/<pid>/limits`. Not by the `procfs` crate, whose parser panics on an empty file.
///
/// ```text
/// Max open files            1024                 524288               files
/// ```
pub fn max_open_files(content: &[u8]) -> Option<Limit> {
    let mut lines = content.split_inclusive(|byte| *byte == b'\n').filter_map(|line| line.strip_suffix(b"\n"));
    let values = lines.find_map(|line| line.strip_prefix(b"Max open files"))?;
    match values.split(u8::is_ascii_whitespace).find(|word| !word.is_empty())? {
        b"unlimited" => Some(Limit::Max),
        files => number(files).map(Limit::At),
    }
}

impl Collector for Processes {
    fn name(&self) -> &'static str {
        "process"
    }

    fn collect(&mut self, draft: &mut Draft) -> Result<(), CollectError> {
        let now = Instant::now();
        for row in draft.rows.iter_mut().filter(|row| !row.gone) {
            if matches!(row.subject.kind, Kind::Group | Kind::Pod) {
                continue;
            }
            let fresh = self
                .known
                .get(row.subject.key())
                .filter(|(read, limit)| limit.is_some() && now.duration_since(*read) < INTERVAL);
            row.usage.max_open_files = match fresh {
                Some((_, limit)) => *limit,
                None => {
                    let limit = self.max_open_files(&row.subject);
                    self.known.insert(row.subject.key().to_owned(), (now, limit));
                    limit
                }
            };
        }
        Ok(())
    }

    fn forget(&mut self, inventory: &Inventory) {
        let live: std::collections::HashSet<&str> = inventory.subjects.iter().map(|subject| subject.key()).collect();
        self.known.retain(|key, _| live.contains(key.as_str()));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_soft_limit_or_none() {
        let line = |values: &str| {
            format!("Limit  Soft Limit\nMax processes  63000  63000  processes\nMax open files {values}")
        };
        let parse = |values: &str| max_open_files(line(values).as_bytes());
        assert_eq!(parse("           1024                 524288               files     \n"), Some(Limit::At(1024)));
        assert_eq!(parse(" unlimited  unlimited  files\n"), Some(Limit::Max));
        for malformed in ["", "\n", " x  1  files\n", " 10", " -1 2 files\n"] {
            assert_eq!(parse(malformed), None, "{malformed:?}");
        }
        assert_eq!(max_open_files(b""), None);
        assert_eq!(max_open_files(&[0xff; 4096]), None);
    }
}
