//! Cgroup v1 hierarchies: where they are mounted, pod cgroups as the kubelet makes them, and the files that tests
//! read as the truth.

use std::collections::BTreeSet;
use std::fs;
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, anyhow};

/// One cgroup, by the path that it has in every hierarchy.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Cgroup {
    path: String,
}

impl Cgroup {
    /// Takes a path relative to the hierarchy's root, as in `/kubepods/pod0b2c`.
    pub(crate) fn new(path: String) -> Self {
        Self { path }
    }

    /// The path below each hierarchy's root, with the leading slash.
    pub fn path(&self) -> &str {
        &self.path
    }

    /// Whether the cgroup is there, seen in the memory hierarchy.
    pub fn exists(&self) -> bool {
        self.directory("memory").is_ok_and(|directory| directory.is_dir())
    }

    /// The text of one file, as in `read("memory", "memory.stat")`.
    pub fn read(&self, controller: &str, file: &str) -> Result<String> {
        let path = self.directory(controller)?.join(file);
        fs::read_to_string(&path).with_context(|| format!("read {}", path.display()))
    }

    /// A file that holds one number, as in `number("cpuacct", "cpuacct.usage")`.
    pub fn number(&self, controller: &str, file: &str) -> Result<u64> {
        let text = self.read(controller, file)?;
        text.trim().parse().with_context(|| format!("{file} of {} holds {text:?}", self.path))
    }

    /// One line of a file of keys and numbers, as in `key("cpu", "cpu.stat", "nr_throttled")`.
    pub fn key(&self, controller: &str, file: &str, key: &str) -> Result<u64> {
        let text = self.read(controller, file)?;
        text.lines()
            .find_map(|line| line.strip_prefix(key)?.strip_prefix(' '))
            .with_context(|| format!("{file} of {} has no key {key}", self.path))?
            .parse()
            .with_context(|| format!("{key} in {file} of {}", self.path))
    }

    /// The processes in this cgroup itself, not in those below.
    pub fn processes(&self) -> Result<Vec<u32>> {
        self.read("pids", "cgroup.procs")?.lines().map(|line| line.parse().context("cgroup.procs")).collect()
    }

    /// Makes the cgroup in every hierarchy. A new cpuset holds no CPU and takes no process before it is given some,
    /// so it gets what the level above has, as container runtimes do it.
    pub(crate) fn create(&self) -> Result<()> {
        for mount in mounts()? {
            let mut directory = mount.path;
            for name in self.path.split('/').filter(|name| !name.is_empty()) {
                let above = directory.clone();
                directory.push(name);
                match fs::create_dir(&directory) {
                    Err(error) if error.kind() != ErrorKind::AlreadyExists => {
                        return Err(error).with_context(|| format!("make {}", directory.display()));
                    }
                    _ => inherit_cpuset(&above, &directory)?,
                }
            }
        }
        Ok(())
    }

    /// Writes one file, as in `write("cpu", "cpu.shares", 512)`.
    pub(crate) fn write(&self, controller: &str, file: &str, value: i64) -> Result<()> {
        let path = self.directory(controller)?.join(file);
        fs::write(&path, value.to_string()).with_context(|| format!("write {value} to {}", path.display()))
    }

    /// Every process here and below, whatever the hierarchy it shows in.
    pub(crate) fn processes_below(&self) -> BTreeSet<u32> {
        self.directories()
            .iter()
            .filter_map(|directory| fs::read_to_string(directory.join("cgroup.procs")).ok())
            .flat_map(|text| text.lines().filter_map(|line| line.parse().ok()).collect::<Vec<u32>>())
            .collect()
    }

    /// Removes the cgroup and those below it in every hierarchy. The kernel refuses while a process is still on its
    /// way out, so a refusal is tried again until the deadline.
    pub(crate) fn remove(&self, patience: Duration) -> Result<()> {
        let deadline = Instant::now() + patience;
        loop {
            let mut refusal = None;
            for directory in self.directories().into_iter().rev() {
                match fs::remove_dir(&directory) {
                    Err(error) if error.kind() != ErrorKind::NotFound => {
                        refusal = Some(anyhow!("remove {}: {error}", directory.display()));
                    }
                    _ => {}
                }
            }
            match refusal {
                None => return Ok(()),
                Some(error) if Instant::now() > deadline => return Err(error),
                Some(_) => std::thread::sleep(Duration::from_millis(20)),
            }
        }
    }

    fn directory(&self, controller: &str) -> Result<PathBuf> {
        Ok(hierarchy(controller)?.join(self.path.trim_start_matches('/')))
    }

    /// The directories of this cgroup and those below it in every hierarchy, each before what lies in it.
    fn directories(&self) -> Vec<PathBuf> {
        let mut directories: Vec<PathBuf> = mounts()
            .unwrap_or_default()
            .into_iter()
            .map(|mount| mount.path.join(self.path.trim_start_matches('/')))
            .filter(|directory| directory.is_dir())
            .collect();
        let mut next = 0;
        while let Some(directory) = directories.get(next) {
            let below = subdirectories(directory);
            directories.extend(below);
            next += 1;
        }
        directories
    }
}

/// Where the hierarchy with this controller is mounted.
pub(crate) fn hierarchy(controller: &str) -> Result<PathBuf> {
    mounts()?
        .into_iter()
        .find(|mount| mount.options.iter().any(|option| option == controller))
        .map(|mount| mount.path)
        .with_context(|| format!("no cgroup v1 hierarchy with the controller {controller} is mounted"))
}

/// The names directly below the roots of all hierarchies.
pub(crate) fn top_level_names() -> Vec<String> {
    mounts()
        .unwrap_or_default()
        .iter()
        .flat_map(|mount| subdirectories(&mount.path))
        .filter_map(|directory| Some(directory.file_name()?.to_str()?.to_owned()))
        .collect()
}

struct Mount {
    path: PathBuf,
    /// Of a v1 hierarchy, its controllers are among them.
    options: Vec<String>,
}

/// All cgroup mounts, the hybrid set-up's empty v2 hierarchy among them, in which runc makes cgroups too.
fn mounts() -> Result<Vec<Mount>> {
    let text = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
    Ok(text
        .lines()
        .filter_map(|line| {
            let mut fields = line.split(' ').skip(1);
            let (path, kind, options) = (fields.next()?, fields.next()?, fields.next()?);
            kind.starts_with("cgroup")
                .then(|| Mount { path: path.into(), options: options.split(',').map(str::to_owned).collect() })
        })
        .collect())
}

fn subdirectories(directory: &Path) -> Vec<PathBuf> {
    fs::read_dir(directory)
        .into_iter()
        .flatten()
        .flatten()
        .filter(|entry| entry.file_type().is_ok_and(|kind| kind.is_dir()))
        .map(|entry| entry.path())
        .collect()
}

fn inherit_cpuset(above: &Path, directory: &Path) -> Result<()> {
    for file in ["cpuset.cpus", "cpuset.mems"] {
        let (from, to) = (above.join(file), directory.join(file));
        let Ok(current) = fs::read_to_string(&to) else {
            continue; // Another controller's hierarchy.
        };
        if current.trim().is_empty() {
            let inherited = fs::read_to_string(&from).with_context(|| format!("read {}", from.display()))?;
            fs::write(&to, inherited.trim()).with_context(|| format!("write {}", to.display()))?;
        }
    }
    Ok(())
}
