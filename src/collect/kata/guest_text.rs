//! A guest's facts out of Prometheus text: a kata-agent's `GetMetrics`, or a shim's `/metrics`, in one pass.
//!
//! The text is fed in pieces as they arrive and none of it is kept: a sample goes straight to its place in a
//! [`Guest`], names of interfaces, disks and mounts are the only allocations. Any way to cut the bytes gives the same
//! result. The guest is not trusted: lines, samples, names and the number of devices are bounded, and what is not
//! understood is counted and skipped.
//!
//! ```text
//! kata_guest_cpu_time{cpu="total",item="user"} 3940                       milliseconds
//! kata_guest_meminfo{item="mem_total"} 4.91552768e+08                     bytes; a Go shim prints floats this way
//! kata_guest_netdev_stat{interface="eth0",item="sent_bytes"} 866
//! kata_guest_diskstat{disk="vda",item="sectors_read"} 8832                512 bytes each
//! ```
//! Agents before 2.5.0 gave CPU time in clock ticks. Nothing in the text tells; they are not supported.

mod facts;
mod line;
mod number;
mod table;
#[cfg(test)]
mod tests;

use std::collections::BTreeMap;

use crate::model::guest::Guest;

use facts::Facts;

/// A line longer than this is skipped. The longest real ones carry a mount point: well below 1 KiB.
pub const MAX_LINE_BYTES: usize = 8 << 10;

/// Lines looked at, comments included; the rest of the text is ignored. A guest with 128 vCPUs and 64 disks has 3 000.
pub const MAX_LINES: u64 = 20_000;

/// Interfaces, disks and filesystems kept, each.
pub const MAX_DEVICES: usize = 128;

/// A guest's facts and how the reading went.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Parsed {
    /// The facts.
    pub guest: Guest,
    /// How the reading went.
    pub report: Report,
}

/// How the reading of one text went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that are neither blank nor comments.
    pub samples: u64,
    /// Samples that could not be read: not UTF-8, not the format, or a number that cannot be what it stands for.
    pub malformed: u64,
    /// Lines longer than [`MAX_LINE_BYTES`].
    pub overlong: u64,
    /// Samples left out because there were more than [`MAX_DEVICES`] of their kind, or their name was too long.
    pub over_devices: u64,
    /// Interfaces and disks left out because a counter of theirs was missing.
    pub incomplete: u64,
    /// Bytes not looked at because there were more than [`MAX_LINES`] lines.
    pub ignored_bytes: u64,
}

impl Report {
    /// What was left out, by reason.
    pub fn dropped(&self) -> BTreeMap<&'static str, u64> {
        let Self { samples: _, malformed, overlong, over_devices, incomplete, ignored_bytes } = *self;
        let reasons = [
            ("malformed", malformed),
            ("overlong", overlong),
            ("too_many", over_devices),
            ("incomplete", incomplete),
            ("beyond_last_line", u64::from(ignored_bytes > 0)),
        ];
        reasons.into_iter().filter(|(_, count)| *count > 0).collect()
    }

    /// Everything in the text was understood.
    pub fn is_clean(&self) -> bool {
        let Self { samples: _, malformed, overlong, over_devices, incomplete, ignored_bytes } = *self;
        malformed + overlong + over_devices + incomplete + ignored_bytes == 0
    }
}

/// Reads a text piece by piece.
#[derive(Debug, Default)]
pub struct Parser {
    facts: Facts,
    report: Report,
    lines: u64,
    /// The beginning of a line whose end has not arrived yet.
    carry: Vec<u8>,
    /// That line is too long already; its rest is skipped.
    overlong: bool,
}

impl Parser {
    /// A parser that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next piece.
    pub fn feed(&mut self, mut piece: &[u8]) {
        if self.overlong || !self.carry.is_empty() {
            let Some(end) = line::find(b'\n', piece) else { return self.keep(piece) };
            self.keep(&piece[..end]);
            self.end_kept_line();
            piece = &piece[end + 1..];
        }
        while self.lines < MAX_LINES {
            let Some(end) = line::find(b'\n', piece) else { return self.keep(piece) };
            self.whole_line(&piece[..end]);
            piece = &piece[end + 1..];
        }
        self.report.ignored_bytes += piece.len() as u64;
    }

    /// The facts, when there is no more to feed. A last line without its line feed is not believed: it may have been
    /// cut in the middle of its number.
    pub fn finish(mut self) -> Parsed {
        if self.overlong {
            self.report.overlong += 1;
        } else if self.carry.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'#') {
            self.report.samples += 1;
            self.report.malformed += 1;
        }
        let Self { facts, mut report, .. } = self;
        let guest = facts.finish(&mut report);
        Parsed { guest, report }
    }

    /// Reads a whole text.
    pub fn parse(text: &[u8]) -> Parsed {
        let mut parser = Self::new();
        parser.feed(text);
        parser.finish()
    }

    fn keep(&mut self, part: &[u8]) {
        if self.lines >= MAX_LINES {
            self.report.ignored_bytes += part.len() as u64;
        } else if self.overlong || self.carry.len() + part.len() > MAX_LINE_BYTES {
            self.overlong = true;
            self.carry.clear();
        } else {
            self.carry.extend_from_slice(part);
        }
    }

    fn end_kept_line(&mut self) {
        if std::mem::take(&mut self.overlong) {
            self.lines += 1;
            self.report.overlong += 1;
            return;
        }
        let mut line = std::mem::take(&mut self.carry);
        self.whole_line(&line);
        line.clear();
        self.carry = line;
    }

    fn whole_line(&mut self, line: &[u8]) {
        self.lines += 1;
        if line.len() > MAX_LINE_BYTES {
            self.report.overlong += 1;
            return;
        }
        let line = line.trim_ascii();
        if line.first().is_none_or(|first| *first == b'#') {
            return;
        }
        self.report.samples += 1;
        if self.facts.take(line, &mut self.report).is_err() {
            self.report.malformed += 1;
        }
    }
}
