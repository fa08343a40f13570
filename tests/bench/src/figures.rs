//! What a run has measured, as it is kept for the report.

use std::time::Duration;

use serde::{Deserialize, Serialize};

use crate::callgrind::Counted;

/// A whole run.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Figures {
    /// Where and how it was made.
    pub machine: Machine,
    /// Loads, each of them scraped over and over again.
    pub loads: Vec<Load>,
    /// The agent that nobody asks.
    pub idle: Idle,
    /// Milliseconds from start to `/readyz` 200.
    pub ready: Spread,
    /// Milliseconds until a sandbox is listed whose directory appears.
    pub visible: Spread,
    /// Instructions and allocations.
    pub counted: Vec<CountedLoad>,
    /// Collectors one by one, on this host with 100 containers and their volumes.
    pub collectors: Vec<Beside>,
    /// The pass over their `emptyDir`s.
    pub walk: Walk,
    /// This host alone, by the `node` collector and by node_exporter.
    pub host: Vec<Beside>,
    /// Bytes per second, by criterion.
    pub micro: Vec<Micro>,
}

/// Where and how a run was made.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Machine {
    /// `2026-11-29`
    pub date: String,
    /// Commit, with `-dirty` when something was not committed.
    pub commit: String,
    /// The command that made it.
    pub command: String,
    /// Model and count.
    pub cpus: String,
    /// Size of the memory.
    pub memory: String,
    /// Version of the kernel.
    pub kernel: String,
    /// Version of cgroups by which containers are measured.
    pub cgroup: String,
    /// `rustc 1.95.0 (…)`
    pub compiler: String,
    /// Load average at the beginning and at the end.
    pub busy: [String; 2],
}

/// The median and how far it goes up.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Spread {
    /// Half of them are below.
    pub p50: f64,
    /// Of a hundred, 99 are not above.
    pub p99: f64,
    /// How many there were.
    pub count: usize,
}

impl Spread {
    /// Of these numbers, by nearest rank.
    pub fn of(mut numbers: Vec<f64>) -> Self {
        numbers.sort_by(f64::total_cmp);
        let count = numbers.len();
        let rank = |percent: usize| numbers.get((count * percent).div_ceil(100).saturating_sub(1)).copied();
        Self { p50: rank(50).unwrap_or_default(), p99: rank(99).unwrap_or_default(), count }
    }

    /// Of these times, in milliseconds.
    pub fn of_times(times: impl IntoIterator<Item = Duration>) -> Self {
        Self::of(times.into_iter().map(|time| time.as_secs_f64() * 1e3).collect())
    }
}

/// What is on the node.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub enum Kind {
    /// Kata sandboxes, told of by agent and VMM.
    Kata,
    /// The same, asked for with gzip as Prometheus does.
    Compressed,
    /// Kata sandboxes, told of by their shims: the fallback.
    Fallback,
    /// The shims' own metrics: `/metrics/kata`.
    PassThrough,
    /// Containers of this host.
    Runc,
}

/// One load and what a scrape of it costs. Times in milliseconds.
#[derive(Debug, Serialize, Deserialize)]
pub struct Load {
    /// What is on the node.
    pub kind: Kind,
    /// Kata sandboxes or pods.
    pub sandboxes: usize,
    /// Containers, pause containers not counted.
    pub containers: usize,
    /// Files the agent holds open.
    pub files: usize,
    /// Requests of one scrape.
    pub requests: usize,
    /// Bytes of a body, and of what the floor reads for it.
    pub body: usize,
    /// See above.
    pub read: u64,
    /// CPU of the agent, all threads, for collect, encode and HTTP.
    pub cpu: Spread,
    /// From the request to the last byte.
    pub wall: Spread,
    /// The floor that holds files and connections.
    pub held: Floor,
    /// The floor that opens and connects.
    pub anew: Floor,
    /// kB resident after the last scrape, and at most.
    pub resident: u64,
    /// See above.
    pub peak: u64,
}

/// What the floor took.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Floor {
    /// CPU.
    pub cpu: Spread,
    /// On the wall.
    pub wall: Spread,
}

impl Load {
    /// How many times the floor's CPU the agent takes, in the median.
    pub fn ratio(&self) -> f64 {
        self.cpu.p50 / self.held.cpu.p50
    }
}

/// The agent on a node without sandboxes that nobody asks.
#[derive(Debug, Default, Serialize, Deserialize)]
pub struct Idle {
    /// kB resident.
    pub resident: u64,
    /// How long it was watched, in seconds.
    pub seconds: f64,
    /// How often threads went to sleep, by name.
    pub sleeps: Vec<(String, u64)>,
    /// Nanoseconds of CPU.
    pub cpu: u64,
}

/// A program that was scraped in turn with others.
#[derive(Debug, Serialize, Deserialize)]
pub struct Beside {
    /// What tells it from the others.
    pub name: String,
    /// Samples in a body, where it is text.
    pub samples: Option<usize>,
    /// Bytes of a body.
    pub body: usize,
    /// Milliseconds of CPU, all threads, of one scrape.
    pub cpu: Spread,
    /// The same of all there was, divided by the scrapes; `None` if a thread has ended.
    pub mean: Option<f64>,
    /// Milliseconds from the request to the last byte.
    pub wall: Spread,
    /// kB resident after the last scrape, and at most.
    pub resident: u64,
    /// See above.
    pub peak: u64,
}

/// A pass over all `emptyDir`s, as the agent tells it.
#[derive(Clone, Copy, Debug, Default, Serialize, Deserialize)]
pub struct Walk {
    /// Entries looked at.
    pub entries: f64,
    /// How long it took.
    pub seconds: f64,
}

/// Instructions and allocations of one scrape.
#[derive(Debug, Serialize, Deserialize)]
pub struct CountedLoad {
    /// What is on the node.
    pub kind: Kind,
    /// How many sandboxes or containers.
    pub count: usize,
    /// Of one scrape.
    pub of: Counted,
}

/// One micro-benchmark.
#[derive(Debug, Serialize, Deserialize)]
pub struct Micro {
    /// `parse/memory.stat v2`
    pub name: String,
    /// Bytes per call.
    pub bytes: u64,
    /// Nanoseconds per call.
    pub nanos: f64,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn quantiles_are_of_the_nearest_rank() {
        let spread = Spread::of((1..=100).rev().map(f64::from).collect());
        assert_eq!((spread.p50, spread.p99, spread.count), (50.0, 99.0, 100));
        assert_eq!(Spread::of(vec![7.0]).p99, 7.0);
        assert_eq!(Spread::of(vec![3.0, 1.0, 2.0]).p50, 2.0);
    }
}
