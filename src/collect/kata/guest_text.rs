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
mod table;
#[cfg(test)]
mod tests;

use crate::collect::kata::exposition::{Lines, Report};
use crate::model::guest::Guest;

use facts::Facts;

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

/// Reads a text piece by piece.
#[derive(Debug, Default)]
pub struct Parser {
    facts: Facts,
    lines: Lines,
}

impl Parser {
    /// A parser that has read nothing.
    pub fn new() -> Self {
        Self::default()
    }

    /// Reads the next piece.
    pub fn feed(&mut self, piece: &[u8]) {
        let Self { facts, lines } = self;
        lines.feed(piece, |line, report| facts.take(line, report));
    }

    /// The facts, when there is no more to feed.
    pub fn finish(self) -> Parsed {
        let Self { facts, lines } = self;
        let mut report = lines.finish();
        let guest = facts.finish(&mut report);
        Parsed { guest, report }
    }

    /// Reads a whole text.
    pub fn parse(text: &[u8]) -> Parsed {
        let mut parser = Self::new();
        parser.feed(text);
        parser.finish()
    }
}
