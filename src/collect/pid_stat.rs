//! Every process of the node by its `/proc/<pid>/stat`: one pass, and what is wanted of the file.

use std::fs::File;
use std::io;
use std::mem::MaybeUninit;
use std::os::unix::fs::FileExt;
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat};

use crate::collect::cgroup::parse::{self, ParseError};

/// Room for the names of some three hundred processes.
const ENTRIES: usize = 8 << 10;

/// All that is wanted of a `stat`, and in practice all of it: 300 to 400 bytes.
const STAT: usize = 1024;

/// What is wanted of `/proc/<pid>/stat`.
///
/// ```text
/// 228 (cloud-hyperviso) S 219 218 0 0 -1 4194560 45626 0 171 0 1949 1271 0 0 20 0 9 0 2887 1243303936 …
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Stat<'a> {
    /// Name, cut to 15 characters for user processes. It may hold any character, parentheses and blanks among them.
    pub comm: &'a [u8],
    /// `Z` for a process that has ended and was not waited for.
    pub state: u8,
    /// Parent's pid.
    pub parent: u32,
    /// `utime` and `stime` of all threads, those that have ended included.
    pub ticks: u64,
    /// How many it has.
    pub threads: u64,
    /// When it was started, in ticks since boot: with the pid, who it is.
    pub start: u64,
    /// Memory that is there, in pages. 0 for what has no memory of its own: the kernel's threads, and a zombie.
    pub resident_pages: Option<u64>,
}

impl<'a> Stat<'a> {
    /// Parses the file.
    pub fn parse(content: &'a [u8]) -> Result<Self, ParseError> {
        Self::find(content).ok_or(ParseError("stat"))
    }

    fn find(content: &'a [u8]) -> Option<Self> {
        let open = content.iter().position(|byte| *byte == b'(')?;
        let close = content.iter().rposition(|byte| *byte == b')')?;
        let comm = content.get(open + 1..close)?;
        let mut fields = content.get(close + 1..)?.split(|byte| byte.is_ascii_whitespace()).filter(|f| !f.is_empty());
        // Numbered as in proc(5): what follows the name is field 3.
        let state = *fields.next()?.first()?;
        let parent = parse::number(fields.next()?)?;
        let mut fields = fields.skip(14 - 5);
        let user = parse::number(fields.next()?)?;
        let system = parse::number(fields.next()?)?;
        let mut fields = fields.skip(20 - 16);
        let threads = parse::number(fields.next()?)?;
        let start = parse::number(fields.nth(1)?)?;
        let resident_pages = fields.nth(1).and_then(parse::number);
        let parent = u32::try_from(parent).ok()?;
        Some(Self { comm, state, parent, ticks: user.checked_add(system)?, threads, start, resident_pages })
    }

    /// Whether the process has ended: nobody has waited for it yet.
    pub const fn has_ended(&self) -> bool {
        matches!(self.state, b'Z' | b'X')
    }
}

/// Reads the `stat` of every process below `proc`, about 5 µs each. One that ends meanwhile, or that this process may not
/// see, is left out.
pub fn each(proc: &Path, mut visit: impl FnMut(u32, &Stat<'_>)) -> io::Result<()> {
    let reading = OFlags::RDONLY | OFlags::CLOEXEC;
    let directory = openat(CWD, proc, reading | OFlags::DIRECTORY, Mode::empty())?;
    let mut entries = [MaybeUninit::uninit(); ENTRIES];
    let mut listing = RawDir::new(&directory, &mut entries);
    let mut buffer = [0; STAT];
    while let Some(entry) = listing.next() {
        let entry = entry?;
        let Ok(name) = entry.file_name().to_str() else { continue };
        let Ok(pid) = name.parse() else { continue };
        let Ok(file) = openat(&directory, format!("{name}/stat"), reading, Mode::empty()) else { continue };
        let Ok(length) = File::from(file).read_at(&mut buffer, 0) else { continue };
        if let Ok(stat) = Stat::parse(buffer.get(..length).unwrap_or_default()) {
            visit(pid, &stat);
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    const STAT: &[u8] = b"228 (cloud-hyperviso) S 219 218 0 0 -1 4194560 45626 0 171 0 1949 1271 0 0 20 0 9 0 2887 1243303936 48227 18446744073709551615\n";

    #[test]
    fn stat_fields_are_found_behind_any_name() {
        let stat = Stat::parse(STAT).unwrap();
        // 1949 + 1271 = 3220 ticks
        let expected = Stat {
            comm: b"cloud-hyperviso",
            state: b'S',
            parent: 219,
            ticks: 3220,
            threads: 9,
            start: 2887,
            resident_pages: Some(48_227),
        };
        assert_eq!(stat, expected);
        let odd = b"7 (a) Z 1 (b (c)) R 6 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 5 0 99 0";
        let stat = Stat::parse(odd).unwrap();
        assert_eq!(
            (stat.comm, stat.parent, stat.ticks, stat.threads, stat.start),
            (&b"a) Z 1 (b (c)"[..], 6, 3, 5, 99)
        );
        for bad in [&b""[..], b"1", b"1 (x", b"1 x) S 1", b")(", b"1 (x) S", b"1 (x) S -1 0 0 0", &STAT[..80]] {
            assert_eq!(Stat::parse(bad), Err(ParseError("stat")), "{bad:?}");
        }
    }

    #[test]
    fn every_process_is_visited_once_and_with_its_own_name() {
        let mut seen = std::collections::HashMap::new();
        each(Path::new("/proc"), |pid, stat| {
            assert!(seen.insert(pid, (stat.comm.to_vec(), stat.resident_pages)).is_none(), "{pid} twice");
        })
        .unwrap();
        let comm = std::fs::read("/proc/self/comm").unwrap();
        let (name, resident) = &seen[&std::process::id()];
        assert_eq!(name, comm.strip_suffix(b"\n").unwrap());
        assert!(resident.is_some_and(|pages| pages > 0));
        assert!(seen.contains_key(&1) && each(Path::new("/nowhere"), |_, _| ()).is_err());
    }

    proptest::proptest! {
        #[test]
        fn any_bytes_give_facts_or_an_error(content in proptest::collection::vec(proptest::num::u8::ANY, 0..200)) {
            let _ = Stat::parse(&content);
        }

        #[test]
        fn any_name_is_a_name(comm in "[^\u{0}\n]{0,15}") {
            let line = format!("7 ({comm}) R 6 0 0 0 0 0 0 0 0 0 1 2 3 4 20 0 5 0 99 0\n");
            let stat = Stat::parse(line.as_bytes()).unwrap();
            proptest::prop_assert_eq!((stat.comm, stat.start), (comm.as_bytes(), 99));
        }
    }
}
