//! Reading Prometheus text that nobody vouches for: pieces to lines, lines to samples, digits to numbers. Pure.
//!
//! The text is fed as it arrives and none of it is kept but the beginning of a line. Lines and their length are bounded,
//! and what cannot be read is counted and skipped. Any way to cut the bytes gives the same result.

mod line;
mod number;

use std::collections::BTreeMap;

use memchr::memchr;

pub use line::{Labels, Malformed, Quoted, Sample, each_label};
pub use number::{integer, measure};

/// A line longer than this is skipped. The longest real ones carry a mount point: well below 1 KiB.
pub const MAX_LINE_BYTES: usize = 8 << 10;

/// Lines looked at, comments included; the rest of the text is ignored. A guest with 128 vCPUs and 64 disks has 3 000.
pub const MAX_LINES: u64 = 20_000;

/// How the reading of one text went.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Report {
    /// Lines that are neither blank nor comments.
    pub samples: u64,
    /// Samples that could not be read: not UTF-8, not the format, or a number that cannot be what it stands for.
    pub malformed: u64,
    /// Lines longer than [`MAX_LINE_BYTES`].
    pub overlong: u64,
    /// Samples left out because there were too many of their kind, or their name was too long.
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

/// Cuts a text into lines, piece by piece.
#[derive(Debug, Default)]
pub struct Lines {
    report: Report,
    lines: u64,
    /// The beginning of a line whose end has not arrived yet.
    carry: Vec<u8>,
    /// That line is too long already; its rest is skipped.
    overlong: bool,
}

impl Lines {
    /// Reads the next piece. `take` gets every line that is neither blank nor a comment, without blanks around it.
    pub fn feed(&mut self, mut piece: &[u8], mut take: impl FnMut(&[u8], &mut Report) -> Result<(), Malformed>) {
        if self.overlong || !self.carry.is_empty() {
            let Some(end) = memchr(b'\n', piece) else { return self.keep(piece) };
            self.keep(&piece[..end]);
            self.end_kept_line(&mut take);
            piece = &piece[end + 1..];
        }
        while self.lines < MAX_LINES {
            let Some(end) = memchr(b'\n', piece) else { return self.keep(piece) };
            self.whole_line(&piece[..end], &mut take);
            piece = &piece[end + 1..];
        }
        self.report.ignored_bytes += piece.len() as u64;
    }

    /// How it went, when there is no more to feed. A last line without its line feed is not believed: it may have been
    /// cut in the middle of its number.
    pub fn finish(mut self) -> Report {
        if self.overlong {
            self.report.overlong += 1;
        } else if self.carry.iter().find(|byte| !byte.is_ascii_whitespace()).is_some_and(|first| *first != b'#') {
            self.report.samples += 1;
            self.report.malformed += 1;
        }
        self.report
    }

    /// Bytes held for the beginning of a line.
    #[cfg(test)]
    pub const fn held_bytes(&self) -> usize {
        self.carry.capacity()
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

    fn end_kept_line(&mut self, take: &mut impl FnMut(&[u8], &mut Report) -> Result<(), Malformed>) {
        if std::mem::take(&mut self.overlong) {
            self.lines += 1;
            self.report.overlong += 1;
            return;
        }
        let mut line = std::mem::take(&mut self.carry);
        self.whole_line(&line, take);
        line.clear();
        self.carry = line;
    }

    fn whole_line(&mut self, line: &[u8], take: &mut impl FnMut(&[u8], &mut Report) -> Result<(), Malformed>) {
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
        if take(line, &mut self.report).is_err() {
            self.report.malformed += 1;
        }
    }
}
