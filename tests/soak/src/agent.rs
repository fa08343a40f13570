//! The agent under test: the real binary as a child that dies with the soak, asked over HTTP, told by signals.

use std::fs::{self, File};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::sync::{Mutex, PoisonError};
use std::time::{Duration, Instant};

use anyhow::{Context, bail, ensure};
use rustix::process::{Pid, Signal, kill_process};

use crate::node::Node;
use crate::workload;

/// How long start and end may take on a slow machine under load.
const PATIENCE: Duration = Duration::from_secs(30);

/// Arguments of the hidden sub-command that becomes the agent.
#[derive(Debug, clap::Args)]
pub struct LeashedArgs {
    /// The soak's pid
    #[arg(long)]
    parent: u32,
    /// The program and its arguments
    #[arg(trailing_var_arg = true, allow_hyphen_values = true, required = true)]
    command: Vec<PathBuf>,
}

/// Becomes the program, which is killed when the soak ends.
pub fn become_leashed(args: &LeashedArgs) -> anyhow::Result<()> {
    use std::os::unix::process::CommandExt;
    workload::die_with(args.parent)?;
    let (program, arguments) = args.command.split_first().context("a program")?;
    // Only returns when it fails.
    let error = Command::new(program).args(arguments).exec();
    Err(error).with_context(|| format!("run {}", program.display()))
}

/// A running agent. Killed when dropped.
#[derive(Debug)]
pub struct Agent {
    child: Mutex<Child>,
    pid: u32,
    log: PathBuf,
    configuration: PathBuf,
    /// `127.0.0.1:41873`
    pub address: String,
}

impl Agent {
    /// Starts it on a node, and returns when it is ready. Its log and its configuration file are in the directory.
    pub fn start(program: &Path, node: &Node, directory: &Path, environment: &[String]) -> anyhow::Result<Self> {
        let program = program.canonicalize().with_context(|| format!("find {}", program.display()))?;
        let (log, configuration) = (directory.join("agent.log"), directory.join("agent.yaml"));
        fs::write(&configuration, Self::settings("0.2"))?;
        let stderr = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = Command::new(workload::itself());
        command.args(["leashed", "--parent", &std::process::id().to_string(), "--"]).arg(program);
        command.args(["--listen-address", "127.0.0.1:0", "--config"]).arg(&configuration).args(node.flags());
        command.env_clear().stdin(Stdio::null()).stdout(Stdio::null()).stderr(stderr);
        for variable in environment {
            let (name, value) = variable.split_once('=').with_context(|| format!("{variable:?} is not NAME=VALUE"))?;
            command.env(name, value);
        }
        let child = command.spawn().context("start the agent")?;
        let pid = child.id();
        let mut agent = Self { child: Mutex::new(child), pid, log, configuration, address: String::new() };
        agent.address = agent.wait_for("it listens", || address_in(&fs::read_to_string(&agent.log).ok()?))?;
        let ready = || ureq::get(format!("http://{}/readyz", agent.address)).call().ok();
        agent.wait_for("it is ready", ready)?;
        Ok(agent)
    }

    /// What the configuration file says; the age at which a collection is too old is what changes.
    pub fn settings(max_age: &str) -> String {
        format!("metrics-profile: all\nmax-age-secs: {max_age}\n")
    }

    /// Writes another configuration and tells the agent.
    pub fn reload(&self, settings: &str) -> anyhow::Result<()> {
        fs::write(&self.configuration, settings)?;
        self.signal(Signal::HUP)
    }

    /// The agent's pid.
    pub fn pid(&self) -> u32 {
        self.pid
    }

    /// Fails when it has ended, with the end of its log.
    pub fn still_runs(&self) -> anyhow::Result<()> {
        let ended = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()?;
        let Some(status) = ended else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let tail: Vec<&str> = log.lines().rev().take(5).collect();
        bail!("the agent has ended: {status}; last lines first: {}", tail.join(" | "))
    }

    /// Asks it to end, as the kubelet does; it must do so in time, with 0.
    pub fn stop(&self) -> anyhow::Result<()> {
        self.signal(Signal::TERM)?;
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            if let Some(status) = self.child.lock().unwrap_or_else(PoisonError::into_inner).try_wait()? {
                ensure!(status.success(), "the agent ended with {status}");
                return Ok(());
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("the agent ignores SIGTERM")
    }

    fn signal(&self, signal: Signal) -> anyhow::Result<()> {
        let pid = i32::try_from(self.pid).ok().and_then(Pid::from_raw).context("a child has a pid")?;
        kill_process(pid, signal).context("signal the agent")
    }

    fn wait_for<T>(&self, what: &str, look: impl Fn() -> Option<T>) -> anyhow::Result<T> {
        let begun = Instant::now();
        while begun.elapsed() < PATIENCE {
            self.still_runs()?;
            if let Some(found) = look() {
                return Ok(found);
            }
            std::thread::sleep(Duration::from_millis(20));
        }
        bail!("not after {PATIENCE:?}: {what}")
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let child = self.child.get_mut().unwrap_or_else(PoisonError::into_inner);
        // Both fail only when it has ended and was waited for.
        child.kill().ok();
        child.wait().ok();
    }
}

/// The address in a whole line such as `… level=info msg=listening address=127.0.0.1:41873 …`.
fn address_in(log: &str) -> Option<String> {
    let mut whole = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let fields = whole.find_map(|line| line.split_once("msg=listening")?.1.split_once("address="))?.1;
    Some(fields.split_whitespace().next()?.trim_matches('"').to_owned())
}
