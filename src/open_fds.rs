//! How many descriptors a process has open, from its directory `/proc/<pid>/fd`. A leaf: the agent counts its own, those
//! of sandboxes and those of containers.

use std::ffi::CStr;
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd};
use std::path::Path;

use rustix::fs::{CWD, Mode, OFlags, RawDir, openat, readlinkat_raw};

/// Room for the entries of about forty descriptors, which most processes do not have.
const ENTRIES: usize = 1024;

/// Open descriptors. Since kernel 6.2 the directory's size says so; before, and where `/proc` is no procfs, they are
/// counted one by one, and a process with more than `most` gives no number.
pub fn count(dir: &Path, real_procfs: bool, most: usize) -> Option<u64> {
    if real_procfs {
        let size = std::fs::metadata(dir).ok()?.len();
        if size > 0 {
            return Some(size);
        }
    }
    let mut counted = 0;
    each(dir, |_, _| {
        counted += 1;
        counted <= most
    })?;
    (counted <= most).then(|| u64::try_from(counted).ok())?
}

/// Open descriptors, and how many of them are sockets; `None` when the process is gone or not ours to see.
pub fn with_sockets(dir: &Path) -> Option<(u64, u64)> {
    let (mut open, mut sockets) = (0, 0);
    each(dir, |directory, name| {
        // The link of a socket is `socket:[12345]`.
        let mut target = [MaybeUninit::uninit(); 8];
        let read = readlinkat_raw(directory, name, &mut target);
        open += 1;
        sockets += u64::from(read.is_ok_and(|(target, _)| target == b"socket:["));
        true
    })?;
    Some((open, sockets))
}

/// Visits the names in the directory while the visitor says so.
fn each(dir: &Path, mut visit: impl FnMut(BorrowedFd<'_>, &CStr) -> bool) -> Option<()> {
    // Not by `std::fs::read_dir`, whose buffer of 32 kB costs more than the counting.
    let opened = openat(CWD, dir, OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty()).ok()?;
    let mut buffer = [MaybeUninit::uninit(); ENTRIES];
    let mut entries = RawDir::new(&opened, &mut buffer);
    while let Some(entry) = entries.next() {
        let entry = entry.ok()?;
        if matches!(entry.file_name().to_bytes(), b"." | b"..") {
            continue;
        }
        if !visit(opened.as_fd(), entry.file_name()) {
            break;
        }
    }
    Some(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn this_process_has_as_many_descriptors_either_way() {
        let dir = Path::new("/proc/self/fd");
        let by_size = count(dir, true, 4096).unwrap();
        let counted = count(dir, false, 4096).unwrap();
        // Counting opens the directory itself; other tests open files meanwhile.
        assert!(by_size > 0 && counted.abs_diff(by_size) < 200, "{by_size} {counted}");
        assert_eq!(count(dir, false, 1), None, "too many to be counted");
        assert_eq!(count(Path::new("/proc/self/none"), true, 4096), None);
    }

    #[test]
    fn sockets_are_told_from_other_descriptors() {
        let dir = tempfile::tempdir().unwrap();
        let targets =
            ["/dev/null", "socket:[4711]", "socket:[1]", "pipe:[7]", "anon_inode:[eventpoll]", "/tmp/socket:[1]", "s"];
        for (number, target) in targets.iter().enumerate() {
            std::os::unix::fs::symlink(target, dir.path().join(number.to_string())).unwrap();
        }
        assert_eq!(with_sockets(dir.path()), Some((7, 2)));
        assert_eq!(with_sockets(&dir.path().join("none")), None);
        let before = with_sockets(Path::new("/proc/self/fd")).unwrap();
        let _pairs: Vec<_> = (0..300).map(|_| std::os::unix::net::UnixStream::pair().unwrap()).collect();
        let after = with_sockets(Path::new("/proc/self/fd")).unwrap();
        // Other tests open and close some meanwhile.
        assert!(after.1.abs_diff(before.1 + 600) < 200 && after.0 > after.1, "{before:?} {after:?}");
    }
}
