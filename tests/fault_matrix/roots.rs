//! The directories below which Kata sandboxes are: absent, something else, forbidden, and full of what is no sandbox.

use std::ffi::OsStr;
use std::fs::{self, Permissions};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{PermissionsExt, symlink};
use std::path::{Path, PathBuf};
use std::time::Instant;

use kata_pulse_simulator::kata::{Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan};

use crate::support::agent::Agent;
use crate::support::exposition::backward;
use crate::support::kata::{
    Listing, assert_none, differences, facts, facts_listed, false_values, flags, scrape, series_of, up,
};
use crate::{IN_TIME, PATIENCE, logged, start};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    Absent,
    Refused,
    Denied,
    Garbage,
}

/// What is to be seen of it at first, and later when the sandboxes are known.
struct Cell {
    fault: Fault,
    up: [Option<f64>; 2],
    /// Lines of log about it, each time.
    warned: usize,
}

const TABLE: [Cell; 4] = [
    Cell { fault: Fault::Absent, up: [Some(0.0); 2], warned: 0 },
    Cell { fault: Fault::Refused, up: [Some(0.0); 2], warned: 0 },
    // What is known of the sandboxes is kept, and those connected to stay so.
    Cell { fault: Fault::Denied, up: [Some(0.0), None], warned: 1 },
    Cell { fault: Fault::Garbage, up: [Some(1.0); 2], warned: 0 },
];

impl Fault {
    fn begin(self, root: &Path) {
        let aside = aside(root);
        match self {
            Self::Absent => fs::rename(root, aside).expect("move it away"),
            Self::Refused => {
                fs::rename(root, aside).expect("move it away");
                fs::write(root, "no directory").expect("a file");
            }
            Self::Denied => fs::set_permissions(root, Permissions::from_mode(0o0)).expect("forbid"),
            Self::Garbage => {
                for number in 0..500 {
                    fs::create_dir(root.join(format!("odd-{number}"))).expect("a directory");
                    fs::write(root.join(format!("{number:064x}")), "a file").expect("a file");
                    symlink(".", root.join(format!("loop-{number}"))).expect("a link");
                }
                fs::create_dir(root.join(OsStr::from_bytes(b"\xff\xfe\n"))).expect("a directory");
                fs::create_dir(root.join("x".repeat(255))).expect("a directory");
            }
        }
    }

    fn heal(self, root: &Path) {
        match self {
            Self::Absent => fs::rename(aside(root), root).expect("move it back"),
            Self::Refused => {
                fs::remove_file(root).expect("remove the file");
                fs::rename(aside(root), root).expect("move it back");
            }
            Self::Denied => fs::set_permissions(root, Permissions::from_mode(0o755)).expect("allow"),
            Self::Garbage => {
                for number in 0..500 {
                    fs::remove_dir(root.join(format!("odd-{number}"))).expect("a directory");
                    fs::remove_file(root.join(format!("{number:064x}"))).expect("a file");
                    fs::remove_file(root.join(format!("loop-{number}"))).expect("a link");
                }
                fs::remove_dir(root.join(OsStr::from_bytes(b"\xff\xfe\n"))).expect("a directory");
                fs::remove_dir(root.join("x".repeat(255))).expect("a directory");
            }
        }
    }
}

fn aside(root: &Path) -> PathBuf {
    root.with_extension("aside")
}

/// The root of this runtime's sandboxes is ill, the other's is not.
fn run(runtime: Runtime, cell: &Cell) {
    let Cell { fault, .. } = cell;
    let builder = KataNode::builder();
    let builder = [Runtime::Go, Runtime::Rust].into_iter().fold(builder, |builder, runtime| {
        builder.sandbox(runtime, Hypervisor::CloudHypervisor).containers(1).with(SandboxPlan::unmeasured_by_runtime)
    });
    let node = builder.start().expect("a simulated node");
    let (ill, well): (Vec<KataSandbox>, Vec<KataSandbox>) =
        node.sandboxes().into_iter().partition(|sandbox| sandbox.runtime() == runtime);
    let (ill, well) = (&ill[0], &well[0]);
    let root = ill.directory().parent().expect("a root").to_owned();
    fault.begin(&root);
    let agent = start(flags(&node));
    for (later, up_then) in cell.up.iter().enumerate() {
        let what = format!("{fault:?} {runtime:?} {}", if later == 1 { "later" } else { "at first" });
        if let Some(expected) = up_then {
            agent.wait_until(&what, PATIENCE, || up(&scrape(&agent), ill) == Some(*expected));
        }
        agent.wait_until(&format!("{what}: it is said"), PATIENCE, || {
            logged(&agent, &["cannot be listed"]) == cell.warned * (later + 1)
        });
        let mut pages = Vec::new();
        for _ in 0..3 {
            let started = Instant::now();
            pages.push(scrape(&agent));
            assert!(started.elapsed() < IN_TIME, "{what}: {:?}", started.elapsed());
        }
        let page = pages.pop().expect("a page");
        assert_none(&differences(&page, &facts(well)), &format!("{what}: beside it"));
        if up(&page, ill) == Some(0.0) {
            let error = Listing::of(&agent).last_error(ill).unwrap_or_default();
            assert!(!error.is_empty(), "{what}: no reason");
        }
        fault.heal(&root);
        agent.wait_until(&format!("{what}: it is well again"), PATIENCE, || {
            let listing = Listing::of(&agent);
            differences(&scrape(&agent), &facts_listed(ill, &listing)).is_empty()
        });
        let healed = scrape(&agent);
        let wrong = false_values(&series_of(&page, ill), &series_of(&healed, ill));
        // What runs the guest may not be known while there is no directory.
        let wrong: Vec<String> =
            wrong.into_iter().filter(|told| !told.starts_with("kata_pulse_sandbox_info")).collect();
        assert_none(&wrong, &what);
        assert_none(&backward(&page, &healed), &what);
        assert_eq!(logged(&agent, &["cannot be listed"]), cell.warned * (later + 1), "{what}: said once");
        if later == 0 {
            fault.begin(&root);
        }
    }
    assert_eq!(node.violations(), []);
    Agent::stop(agent, 0);
}

#[test]
fn every_fault_of_a_root() {
    let rows = TABLE.iter().flat_map(|cell| [Runtime::Go, Runtime::Rust].map(|runtime| (runtime, cell)));
    std::thread::scope(|scope| {
        let all: Vec<_> = rows.map(|(runtime, cell)| scope.spawn(move || run(runtime, cell))).collect();
        let failed = all.into_iter().map(std::thread::ScopedJoinHandle::join).filter(Result::is_err).count();
        assert_eq!(failed, 0, "of {} cells", TABLE.len() * 2);
    });
}
