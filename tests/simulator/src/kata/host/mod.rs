//! The files of a node that holds simulated sandboxes: what the kernel, the shims and containerd would have put there.
//!
//! Files that change are written in place and never shorter for a moment, because an agent may hold them open.

pub(super) mod cgroup;
pub(super) mod node;
pub(super) mod proc;
pub(super) mod run;

use std::fs::{self, OpenOptions};
use std::os::unix::fs::{FileExt, symlink};
use std::path::{Path, PathBuf};

use anyhow::Context;

/// A directory that stands for a part of the host.
#[derive(Debug, Clone)]
pub(super) struct Tree(PathBuf);

impl Tree {
    pub(super) fn new(root: impl Into<PathBuf>) -> Self {
        Self(root.into())
    }

    pub(super) fn path(&self, path: &str) -> PathBuf {
        self.0.join(path.trim_start_matches('/'))
    }

    pub(super) fn root(&self) -> &Path {
        &self.0
    }

    /// Whether something is there.
    pub(super) fn has(&self, path: &str) -> bool {
        self.path(path).exists()
    }

    /// Makes a directory and those above it.
    pub(super) fn directory(&self, path: &str) -> anyhow::Result<()> {
        let path = self.path(path);
        fs::create_dir_all(&path).with_context(|| format!("make {}", path.display()))
    }

    /// Writes a file whose directory is there.
    pub(super) fn write(&self, path: &str, content: impl AsRef<[u8]>) -> anyhow::Result<()> {
        let path = self.path(path);
        let write = || {
            // Not truncated: a reader at this moment finds the old content or the new.
            let file = OpenOptions::new().write(true).create(true).truncate(false).open(&path)?;
            file.write_all_at(content.as_ref(), 0)?;
            let length = u64::try_from(content.as_ref().len()).unwrap_or(u64::MAX);
            if file.metadata()?.len() == length { Ok(()) } else { file.set_len(length) }
        };
        write().with_context(|| format!("write {}", path.display()))
    }

    /// Makes a link.
    pub(super) fn link(&self, path: &str, target: &str) -> anyhow::Result<()> {
        let path = self.path(path);
        symlink(target, &path).with_context(|| format!("make {}", path.display()))
    }

    /// Gives a file that is there a second path: what has the same inode in procfs.
    pub(super) fn same(&self, path: &str, there: &str) -> anyhow::Result<()> {
        let path = self.path(path);
        fs::hard_link(self.path(there), &path).with_context(|| format!("make {}", path.display()))
    }

    /// Removes a directory and what is in it. One that is not there is as good as removed.
    pub(super) fn remove(&self, path: &str) {
        fs::remove_dir_all(self.path(path)).ok();
    }
}
