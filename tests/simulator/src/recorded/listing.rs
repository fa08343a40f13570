//! Puts back what a listing names and an archive of regular files cannot hold.
//!
//! One line per entry: type, mode, size, path, and a target for a link:
//! `socket 0700 0 /run/kata/760e7a64…/ch-api.sock`. `absent` names a directory the node did not have.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;
use rustix::fs::{CWD, FileType, Mode, mknodat};

/// Restores what the `*.listing.txt` files in `directory` of the host at `root` name.
pub(super) fn restore(root: &Path, directory: &str) -> anyhow::Result<()> {
    let directory = root.join(directory);
    for entry in fs::read_dir(&directory).with_context(|| format!("list {}", directory.display()))? {
        let path = entry?.path();
        if path.to_string_lossy().ends_with(".listing.txt") {
            let text = fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))?;
            for line in text.lines() {
                restore_line(root, line).with_context(|| format!("restore {line:?} of {}", path.display()))?;
            }
        }
    }
    Ok(())
}

fn restore_line(root: &Path, line: &str) -> anyhow::Result<()> {
    let mut fields = line.splitn(4, ' ');
    let mut field = || fields.next().context("too few fields");
    let (kind, _mode, size, rest) = (field()?, field()?, field()?, field()?);
    let (path, target) = rest.split_once(" -> ").unwrap_or((rest, ""));
    let path = root.join(path.strip_prefix('/').context("not an absolute path")?);
    if fs::symlink_metadata(&path).is_ok() || kind == "absent" {
        return Ok(());
    }
    if let Some(parent) = path.parent() {
        fs::create_dir_all(parent)?;
    }
    match kind {
        "dir" => fs::create_dir_all(&path)?,
        "link" => symlink(target, &path)?,
        "socket" => make_node(&path, FileType::Socket)?,
        "fifo" => make_node(&path, FileType::Fifo)?,
        "file" if size == "0" => drop(File::create(&path)?),
        // It had content that was not recorded, and made-up content is worse than none.
        "file" => {}
        other => anyhow::bail!("unknown type {other:?}"),
    }
    Ok(())
}

/// Made as a bare inode rather than by binding: a bind takes at most 107 bytes of path, and a socket nobody
/// listens at is what it is either way.
fn make_node(path: &Path, kind: FileType) -> io::Result<()> {
    Ok(mknodat(CWD, path, kind, Mode::RUSR | Mode::WUSR, 0)?)
}
