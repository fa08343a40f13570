//! The cgroup hierarchies of this host, v1, hybrid or v2: where they are, and cgroups made in them and removed.

use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};
use rustix::process::{Pid, Signal, kill_process};

/// How long the processes of a cgroup may take to die.
const REMOVAL_PATIENCE: Duration = Duration::from_secs(5);

/// One mounted cgroup hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Hierarchy {
    /// Where it is mounted.
    pub mount: PathBuf,
    /// Its version.
    pub version: Version,
}

/// The version of a hierarchy.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Version {
    /// The mount options, among them the controllers: `rw`, `cpu`, `cpuacct`.
    V1(Vec<String>),
    /// The one hierarchy for all.
    V2,
}

impl Hierarchy {
    /// Whether a limit of `controller` can be set in the cgroup `directory` of this hierarchy.
    #[must_use]
    pub fn controls(&self, directory: &Path, controller: &str) -> bool {
        match &self.version {
            Version::V1(options) => options.iter().any(|option| option == controller),
            Version::V2 => words(&directory.join("cgroup.controllers")).iter().any(|word| word == controller),
        }
    }

    /// The directory of the cgroup `path`.
    #[must_use]
    pub fn directory(&self, path: &str) -> PathBuf {
        self.mount.join(path.trim_start_matches('/'))
    }

    /// Makes the directory of a cgroup whose parent is there, fit to take a process.
    ///
    /// # Errors
    /// When the kernel refuses.
    pub fn make(&self, directory: &Path) -> anyhow::Result<()> {
        match fs::create_dir(directory) {
            Err(error) if error.kind() == ErrorKind::AlreadyExists => return Ok(()),
            made => made.with_context(|| format!("make {}", directory.display()))?,
        }
        // A new v1 cpuset is empty, and a process cannot run on no CPU.
        if matches!(self.version, Version::V1(_)) && self.controls(directory, "cpuset") {
            let parent = directory.parent().context("a cgroup is below its mount point")?;
            for file in ["cpuset.cpus", "cpuset.mems"] {
                let inherited = fs::read_to_string(parent.join(file)).with_context(|| format!("read {file}"))?;
                ensure!(!inherited.trim().is_empty(), "{} is empty", parent.join(file).display());
                write(&directory.join(file), inherited.trim())?;
            }
        }
        Ok(())
    }
}

/// All hierarchies of this host, from `/proc/self/mountinfo`.
///
/// # Errors
/// When it cannot be read.
pub fn mounted() -> anyhow::Result<Vec<Hierarchy>> {
    let path = "/proc/self/mountinfo";
    Ok(parse_mountinfo(&fs::read_to_string(path).with_context(|| format!("read {path}"))?))
}

/// One hierarchy per line of a cgroup file system, without the ones that are mounted twice:
/// `29 24 0:25 / /sys/fs/cgroup/cpu rw,relatime - cgroup cgroup rw,cpu,cpuacct`.
fn parse_mountinfo(text: &str) -> Vec<Hierarchy> {
    let mut devices = Vec::new();
    let mut hierarchies = Vec::new();
    for line in text.lines() {
        let Some((mount, filesystem)) = line.split_once(" - ") else { continue };
        let mut mount = mount.split(' ').skip(2);
        let (Some(device), Some(_root), Some(point)) = (mount.next(), mount.next(), mount.next()) else { continue };
        let mut filesystem = filesystem.split(' ');
        let (kind, options) = (filesystem.next(), filesystem.nth(1).unwrap_or_default());
        let version = match kind {
            Some("cgroup") => Version::V1(options.split(',').map(str::to_owned).collect()),
            Some("cgroup2") => Version::V2,
            _ => continue,
        };
        if !devices.contains(&device) {
            devices.push(device);
            hierarchies.push(Hierarchy { mount: PathBuf::from(point), version });
        }
    }
    hierarchies
}

/// Kills what is in a cgroup and below it, and removes both.
///
/// # Errors
/// When a process does not die of it.
pub fn remove_tree(directory: &Path) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).into_iter().flatten().flatten() {
        if entry.file_type().is_ok_and(|kind| kind.is_dir()) {
            remove_tree(&entry.path())?;
        }
    }
    let begun = Instant::now();
    loop {
        kill_members(directory);
        match fs::remove_dir(directory) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == ErrorKind::NotFound => return Ok(()),
            // Busy until the last process is gone for good.
            Err(_) if begun.elapsed() < REMOVAL_PATIENCE => thread::sleep(Duration::from_millis(10)),
            Err(error) => return Err(error).with_context(|| format!("remove {}", directory.display())),
        }
    }
}

fn kill_members(directory: &Path) {
    for word in words(&directory.join("cgroup.procs")) {
        // A process of another pid namespace reads as 0, which would stand for ourselves.
        if let Some(pid) = word.parse().ok().filter(|pid| *pid > 1).and_then(Pid::from_raw) {
            // Gone in the meantime is as good as killed.
            kill_process(pid, Signal::KILL).ok();
        }
    }
}

/// The words of a file, none where there is no such file.
#[must_use]
pub fn words(path: &Path) -> Vec<String> {
    let text = fs::read_to_string(path).unwrap_or_default();
    text.split_whitespace().map(str::to_owned).collect()
}

/// Writes one value to a file of the kernel's.
///
/// # Errors
/// When the kernel refuses.
pub fn write(path: &Path, value: &str) -> anyhow::Result<()> {
    fs::write(path, value).with_context(|| format!("write {value:?} to {}", path.display()))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hierarchies_are_found_once_each() {
        let hierarchies = parse_mountinfo(
            "24 1 0:22 / /sys/fs/cgroup rw,relatime - tmpfs tmpfs rw,mode=755\n\
             29 24 0:25 / /sys/fs/cgroup/cpu,cpuacct rw shared:9 - cgroup cgroup rw,cpu,cpuacct\n\
             30 24 0:26 / /sys/fs/cgroup/unified rw - cgroup2 cgroup2 rw,nsdelegate\n\
             31 24 0:25 / /mnt/again rw - cgroup cgroup rw,cpu,cpuacct\n",
        );
        let found: Vec<_> = hierarchies.iter().map(|one| (one.mount.to_str(), &one.version)).collect();
        let options = Version::V1(["rw", "cpu", "cpuacct"].map(str::to_owned).to_vec());
        assert_eq!(
            found,
            [(Some("/sys/fs/cgroup/cpu,cpuacct"), &options), (Some("/sys/fs/cgroup/unified"), &Version::V2)]
        );
        assert!(hierarchies[0].controls(Path::new("/nowhere"), "cpuacct"));
        assert!(!hierarchies[0].controls(Path::new("/nowhere"), "memory"));
    }
}
