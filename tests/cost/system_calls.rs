//! System calls of a scrape of the real binary, counted by strace.
//!
//! What waits and what wakes somebody up is not counted: how often that happens is chance.

use std::collections::BTreeMap;
use std::fs;
use std::io::{BufRead, BufReader};
use std::process::{Child, Command, Stdio};

use rustix::process::{Pid, Signal, kill_process};

use crate::kept::{Cost, compare};
use crate::loads::{self, Load, each_more, flags, grow_up};
use crate::support::agent::Agent;
use crate::{alone, beside};

/// Scrapes that are counted.
const SCRAPES: u32 = 5;

/// Less than one call more.
const MARGIN: f64 = 0.5;

/// Kinds of calls, and what belongs to each. Receiving is not among them: in how many pieces an answer arrives is chance.
const KINDS: [(&str, &[&str]); 6] = [
    ("reads of held files", &["pread64", "preadv", "preadv2"]),
    ("files opened", &["open", "openat", "openat2", "creat"]),
    ("other reads", &["read", "readv"]),
    (
        "looks at paths",
        &[
            "stat",
            "lstat",
            "newfstatat",
            "statx",
            "access",
            "faccessat",
            "faccessat2",
            "readlink",
            "readlinkat",
            "getdents64",
        ],
    ),
    ("connections", &["connect"]),
    ("messages sent", &["sendto", "sendmsg", "writev"]),
];

#[test]
fn one_more_pod_makes_the_system_calls_it_did() {
    let preparing = beside();
    let loads = loads::all();
    let start = |load: &Box<dyn Load>| Agent::start(flags(&**load));
    let agents = loads.each_ref().map(|(of, sizes)| (of, sizes.each_ref().map(start)));
    agents.iter().flat_map(|(_, sizes)| sizes).for_each(scrape);
    grow_up();
    drop(preparing);
    let _alone = alone();
    let mut costs = Vec::new();
    for (of, sizes) in &agents {
        let counts = sizes.each_ref().map(count);
        println!("{of}: {counts:?}");
        for (kind, calls) in KINDS {
            let of_kind =
                |counts: &BTreeMap<String, u32>| calls.iter().filter_map(|call| counts.get(*call)).sum::<u32>();
            let measured = each_more(counts.each_ref().map(|counts| f64::from(of_kind(counts)) / f64::from(SCRAPES)));
            costs.push(Cost { of: format!("{of}, {kind}"), measured, margin: MARGIN });
        }
    }
    compare("system-calls.txt", &costs);
}

/// Compressed, so that the answer is short: with how many calls a long one is sent depends on who reads it.
fn scrape(agent: &Agent) {
    assert_eq!(agent.get_with("/metrics", &[("Accept-Encoding", "gzip")]).status, 200);
}

/// How often each system call is made in all scrapes together.
fn count(agent: &Agent) -> BTreeMap<String, u32> {
    scrape(agent);
    let directory = tempfile::tempdir().unwrap();
    let summary = directory.path().join("summary");
    let mut strace = Command::new("strace");
    strace.args(["-f", "-c", "-p", &agent.pid().to_string(), "-o"]).arg(&summary);
    let mut strace = strace.stderr(Stdio::piped()).spawn().expect("start strace, which Debian has as a package");
    wait_until_attached(&mut strace);
    (0..SCRAPES).for_each(|_| scrape(agent));
    let pid = i32::try_from(strace.id()).ok().and_then(Pid::from_raw).unwrap();
    kill_process(pid, Signal::INT).unwrap();
    strace.wait().unwrap();
    let text = fs::read_to_string(&summary).unwrap();
    let counts: BTreeMap<String, u32> = text.lines().filter_map(counted).collect();
    assert!(counts.contains_key("epoll_wait"), "strace has counted nothing:\n{text}");
    counts
}

/// It says `strace: Process 4711 attached`, with the number of threads if there are several.
fn wait_until_attached(strace: &mut Child) {
    let mut lines = BufReader::new(strace.stderr.take().unwrap()).lines().map_while(Result::ok);
    let attached = lines.find(|line| line.contains("attached"));
    assert!(attached.is_some(), "strace may not attach");
    // What it says later must not block it.
    std::thread::spawn(move || lines.for_each(drop));
}

/// `  1.02    0.000012           1        12         3 openat`
fn counted(line: &str) -> Option<(String, u32)> {
    let words: Vec<&str> = line.split_whitespace().collect();
    let [_, _, _, calls, .., name] = words.as_slice() else { return None };
    Some(((*name).to_owned(), calls.parse().ok()?)).filter(|(name, _)| name != "total")
}

#[test]
fn summaries_of_strace_are_read() {
    let with_errors = counted("  1.02    0.000012           1        12         3 openat");
    assert_eq!(with_errors, Some(("openat".to_owned(), 12)));
    assert_eq!(counted("  0.50    0.000006           2         3           pread64"), Some(("pread64".to_owned(), 3)));
    assert_eq!(counted("------ ----------- ----------- --------- --------- ----------------"), None);
    assert_eq!(counted("% time     seconds  usecs/call     calls    errors syscall"), None);
    assert_eq!(counted("100.00    0.000100           1        99         3 total"), None);
}
