//! Where a run was made, and what criterion has left of its own.

use std::fs;
use std::path::Path;
use std::process::Command;
use std::time::SystemTime;

use anyhow::Context;
use serde::Deserialize;

use crate::figures::{Machine, Micro};

/// The machine, the moment and the commit.
pub fn describe(command: String, cgroup: String, busy: [String; 2]) -> Machine {
    let now = humantime::format_rfc3339_seconds(SystemTime::now()).to_string();
    let changed = !said("git", &["status", "--porcelain", "--untracked-files=no"]).is_empty();
    let commit = said("git", &["rev-parse", "--short=12", "HEAD"]);
    Machine {
        date: now.split('T').next().unwrap_or_default().to_owned(),
        commit: format!("{commit}{}", if changed { ", with changes not committed" } else { "" }),
        command,
        cpus: cpus(),
        memory: memory(),
        kernel: text("/proc/sys/kernel/osrelease"),
        cgroup,
        compiler: said("rustc", &["--version"]),
        busy,
    }
}

/// The load averages.
pub fn busy() -> String {
    text("/proc/loadavg").split(' ').take(3).collect::<Vec<_>>().join(" ")
}

fn text(path: &str) -> String {
    fs::read_to_string(path).unwrap_or_default().trim().to_owned()
}

fn said(program: &str, arguments: &[&str]) -> String {
    let output = Command::new(program).args(arguments).output();
    output.map(|output| String::from_utf8_lossy(&output.stdout).trim().to_owned()).unwrap_or_default()
}

fn cpus() -> String {
    let cpuinfo = text("/proc/cpuinfo");
    let models = cpuinfo.lines().filter_map(|line| line.strip_prefix("model name")?.split_once(": "));
    let models: Vec<&str> = models.map(|(_, model)| model).collect();
    let virtual_machine = if cpuinfo.contains(" hypervisor") { " of a virtual machine" } else { "" };
    format!("{} × {}{virtual_machine}", models.len(), models.first().copied().unwrap_or("unknown processor"))
}

fn memory() -> String {
    let meminfo = text("/proc/meminfo");
    let total = meminfo.lines().find_map(|line| line.strip_prefix("MemTotal:")?.split_whitespace().next());
    let kib: Option<u64> = total.and_then(|total| total.parse().ok());
    kib.map(|kib| format!("{} GiB", (kib + (1 << 19)) >> 20)).unwrap_or_default()
}

/// `benchmark.json` of criterion.
#[derive(Debug, Deserialize)]
struct Benchmark {
    full_id: String,
    throughput: Option<Throughput>,
}

#[derive(Debug, Deserialize)]
struct Throughput {
    #[serde(rename = "Bytes")]
    bytes: Option<u64>,
}

/// `estimates.json` of criterion.
#[derive(Debug, Deserialize)]
struct Estimates {
    median: Estimate,
}

#[derive(Debug, Deserialize)]
struct Estimate {
    point_estimate: f64,
}

/// What criterion measured last of everything whose bytes it knows, by name.
pub fn micro(directory: &Path) -> anyhow::Result<Vec<Micro>> {
    let mut found = Vec::new();
    visit(directory, &mut found)?;
    found.sort_by(|one, other| one.name.cmp(&other.name));
    Ok(found)
}

fn visit(directory: &Path, found: &mut Vec<Micro>) -> anyhow::Result<()> {
    for entry in fs::read_dir(directory).with_context(|| format!("read {}", directory.display()))?.flatten() {
        let path = entry.path();
        if entry.file_name() == "new" {
            let benchmark: Benchmark = serde_json::from_slice(&fs::read(path.join("benchmark.json"))?)?;
            let estimates: Estimates = serde_json::from_slice(&fs::read(path.join("estimates.json"))?)?;
            if let Some(bytes) = benchmark.throughput.and_then(|throughput| throughput.bytes) {
                found.push(Micro { name: benchmark.full_id, bytes, nanos: estimates.median.point_estimate });
            }
        } else if path.is_dir() {
            visit(&path, found)?;
        }
    }
    Ok(())
}
