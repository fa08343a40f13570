//! Mounted filesystems and their usage. A mount that does not answer is marked and never waited for twice: it has
//! `node_filesystem_device_error` 1 and no other series until its call returns.

use std::collections::HashSet;
use std::io;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use super::Options;
use crate::collect::asker::{self, Answer, Asker};
use crate::collect::mount_table::{Mount, MountTable};
use crate::collect::{CollectError, mounted};
use crate::model::node::{FilesystemUsage, MountedFilesystem};
use crate::model::units::Bytes;

/// How long all mounts of a collection together are waited for.
const PATIENCE: Duration = Duration::from_millis(500);

/// Most mounts told of.
const MOST: usize = 1024;

/// Most mounts asked: in a container most of the node's are not to be seen.
const MOST_ASKED: usize = 8 * MOST;

/// Asks every mount of a table.
#[derive(Debug, Default)]
pub(super) struct Filesystems {
    asker: Asker<Question>,
}

impl Filesystems {
    /// The mounts of the node, whose root this process sees at `root`, from `proc`. What this process does not see is
    /// left out.
    pub(super) fn read(
        &mut self,
        proc: &Path,
        root: &Path,
        exclude: &Options,
    ) -> Result<Vec<MountedFilesystem>, CollectError> {
        let table = MountTable::read(proc)?;
        let mounts = table.mounts()?;
        let until = Instant::now() + PATIENCE;
        let mut seen = HashSet::new();
        let (mut all, mut questions) = (Vec::new(), Vec::new());
        let left_out = |mount: &&Mount<'_>| {
            exclude.filesystems.has(&mount.fs_type) || exclude.mounts.has(&mount.point.to_string_lossy())
        };
        for mount in mounts.iter().filter(|mount| !left_out(mount)) {
            if all.len() == MOST_ASKED || !seen.insert((&mount.source, &mount.point)) {
                continue;
            }
            let (device, fstype) = (mount.source.clone().into_owned(), mount.fs_type.clone().into_owned());
            let mountpoint = mount.point.to_string_lossy().into_owned();
            let path = root.join(mount.point.strip_prefix("/").unwrap_or(&mount.point));
            questions.push(Question { path, majmin: mount.majmin.to_owned(), fstype: fstype.clone() });
            all.push(MountedFilesystem { device, fstype, mountpoint, readonly: mount.readonly, usage: None });
        }
        let answers = self.asker.ask(questions, until);
        let seen = all.into_iter().zip(answers).filter_map(|(mounted, answer)| match answer {
            Answer::Facts(usage) => Some(MountedFilesystem { usage: Some(usage), ..mounted }),
            Answer::Unseen => None,
            Answer::Silent => Some(mounted),
        });
        Ok(seen.take(MOST).collect())
    }
}

#[derive(Clone, Debug, PartialEq, Eq, Hash)]
struct Question {
    path: PathBuf,
    /// What must be found there: a container sees something else, or nothing, at most paths of the node.
    majmin: String,
    fstype: String,
}

impl asker::Question for Question {
    type Facts = FilesystemUsage;

    fn ask(&self) -> io::Result<Option<FilesystemUsage>> {
        match mounted::is_at(&self.path, &self.majmin, &self.fstype) {
            Ok(true) => {}
            Ok(false) => return Ok(None),
            Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
            Err(error) => return Err(error),
        }
        let stat = rustix::fs::statfs(&self.path)?;
        let block = u64::try_from(stat.f_bsize).unwrap_or_default();
        let bytes = |blocks: u64| Bytes(blocks.saturating_mul(block));
        Ok(Some(FilesystemUsage {
            size: bytes(stat.f_blocks),
            free: bytes(stat.f_bfree),
            available: bytes(stat.f_bavail),
            files: stat.f_files,
            files_free: stat.f_ffree,
        }))
    }

    fn path(&self) -> &Path {
        &self.path
    }

    fn filesystem(&self) -> &str {
        &self.majmin
    }
}
