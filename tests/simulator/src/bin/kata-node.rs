//! Simulated Kata sandboxes in a process of their own, for those who measure what another process costs.
//!
//! The first line of standard output tells the node as JSON. Then each line of standard input is an order, answered with
//! one line when it is done; at the end of standard input the node goes, and its files with it. So whoever started it
//! may end in any way, and leaves nothing behind.
//!
//! ```text
//! > {"flags":["--host-root",…],"host_root":"/tmp/kAbCdE","sandboxes":["5f…"]}
//! < advance 3
//! > ok
//! ```

use std::io::{self, BufRead, Write};

use anyhow::{Context, bail};
use clap::{Parser, ValueEnum};
use kata_pulse_simulator::kata::{Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan};
use serde_json::json;

/// Serves simulated Kata sandboxes until standard input ends.
#[derive(Debug, Parser)]
struct Args {
    /// How many sandboxes
    #[arg(long, default_value_t = 1)]
    sandboxes: usize,

    /// How many containers each of them has, the pause container not counted
    #[arg(long, default_value_t = 1)]
    containers: usize,

    /// What runs them
    #[arg(long, value_enum, default_value_t = Kind::RustClh)]
    kind: Kind,

    /// So many more that the runtime does not list, and whose directories are not there yet
    #[arg(long, default_value_t = 0)]
    newcomers: usize,
}

/// Runtime and hypervisor.
#[derive(Debug, Clone, Copy, ValueEnum)]
enum Kind {
    /// runtime-rs with Cloud Hypervisor: agent and VMM can be asked
    RustClh,
    /// The Go runtime with QEMU: only the shim can be asked
    GoQemu,
}

impl Kind {
    fn plan(self) -> SandboxPlan {
        match self {
            Self::RustClh => SandboxPlan::new(Runtime::Rust, Hypervisor::CloudHypervisor),
            Self::GoQemu => SandboxPlan::new(Runtime::Go, Hypervisor::Qemu),
        }
    }
}

fn main() -> anyhow::Result<()> {
    let args = Args::parse();
    let plan = || args.kind.plan().containers(args.containers).unmeasured_by_runtime();
    let mut builder = KataNode::builder();
    for _ in 0..args.sandboxes {
        builder = builder.plan(plan());
    }
    let node = builder.start()?;
    let ids: Vec<String> = node.sandboxes().iter().map(|sandbox| sandbox.id().to_owned()).collect();
    let newcomers = (0..args.newcomers).map(|_| node.add(plan().unlisted())).collect::<anyhow::Result<Vec<_>>>()?;
    newcomers.iter().for_each(KataSandbox::vanish);
    let flags: Vec<_> = node.flags().into_iter().map(|flag| flag.to_string_lossy().into_owned()).collect();
    let newcomer_ids: Vec<&str> = newcomers.iter().map(|sandbox| sandbox.id()).collect();
    answer(&json!({
        "flags": flags,
        "host_root": node.host_root(),
        "sandboxes": ids,
        "newcomers": newcomer_ids,
    }))?;
    for line in io::stdin().lock().lines() {
        obey(&line?, &node, &newcomers)?;
        answer(&"ok")?;
    }
    Ok(())
}

fn obey(order: &str, node: &KataNode, newcomers: &[KataSandbox]) -> anyhow::Result<()> {
    let (word, number) = order.split_once(' ').with_context(|| format!("no number in {order:?}"))?;
    let number: usize = number.parse().with_context(|| format!("no number in {order:?}"))?;
    let newcomer = || newcomers.get(number).with_context(|| format!("no newcomer {number}"));
    match word {
        "advance" => node.advance(u64::try_from(number)?),
        "appear" => newcomer()?.appear(),
        "vanish" => newcomer()?.vanish(),
        _ => bail!("unknown order {order:?}"),
    }
    Ok(())
}

fn answer(what: &impl std::fmt::Display) -> anyhow::Result<()> {
    let mut out = io::stdout().lock();
    writeln!(out, "{what}")?;
    Ok(out.flush()?)
}
