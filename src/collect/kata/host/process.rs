//! One component of a sandbox: the processes that are it, and their sum.

use std::path::PathBuf;

use super::HostReader;
use super::parse::{Io, Status};
use super::table::Identity;
use crate::collect::held::HeldFile;
use crate::collect::pid_stat::Stat;
use crate::model::host_side::ProcessUse;
use crate::model::units::{Bytes, Seconds};
use crate::open_fds;

/// Descriptors counted one by one at most, on kernels that do not tell their number.
const MAX_COUNTED_FDS: usize = 4096;

/// Processes that are counted together. What one of them has used stays in the sum when it ends: the counter of a
/// component does not fall while the component lives.
#[derive(Debug, Default)]
pub(super) struct Component {
    members: Vec<Member>,
    departed: Counters,
}

/// Cumulative counters of a process.
#[derive(Clone, Copy, Debug, Default)]
struct Counters {
    ticks: u64,
    io: Option<Io>,
}

/// A process and the files held open of it.
#[derive(Debug)]
struct Member {
    identity: Identity,
    stat: HeldFile,
    status: HeldFile,
    io: HeldFile,
    last: Counters,
}

/// The process has ended.
struct Ended;

impl Component {
    /// Adds processes that are not in it yet.
    pub(super) fn adopt(&mut self, found: impl IntoIterator<Item = Identity>) {
        for identity in found {
            if self.members.iter().all(|member| member.identity != identity) {
                self.members.push(Member {
                    identity,
                    stat: HeldFile::default(),
                    status: HeldFile::default(),
                    io: HeldFile::default(),
                    last: Counters::default(),
                });
            }
        }
    }

    /// Some process of it was there when last read.
    pub(super) fn is_alive(&self) -> bool {
        !self.members.is_empty()
    }

    /// The process that stands for it.
    pub(super) fn first(&self) -> Option<u32> {
        self.pids().next()
    }

    /// Its processes.
    pub(super) fn pids(&self) -> impl Iterator<Item = u32> {
        self.members.iter().map(|member| member.identity.pid)
    }

    /// Reads all processes; `None` when there is none (left). A value that one of them did not give is absent.
    pub(super) fn read(&mut self, host: &mut HostReader) -> Option<ProcessUse> {
        let mut sum: Option<ProcessUse> = None;
        let mut ticks = Some(self.departed.ticks);
        let mut departed_io = self.departed.io;
        self.members.retain_mut(|member| match member.read(host) {
            Ok((member_use, member_ticks)) => {
                ticks = sum_of(ticks, member_ticks);
                sum = Some(match &sum {
                    None => member_use,
                    Some(others) => add(others, &member_use),
                });
                true
            }
            Err(Ended) => {
                let Counters { ticks: last, io } = member.last;
                self.departed.ticks += last;
                ticks = sum_of(ticks, Some(last));
                departed_io = match (departed_io, io) {
                    (Some(one), Some(other)) => {
                        Some(Io { read: one.read + other.read, written: one.written + other.written })
                    }
                    (one, other) => one.or(other),
                };
                false
            }
        });
        self.departed.io = departed_io;
        let mut sum = sum?;
        sum.cpu = ticks.map(Seconds::from_ticks);
        if let Some(Io { read, written }) = departed_io {
            sum.read_bytes = sum_bytes(sum.read_bytes, Some(Bytes(read)));
            sum.written_bytes = sum_bytes(sum.written_bytes, Some(Bytes(written)));
        }
        Some(sum)
    }
}

fn sum_of(one: Option<u64>, other: Option<u64>) -> Option<u64> {
    one?.checked_add(other?)
}

fn sum_bytes(one: Option<Bytes>, other: Option<Bytes>) -> Option<Bytes> {
    sum_of(one.map(|bytes| bytes.0), other.map(|bytes| bytes.0)).map(Bytes)
}

fn add(one: &ProcessUse, other: &ProcessUse) -> ProcessUse {
    ProcessUse {
        // Set by the caller, from ticks.
        cpu: None,
        resident: sum_bytes(one.resident, other.resident),
        resident_anon: sum_bytes(one.resident_anon, other.resident_anon),
        resident_shmem: sum_bytes(one.resident_shmem, other.resident_shmem),
        threads: sum_of(one.threads, other.threads),
        open_fds: sum_of(one.open_fds, other.open_fds),
        read_bytes: sum_bytes(one.read_bytes, other.read_bytes),
        written_bytes: sum_bytes(one.written_bytes, other.written_bytes),
    }
}

impl Member {
    fn read(&mut self, host: &mut HostReader) -> Result<(ProcessUse, Option<u64>), Ended> {
        let Identity { pid, start } = self.identity;
        let dir: PathBuf = host.proc.join(pid.to_string());
        let stat = host.reader.parse(&mut self.stat, &dir, "stat", |content| {
            let stat = Stat::parse(content)?;
            Ok((stat.has_ended(), stat.ticks, stat.threads, stat.start))
        });
        let stat = match stat {
            Ok(Some((has_ended, ticks, threads, started))) => {
                if started != start {
                    return Err(Ended);
                }
                self.last.ticks = ticks;
                if has_ended {
                    return Err(Ended);
                }
                Some((ticks, threads))
            }
            Ok(None) if !dir.exists() => return Err(Ended),
            Ok(None) => None,
            Err(_) => return Err(Ended),
        };
        let status = match host.reader.parse(&mut self.status, &dir, "status", Status::parse) {
            Ok(status) => status.unwrap_or_default(),
            Err(_) => return Err(Ended),
        };
        let io = match host.lenient.parse(&mut self.io, &dir, "io", Io::parse) {
            Ok(io) => io,
            Err(_) => return Err(Ended),
        };
        match io {
            Some(_) => self.last.io = io,
            // Refused, and it will be again: the right to trace does not come later.
            None if self.last.io.is_none() => self.io = HeldFile::Absent,
            None => {}
        }
        let process = ProcessUse {
            cpu: None,
            resident: status.resident,
            resident_anon: status.anon,
            resident_shmem: status.shmem,
            threads: stat.map(|(_, threads)| threads),
            open_fds: open_fds::count(&dir.join("fd"), host.real_procfs, MAX_COUNTED_FDS),
            read_bytes: io.map(|io| Bytes(io.read)),
            written_bytes: io.map(|io| Bytes(io.written)),
        };
        Ok((process, stat.map(|(ticks, _)| ticks)))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_sum_lacks_what_one_part_lacks() {
        let one = ProcessUse { resident: Some(Bytes(5)), threads: Some(2), open_fds: Some(1), ..ProcessUse::default() };
        let other = ProcessUse { resident: Some(Bytes(7)), threads: Some(3), ..ProcessUse::default() };
        let sum = add(&one, &other);
        assert_eq!((sum.resident, sum.threads, sum.open_fds), (Some(Bytes(12)), Some(5), None));
    }
}
