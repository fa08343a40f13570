//! Opening what lies below the directory of pods, and nothing else: names one after the other, links never followed. A
//! link in there may have been put by whoever runs in a pod.

use std::ffi::OsStr;
use std::io::{self, Read};
use std::os::fd::{AsFd, OwnedFd};
use std::path::{Component, Path};

use rustix::fs::{CWD, FileType, Mode, OFlags, ResolveFlags, fstat, openat, openat2};
use rustix::io::Errno;

/// How a directory is opened that is not to be read.
const STEP: OFlags = OFlags::PATH.union(OFlags::DIRECTORY).union(OFlags::NOFOLLOW).union(OFlags::CLOEXEC);

/// The directory itself is the operator's: links on the way to it are followed.
pub(super) fn pods(directory: &Path) -> io::Result<OwnedFd> {
    Ok(openat(CWD, directory, OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC, Mode::empty())?)
}

/// A directory below another one, to be asked about and not to be read. Blocks where a filesystem on the way hangs.
pub(super) fn directory(top: impl AsFd, below: &Path) -> io::Result<OwnedFd> {
    for part in below.components() {
        name(part)?;
    }
    let path = if below.as_os_str().is_empty() { Path::new(".") } else { below };
    match openat2(&top, path, STEP, Mode::empty(), ResolveFlags::NO_SYMLINKS) {
        // A kernel before 5.6, and a container whose filter of system calls is older than that.
        Err(Errno::NOSYS | Errno::PERM) => step_by_step(top, below),
        opened => Ok(opened?),
    }
}

fn step_by_step(top: impl AsFd, below: &Path) -> io::Result<OwnedFd> {
    let mut place = top.as_fd().try_clone_to_owned()?;
    for part in below.components() {
        place = openat(&place, name(part)?, STEP, Mode::empty())?;
    }
    Ok(place)
}

/// A file of at most so many bytes.
pub(super) fn read(top: impl AsFd, below: &Path, limit: u64) -> io::Result<Vec<u8>> {
    let (Some(parent), Some(file)) = (below.parent(), below.file_name()) else { return Err(outside()) };
    let parent = directory(top, parent)?;
    // Opening a fifo would wait for who writes it.
    let flags = OFlags::RDONLY | OFlags::NOFOLLOW | OFlags::NONBLOCK | OFlags::CLOEXEC;
    let file = openat(&parent, file, flags, Mode::empty())?;
    if FileType::from_raw_mode(fstat(&file)?.st_mode) != FileType::RegularFile {
        return Err(io::Error::new(io::ErrorKind::InvalidData, "not a regular file"));
    }
    let mut bytes = Vec::new();
    let read = std::fs::File::from(file).take(limit.saturating_add(1)).read_to_end(&mut bytes)?;
    if read as u64 > limit {
        return Err(io::Error::new(io::ErrorKind::FileTooLarge, "larger than any such file"));
    }
    Ok(bytes)
}

fn name(part: Component<'_>) -> io::Result<&OsStr> {
    match part {
        Component::Normal(name) => Ok(name),
        _ => Err(outside()),
    }
}

fn outside() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not a path below the directory of pods")
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};

    use super::*;

    #[test]
    fn what_lies_straight_below_is_opened_and_links_are_not_followed() {
        let outside = tempfile::tempdir().unwrap();
        fs::write(outside.path().join("secret"), "s").unwrap();
        let top = tempfile::tempdir().unwrap();
        fs::create_dir_all(top.path().join("a/b")).unwrap();
        fs::write(top.path().join("a/b/file"), "12345").unwrap();
        symlink(outside.path(), top.path().join("a/out")).unwrap();
        symlink(outside.path().join("secret"), top.path().join("a/b/link")).unwrap();
        let pods = pods(top.path()).unwrap();
        let expected = fs::metadata(top.path().join("a/b")).unwrap().ino();
        for open in [directory, step_by_step] {
            assert_eq!(fstat(open(&pods, Path::new("a/b")).unwrap()).unwrap().st_ino, expected);
            assert_eq!(fstat(open(&pods, Path::new("")).unwrap()).unwrap().st_ino, fstat(&pods).unwrap().st_ino);
            for path in ["a/out", "a/b/link", "../x", "a/../a/b", "/a/b", "a/none", "a/b/file"] {
                assert!(open(&pods, Path::new(path)).is_err(), "{path}");
            }
        }
        assert_eq!(read(&pods, Path::new("a/b/file"), 5).unwrap(), b"12345");
        assert_eq!(read(&pods, Path::new("a/b/file"), 4).unwrap_err().kind(), io::ErrorKind::FileTooLarge);
        for path in ["a/out/secret", "a/b/link", "a/b", "a/none", "..", ""] {
            assert!(read(&pods, Path::new(path), 5).is_err(), "{path}");
        }
    }

    #[test]
    fn a_fifo_is_not_waited_for() {
        let top = tempfile::tempdir().unwrap();
        let fifo = top.path().join("fifo");
        rustix::fs::mknodat(CWD, &fifo, FileType::Fifo, Mode::RUSR, 0).unwrap();
        let error = read(pods(top.path()).unwrap(), Path::new("fifo"), 5).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidData);
    }
}
