//! Processes that stand for those of a sandbox: a hypervisor in the pod's network namespace, and virtiofsd. They sleep.
//!
//! Each is the shim's own program again, started as `<program> stand-in <name> -id <sandbox> -parent <pid>`, and dies
//! with the shim.

use std::fs;
use std::io::{self, BufRead, BufReader, Write};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::Duration;

use anyhow::{Context, ensure};
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

/// What a stand-in says when it has its name.
const READY: &str = "ready";

/// A process of a sandbox. Killed when dropped.
#[derive(Debug)]
pub(super) struct StandIn(Child);

impl StandIn {
    /// Starts one, and returns when it has its name: `cloud-hypervisor`, of which the kernel keeps 15 letters.
    pub(super) fn start(name: &str, sandbox: &str, network: Option<&Path>) -> anyhow::Result<Self> {
        let program = std::env::current_exe().context("find this program")?;
        let mut command = match network {
            // It makes way for the program, so the pid stays.
            Some(network) => {
                let mut command = Command::new("nsenter");
                command.arg(format!("--net={}", network.display())).arg("--").arg(program);
                command
            }
            None => Command::new(program),
        };
        let parent = std::process::id().to_string();
        command.args(["stand-in", name, "-id", sandbox, "-parent", &parent]);
        command.stdin(Stdio::null()).stdout(Stdio::piped());
        let mut child = Self(command.spawn().with_context(|| format!("start {name}"))?);
        let mut line = String::new();
        let stdout = child.0.stdout.take().context("standard output is a pipe")?;
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim_end() == READY, "{name} did not start");
        Ok(child)
    }

    /// Its pid on this host.
    pub(super) fn pid(&self) -> u32 {
        self.0.id()
    }

    /// Whether it runs still.
    pub(super) fn runs(&mut self) -> bool {
        matches!(self.0.try_wait(), Ok(None))
    }
}

impl Drop for StandIn {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        self.0.kill().ok();
        self.0.wait().ok();
    }
}

/// What the process itself does: it takes the name and sleeps until its parent ends.
///
/// # Errors
/// When the parent has ended already.
pub fn stand_in(name: &str, parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("tie to the parent")?;
    let actual = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    ensure!(i64::from(actual) == i64::from(parent), "the shim is gone");
    fs::write("/proc/self/comm", name).context("take a name")?;
    let mut out = io::stdout().lock();
    writeln!(out, "{READY}")?;
    out.flush()?;
    loop {
        thread::sleep(Duration::from_secs(3600));
    }
}
