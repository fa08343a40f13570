//! Starts the agent on the demo's node, waits until it is ready, and asks it.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, bail};
use rustix::process::{Pid, Signal, kill_process};

use crate::interrupt::Interrupt;
use crate::node::DemoNode;
use crate::process;

/// What the agent gets to start on a slow machine.
const START_PATIENCE: Duration = Duration::from_secs(15);
/// A little more than the agent takes to finish what is in flight.
const STOP_PATIENCE: Duration = Duration::from_secs(6);
/// For one answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(10);

/// A running kata-pulse. Stopped when dropped.
#[derive(Debug)]
pub(crate) struct Agent {
    child: Child,
    log: PathBuf,
    /// `127.0.0.1:8090`
    pub(crate) address: String,
}

impl Agent {
    /// Starts it, and returns when it is ready.
    pub(crate) fn start(program: &Path, node: &DemoNode, port: u16, interrupt: &Interrupt) -> anyhow::Result<Self> {
        let program = program.canonicalize().with_context(|| format!("find {}", program.display()))?;
        let log = node.agent_log();
        let stderr = File::create(&log).with_context(|| format!("create {}", log.display()))?;
        let mut command = process::leashed(&program);
        command
            .args(["--listen-address", &format!("127.0.0.1:{port}")])
            .arg("--runtime-endpoint")
            .arg(node.runtime.path())
            .arg("--cgroupfs")
            .arg(node.cgroups.root())
            .arg("--run-dir")
            .arg(node.run_directory())
            // The address is read from the log, so the log has to be the one this demo can read.
            .args(["--log-format", "logfmt", "--log-level", "info"])
            .process_group(0)
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(stderr);
        let child = command.spawn().with_context(|| format!("start {}", program.display()))?;
        let mut agent = Self { child, log, address: String::new() };
        agent.address = interrupt.wait_until("the agent listens", START_PATIENCE, || {
            agent.still_runs()?;
            Ok(address_in(&fs::read_to_string(&agent.log)?).map(str::to_owned))
        })?;
        interrupt.wait_until("the agent is ready", START_PATIENCE, || {
            agent.still_runs()?;
            Ok(agent.get("/readyz")?.succeeded().then_some(()))
        })?;
        Ok(agent)
    }

    /// Fails when it has ended, with the end of its log.
    pub(crate) fn still_runs(&mut self) -> anyhow::Result<()> {
        let Some(status) = self.child.try_wait()? else { return Ok(()) };
        let log = fs::read_to_string(&self.log).unwrap_or_default();
        let lines: Vec<_> = log.lines().collect();
        let tail = lines.get(lines.len().saturating_sub(5)..).unwrap_or_default().join("\n  ");
        bail!("the agent has ended: {status}\n  {tail}")
    }

    /// Asks for `path`.
    pub(crate) fn get(&self, path: &str) -> anyhow::Result<Reply> {
        let address = &self.address;
        let ask = || -> anyhow::Result<Reply> {
            let mut stream = TcpStream::connect(address)?;
            stream.set_read_timeout(Some(ANSWER_PATIENCE))?;
            // HTTP/1.0 spares this client chunks and kept connections.
            write!(stream, "GET {path} HTTP/1.0\r\nHost: {address}\r\nAccept: text/plain\r\n\r\n")?;
            let mut text = String::new();
            stream.read_to_string(&mut text)?;
            Reply::parse(&text).context("not an HTTP answer")
        };
        ask().with_context(|| format!("ask http://{address}{path}"))
    }
}

impl Drop for Agent {
    fn drop(&mut self) {
        let pid = i32::try_from(self.child.id()).ok().and_then(Pid::from_raw);
        if let Some(pid) = pid {
            // Fails only when it has ended, which the wait below finds out.
            kill_process(pid, Signal::TERM).ok();
        }
        let begun = Instant::now();
        while matches!(self.child.try_wait(), Ok(None)) && begun.elapsed() < STOP_PATIENCE {
            thread::sleep(Duration::from_millis(20));
        }
        self.child.kill().ok();
        self.child.wait().ok();
    }
}

/// An HTTP answer.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Reply {
    status: u16,
    pub(crate) body: String,
}

impl Reply {
    pub(crate) fn succeeded(&self) -> bool {
        self.status == 200
    }

    fn parse(text: &str) -> Option<Self> {
        let (head, body) = text.split_once("\r\n\r\n")?;
        let status = head.split(' ').nth(1)?.parse().ok()?;
        Some(Self { status, body: body.to_owned() })
    }
}

/// The address in a complete line such as `ts=… level=info msg=listening target=… address=127.0.0.1:8090`.
fn address_in(log: &str) -> Option<&str> {
    let complete = log.split_inclusive('\n').filter(|line| line.ends_with('\n'));
    let mut listening = complete.filter(|line| line.split_whitespace().any(|field| field == "msg=listening"));
    let address =
        listening.find_map(|line| line.split_whitespace().find_map(|field| field.strip_prefix("address=")))?;
    Some(address.trim_matches('"'))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_address_is_read_from_a_complete_line_only() {
        let line = "ts=2026-11-21T03:00:00Z level=info msg=listening address=127.0.0.1:8090";
        assert_eq!(address_in(line), None);
        let log = |line: &str| format!("ts=1 msg=start address=elsewhere\n{line}\nts=2 msg=x\n");
        assert_eq!(address_in(&log(line)), Some("127.0.0.1:8090"));
        // Further fields may stand between.
        let line = "ts=1 level=info msg=listening target=kata_pulse address=\"127.0.0.1:8090\"";
        assert_eq!(address_in(&log(line)), Some("127.0.0.1:8090"));
    }

    #[test]
    fn an_answer_has_a_status_and_a_body() {
        let reply = Reply::parse("HTTP/1.0 200 OK\r\ncontent-type: text/plain\r\n\r\na 1\n");
        assert_eq!(reply, Some(Reply { status: 200, body: "a 1\n".to_owned() }));
        assert_eq!(Reply::parse("garbage"), None);
    }
}
