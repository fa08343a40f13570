//! What a run leaves on the machine, found by the run's name, and its removal: containerd, shims, containers, mounts,
//! network, cgroups, files. Nothing here asks containerd, which may be dead.

use std::collections::BTreeSet;
use std::fs::{self, File};
use std::io::ErrorKind;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicU32, Ordering};
use std::time::{Duration, Instant};

use anyhow::{Context, Result, ensure};
use rustix::mount::UnmountFlags;
use rustix::process::{Pid, Signal};

use crate::cgroup::{self, Cgroup};
use crate::needs;

/// Not the temporary directory of the environment, which may be deep: a socket's path has 107 bytes at most.
const DIRECTORIES: &str = "/tmp";

/// The name of every run starts so, in every place where it leaves something.
const PREFIX: &str = "kp-";

const CGROUP_PREFIX: &str = "kata-pulse-e2e-";

/// Held locked by the process of the run.
const LOCK: &str = "lock";

/// Where libcni remembers what it set up; containerd 1.6 cannot be told another place.
const CNI_RESULTS: &str = "/var/lib/cni/results";

/// Where shims make their sockets, whatever the state directory of their containerd.
const SHIM_SOCKETS: &str = "/run/containerd/s";

/// How long killed processes may take to be gone.
const PATIENCE: Duration = Duration::from_secs(10);

/// One run, by its name: `kp-<pid>-<number>`, short enough for a network interface.
pub(crate) struct Run {
    name: String,
}

impl Run {
    /// Makes a run of this process, with its directory and the lock that marks it as alive.
    pub(crate) fn begin() -> Result<(Self, File)> {
        static NUMBER: AtomicU32 = AtomicU32::new(0);
        let number = NUMBER.fetch_add(1, Ordering::Relaxed);
        let run = Self { name: format!("{PREFIX}{}-{number}", std::process::id()) };
        // The directory gets its name once the lock is held, so no sweep can take it for a left-over.
        let unnamed = Path::new(DIRECTORIES).join(format!(".{}", run.name));
        fs::create_dir_all(&unnamed).with_context(|| format!("make {}", unnamed.display()))?;
        let lock = File::create(unnamed.join(LOCK)).context("make the lock")?;
        lock.try_lock().context("take the lock")?;
        fs::rename(&unnamed, run.directory()).with_context(|| format!("make {}", run.directory().display()))?;
        Ok((run, lock))
    }

    pub(crate) fn name(&self) -> &str {
        &self.name
    }

    pub(crate) fn directory(&self) -> PathBuf {
        Path::new(DIRECTORIES).join(&self.name)
    }

    pub(crate) fn configuration(&self) -> PathBuf {
        self.directory().join("config.toml")
    }

    pub(crate) fn state(&self) -> PathBuf {
        self.directory().join("state")
    }

    pub(crate) fn socket(&self) -> PathBuf {
        self.directory().join("c.sock")
    }

    /// The network interface that joins the run's pods.
    pub(crate) fn bridge(&self) -> &str {
        &self.name
    }

    /// The third byte of the run's addresses.
    pub(crate) fn subnet(&self) -> u32 {
        let digits = self.name.bytes().filter(u8::is_ascii_digit);
        digits.fold(0, |sum, digit| (sum * 10 + u32::from(digit - b'0')) % 256)
    }

    pub(crate) fn cgroup(&self) -> Cgroup {
        let suffix = self.name.trim_start_matches(PREFIX);
        Cgroup::new(format!("/{CGROUP_PREFIX}{suffix}"))
    }

    /// Removes everything. The directory goes last: as long as something is left, a later sweep finds it.
    pub(crate) fn clear(&self) -> Result<()> {
        self.end_processes()?;
        let shim_sockets = self.shim_sockets();
        self.unmount()?;
        self.remove_bridge()?;
        self.cgroup().remove(PATIENCE)?;
        self.forget_network()?;
        for socket in shim_sockets {
            remove_file(&socket)?;
        }
        for directory in [SHIM_SOCKETS, "/run/containerd", CNI_RESULTS, "/var/lib/cni"] {
            // Others may still use them; only an empty one can go.
            let _ = fs::remove_dir(directory);
        }
        match fs::remove_dir_all(self.directory()) {
            Err(error) if error.kind() != ErrorKind::NotFound => {
                Err(error).with_context(|| format!("remove {}", self.directory().display()))
            }
            _ => Ok(()),
        }
    }

    /// Ends containerd before the shims, so that it starts no new ones, and both before the containers.
    fn end_processes(&self) -> Result<()> {
        let deadline = Instant::now() + PATIENCE;
        loop {
            let mut alive: Vec<u32> = self.commands();
            alive.extend(self.cgroup().processes_below());
            if alive.is_empty() {
                return Ok(());
            }
            ensure!(Instant::now() < deadline, "processes {alive:?} of {} cannot be killed", self.name);
            for pid in alive {
                kill(pid);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
    }

    /// containerd and its shims, known by the run's own paths among their arguments.
    fn commands(&self) -> Vec<u32> {
        let (configuration, socket) = (self.configuration(), self.socket());
        let own = [configuration.as_os_str().as_encoded_bytes(), socket.as_os_str().as_encoded_bytes()];
        let mut pids: Vec<u32> = processes()
            .filter(|pid| {
                let command = fs::read(format!("/proc/{pid}/cmdline")).unwrap_or_default();
                let mut arguments = command.split(|byte| *byte == 0);
                let program = arguments.next().unwrap_or_default();
                let program = program.rsplit(|byte| *byte == b'/').next().unwrap_or_default();
                program.starts_with(b"containerd") && arguments.any(|argument| own.contains(&argument))
            })
            .collect();
        pids.sort_unstable();
        pids
    }

    fn shim_sockets(&self) -> Vec<PathBuf> {
        let bundles = self.state().join("io.containerd.runtime.v2.task/k8s.io");
        entries(&bundles)
            .filter_map(|bundle| fs::read_to_string(bundle.join("address")).ok())
            .filter_map(|address| Some(PathBuf::from(address.trim().strip_prefix("unix://")?)))
            .filter(|socket| socket.starts_with(SHIM_SOCKETS))
            .collect()
    }

    fn unmount(&self) -> Result<()> {
        let mounts = fs::read_to_string("/proc/self/mounts").context("read /proc/self/mounts")?;
        let targets = mounts.lines().filter_map(|line| line.split(' ').nth(1));
        let own: Vec<&str> = targets.filter(|target| Path::new(target).starts_with(self.directory())).collect();
        // What was mounted last may lie on what was mounted first.
        for target in own.into_iter().rev() {
            rustix::mount::unmount(target, UnmountFlags::DETACH).with_context(|| format!("unmount {target}"))?;
        }
        Ok(())
    }

    /// The pods' ends went with their namespaces; the kernel takes the node's ends a moment later, and until then
    /// they hang on the bridge.
    fn remove_bridge(&self) -> Result<()> {
        let bridge = Path::new("/sys/class/net").join(self.bridge());
        let ends = entries(&bridge.join("brif"));
        let names = ends.filter_map(|end| Some(end.file_name()?.to_str()?.to_owned()));
        for name in names.chain([self.bridge().to_owned()]) {
            if !Path::new("/sys/class/net").join(&name).exists() {
                continue;
            }
            let removal = Command::new("ip")
                .env("PATH", needs::search_path())
                .args(["link", "delete", &name])
                .output()
                .context("run ip")?;
            let gone = !Path::new("/sys/class/net").join(&name).exists();
            let complaint = String::from_utf8_lossy(&removal.stderr);
            ensure!(gone, "remove the network interface {name}: {complaint}");
        }
        Ok(())
    }

    /// Removes libcni's notes on the run's pods: they name the namespace files in the run's directory.
    fn forget_network(&self) -> Result<()> {
        let directory = self.directory().display().to_string() + "/";
        for note in entries(Path::new(CNI_RESULTS)) {
            let text = fs::read_to_string(&note).unwrap_or_default();
            if text.contains(&directory) {
                remove_file(&note)?;
            }
        }
        Ok(())
    }
}

/// Removes what runs left whose process has ended.
pub(crate) fn sweep() -> Result<()> {
    let directories = entries(Path::new(DIRECTORIES));
    let interfaces = entries(Path::new("/sys/class/net"));
    let mut names: BTreeSet<String> =
        directories.chain(interfaces).filter_map(|path| Some(path.file_name()?.to_str()?.to_owned())).collect();
    for name in cgroup::top_level_names() {
        if let Some(suffix) = name.strip_prefix(CGROUP_PREFIX) {
            names.insert(format!("{PREFIX}{suffix}"));
        }
    }
    for name in names.into_iter().filter(|name| is_run_name(name)) {
        let run = Run { name };
        // The lock stays held while the traces go, so that two sweeps do not meet. A run without a lock file lost it
        // to somebody's `rm`: a living one has it from the start.
        let lock = File::open(run.directory().join(LOCK)).ok();
        if lock.as_ref().is_none_or(|lock| lock.try_lock().is_ok()) {
            run.clear().with_context(|| format!("sweep the left-overs of {}", run.name))?;
        }
    }
    Ok(())
}

fn is_run_name(name: &str) -> bool {
    let number = |text: &str| !text.is_empty() && text.bytes().all(|byte| byte.is_ascii_digit());
    name.strip_prefix(PREFIX)
        .and_then(|rest| rest.split_once('-'))
        .is_some_and(|(pid, count)| number(pid) && number(count))
}

fn processes() -> impl Iterator<Item = u32> {
    entries(Path::new("/proc")).filter_map(|path| path.file_name()?.to_str()?.parse().ok())
}

fn kill(pid: u32) {
    let pid = i32::try_from(pid).ok().and_then(Pid::from_raw);
    // It may have ended by itself since it was listed.
    let _ = pid.map(|pid| rustix::process::kill_process(pid, Signal::KILL));
}

fn entries(directory: &Path) -> impl Iterator<Item = PathBuf> + use<> {
    fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path())
}

fn remove_file(path: &Path) -> Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != ErrorKind::NotFound => {
            Err(error).with_context(|| format!("remove {}", path.display()))
        }
        _ => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::{Run, is_run_name};

    #[test]
    fn names_of_runs_are_told_from_others() {
        assert!(is_run_name("kp-812-0"));
        for other in ["kp-812", "kp-", "kp-812-", "kp--0", "kp-812-0-1", "kp-a-0", ".kp-812-0"] {
            assert!(!is_run_name(other), "{other}");
        }
    }

    #[test]
    fn the_longest_name_fits_a_network_interface_and_a_socket() {
        // The kernel's highest pid, and a thousand nodes in one test process.
        let run = Run { name: "kp-4194304-999".to_owned() };
        assert!(run.bridge().len() <= 15);
        assert!(run.socket().as_os_str().len() < 100);
        assert!(run.subnet() < 256);
    }
}
