//! `/proc/<pid>` of a sandbox's processes.

use std::fmt::Write;

use super::Tree;
use super::cgroup::moved_threads;
use super::node::NET_DEV_HEAD;
use crate::kata::kind::{HostCgroup, Hypervisor};
use crate::kata::model::Facts;
use crate::kata::truth::{Component, InterfaceTruth, ProcessTruth, Truth};

/// Bytes of a page and clock ticks of a second, as the kernel tells them.
const PAGE: u64 = 4096;

/// The node's interfaces. Whoever is in the node's namespace has this very file.
const NODE_NET_DEV: &str = "proc/1/net/dev";

/// The network namespace of the node; a pod's is this and its hypervisor's pid.
const NODE_NETWORK: u32 = 4_026_531_840;

/// Makes every process's directory with what never changes.
pub(in crate::kata) fn make(root: &Tree, facts: &Facts, truth: &Truth) -> anyhow::Result<()> {
    for process in &truth.host.processes {
        make_process(root, facts, process)?;
    }
    rewrite(root, facts, truth)
}

/// Writes what has changed. A process whose directory is gone has ended.
pub(in crate::kata) fn rewrite(root: &Tree, facts: &Facts, truth: &Truth) -> anyhow::Result<()> {
    for process in &truth.host.processes {
        let directory = format!("proc/{}", process.pid);
        if !root.has(&directory) {
            continue;
        }
        root.write(&format!("{directory}/stat"), stat(process))?;
        root.write(&format!("{directory}/status"), status(process))?;
        root.write(&format!("{directory}/io"), io(process))?;
    }
    let network = pod_network(facts);
    if root.has(&network) { root.write(&format!("{network}/dev"), net_dev(&truth.host.network)) } else { Ok(()) }
}

/// Takes a process away, as when it has died.
pub(in crate::kata) fn remove(root: &Tree, pid: u32) {
    root.remove(&format!("proc/{pid}"));
}

/// Where the pod's interfaces are seen: of Dragonball, only the VM's thread is in the pod's namespace.
fn pod_network(facts: &Facts) -> String {
    let pids = facts.pids;
    match facts.plan.hypervisor {
        Hypervisor::Dragonball => format!("proc/{}/task/{}/net", pids.shim, pids.hypervisor),
        _ => format!("proc/{}/net", pids.hypervisor),
    }
}

fn make_process(root: &Tree, facts: &Facts, process: &ProcessTruth) -> anyhow::Result<()> {
    let ProcessTruth { component, pid, .. } = process;
    let directory = format!("proc/{pid}");
    for part in ["fd", "ns", "net"] {
        root.directory(&format!("{directory}/{part}"))?;
    }
    let file = |name: &str, content: &str| root.write(&format!("{directory}/{name}"), content);
    file("comm", &format!("{}\n", process.comm))?;
    file("cmdline", &process.command.iter().fold(String::new(), |text, word| text + word + "\0"))?;
    file("cgroup", &cgroup(facts, &process.cgroup))?;
    let in_pod = *component == Component::Hypervisor;
    if !in_pod {
        root.same(&format!("{directory}/net/dev"), NODE_NET_DEV)?;
    }
    for (tid, name) in &process.threads {
        make_thread(root, facts, process, (*tid, name))?;
    }
    for number in 0..process.descriptors {
        let target = match number {
            0..3 => "/dev/null".to_owned(),
            _ if number % 2 == 0 => "anon_inode:[eventfd]".to_owned(),
            _ => format!("socket:[{}]", u64::from(*pid) * 100 + number),
        };
        root.link(&format!("{directory}/fd/{number}"), &target)?;
    }
    let namespace = if in_pod { NODE_NETWORK + pid } else { NODE_NETWORK };
    root.link(&format!("{directory}/ns/net"), &format!("net:[{namespace}]"))?;
    match process.command.first() {
        Some(program) => root.link(&format!("{directory}/exe"), program),
        None => Ok(()),
    }
}

fn make_thread(root: &Tree, facts: &Facts, process: &ProcessTruth, thread: (u32, &str)) -> anyhow::Result<()> {
    let (tid, name) = thread;
    let directory = format!("proc/{}/task/{tid}", process.pid);
    root.directory(&directory)?;
    root.write(&format!("{directory}/comm"), format!("{name}\n"))?;
    let moved = process.component == Component::Hypervisor
        && moved_threads(facts, &facts.placement.sandbox).is_some_and(|moved| moved.contains(&tid));
    let place = if moved && facts.host == HostCgroup::V1 { &facts.placement.sandbox } else { &process.cgroup };
    root.write(&format!("{directory}/cgroup"), cgroup(facts, place))?;
    // Elsewhere, nobody has a reason to look at a thread's network.
    if process.component == Component::Shim && facts.plan.hypervisor == Hypervisor::Dragonball {
        root.directory(&format!("{directory}/net"))?;
        if tid != facts.pids.hypervisor {
            root.same(&format!("{directory}/net/dev"), NODE_NET_DEV)?;
        }
    }
    Ok(())
}

/// `0::/kubepods/…` on v2, one line per hierarchy on v1.
fn cgroup(facts: &Facts, path: &str) -> String {
    match facts.host {
        HostCgroup::V2 => format!("0::{path}\n"),
        HostCgroup::V1 => {
            let lines = ["hugetlb", "pids", "blkio", "memory", "cpu,cpuacct"].iter().zip((2..=6).rev());
            lines.fold(String::new(), |text, (name, number)| text + &format!("{number}:{name}:{path}\n"))
        }
    }
}

/// 52 fields, of which the process's name may hold anything, so it stands in parentheses.
fn stat(process: &ProcessTruth) -> String {
    let ProcessTruth { pid, parent, .. } = process;
    let (user, system) = process.ticks();
    let (threads, virtual_bytes, rss) = (process.threads.len(), process.virtual_bytes, process.rss() / PAGE);
    let start = 8000 + u64::from(*pid) % 1000;
    let mut text = format!("{pid} ({}) S {parent} {parent} 0 0 -1 4194560 61113 0 0 0 ", process.comm);
    // Writing to a string cannot fail.
    write!(text, "{user} {system} 0 0 20 0 {threads} 0 {start} {virtual_bytes} {rss} 18446744073709551615").ok();
    text.push_str(&" 0".repeat(27));
    text.push('\n');
    text
}

fn status(process: &ProcessTruth) -> String {
    let ProcessTruth { pid, parent, .. } = process;
    let mut text = format!("Name:\t{}\nUmask:\t0077\nState:\tS (sleeping)\nTgid:\t{pid}\n", process.comm);
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
