//! What the agent costs, beside the least that anybody must pay for the same.
//!
//! ```text
//!   bench ──► kata-pulse   the release binary: HTTP from outside, CPU and memory from /proc
//!     │   ──► kata-node    simulated sandboxes in a process of their own
//!     │   ──► floor        this program again: the same files and sockets, nothing else
//!     │   ──► sweep, unmount  this program again: removes cgroups and mounts, however the run ends
//!     ▼
//!   figures ──► tables on standard output, docs/performance.md
//! ```
//!
//! Agent and floors take turns, so that a machine that slows down slows all of them: the ratio is what to compare. Exit
//! codes: 0 measured, whatever came of it; 1 not measured.

mod agent;
mod bounds;
mod callgrind;
mod cgroups;
mod child;
mod collectors;
mod figures;
mod floor;
mod kata;
mod machine;
mod pods;
mod recorded;
mod report;
mod run;

use std::fs;
use std::path::PathBuf;

use anyhow::Context;
use clap::{Parser, Subcommand};

use figures::Figures;

/// Measures the agent.
#[derive(Debug, Parser)]
struct Args {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Measure, and show or write what came of it
    Run {
        /// A few rounds of the smaller loads, in less than five minutes
        #[arg(long)]
        short: bool,

        /// Only these parts
        #[arg(long, value_enum, value_delimiter = ',')]
        only: Vec<run::Part>,

        /// How this run was asked for, for the report
        #[arg(long, default_value = "make bench")]
        command: String,

        /// Where the figures are kept
        #[arg(long)]
        figures: PathBuf,

        /// Criterion's directory, if it has run before
        #[arg(long)]
        criterion: Option<PathBuf>,
    },
    /// Write the report of a run
    Report {
        /// Where its figures are kept
        #[arg(long)]
        figures: PathBuf,
    },
    /// Be the floor
    #[command(hide = true)]
    Floor {
        /// What to do
        task: PathBuf,
    },
    /// Become another program that ends with this one
    #[command(hide = true)]
    Leash {
        /// The program and its arguments
        #[arg(trailing_var_arg = true, allow_hyphen_values = true)]
        command: Vec<String>,
    },
    /// Remove cgroups when standard input ends
    #[command(hide = true)]
    Sweep {
        /// Below which cgroup
        name: String,
    },
    /// Unmount volumes when standard input ends
    #[command(hide = true)]
    Unmount {
        /// Below which directory
        directory: PathBuf,
    },
}

#[expect(clippy::print_stdout, reason = "a program for people who measure")]
fn main() -> anyhow::Result<()> {
    match Args::parse().command {
        Command::Run { short, only, command, figures, criterion } => {
            run::raise_descriptor_limit();
            let programs = run::Programs::find()?;
            let before = machine::busy();
            let mut measured = run::run(&programs, if short { &run::SHORT } else { &run::FULL }, &only)?;
            let cgroup = std::mem::take(&mut measured.machine.cgroup);
            measured.machine = machine::describe(command, cgroup, [before, machine::busy()]);
            measured.micro = criterion.map(|directory| machine::micro(&directory)).transpose()?.unwrap_or_default();
            fs::create_dir_all(figures.parent().context("a file in a directory")?)?;
            fs::write(&figures, serde_json::to_vec_pretty(&measured)?)?;
            println!("{}", report::tables(&measured));
            Ok(())
        }
        Command::Report { figures } => {
            let text = fs::read(&figures).with_context(|| format!("read {}", figures.display()))?;
            let figures: Figures = serde_json::from_slice(&text)?;
            print!("{}", report::page(&figures));
            Ok(())
        }
        Command::Floor { task } => floor::run(&task),
        Command::Leash { command } => agent::become_leashed(&command),
        Command::Sweep { name } => cgroups::sweep(&name),
        Command::Unmount { directory } => pods::sweep(&directory),
    }
}
