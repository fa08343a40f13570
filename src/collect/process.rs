//! The `process` collector: the open-file limit of each row's first process.

use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, Instant};

use procfs::FromRead;
use procfs::process::{LimitValue, Limits};

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
        let limits = Limits::from_file(self.procs.proc().join(pid.to_string()).join("limits")).ok()?;
        Some(match limits.max_open_files.soft_limit {
            LimitValue::Unlimited => Limit::Max,
            LimitValue::Value(files) => Limit::At(files),
        })
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
