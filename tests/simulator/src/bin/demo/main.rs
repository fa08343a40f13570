//! A node to play with: real cgroups and processes on this host, named by a simulated runtime, and the agent
//! that measures them.
//!
//! ```text
//! plan ──► node ──► agent ──► page   for people
//!           │                 check  for tests
//!           ├─ cgroups    v1, hybrid or v2 directories below /kata-pulse-demo-<pid>
//!           ├─ process    this binary again, as a workload
//!           ├─ network    a veth per pod
//!           ├─ sandboxes  simulated Kata guests, with real processes around them
//!           └─ the simulated CRI server, which knows the names
//! ```
//!
//! Whatever a demo makes carries its pid in the name, and is removed when it ends. Workloads and agent die
//! with the demo even when it is killed; the cgroups of a killed demo are swept by the next one.
//!
//! Exit codes: 0 clean, 1 something failed, 2 this host or this user cannot run it, or bad usage.

mod agent;
mod check;
mod interrupt;
mod network;
mod node;
mod page;
mod plan;
mod process;
mod sandboxes;
mod sweep;
mod workload;

use std::env;
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::time::Duration;

use anyhow::{Context, bail};
use clap::{Parser, Subcommand};

use agent::Agent;
use interrupt::Interrupt;
use node::DemoNode;

/// Where the agent listens unless DEMO_PORT says otherwise.
const DEFAULT_PORT: u16 = 8090;

/// How often a running demo looks whether its agent still runs.
const WATCH_INTERVAL: Duration = Duration::from_millis(500);

/// Runs a simulated node on this host and kata-pulse on it.
#[derive(Debug, Parser)]
#[command(
    args_conflicts_with_subcommands = true,
    disable_help_subcommand = true,
    after_help = "DEMO_PORT sets the port of the agent, 8090 if unset."
)]
struct Args {
    /// Path of the kata-pulse binary
    #[arg(required_unless_present = "no_agent")]
    agent: Option<PathBuf>,

    /// Only build the node, and say where the runtime's socket is
    #[arg(long)]
    no_agent: bool,

    /// Wait until everything that runs is measured, print one line and leave
    #[arg(long)]
    check: bool,

    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What this binary does when it starts itself.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Be a process of a pod
    #[command(hide = true)]
    Workload(workload::Args),
    /// Become another program that dies with the demo
    #[command(hide = true)]
    Leashed(process::LeashedArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match args.inner {
        Some(Inner::Workload(args)) => workload::run(&args),
        Some(Inner::Leashed(args)) => process::become_leashed(&args),
        None => demonstrate(&args).and_then(|last_words| show(&last_words)),
    };
    let Err(error) = outcome else { return ExitCode::SUCCESS };
    // Nothing is left to be done about an error on the way to the terminal.
    writeln!(io::stderr(), "demo: {error:#}").ok();
    if error.is::<Unfit>() { ExitCode::from(2) } else { ExitCode::FAILURE }
}

/// Runs the demo to its end, and gives the last words. Everything it made is gone when it returns.
fn demonstrate(args: &Args) -> anyhow::Result<String> {
    // First of all: from here on, a signal cannot keep anything from being cleaned up.
    let interrupt = Interrupt::listen()?;
    if let Some(remedy) = node::unfit() {
        return Err(Unfit(remedy).into());
    }
    let mut node = DemoNode::build(&interrupt)?;
    let Some(program) = args.agent.as_ref().filter(|_| !args.no_agent) else {
        if args.check {
            return check::built(&node, &interrupt);
        }
        show(&page::without_agent(&node))?;
        while !interrupt.wait(WATCH_INTERVAL) {}
        return Ok(String::new());
    };

    // A check runs beside whatever else runs on the host, so it takes any port.
    let port = if args.check { 0 } else { port()? };
    let mut agent = Agent::start(program, &node, port, &interrupt)?;
    if args.check {
        return check::served(&agent, &node, &interrupt);
    }
    show(&page::with_agent(&node, &agent))?;
    while !interrupt.wait(WATCH_INTERVAL) {
        agent.still_runs()?;
        node.still_runs()?;
    }
    Ok(String::new())
}

fn port() -> anyhow::Result<u16> {
    match env::var("DEMO_PORT") {
        Ok(port) => port.parse().with_context(|| format!("DEMO_PORT={port} is not a port")),
        Err(env::VarError::NotPresent) => Ok(DEFAULT_PORT),
        Err(error) => bail!("DEMO_PORT: {error}"),
    }
}

fn show(text: &str) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    out.write_all(text.as_bytes())?;
    Ok(out.flush()?)
}

/// The demo cannot run here; the text is the remedy.
#[derive(Debug)]
struct Unfit(String);

impl std::fmt::Display for Unfit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(&self.0)
    }
}

impl std::error::Error for Unfit {}
