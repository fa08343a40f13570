//! How much a directory holds, by looking at everything in it, within a budget. The directory is a pod's, which may do to
//! it what it likes meanwhile: no link is followed, no other filesystem entered, and what vanishes is not counted.

use std::collections::HashSet;
use std::ffi::CStr;
use std::os::fd::{AsFd, OwnedFd};
use std::time::{Duration, Instant};

use rustix::fs::{AtFlags, Dir, DirEntry, FileType, Mode, OFlags, ResolveFlags, Stat, fstat, openat, openat2, statat};
use rustix::io::Errno;

use crate::model::units::Bytes;

/// Deepest directory looked into: each on the way is open, with 32 KiB of names.
const DEEPEST: usize = 64;

/// After so many entries the walk rests, so that it is never in the way of whom the disk is for.
const REST_EVERY: u64 = 256;

/// How long.
const REST: Duration = Duration::from_millis(2);

/// What a directory holds, itself included.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sum {
    /// Space that is allocated.
    pub used: Bytes,
    /// Files, directories and others; several names of one file count once.
    pub inodes: u64,
}

/// Why there is no sum.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Cut {
    /// The budget is spent.
    Spent,
    /// Something in it may not be read, or lies too deep.
    Unreadable,
}

/// What a pass may cost.
#[derive(Debug)]
pub(super) struct Budget {
    /// Entries that may still be looked at.
    left: u64,
    /// Entries looked at.
    pub spent: u64,
    until: Instant,
}

impl Budget {
    pub(super) fn new(entries: u64, time: Duration) -> Self {
        Self { left: entries, spent: 0, until: Instant::now() + time }
    }

    fn spend(&mut self) -> Result<(), Cut> {
        if self.left == 0 || Instant::now() >= self.until {
            return Err(Cut::Spent);
        }
        self.left -= 1;
        self.spent += 1;
        if self.spent.is_multiple_of(REST_EVERY) {
            std::thread::sleep(REST);
        }
        Ok(())
    }

    /// Nothing more can be looked at.
    pub(super) fn is_spent(&self) -> bool {
        self.left == 0 || Instant::now() >= self.until
    }
}

/// Opens a directory to be read. Its time of access is left as it is where that is permitted.
pub(super) fn open(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    undated(|flags| openat(&parent, name, flags, Mode::empty()))
}

/// The same for a directory that is no mount: `EXDEV` where it is one, which the kernel says without asking the filesystem
/// that is mounted there. That one may hang.
fn open_here(parent: impl AsFd, name: &CStr) -> rustix::io::Result<OwnedFd> {
    undated(|flags| openat2(&parent, name, flags, Mode::empty(), ResolveFlags::NO_XDEV))
}

fn undated(open: impl Fn(OFlags) -> rustix::io::Result<OwnedFd>) -> rustix::io::Result<OwnedFd> {
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    match open(flags | OFlags::NOATIME) {
        Err(Errno::PERM) => open(flags),
        opened => opened,
    }
}

/// Names in a directory, without itself and its parent.
pub(super) fn next(dir: &mut Dir) -> Option<rustix::io::Result<DirEntry>> {
    loop {
        match dir.read()? {
            Ok(entry) if matches!(entry.file_name().to_bytes(), b"." | b"..") => {}
            entry => return Some(entry),
        }
    }
}

/// Adds up everything below an open directory.
pub(super) fn sum(top: OwnedFd, budget: &mut Budget) -> Result<Sum, Cut> {
    let unreadable = |_| Cut::Unreadable;
    let root = fstat(&top).map_err(unreadable)?;
    let mut walk = Walk { device: root.st_dev, sum: Sum::default(), seen: HashSet::new() };
    walk.add(&root);
    let mut open_dirs = vec![Dir::new(top).map_err(unreadable)?];
    while let Some(dir) = open_dirs.last_mut() {
        let Some(entry) = next(dir) else {
            open_dirs.pop();
            continue;
        };
        budget.spend()?;
        let entry = entry.map_err(unreadable)?;
        let Some(inside) = walk.enter(dir, &entry)? else { continue };
        if open_dirs.len() == DEEPEST {
            return Err(Cut::Unreadable);
        }
        open_dirs.push(inside);
    }
    Ok(walk.sum)
}

struct Walk {
    device: u64,
    sum: Sum,
    /// Files with several names that were counted.
    seen: HashSet<u64>,
}

impl Walk {
    /// Counts an entry, and opens it if it is a directory.
    fn enter(&mut self, dir: &Dir, entry: &DirEntry) -> Result<Option<Dir>, Cut> {
        let (place, name) = (dir.fd().map_err(|_| Cut::Unreadable)?, entry.file_name());
        if matches!(entry.file_type(), FileType::Directory | FileType::Unknown) {
            match open_here(place, name) {
                Err(Errno::NOTDIR | Errno::LOOP) if entry.file_type() == FileType::Unknown => {}
                // Linux before 5.6, or a sandbox of system calls that is older.
                Err(Errno::NOSYS | Errno::PERM) => {}
                opened => return still(opened)?.map_or(Ok(None), |opened| self.open(opened)),
            }
        }
        let flags = AtFlags::SYMLINK_NOFOLLOW | AtFlags::NO_AUTOMOUNT;
        let Some(stat) = still(statat(place, name, flags))? else { return Ok(None) };
        if stat.st_dev != self.device {
            return Ok(None);
        }
        if FileType::from_raw_mode(stat.st_mode) == FileType::Directory {
            return still(open(place, name))?.map_or(Ok(None), |opened| self.open(opened));
        }
        if stat.st_nlink == 1 || self.seen.insert(stat.st_ino) {
            self.add(&stat);
        }
        Ok(None)
    }

    /// Counts a directory that is open.
    fn open(&mut self, opened: OwnedFd) -> Result<Option<Dir>, Cut> {
        let stat = fstat(&opened).map_err(|_| Cut::Unreadable)?;
        // Another filesystem of a kernel that could not be asked about mounts, or one that took its place.
        if stat.st_dev != self.device {
            return Ok(None);
        }
        self.add(&stat);
        Dir::new(opened).map(Some).map_err(|_| Cut::Unreadable)
    }

    fn add(&mut self, stat: &Stat) {
        let used = Bytes::from_sectors(u64::try_from(stat.st_blocks).unwrap_or_default());
        self.sum.used = Bytes(self.sum.used.0.saturating_add(used.0));
        self.sum.inodes += 1;
    }
}

/// `None` for what is not there any more, is something else now, or lies on another filesystem.
fn still<T>(found: rustix::io::Result<T>) -> Result<Option<T>, Cut> {
    match found {
        Ok(found) => Ok(Some(found)),
        Err(Errno::NOENT | Errno::NOTDIR | Errno::LOOP | Errno::XDEV) => Ok(None),
        Err(_) => Err(Cut::Unreadable),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;

    use rustix::fs::CWD;

    use super::*;

    const LONG: Duration = Duration::from_secs(600);

    fn sum_of(path: &Path, entries: u64) -> (Result<Sum, Cut>, u64) {
        let name = std::ffi::CString::new(path.to_str().unwrap()).unwrap();
        let mut budget = Budget::new(entries, LONG);
        let sum = sum(open(CWD, &name).unwrap(), &mut budget);
        (sum, budget.spent)
    }

    fn blocks(path: &Path) -> u64 {
        fs::symlink_metadata(path).unwrap().blocks() * 512
    }

    #[test]
    fn everything_is_counted_once_and_links_are_not_followed() {
        let elsewhere = tempfile::tempdir().unwrap();
        fs::write(elsewhere.path().join("big"), vec![1; 1 << 20]).unwrap();
        let top = tempfile::tempdir().unwrap();
        let path = |name: &str| top.path().join(name);
        fs::create_dir_all(path("a/b")).unwrap();
        fs::write(path("a/b/file"), vec![1; 100_000]).unwrap();
        fs::hard_link(path("a/b/file"), path("a/same")).unwrap();
        symlink(elsewhere.path(), path("a/out")).unwrap();
        symlink("/dev/zero", path("zero")).unwrap();
        let counted = ["", "a", "a/b", "a/b/file", "a/out", "zero"];
        let used = Bytes(counted.iter().map(|name| blocks(&path(name))).sum());
        assert!(used.0 > 100_000 && used.0 < 1 << 20);
        assert_eq!(sum_of(top.path(), 100), (Ok(Sum { used, inodes: 6 }), 6));
    }

    #[test]
    fn a_spent_budget_gives_no_sum() {
        let top = tempfile::tempdir().unwrap();
        for number in 0..10 {
            fs::write(top.path().join(number.to_string()), "").unwrap();
        }
        assert_eq!(sum_of(top.path(), 9), (Err(Cut::Spent), 9));
        assert_eq!(sum_of(top.path(), 10).0.unwrap().inodes, 11);
        let mut budget = Budget::new(100, Duration::ZERO);
        let name = std::ffi::CString::new(top.path().to_str().unwrap()).unwrap();
        assert_eq!(sum(open(CWD, &name).unwrap(), &mut budget), Err(Cut::Spent));
        assert!(budget.is_spent());
    }

    #[test]
    fn what_vanishes_meanwhile_is_not_counted() {
        let top = tempfile::tempdir().unwrap();
        let (stays, goes) = (top.path().join("stays"), top.path().join("goes"));
        fs::create_dir(&stays).unwrap();
        let ended = std::sync::atomic::AtomicBool::new(false);
        std::thread::scope(|scope| {
            scope.spawn(|| {
                while !ended.load(std::sync::atomic::Ordering::Relaxed) {
                    fs::create_dir_all(goes.join("a/b/c")).unwrap();
                    fs::remove_dir_all(&goes).unwrap();
                }
            });
            let sums: Vec<_> = (0..2000).map(|_| sum_of(top.path(), 100).0).collect();
            ended.store(true, std::sync::atomic::Ordering::Relaxed);
            let counted = |sum: &Result<Sum, Cut>| sum.is_ok_and(|sum| (2..=6).contains(&sum.inodes));
            assert!(sums.iter().all(counted), "{sums:?}");
            assert!(sums.windows(2).any(|two| two[0] != two[1]), "it comes and goes");
        });
    }

    #[test]
    fn a_bottomless_directory_has_no_sum() {
        let top = tempfile::tempdir().unwrap();
        let deep = |levels: usize| top.path().join(vec!["d"; levels].join("/"));
        fs::create_dir_all(deep(DEEPEST - 1)).unwrap();
        assert_eq!(sum_of(top.path(), 1000).0.unwrap().inodes, DEEPEST as u64);
        fs::create_dir(deep(DEEPEST)).unwrap();
        assert_eq!(sum_of(top.path(), 1000).0, Err(Cut::Unreadable));
    }
}
