//! `/proc/<pid>` of a sandbox's processes.

use std::fmt::Write;

use super::Tree;
use super::node::{NET_DEV_HEAD, NODE_INTERFACES};
use crate::kata::kind::Hypervisor;
use crate::kata::model::Facts;
use crate::kata::truth::{Component, InterfaceTruth, ProcessTruth, Truth};

/// Bytes of a page and clock ticks of a second, as the kernel tells them.
const PAGE: u64 = 4096;

/// The network namespace of the node; a pod's is this and its hypervisor's pid.
const NODE_NETWORK: u32 = 4_026_531_840;

/// Makes every process's directory with what never changes.
pub(in crate::kata) fn make(root: &Tree, facts: &Facts, truth: &Truth) -> anyhow::Result<()> {
    for process in &truth.host.processes {
        make_process(root, facts, process)?;
    }
    rewrite(root, facts, truth)
}

/// Writes what has changed.
pub(in crate::kata) fn rewrite(root: &Tree, facts: &Facts, truth: &Truth) -> anyhow::Result<()> {
    for process in &truth.host.processes {
        let directory = format!("proc/{}", process.pid);
        root.write(&format!("{directory}/stat"), stat(process))?;
        root.write(&format!("{directory}/status"), status(process))?;
        root.write(&format!("{directory}/io"), io(process))?;
    }
    root.write(&pod_network_file(facts), net_dev(&truth.host.network))
}

/// Takes a process away, as when it has died.
pub(in crate::kata) fn remove(root: &Tree, pid: u32) {
    root.remove(&format!("proc/{pid}"));
}

/// Where the pod's interfaces are seen: of Dragonball, only the VM's thread is in the pod's namespace.
fn pod_network_file(facts: &Facts) -> String {
    let pids = facts.pids;
    match facts.plan.hypervisor {
        Hypervisor::Dragonball => format!("proc/{}/task/{}/net/dev", pids.shim, pids.hypervisor),
        _ => format!("proc/{}/net/dev", pids.hypervisor),
    }
}

fn make_process(root: &Tree, facts: &Facts, process: &ProcessTruth) -> anyhow::Result<()> {
    let ProcessTruth { component, pid, .. } = process;
    let directory = format!("proc/{pid}");
    for part in ["fd", "ns", "net"] {
        root.directory(&format!("{directory}/{part}"))?;
    }
    let file = |name: &str, content: &str| root.write(&format!("{directory}/{name}"), content);
    let comm = comm(process);
    file("comm", &format!("{comm}\n"))?;
    file("cmdline", &process.command.iter().fold(String::new(), |text, word| text + word + "\0"))?;
    file("cgroup", &cgroup(facts, process))?;
    file("net/dev", &format!("{NET_DEV_HEAD}{NODE_INTERFACES}"))?;
    for (tid, name) in &process.threads {
        root.directory(&format!("{directory}/task/{tid}"))?;
        file(&format!("task/{tid}/comm"), &format!("{name}\n"))?;
    }
    if *component == Component::Shim && facts.plan.hypervisor == Hypervisor::Dragonball {
        root.directory(&format!("{directory}/task/{}/net", facts.pids.hypervisor))?;
    }
    for number in 0..process.descriptors {
        let target = match number {
            0..3 => "/dev/null".to_owned(),
            _ if number % 2 == 0 => "anon_inode:[eventfd]".to_owned(),
            _ => format!("socket:[{}]", u64::from(*pid) * 100 + number),
        };
        root.link(&format!("{directory}/fd/{number}"), &target)?;
    }
    let in_pod = *component == Component::Hypervisor;
    let namespace = if in_pod { NODE_NETWORK + pid } else { NODE_NETWORK };
    root.link(&format!("{directory}/ns/net"), &format!("net:[{namespace}]"))?;
    match process.command.first() {
        Some(program) => root.link(&format!("{directory}/exe"), program),
        None => Ok(()),
    }
}

/// A kernel thread bears the pid of the VM it belongs to.
fn comm(process: &ProcessTruth) -> String {
    match process.component {
        Component::KernelThread => format!("{}-{}", process.comm, process.pid),
        _ => process.comm.to_owned(),
    }
}

/// `0::/kubepods/…` on v2, one line per hierarchy on v1.
fn cgroup(facts: &Facts, process: &ProcessTruth) -> String {
    match facts.host {
        crate::kata::kind::HostCgroup::V2 => format!("0::{}\n", process.cgroup),
        crate::kata::kind::HostCgroup::V1 => {
            let lines = ["hugetlb", "pids", "blkio", "memory", "cpu,cpuacct"].iter().zip((2..=6).rev());
            lines.fold(String::new(), |text, (name, number)| text + &format!("{number}:{name}:{}\n", process.cgroup))
        }
    }
}

/// 52 fields, of which the process's name may hold anything, so it stands in parentheses.
fn stat(process: &ProcessTruth) -> String {
    let ProcessTruth { pid, parent, .. } = process;
    let (user, system) = process.ticks();
    let (threads, virtual_bytes, rss) = (process.threads.len(), process.virtual_bytes, process.rss() / PAGE);
    let start = 8000 + u64::from(*pid) % 1000;
    let mut text = format!("{pid} ({}) S {parent} {parent} 0 0 -1 4194560 61113 0 0 0 ", comm(process));
    // Writing to a string cannot fail.
    write!(text, "{user} {system} 0 0 20 0 {threads} 0 {start} {virtual_bytes} {rss} 18446744073709551615").ok();
    text.push_str(&" 0".repeat(27));
    text.push('\n');
    text
}

fn status(process: &ProcessTruth) -> String {
    let ProcessTruth { pid, parent, .. } = process;
    let mut text = format!("Name:\t{}\nUmask:\t0077\nState:\tS (sleeping)\nTgid:\t{pid}\n", comm(process));
    write!(text, "Pid:\t{pid}\nPPid:\t{parent}\nFDSize:\t256\n").ok();
    if process.component != Component::KernelThread {
        for (name, bytes) in [
            ("VmPeak", process.virtual_bytes),
            ("VmSize", process.virtual_bytes),
            ("VmHWM", process.rss()),
            ("VmRSS", process.rss()),
            ("RssAnon", process.rss_anon),
            ("RssFile", process.rss_file),
            ("RssShmem", process.rss_shmem),
            ("VmData", 96 << 20),
            ("VmStk", 132 << 10),
            ("VmExe", 21 << 20),
            ("VmLib", 8 << 10),
            ("VmPTE", 1300 << 10),
            ("VmSwap", 0),
            ("HugetlbPages", 0),
        ] {
            writeln!(text, "{name}:\t{:>8} kB", bytes / 1024).ok();
        }
    }
    writeln!(text, "Threads:\t{}", process.threads.len()).ok();
    text.push_str("voluntary_ctxt_switches:\t88123\nnonvoluntary_ctxt_switches:\t402\n");
    text
}

fn io(process: &ProcessTruth) -> String {
    let io = process.io;
    format!(
        "rchar: {}\nwchar: {}\nsyscr: {}\nsyscw: {}\nread_bytes: {}\nwrite_bytes: {}\ncancelled_write_bytes: 0\n",
        io.rchar, io.wchar, io.syscr, io.syscw, io.read_bytes, io.write_bytes
    )
}

fn net_dev(interfaces: &[InterfaceTruth]) -> String {
    let mut text = String::from(NET_DEV_HEAD);
    for InterfaceTruth { name, received, sent } in interfaces {
        let (into, out) = (received, sent);
        write!(text, "{name:>6}: {} {} {} {} 0 0 0 0", into.bytes, into.packets, into.errors, into.drops).ok();
        writeln!(text, " {} {} {} {} 0 0 0 0", out.bytes, out.packets, out.errors, out.drops).ok();
    }
    text
}
