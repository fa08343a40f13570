//! Whether a path leads to a filesystem of the node's mount table: a container sees the node's filesystems only below a
//! host path mount, and whatever else lies at that path would be the wrong one.

use std::io;
use std::os::fd::AsFd;
use std::path::Path;

use rustix::fs::{Stat, StatFs};

/// `f_type` of btrfs, from `linux/magic.h`.
const BTRFS_SUPER_MAGIC: rustix::fs::FsWord = 0x9123_683e;

/// The filesystem numbered `majmin` of type `fstype` is at `path`. Blocks when the filesystem hangs.
pub(super) fn is_at(path: &Path, majmin: &str, fstype: &str) -> io::Result<bool> {
    let stat = rustix::fs::stat(path)?;
    is(&stat, || rustix::fs::statfs(path), majmin, fstype)
}

/// The same, for what is open.
pub(super) fn is_of(file: impl AsFd, majmin: &str, fstype: &str) -> io::Result<bool> {
    let stat = rustix::fs::fstat(&file)?;
    is(&stat, || rustix::fs::fstatfs(&file), majmin, fstype)
}

/// Files of a btrfs subvolume have a device number of their own, which is not that of the mount table.
fn is(
    stat: &Stat,
    filesystem: impl FnOnce() -> rustix::io::Result<StatFs>,
    majmin: &str,
    fstype: &str,
) -> io::Result<bool> {
    if format!("{}:{}", rustix::fs::major(stat.st_dev), rustix::fs::minor(stat.st_dev)) == majmin {
        return Ok(true);
    }
    Ok(fstype == "btrfs" && filesystem()?.f_type == BTRFS_SUPER_MAGIC)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::collect::mount_table;

    #[test]
    fn what_the_mount_table_says_is_found_and_nothing_else() {
        let table = std::fs::read("/proc/self/mountinfo").unwrap();
        let mounts = mount_table::parse(&table).unwrap();
        let proc = mounts.iter().find(|mount| &*mount.point == Path::new("/proc")).unwrap();
        assert!(is_at(Path::new("/proc"), proc.majmin, "proc").unwrap());
        assert!(!is_at(Path::new("/sys"), proc.majmin, "proc").unwrap());
        assert!(!is_at(Path::new("/sys"), proc.majmin, "btrfs").unwrap());
        let open = std::fs::File::open("/proc").unwrap();
        assert!(is_of(&open, proc.majmin, "proc").unwrap() && !is_of(&open, "0:0", "btrfs").unwrap());
        assert_eq!(is_at(Path::new("/nowhere"), proc.majmin, "proc").unwrap_err().kind(), io::ErrorKind::NotFound);
    }
}
