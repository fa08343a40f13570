//! The three lines of `/proc/meminfo` that are served. Not by the `procfs` crate, whose parser panics on some content
//! that is not text.
//!
//! ```text
//! MemTotal:       16777216 kB
//! ```

use crate::collect::cgroup::parse::{keyed, number};
use crate::model::units::Bytes;

/// Memory and swap of the node; `None` for a line that is absent or malformed.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Meminfo {
    /// `MemTotal`
    pub total: Option<Bytes>,
    /// `SwapTotal`
    pub swap_total: Option<Bytes>,
    /// `SwapFree`
    pub swap_free: Option<Bytes>,
}

impl Meminfo {
    /// Parses the file.
    pub fn parse(content: &[u8]) -> Self {
        let mut meminfo = Self::default();
        for (key, value) in keyed(content) {
            let kib = value.strip_suffix(b" kB").and_then(number).map(Bytes::from_kib);
            match key {
                b"MemTotal:" => meminfo.total = kib,
                b"SwapTotal:" => meminfo.swap_total = kib,
                b"SwapFree:" => meminfo.swap_free = kib,
                _ => {}
            }
        }
        meminfo
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn kibibytes_become_bytes_and_nonsense_nothing() {
        let text =
            b"MemTotal:       16777216 kB\nMemFree: 1 kB\nSwapTotal:             0 kB\nSwapFree:  x kB\n\xff\xfe\n";
        let expected = Meminfo { total: Some(Bytes(17_179_869_184)), swap_total: Some(Bytes(0)), swap_free: None };
        assert_eq!(Meminfo::parse(text), expected);
    }
}
