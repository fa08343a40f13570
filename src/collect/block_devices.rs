//! Device numbers to names: cgroup files name block devices by number, dashboards match on `/dev/<name>`.

use std::collections::HashMap;
use std::path::PathBuf;
use std::time::{Duration, Instant};

use procfs::FromRead;

use crate::model::usage::DeviceNumber;

/// A number that the last look did not find is looked up again no sooner than this.
const RETRY: Duration = Duration::from_secs(30);

/// Names by number, from `/proc/diskstats`, which lists disks and partitions and needs no `/sys`.
#[derive(Debug)]
pub struct BlockDevices {
    proc: PathBuf,
    names: HashMap<DeviceNumber, String>,
    looked: Option<Instant>,
    /// Nothing was read at the last look: the next collection looks again.
    failed: bool,
}

impl BlockDevices {
    /// Knows nothing until first asked.
    pub fn new(proc: PathBuf) -> Self {
        Self { proc, names: HashMap::new(), looked: None, failed: false }
    }

    /// `/dev/<name>`, or blank when the node has no such device (any more). `now` is the same within a collection.
    pub fn name_of(&mut self, number: DeviceNumber, now: Instant) -> &str {
        if !self.names.contains_key(&number) && self.is_due(now) {
            self.looked = Some(now);
            self.look();
        }
        self.names.get(&number).map_or("", String::as_str)
    }

    fn is_due(&self, now: Instant) -> bool {
        let is_over = |looked| if self.failed { looked != now } else { now.duration_since(looked) >= RETRY };
        self.looked.is_none_or(is_over)
    }

    fn look(&mut self) {
        let stats = procfs::DiskStats::from_file(self.proc.join("diskstats")).map(|stats| stats.0).unwrap_or_default();
        self.failed = stats.is_empty();
        if self.failed {
            return;
        }
        let named = stats.into_iter().filter_map(|disk| {
            let number =
                DeviceNumber { major: u32::try_from(disk.major).ok()?, minor: u32::try_from(disk.minor).ok()? };
            Some((number, format!("/dev/{}", disk.name)))
        });
        self.names = named.collect();
    }
}
