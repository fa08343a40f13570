//! The sockets of a sandbox: absent, forbidden, and no sockets at all. What their other ends do is in `kata_hostile`.

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::time::Instant;

use kata_pulse_simulator::kata::{Endpoint, Fault as Refusal, Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan};

use crate::support::agent::Agent;
use crate::support::exposition::{Page, backward};
use crate::support::kata::{
    Listing, assert_none, differences, facts, facts_listed, false_values, flags, scrape, series_of, source, up,
};
use crate::{IN_TIME, PATIENCE, start};

#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fault {
    /// It was removed, as by who tidies up `/run`.
    Absent,
    /// Nobody may connect.
    Denied,
    /// A file of its name.
    NoSocket,
}

const FAULTS: [Fault; 3] = [Fault::Absent, Fault::Denied, Fault::NoSocket];

const DOORS: [Endpoint; 4] = [Endpoint::Agent, Endpoint::Task, Endpoint::Shim, Endpoint::Hypervisor];

impl Fault {
    fn begin(self, socket: &Path) {
        match self {
            Self::Absent => fs::rename(socket, aside(socket)).expect("move it away"),
            Self::Denied => fs::set_permissions(socket, Permissions::from_mode(0o0)).expect("forbid"),
            Self::NoSocket => {
                fs::rename(socket, aside(socket)).expect("move it away");
                fs::write(socket, "no socket").expect("a file");
            }
        }
    }

    fn heal(self, socket: &Path) {
        match self {
            Self::Denied => fs::set_permissions(socket, Permissions::from_mode(0o755)).expect("allow"),
            Self::Absent | Self::NoSocket => fs::rename(aside(socket), socket).expect("move it back"),
        }
    }
}

fn aside(socket: &Path) -> PathBuf {
    socket.with_extension("aside")
}

/// A sandbox, the door that is ill, and with what.
struct Cell {
    sandbox: KataSandbox,
    door: Endpoint,
    fault: Fault,
}

impl Cell {
    fn name(&self) -> String {
        format!("{:?} at {:?}", self.fault, self.door)
    }

    /// Task service and shim are asked when the agent does not answer.
    fn begin(&self) {
        if matches!(self.door, Endpoint::Task | Endpoint::Shim) {
            self.sandbox.fail(Endpoint::Agent, Refusal::Refuse);
        }
        self.fault.begin(&self.sandbox.path(self.door));
        // Who is through already needs no socket.
        [Endpoint::Agent, Endpoint::Task].iter().for_each(|door| self.sandbox.cut_connections(*door));
    }

    fn heal(&self) {
        self.sandbox.heal(Endpoint::Agent);
        self.fault.heal(&self.sandbox.path(self.door));
    }

    /// Containers are measured all the same, unless both who could measure them are out of reach.
    fn is_up(&self) -> bool {
        self.door != Endpoint::Task
    }

    fn check(&self, page: &Page, listing: &Listing, what: &str) {
        let what = format!("{what}: {}", self.name());
        assert_eq!(up(page, &self.sandbox), Some(if self.is_up() { 1.0 } else { 0.0 }), "{what}");
        let sources = listing.sources(&self.sandbox);
        let said = sources.get(source(self.door)).map_or("", String::as_str);
        assert!(said != "up", "{what}: {sources:?}");
        assert_eq!(listing.last_error(&self.sandbox).is_none(), self.is_up(), "{what}");
        let served = series_of(page, &self.sandbox);
        let has = |prefix: &str| served.keys().any(|(family, _)| family.starts_with(prefix));
        assert!(has("kata_pulse_sandbox_host_"), "{what}: the node's side needs nobody's answer");
        let of_containers = served.keys().any(|(family, labels)| {
            family == "container_memory_usage_bytes" && labels.get("container").is_some_and(|name| !name.is_empty())
        });
        assert_eq!(of_containers, self.is_up(), "{what}: containers");
    }
}

fn run(runtime: Runtime) {
    let cells = || DOORS.into_iter().flat_map(|door| FAULTS.map(|fault| (door, fault)));
    let builder = KataNode::builder().sandbox(runtime, Hypervisor::CloudHypervisor).containers(1);
    let builder = builder.with(SandboxPlan::unmeasured_by_runtime).times(cells().count());
    let node = builder.sandbox(runtime, Hypervisor::CloudHypervisor).start().expect("a simulated node");
    let mut sandboxes = node.sandboxes();
    let well = sandboxes.pop().expect("the last one");
    let cells: Vec<Cell> =
        sandboxes.into_iter().zip(cells()).map(|(sandbox, (door, fault))| Cell { sandbox, door, fault }).collect();
    cells.iter().for_each(Cell::begin);
    let agent = start(flags(&node));
    for what in ["at first", "later"] {
        let started = Instant::now();
        let page = scrape(&agent);
        let listing = Listing::of(&agent);
        assert!(started.elapsed() < IN_TIME, "{runtime:?} {what}: {:?}", started.elapsed());
        assert_none(&differences(&page, &facts(&well)), &format!("{runtime:?} {what}: beside them"));
        for cell in &cells {
            cell.check(&page, &listing, &format!("{runtime:?} {what}"));
        }
        cells.iter().for_each(Cell::heal);
        agent.wait_until(&format!("{runtime:?} {what}: all are well again"), PATIENCE, || {
            let listing = Listing::of(&agent);
            let page = scrape(&agent);
            cells.iter().all(|cell| differences(&page, &facts_listed(&cell.sandbox, &listing)).is_empty())
        });
        let healed = scrape(&agent);
        for cell in &cells {
            let wrong = false_values(&series_of(&page, &cell.sandbox), &series_of(&healed, &cell.sandbox));
            assert_none(&wrong, &format!("{runtime:?} {what}: {}", cell.name()));
        }
        assert_none(&backward(&page, &healed), what);
        if what == "at first" {
            node.advance(3);
            cells.iter().for_each(Cell::begin);
        }
    }
    assert_eq!(node.violations(), []);
    Agent::stop(agent, 0);
}

#[test]
fn every_fault_of_a_socket_under_go() {
    run(Runtime::Go);
}

#[test]
fn every_fault_of_a_socket_under_rust() {
    run(Runtime::Rust);
}
