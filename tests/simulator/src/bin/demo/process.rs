//! Starts processes that cannot outlive the demo.
//!
//! A workload is this binary again, started through util-linux so that it lands in a pod's network
//! namespace. It reads from its standard input which cgroups to join, joins them before it does anything
//! else, and says so on its standard output.

use std::ffi::OsString;
use std::io::{BufRead, BufReader, Write};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use anyhow::{Context, ensure};
use clap::ValueEnum;
use rustix::process::{Signal, getppid, set_parent_process_death_signal};

use crate::plan::Work;

/// The word with which a workload tells that it has joined its cgroups.
pub(crate) const JOINED: &str = "joined";

/// What a workload is to be.
#[derive(Debug)]
pub(crate) struct Order<'a> {
    pub(crate) name: &'a str,
    pub(crate) work: Work,
    pub(crate) network: Network,
    /// Further arguments of the work.
    pub(crate) extra: Vec<OsString>,
}

/// Which network namespace a workload lives in.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Network {
    /// A new one.
    Own,
    /// That of the process with this pid.
    Of(u32),
    /// The host's.
    Host,
}

/// A process of a pod. Killed when dropped.
#[derive(Debug)]
pub(crate) struct Workload {
    name: String,
    child: Child,
}

impl Workload {
    /// Starts it, and returns when it is in its namespace and in the cgroups of these directories.
    pub(crate) fn start(order: &Order<'_>, cgroups: &[PathBuf]) -> anyhow::Result<Self> {
        let through = |tool: &str, namespace: String| {
            let mut command = Command::new(tool);
            command.args([&namespace, "--"]).arg(itself());
            command
        };
        let mut command = match order.network {
            Network::Own => through("unshare", "--net".to_owned()),
            Network::Of(pid) => through("nsenter", format!("--net=/proc/{pid}/ns/net")),
            Network::Host => Command::new(itself()),
        };
        let work = order.work.to_possible_value().context("a work that has a name")?;
        command.args(["workload", "--name", order.name, "--work", work.get_name()]);
        command.args(["--parent", &std::process::id().to_string()]);
        command.args(&order.extra);
        // Its own process group: Ctrl-C at the terminal is for the demo, which then ends the rest in order.
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let child = command.spawn().with_context(|| format!("start {}", order.name))?;
        let mut workload = Self { name: order.name.to_owned(), child };
        workload.join(cgroups).with_context(|| format!("{} did not start", order.name))?;
        Ok(workload)
    }

    /// The pid on this host. The tools that start it make way for it, so it is the child's.
    pub(crate) fn pid(&self) -> u32 {
        self.child.id()
    }

    /// Waits for its end.
    pub(crate) fn wait(&mut self) -> anyhow::Result<ExitStatus> {
        self.child.wait().with_context(|| format!("wait for {}", self.name))
    }

    /// Fails when it has ended.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        let ended = self.child.try_wait()?;
        ensure!(ended.is_none(), "{} has ended: {}", self.name, ended.unwrap_or_default());
        Ok(())
    }

    /// Bounded without a clock: a child that cannot join ends, and its end closes the pipes.
    fn join(&mut self, cgroups: &[PathBuf]) -> anyhow::Result<()> {
        let mut stdin = self.child.stdin.take().context("standard input is a pipe")?;
        for directory in cgroups {
            stdin.write_all(directory.as_os_str().as_bytes())?;
            stdin.write_all(b"\n")?;
        }
        drop(stdin);
        let stdout = self.child.stdout.take().context("standard output is a pipe")?;
        let mut line = String::new();
        BufReader::new(stdout).read_line(&mut line)?;
        ensure!(line.trim_end() == JOINED, "it ended before it joined its cgroups");
        Ok(())
    }
}

impl Drop for Workload {
    fn drop(&mut self) {
        // Both fail only when it has ended and was waited for.
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// Arguments of the hidden sub-command that becomes another program.
#[derive(Debug, clap::Args)]
pub(crate) struct LeashedArgs {
    #[arg(long)]
    parent: u32,
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<OsString>,
}

/// A command that runs `program` so that it dies with the demo, however the demo dies.
pub(crate) fn leashed(program: &PathBuf) -> Command {
    let mut command = Command::new(itself());
    command.args(["leashed", "--parent", &std::process::id().to_string(), "--"]).arg(program);
    command
}

/// The other side of [`leashed`].
pub(crate) fn become_leashed(args: &LeashedArgs) -> anyhow::Result<()> {
    die_with(args.parent)?;
    let (program, arguments) = args.command.split_first().context("a program")?;
    // Only returns when it fails.
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// From here on, this process is killed when its parent ends. Fails when the parent has ended already.
pub(crate) fn die_with(parent: u32) -> anyhow::Result<()> {
    set_parent_process_death_signal(Some(Signal::KILL)).context("tie to the parent")?;
    let actual = getppid().map_or(0, |pid| pid.as_raw_nonzero().get());
    ensure!(i64::from(actual) == i64::from(parent), "the demo is gone");
    Ok(())
}

/// This binary, even when a build has replaced the file since, and seen from a program that is not it.
fn itself() -> PathBuf {
    PathBuf::from(format!("/proc/{}/exe", std::process::id()))
}
