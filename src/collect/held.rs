//! Kernel files read again and again through descriptors that stay open.
//!
//! Opening a cgroup file costs about ten times as much as reading it, so a file that is read at every collection is
//! opened once and read with `pread` from offset 0. A kernel file regenerates its content at each such read. When the
//! cgroup is removed the descriptor answers ENODEV, which is also the cheapest way to learn of the removal.
//!
//! The number of held descriptors is bounded by a [`Budget`]; beyond it files are opened for each read.

use std::fs::File;
use std::io;
use std::os::unix::fs::FileExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

use crate::collect::cgroup::parse::ParseError;

/// A kernel file larger than this is cut off with an error: no real one comes near, and memory stays bounded.
const MAX_FILE_BYTES: usize = 4 << 20;

/// A read shorter than this is known to be the whole file, without a second read to see the end: the kernel fills at
/// least a page per read and stops early only before a record that no longer fits, and no record is this long.
const SURELY_WHOLE: usize = 2048;

/// The buffer's first size and growth: holds every common file.
const FIRST_BUFFER: usize = 16 << 10;

/// How many descriptors may be held, shared by all collectors.
#[derive(Debug)]
pub struct Budget {
    held: AtomicUsize,
    max: usize,
}

/// Most descriptors held, whatever the process may open.
const MAX_HELD: usize = 60_000;

/// Kept back before anything is held: the runtimes' own, the listeners, a few clients, and files opened for a moment.
const KEPT_BACK: usize = 56;

impl Budget {
    /// Half of what the process may open, its soft limit raised as far as it goes: the other half is for sockets.
    pub fn of_process() -> Arc<Self> {
        let limit = getrlimit(Resource::Nofile);
        let raised = Rlimit { current: limit.maximum, maximum: limit.maximum };
        let now = if setrlimit(Resource::Nofile, raised).is_ok() { raised } else { limit };
        Self::new(Self::share_of(now.current.and_then(|current| usize::try_from(current).ok())))
    }

    /// What may be held where so many may be open.
    fn share_of(limit: Option<usize>) -> usize {
        limit.map_or(MAX_HELD, |limit| (limit / 2).min(limit.saturating_sub(KEPT_BACK)).min(MAX_HELD))
    }

    /// At most `max` descriptors.
    pub fn new(max: usize) -> Arc<Self> {
        Arc::new(Self { held: AtomicUsize::new(0), max })
    }

    fn take(self: &Arc<Self>) -> Option<Lease> {
        let took =
            self.held.fetch_update(Ordering::Relaxed, Ordering::Relaxed, |held| (held < self.max).then_some(held + 1));
        took.is_ok().then(|| Lease(Arc::clone(self)))
    }

    /// How many may be held.
    pub fn max(&self) -> usize {
        self.max
    }

    /// Descriptors held now.
    pub fn held(&self) -> usize {
        self.held.load(Ordering::Relaxed)
    }
}

/// One descriptor's place in the budget, given back when dropped.
#[derive(Debug)]
struct Lease(Arc<Budget>);

impl Drop for Lease {
    fn drop(&mut self) {
        self.0.held.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A file that may be held open.
#[derive(Debug, Default)]
pub enum HeldFile {
    /// Not opened yet, or opened for each read because the budget is spent.
    #[default]
    Closed,
    /// Open.
    Open(Opened),
    /// The kernel does not offer this file here.
    Absent,
}

/// An open file and its place in the budget.
#[derive(Debug)]
pub struct Opened {
    file: File,
    _lease: Lease,
}

impl HeldFile {
    /// Forgets that the file was absent, so that the next read looks again.
    pub fn look_again(&mut self) {
        if matches!(self, Self::Absent) {
            *self = Self::Closed;
        }
    }
}

/// The cgroup or process behind a file is gone.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("vanished")]
pub struct Vanished;

/// Reads files into one buffer and notes what went wrong, for one collector.
#[derive(Debug)]
pub struct Reader {
    buffer: Vec<u8>,
    filled: usize,
    budget: Arc<Budget>,
    fault: Option<String>,
    faults: usize,
}

impl Reader {
    /// A reader with an empty buffer.
    pub fn new(budget: Arc<Budget>) -> Self {
        Self { buffer: vec![0; FIRST_BUFFER], filled: 0, budget, fault: None, faults: 0 }
    }

    /// The faults noted since the last call: the first one's text and how many more there were.
    pub fn take_fault(&mut self) -> Option<String> {
        let fault = self.fault.take()?;
        let more = std::mem::take(&mut self.faults) - 1;
        Some(if more == 0 { fault } else { format!("{fault} (and {more} more)") })
    }

    /// Notes a fault that costs one value, not the row.
    pub fn note(&mut self, path: &Path, problem: &dyn std::fmt::Display) {
        self.faults += 1;
        self.fault.get_or_insert_with(|| format!("{}: {problem}", path.display()));
    }

    /// Reads `dir/name` through `held` and parses it. `Ok(None)`: the kernel does not offer the file, or what it held
    /// could not be read or parsed, which is noted. `Err`: the directory is gone.
    pub fn parse<T>(
        &mut self,
        held: &mut HeldFile,
        dir: &Path,
        name: &str,
        parse: impl FnOnce(&[u8]) -> Result<T, ParseError>,
    ) -> Result<Option<T>, Vanished> {
        match self.fill(held, dir, name) {
            // A number that lacks its end is another number.
            Ok(true) if !ends_a_line(name, &self.buffer[..self.filled]) => {
                self.note(&dir.join(name), &"cut short");
                Ok(None)
            }
            Ok(true) => match parse(&self.buffer[..self.filled]) {
                Ok(fact) => Ok(Some(fact)),
                Err(error) => {
                    self.note(&dir.join(name), &error);
                    Ok(None)
                }
            },
            Ok(false) => Ok(None),
            Err(error) => match error.raw_os_error().map(rustix::io::Errno::from_raw_os_error) {
                Some(rustix::io::Errno::NODEV | rustix::io::Errno::SRCH) => Err(Vanished),
                // Pressure files of a kernel booted with psi=0 open but do not read.
                Some(rustix::io::Errno::OPNOTSUPP) => {
                    *held = HeldFile::Absent;
                    Ok(None)
                }
                _ => {
                    self.note(&dir.join(name), &error);
                    Ok(None)
                }
            },
        }
    }

    /// Fills the buffer; `false` when the file is absent.
    fn fill(&mut self, held: &mut HeldFile, dir: &Path, name: &str) -> io::Result<bool> {
        match held {
            HeldFile::Absent => return Ok(false),
            HeldFile::Open(opened) => {
                self.filled = read_whole(&opened.file, &mut self.buffer)?;
                return Ok(true);
            }
            HeldFile::Closed => {}
        }
        let path: PathBuf = dir.join(name);
        let file = match File::open(&path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                if !dir.exists() {
                    return Err(rustix::io::Errno::NODEV.into());
                }
                *held = HeldFile::Absent;
                return Ok(false);
            }
            Err(error) => return Err(error),
        };
        self.filled = read_whole(&file, &mut self.buffer)?;
        if let Some(lease) = self.budget.take() {
            *held = HeldFile::Open(Opened { file, _lease: lease });
        }
        Ok(true)
    }
}

/// Every kernel file read here is made of whole lines, but `io.stat`, whose last line some kernels do not end.
fn ends_a_line(name: &str, content: &[u8]) -> bool {
    name == "io.stat" || content.last().is_none_or(|last| *last == b'\n')
}

/// Reads a file that is not worth holding into a buffer that is kept, and gives what it holds. With `std::fs::read` a small
/// file of the kernel's, which says that its size is 0, takes five to ten system calls and not three.
pub(super) fn read_once<'b>(path: &Path, buffer: &'b mut Vec<u8>) -> io::Result<&'b [u8]> {
    let filled = read_whole(&File::open(path)?, buffer)?;
    Ok(buffer.get(..filled).unwrap_or_default())
}

/// Reads a kernel file from its start, however often it was read before; gives the length.
///
/// The buffer keeps its full length between reads: clearing 16 KiB costs as much as a small read.
fn read_whole(file: &File, buffer: &mut Vec<u8>) -> io::Result<usize> {
    let mut filled = 0;
    loop {
        if buffer.len() < filled + SURELY_WHOLE * 2 {
            buffer.resize(filled + FIRST_BUFFER, 0);
        }
        let read = match file.read_at(&mut buffer[filled..], filled as u64) {
            Ok(read) => read,
            Err(error) if error.kind() == io::ErrorKind::Interrupted => continue,
            Err(error) => return Err(error),
        };
        let first = filled == 0;
        filled += read;
        if read == 0 || (first && read < SURELY_WHOLE) {
            return Ok(filled);
        }
        if filled > MAX_FILE_BYTES {
            return Err(io::Error::other("larger than any file of its kind"));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::cgroup::parse;

    #[test]
    fn held_file_is_read_anew_each_time_and_counts_against_the_budget() {
        let dir = tempfile::tempdir().unwrap();
        let budget = Budget::new(1);
        let mut reader = Reader::new(Arc::clone(&budget));
        let (mut first, mut second) = (HeldFile::default(), HeldFile::default());
        for value in [1u64, 22, 3] {
            std::fs::write(dir.path().join("a"), format!("{value}\n")).unwrap();
            std::fs::write(dir.path().join("b"), format!("{value}\n")).unwrap();
            let mut read = |held: &mut HeldFile, name| reader.parse(held, dir.path(), name, |b| parse::single(b, "x"));
            assert_eq!(read(&mut first, "a"), Ok(Some(value)));
            assert_eq!(read(&mut second, "b"), Ok(Some(value)), "beyond the budget files are reopened");
        }
        assert_eq!(budget.held(), 1);
        drop(first);
        assert_eq!(budget.held(), 0);
    }

    #[test]
    fn where_few_files_may_be_open_hardly_any_is_held() {
        let shares = [Some(20), Some(64), Some(100), Some(1024), Some(1 << 20), None].map(Budget::share_of);
        assert_eq!(shares, [0, 8, 44, 512, MAX_HELD, MAX_HELD]);
    }

    #[test]
    fn a_number_without_its_end_is_no_number() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(Budget::new(8));
        std::fs::write(dir.path().join("memory.current"), "335").unwrap();
        let single = |b: &[u8]| parse::single(b, "x");
        assert_eq!(reader.parse(&mut HeldFile::default(), dir.path(), "memory.current", single), Ok(None));
        assert!(reader.take_fault().unwrap().ends_with("memory.current: cut short"));
    }

    #[test]
    fn absent_vanished_and_malformed_are_told_apart() {
        let dir = tempfile::tempdir().unwrap();
        let mut reader = Reader::new(Budget::new(8));
        std::fs::write(dir.path().join("bad"), "x\n").unwrap();
        let single = |b: &[u8]| parse::single(b, "x");
        assert_eq!(reader.parse(&mut HeldFile::default(), dir.path(), "none", single), Ok(None));
        assert_eq!(reader.take_fault(), None);
        assert_eq!(reader.parse(&mut HeldFile::default(), dir.path(), "bad", single), Ok(None));
        assert!(reader.take_fault().unwrap().ends_with("bad: malformed x"));
        assert_eq!(reader.parse(&mut HeldFile::default(), &dir.path().join("gone"), "x", single), Err(Vanished));
    }

    #[test]
    fn long_files_are_read_to_their_end() {
        let dir = tempfile::tempdir().unwrap();
        let long: String = (0..100_000).map(|n| format!("{n}\n")).collect();
        std::fs::write(dir.path().join("procs"), &long).unwrap();
        let mut reader = Reader::new(Budget::new(8));
        let count = reader.parse(&mut HeldFile::default(), dir.path(), "procs", |b| Ok(b.len()));
        assert_eq!(count, Ok(Some(long.len())));
        let mut buffer = Vec::new();
        assert_eq!(read_once(&dir.path().join("procs"), &mut buffer).unwrap(), long.as_bytes());
        std::fs::write(dir.path().join("procs"), "1\n").unwrap();
        assert_eq!(read_once(&dir.path().join("procs"), &mut buffer).unwrap(), b"1\n");
        assert!(read_once(&dir.path().join("none"), &mut buffer).is_err());
    }
}
