//! Processes of the pods. Each is this program again: it takes the name it is to have, joins its cgroups, says so, and
//! waits for its end, which is the soak's at the latest.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// The word with which a workload tells that it has joined.
const JOINED: &str = "joined";

/// Arguments of the hidden sub-command.
#[derive(Debug, clap::Args)]
pub struct Args {
    /// The name the process shows in /proc
    name: String,
    /// The sandbox it belongs to: read by whoever looks at the command line
    #[arg(long)]
    sandbox: String,
    /// The soak's pid
    #[arg(long)]
    parent: u32,
}

/// The other side of [`Workload::start`].
pub fn run(args: &Args) -> anyhow::Result<()> {
    die_with(args.parent)?;
    fs::write("/proc/self/comm", &args.name).context("take a name")?;
    for directory in io::read_to_string(io::stdin())?.lines() {
        // 0 stands for the process that writes it.
        fs::write(Path::new(directory).join("cgroup.procs"), "0").with_context(|| format!("join {directory}"))?;
    }
    writeln!(io::stdout(), "{JOINED}")?;
    loop {
        std::thread::sleep(Duration::from_secs(3600));
    }
}

/// From here on, this process is killed when its parent ends.
pub fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("tie to the parent")?;
    let actual = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    ensure!(i64::from(actual) == i64::from(parent), "the soak is gone");
    Ok(())
}

/// This program, even when a build has replaced the file since.
pub fn itself() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}

/// A process of a pod. Killed when dropped, or when the thread ends that has started it.
#[derive(Debug)]
pub struct Workload(Child);

impl Workload {
    /// Starts it, in a network namespace of its own if told so, and returns when it is in its cgroups.
    pub fn start(name: &str, sandbox: &str, apart: bool, cgroups: &[PathBuf]) -> anyhow::Result<Self> {
        let mut command = if apart { Command::new("unshare") } else { Command::new(itself()) };
        if apart {
            command.args(["--net", "--"]).arg(itself());
        }
        command.args(["workload", name, "--sandbox", sandbox, "--parent", &std::process::id().to_string()]);
        command.stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut workload = Self(command.spawn().with_context(|| format!("start {name}"))?);
        workload.join(cgroups).with_context(|| format!("{name} did not start"))?;
        Ok(workload)
    }

    /// The pid on this host.
    pub fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Bounded without a clock: a child that cannot join ends, and its end closes the pipes.
    fn join(&mut self, cgroups: &[PathBuf]) -> anyhow::Result<()> {
        let mut stdin = self.0.stdin.take().context("standard input is a pipe")?;
        for directory in cgroups {
            stdin.write_all(directory.as_os_str().as_bytes())?;
            stdin.write_all(b"\n")?;
        }
        drop(stdin);
        let mut line = String::new();
        BufReader::new(self.0.stdout.take().context("standard output is a pipe")?).read_line(&mut line)?;
        ensure!(line.trim_end() == JOINED, "it ended before it joined its cgroups");
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}
