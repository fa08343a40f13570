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
}

impl BlockDevices {
    /// Knows nothing until first asked.
    pub fn new(proc: PathBuf) -> Self {
        Self { proc, names: HashMap::new(), looked: None }
    }

    /// `/dev/<name>`, or blank when the node has no such device (any more).
    pub fn name_of(&mut self, number: DeviceNumber, now: Instant) -> &str {
        let due = self.looked.is_none_or(|looked| now.duration_since(looked) >= RETRY);
        if due && !self.names.contains_key(&number) {
            self.looked = Some(now);
            if let Ok(stats) = procfs::DiskStats::from_file(self.proc.join("diskstats")) {
                self.names = stats
                    .0
                    .into_iter()
                    .filter_map(|disk| {
                        let number = DeviceNumber {
                            major: u32::try_from(disk.major).ok()?,
                            minor: u32::try_from(disk.minor).ok()?,
                        };
                        Some((number, format!("/dev/{}", disk.name)))
                    })
                    .collect();
            }
        }
        self.names.get(&number).map_or("", String::as_str)
    }
}
