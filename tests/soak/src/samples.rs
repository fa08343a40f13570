//! What the agent holds and has used, at a moment: from /proc, so that it is asked nothing.

use std::fmt::Write;
use std::fs;

use anyhow::Context;

/// One moment. Memory in KiB, CPU time in seconds.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sample {
    /// Seconds since the soak began.
    pub at: f64,
    pub rss: f64,
    /// Memory of its own, and its share of what it shares with others.
    pub pss: f64,
    /// Heap and stacks.
    pub anonymous: f64,
    pub threads: f64,
    pub descriptors: f64,
    /// Descriptors by what they are open on.
    pub sockets: f64,
    pub cgroup_files: f64,
    pub proc_files: f64,
    pub others: f64,
    pub cpu: f64,
    /// What has happened so far.
    pub pods_removed: f64,
    pub scrapes: f64,
    /// Nobody was ill or lied, and nobody came or went, for a while.
    pub calm: bool,
}

/// The names of the columns, in the order of [`Sample::row`].
pub const COLUMNS: &str = "seconds,rss_kib,pss_kib,anonymous_kib,threads,descriptors,sockets,cgroup_files,proc_files,\
                           other_descriptors,cpu_seconds,pods_removed,scrapes,calm";

/// Ticks of a second in /proc: the same on every Linux that anybody has.
const TICKS: f64 = 100.0;

impl Sample {
    /// Looks at a process.
    pub fn of(pid: u32) -> anyhow::Result<Self> {
        let read = |file: &str| {
            let path = format!("/proc/{pid}/{file}");
            fs::read_to_string(&path).with_context(|| format!("read {path}"))
        };
        let (status, rollup, stat) = (read("status")?, read("smaps_rollup")?, read("stat")?);
        let mut sample = Self {
            rss: number(&status, "VmRSS:")?,
            anonymous: number(&status, "RssAnon:")?,
            threads: number(&status, "Threads:")?,
            pss: number(&rollup, "Pss:")?,
            cpu: ticks(&stat)? / TICKS,
            ..Self::default()
        };
        for entry in fs::read_dir(format!("/proc/{pid}/fd")).context("read the descriptors")?.flatten() {
            let Ok(target) = fs::read_link(entry.path()) else { continue };
            let target = target.to_string_lossy();
            sample.descriptors += 1.0;
            *match &*target {
                socket if socket.starts_with("socket:") => &mut sample.sockets,
                cgroup if cgroup.starts_with("/sys/fs/cgroup") => &mut sample.cgroup_files,
                file if file.starts_with("/proc") => &mut sample.proc_files,
                _ => &mut sample.others,
            } += 1.0;
        }
        Ok(sample)
    }

    /// A line of the table.
    pub fn row(&self) -> String {
        let Self { at, rss, pss, anonymous, threads, descriptors, sockets, cgroup_files, .. } = self;
        let Self { proc_files, others, cpu, pods_removed, scrapes, calm, .. } = self;
        let mut row = format!("{at:.1}");
        for value in [rss, pss, anonymous, threads, descriptors, sockets, cgroup_files, proc_files, others] {
            write!(row, ",{value:.0}").ok();
        }
        write!(row, ",{cpu:.2},{pods_removed:.0},{scrapes:.0},{}", u8::from(*calm)).ok();
        row
    }
}

/// The number after a key of `status` or `smaps_rollup`.
fn number(text: &str, key: &str) -> anyhow::Result<f64> {
    let line = text.lines().find_map(|line| line.strip_prefix(key)).with_context(|| format!("no {key}"))?;
    line.split_whitespace().next().and_then(|word| word.parse().ok()).with_context(|| format!("{key} is no number"))
}

/// User and system time of `stat`, whose second field, in brackets, may have anything in it.
fn ticks(stat: &str) -> anyhow::Result<f64> {
    let (_, fields) = stat.rsplit_once(')').context("no name in stat")?;
    let times = fields.split_whitespace().skip(11).take(2).map(str::parse::<f64>);
    Ok(times.collect::<Result<Vec<f64>, _>>()?.iter().sum())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_holds_something() {
        let socket = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let sample = Sample::of(std::process::id()).unwrap();
        assert!(sample.rss > 100.0 && sample.pss <= sample.rss && sample.anonymous <= sample.rss, "{sample:?}");
        let Sample { sockets, cgroup_files, proc_files, others, descriptors, .. } = sample;
        assert_eq!(sockets + cgroup_files + proc_files + others, descriptors);
        assert!(sockets >= 1.0 && sample.threads >= 1.0);
        assert_eq!(sample.row().split(',').count(), COLUMNS.split(',').count());
        drop(socket);
    }

    #[test]
    fn time_is_read_behind_a_name_with_brackets() {
        let stat = "7 (a) b) S 1 2 3 4 5 6 7 8 9 10 150 50 0 0";
        assert_eq!(ticks(stat).unwrap(), 200.0);
    }
}
