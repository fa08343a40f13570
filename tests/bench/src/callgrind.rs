//! Instructions and allocations of the release binary, counted by valgrind's callgrind. A virtual machine has no counters
//! of its own for them, and these come out the same however busy the machine is.
//!
//! Kernel time is not in them. The agent starts without being counted, and is counted for some scrapes only.

use std::collections::HashMap;
use std::fs;
use std::path::Path;
use std::process::Command;

use anyhow::{Context, ensure};
use serde::{Deserialize, Serialize};

use crate::agent::Agent;

/// What asks the allocator for memory.
const ALLOCATING: [&str; 6] = ["malloc", "calloc", "realloc", "posix_memalign", "aligned_alloc", "memalign"];

/// Scrapes before and while it is counted.
const WARM_UP: usize = 3;
const COUNTED: u64 = 5;

/// What one scrape takes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Counted {
    /// Instructions in user space.
    pub instructions: u64,
    /// Calls of the allocator for memory.
    pub allocations: u64,
}

/// Counts scrapes of a path.
pub fn count(program: &Path, flags: &[String], path: &str) -> anyhow::Result<Counted> {
    let directory = tempfile::tempdir()?;
    let out = directory.path().join("out");
    let out_flag = format!("--callgrind-out-file={}", out.display());
    let under = ["valgrind", "-q", "--tool=callgrind", "--instr-atstart=no", "--collect-jumps=no", &out_flag];
    let agent = Agent::start(program, &under.map(str::to_owned), flags)?;
    agent.wait_until_ready()?;
    for _ in 0..WARM_UP {
        agent.get(path)?;
    }
    tell(&agent, &["instrumentation", "on"])?;
    // The first one translates code.
    agent.get(path)?;
    tell(&agent, &["zero"])?;
    for _ in 0..COUNTED {
        agent.get(path)?;
    }
    tell(&agent, &["dump"])?;
    let dump = directory.path().join("out.1");
    let text = fs::read_to_string(&dump).with_context(|| format!("read {}", dump.display()))?;
    let all = totals(&text).with_context(|| format!("{} has no totals", dump.display()))?;
    Ok(Counted { instructions: all.instructions / COUNTED, allocations: all.allocations / COUNTED })
}

fn tell(agent: &Agent, order: &[&str]) -> anyhow::Result<()> {
    // Where it cannot reach the process it waits for ever.
    let mut vgdb = Command::new("timeout");
    let told =
        vgdb.args(["60", "vgdb"]).arg(format!("--pid={}", agent.pid())).args(order).output().context("start vgdb")?;
    ensure!(told.status.success(), "vgdb {order:?}: {}", String::from_utf8_lossy(&told.stderr));
    Ok(())
}

/// The sums of a dump:
///
/// ```text
/// cfn=(12) malloc       a name's first use gives it a number
/// calls=3 0             calls of it from where we are
/// totals: 4711          instructions
/// ```
fn totals(dump: &str) -> Option<Counted> {
    let mut names: HashMap<&str, &str> = HashMap::new();
    let (mut called, mut allocations, mut instructions) = ("", 0, None);
    for line in dump.lines() {
        if let Some(name) = line.strip_prefix("cfn=").or_else(|| line.strip_prefix("fn=")) {
            let (number, name) = name.split_once(' ').unwrap_or((name, ""));
            if !name.is_empty() {
                names.insert(number, name);
            }
            if line.starts_with('c') {
                called = number;
            }
        } else if let Some(calls) = line.strip_prefix("calls=") {
            let is_allocating = names.get(called).is_some_and(|name| ALLOCATING.contains(name));
            let count = calls.split(' ').next()?.parse::<u64>().ok()?;
            allocations += if is_allocating { count } else { 0 };
        } else if let Some(total) = line.strip_prefix("totals: ") {
            instructions = total.trim().parse().ok();
        }
    }
    Some(Counted { instructions: instructions?, allocations })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn allocations_are_the_calls_of_the_allocator_by_whatever_name() {
        let dump = "fn=(1) main\n1 5\ncfn=(2) malloc\ncalls=3 0\n1 30\ncfn=(3) free\ncalls=9 0\n1 9\n\
                    fn=(2)\n1 30\n\nfn=(4) other\ncfn=(2)\ncalls=2 0\n1 20\ncfn=(5) realloc\ncalls=1 0\n1 1\ntotals: 4711\n";
        assert_eq!(totals(dump), Some(Counted { instructions: 4711, allocations: 6 }));
        assert_eq!(totals("fn=(1) main\n1 5\n"), None);
    }
}
