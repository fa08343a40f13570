//! What a mounted volume holds, asked by a thread that may be lost.

use std::io;
use std::path::{Path, PathBuf};

use rustix::fs::{StatVfs, fstatvfs};

use crate::collect::volume::beneath;
use crate::collect::{asker, mounted};
use crate::model::units::Bytes;
use crate::model::volume::VolumeUsage;

/// A filesystem that must be found at a place below the directory of pods.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub(super) struct Look {
    /// The directory of pods as this process sees it.
    pub pods: PathBuf,
    /// The place.
    pub below: PathBuf,
    /// Its number in the mount table.
    pub majmin: String,
    /// Its type there.
    pub fstype: String,
}

impl asker::Question for Look {
    type Facts = VolumeUsage;

    fn ask(&self) -> io::Result<Option<VolumeUsage>> {
        let place = match beneath::pods(&self.pods).and_then(|pods| beneath::directory(pods, &self.below)) {
            Ok(place) => place,
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        };
        // Without the mount there is a directory of the node's filesystem.
        if !mounted::is_of(&place, &self.majmin, &self.fstype)? {
            return Ok(None);
        }
        Ok(Some(usage(&fstatvfs(&place)?)))
    }

    fn path(&self) -> &Path {
        &self.below
    }

    fn filesystem(&self) -> &str {
        &self.majmin
    }
}

/// As `df` counts. A filesystem without blocks or without inodes of its own says 0 of them, which is no measurement.
fn usage(stat: &StatVfs) -> VolumeUsage {
    let bytes = |blocks: u64| (stat.f_blocks > 0).then(|| Bytes(blocks.saturating_mul(stat.f_frsize)));
    let inodes = |count: u64| (stat.f_files > 0).then_some(count);
    VolumeUsage {
        capacity: bytes(stat.f_blocks),
        available: bytes(stat.f_bavail),
        used: bytes(stat.f_blocks.saturating_sub(stat.f_bfree)),
        inodes: inodes(stat.f_files),
        inodes_free: inodes(stat.f_ffree),
        inodes_used: inodes(stat.f_files.saturating_sub(stat.f_ffree)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn stat(f_blocks: u64, f_files: u64) -> StatVfs {
        StatVfs { f_blocks, f_files, f_frsize: 4096, ..fstatvfs(std::fs::File::open("/").unwrap()).unwrap() }
    }

    #[test]
    fn blocks_and_inodes_are_counted_as_df_does() {
        let stat = StatVfs { f_bfree: 60, f_bavail: 50, f_ffree: 5, ..stat(100, 9) };
        let expected = VolumeUsage {
            capacity: Some(Bytes(409_600)),
            available: Some(Bytes(204_800)),
            used: Some(Bytes(163_840)),
            inodes: Some(9),
            inodes_free: Some(5),
            inodes_used: Some(4),
        };
        assert_eq!(usage(&stat), expected);
    }

    #[test]
    fn what_a_filesystem_does_not_count_is_absent() {
        let none = usage(&StatVfs { f_bfree: 0, f_bavail: 0, f_ffree: 0, ..stat(0, 0) });
        assert_eq!(none, VolumeUsage::default());
        let btrfs = usage(&StatVfs { f_ffree: 0, ..stat(100, 0) });
        assert_eq!((btrfs.capacity, btrfs.inodes_used), (Some(Bytes(409_600)), None));
    }
}
