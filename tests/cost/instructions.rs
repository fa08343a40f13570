//! Instructions of a collection with its encoding, counted by callgrind in this very test program.
//!
//! How many there are depends on the compiler. So they are told in those of a plain reading and writing of the same bytes,
//! compiled with them.

use std::fmt::Write;
use std::process::Command;
use std::sync::Arc;
use std::time::Duration;

use kata_pulse::collect::cgroup::Wanted;
use kata_pulse::collect::held::Budget;
use kata_pulse::collect::{Collection, Options, Roots};
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::inventory::Inventory;
use kata_pulse::model::snapshot::SnapshotSource;

use crate::beside;
use crate::kept::{Cost, compare};
use crate::loads::{Load, Runc, agent};

/// Pods of the node.
const PODS: usize = 5;

/// By how much the ratio may differ, in parts of it: what another compiler may change.
const MARGIN: f64 = 0.08;

#[test]
fn a_collection_takes_the_instructions_it_did() {
    let _beside = beside();
    let directory = tempfile::tempdir().unwrap();
    let out = directory.path().join("out");
    let mut valgrind = Command::new("valgrind");
    valgrind.args(["-q", "--tool=callgrind"]).arg(format!("--callgrind-out-file={}", out.display()));
    valgrind.arg(std::env::current_exe().unwrap()).args([
        "--exact",
        "instructions::worker",
        "--ignored",
        "--nocapture",
    ]);
    let output = valgrind.output().expect("start valgrind, which Debian has as a package");
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let profile = std::fs::read_to_string(&out).unwrap();
    let of = |function| inclusive(&profile, function) as f64;
    let (work, reference) = (of("instructions::collect_and_encode"), of("instructions::read_and_write_plainly"));
    println!("{work} instructions, {reference} plainly");
    let measured = work / reference;
    let of = "collection and encoding, in plain readings and writings".to_owned();
    compare("instructions.txt", &[Cost { of, measured, margin: measured * MARGIN }]);
}

/// The instructions of a function and all it calls, where its callers call it:
///
/// ```text
/// fn=(7) cost::instructions::collect_and_encode     the first time with its name
/// cfn=(7)
/// calls=1 0
/// 33 4711
/// ```
fn inclusive(profile: &str, function: &str) -> u64 {
    let named = |line: &str| {
        let (number, name) = line.strip_prefix('c').unwrap_or(line).strip_prefix("fn=")?.split_once(' ')?;
        name.ends_with(function).then(|| format!("cfn={number}"))
    };
    let call = profile.lines().find_map(named).unwrap_or_else(|| panic!("{function} is not in the profile"));
    let mut lines = profile.lines();
    let mut sum = 0;
    while let Some(line) = lines.next() {
        if line == call || line.strip_prefix(&call).is_some_and(|rest| rest.starts_with(' ')) {
            let cost = lines.nth(1).and_then(|line| line.split(' ').nth(1)?.parse::<u64>().ok());
            sum += cost.unwrap_or_else(|| panic!("no cost of a call of {function}"));
        }
    }
    assert!(sum > 0, "{function} is never called");
    sum
}

#[test]
fn a_functions_cost_is_that_of_its_calls() {
    let profile = "fn=(7) a::work\n1 5\n\nfn=(8) a::main\ncfn=(7)\ncalls=2 0\n3 40\ncfn=(77) a::rework\ncalls=1 0\n3 9\n\
                   cfn=(7)\ncalls=1 0\n4 2\ncfn=(9) a::plain\ncalls=1 0\n5 6\n";
    assert_eq!((inclusive(profile, "::work"), inclusive(profile, "::plain")), (42, 6));
}

#[test]
#[ignore = "is run under valgrind by the test above"]
fn worker() {
    let node = Runc::start(PODS);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
    let inventory = runtime.block_on(async {
        let agent = agent(&node);
        agent.ready().await;
        agent.snapshot(Duration::from_secs(120)).await.unwrap();
        agent.inventory().await
    });
    let mut collection = collection(&node);
    // The first opens the files.
    collection.run(Arc::clone(&inventory));
    let body = collect_and_encode(&mut collection, &inventory);
    let files = read_files(&node);
    let plain = read_and_write_plainly(&files, &body);
    assert!(plain.len() > 10_000);
}

fn collection(node: &Runc) -> Collection {
    let root = std::path::PathBuf::from(&node.flags()[1]);
    let roots =
        Roots { proc: root.join("proc"), sys: root.join("sys"), cgroup: root.join("sys/fs/cgroup"), host: root };
    Collection::new(Options {
        roots: Arc::new(roots),
        budget: Budget::new(10_000),
        enabled: vec!["cgroup", "network", "process"],
        wanted: Wanted { io: true, memory_details: true, pressure: true, ..Wanted::default() },
        layers: Arc::default(),
        oom: Arc::default(),
        volume: Default::default(),
        process_groups: false,
        exclude_interfaces: Default::default(),
        node: Default::default(),
    })
}

#[inline(never)]
fn collect_and_encode(collection: &mut Collection, inventory: &Arc<Inventory>) -> Vec<u8> {
    let collected = collection.run(Arc::clone(inventory));
    let mut text = Text::new(Format::Prometheus, 4 << 20);
    walk(&collected.snapshot, &View::All, Profile::Kubelet, &mut text);
    text.finish()
}

/// The content of every file of every cgroup.
fn read_files(node: &Runc) -> Vec<String> {
    let mut files = Vec::new();
    let mut left = vec![std::path::PathBuf::from(&node.flags()[1]).join("sys/fs/cgroup")];
    while let Some(directory) = left.pop() {
        for entry in std::fs::read_dir(directory).unwrap().flatten() {
            match entry.file_type().unwrap().is_dir() {
                true => left.push(entry.path()),
                false => files.push(std::fs::read_to_string(entry.path()).unwrap()),
            }
        }
    }
    files
}

/// Every number of the files is read, and every line of the body is written, as one does who thinks of nothing.
#[inline(never)]
fn read_and_write_plainly(files: &[String], body: &[u8]) -> String {
    let numbers = files.iter().flat_map(|file| file.split_whitespace()).filter_map(|word| word.parse::<u64>().ok());
    let mut sum = numbers.fold(0u64, u64::wrapping_add);
    let mut out = String::new();
    for line in std::str::from_utf8(body).unwrap().lines() {
        let (name, value) = line.rsplit_once(' ').unwrap_or((line, ""));
        sum = sum.wrapping_add(value.len() as u64);
        writeln!(out, "{name} {value} {sum}").unwrap();
    }
    out
}
