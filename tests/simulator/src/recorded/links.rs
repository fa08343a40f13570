//! Puts back the symbolic links of `/proc/<pid>`, which the recording keeps as text.
//!
//! `ns.readlinks` and `fd.readlinks` hold one `name -> target` per line for the directories `ns` and `fd`;
//! of `links.readlinks`, which stands for links of the process directory itself, only `exe` is taken.

use std::fs;
use std::io::ErrorKind;
use std::os::unix::fs::symlink;
use std::path::Path;

use anyhow::Context;

/// Restores the links of every process below `proc`.
pub(super) fn restore(proc: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(proc).with_context(|| format!("list {}", proc.display()))? {
        let process = entry?.path();
        if process.join("stat").is_file() {
            restore_directory(&process, "ns")?;
            restore_directory(&process, "fd")?;
            restore_exe(&process)?;
        }
    }
    Ok(())
}

fn restore_directory(process: &Path, name: &str) -> anyhow::Result<()> {
    let directory = process.join(name);
    fs::create_dir_all(&directory).with_context(|| format!("make {}", directory.display()))?;
    for (link, target) in parse(&recorded(process, name)?) {
        make(&directory.join(link), target)?;
    }
    Ok(())
}

/// A kernel thread has no `exe`, and no line for it.
fn restore_exe(process: &Path) -> anyhow::Result<()> {
    match parse(&recorded(process, "links")?).find(|(link, _)| *link == "exe") {
        Some((_, target)) => make(&process.join("exe"), target),
        None => Ok(()),
    }
}

fn recorded(process: &Path, name: &str) -> anyhow::Result<String> {
    let path = process.join(format!("{name}.readlinks"));
    match fs::read_to_string(&path) {
        Err(error) if error.kind() == ErrorKind::NotFound => Ok(String::new()),
        read => read.with_context(|| format!("read {}", path.display())),
    }
}

fn parse(text: &str) -> impl Iterator<Item = (&str, &str)> {
    text.lines().filter_map(|line| line.split_once(" -> "))
}

fn make(link: &Path, target: &str) -> anyhow::Result<()> {
    symlink(target, link).with_context(|| format!("make {}", link.display()))
}
