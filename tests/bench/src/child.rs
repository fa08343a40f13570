//! A program that is told what to do line by line, and answers each with one line.
//!
//! It is in a process group of its own, so that Ctrl-C in the terminal does not end it before it has cleaned up; it ends
//! when its standard input does, however this process ends.

use std::io::{BufRead, BufReader, Write};
use std::os::unix::process::CommandExt;
use std::process::{Child, ChildStdin, ChildStdout, Command, Stdio};

use anyhow::{Context, ensure};

/// A running program.
#[derive(Debug)]
pub struct Told {
    name: String,
    child: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Told {
    /// Starts it.
    pub fn start(command: &mut Command) -> anyhow::Result<Self> {
        let name = command.get_program().to_string_lossy().into_owned();
        command.process_group(0).stdin(Stdio::piped()).stdout(Stdio::piped());
        let mut child = command.spawn().with_context(|| format!("start {name}"))?;
        let (orders, answers) = (child.stdin.take(), child.stdout.take().context("standard output is piped")?);
        Ok(Self { name, child, orders, answers: BufReader::new(answers) })
    }

    /// The next line it says.
    pub fn hear(&mut self) -> anyhow::Result<String> {
        let mut line = String::new();
        let read = self.answers.read_line(&mut line).with_context(|| format!("hear {}", self.name))?;
        ensure!(read > 0, "{} ended without an answer", self.name);
        Ok(line.trim_end().to_owned())
    }

    /// Tells it a line, and gives what it answers.
    pub fn ask(&mut self, order: &str) -> anyhow::Result<String> {
        let orders = self.orders.as_mut().context("it was not told to end")?;
        writeln!(orders, "{order}").and_then(|()| orders.flush()).with_context(|| format!("tell {}", self.name))?;
        self.hear()
    }
}

impl Drop for Told {
    fn drop(&mut self) {
        drop(self.orders.take());
        // It cleans up and ends by itself.
        self.child.wait().ok();
    }
}
