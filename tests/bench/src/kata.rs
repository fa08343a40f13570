//! Simulated Kata sandboxes, in a process whose cost is not the agent's.

use std::path::{Path, PathBuf};
use std::process::Command;

use anyhow::Context;
use serde::Deserialize;

use crate::child::Told;

/// A running node.
#[derive(Debug)]
pub struct KataNode {
    told: Told,
    /// What the node says of itself.
    pub says: Says,
}

/// The first line of the simulator.
#[derive(Debug, Deserialize)]
pub struct Says {
    /// What makes the agent read the node.
    pub flags: Vec<String>,
    /// What stands for `/`.
    pub host_root: PathBuf,
    /// Ids of sandboxes whose directories are not there yet.
    pub newcomers: Vec<String>,
}

impl KataNode {
    /// Starts the simulator with these arguments.
    pub fn start(program: &Path, arguments: &[&str]) -> anyhow::Result<Self> {
        let mut told = Told::start(Command::new(program).args(arguments))?;
        let line = told.hear()?;
        let says = serde_json::from_str(&line).with_context(|| format!("the simulator says {line:?}"))?;
        Ok(Self { told, says })
    }

    /// Lets a newcomer's directory appear.
    pub fn appear(&mut self, newcomer: usize) -> anyhow::Result<()> {
        self.told.ask(&format!("appear {newcomer}")).map(drop)
    }

    /// Lets time pass in the guests.
    pub fn advance(&mut self) -> anyhow::Result<()> {
        self.told.ask("advance 1").map(drop)
    }
}
