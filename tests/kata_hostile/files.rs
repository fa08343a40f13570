//! What a runtime leaves on the node may be missing, half written, huge or wrong, and may come and go: it is a hint
//! and not a condition, and a wrong hint must not get a shim asked what kills it.

use std::fs;
use std::path::Path;
use std::time::{Duration, Instant};

use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataSandbox, Runtime, SandboxPlan, VmState};

use crate::support::agent::Agent;
use crate::support::kata::{
    Fact, Listing, assert_none, differences, facts, facts_listed, flags, scrape, series_of, up,
};
use crate::{IN_TIME, PATIENCE};

const KINDS: [(Runtime, Hypervisor); 4] = [
    (Runtime::Go, Hypervisor::CloudHypervisor),
    (Runtime::Rust, Hypervisor::CloudHypervisor),
    (Runtime::Go, Hypervisor::Qemu),
    (Runtime::Rust, Hypervisor::Qemu),
];

/// What is wrong with a state file.
#[derive(Clone, Copy, Debug)]
enum State {
    Absent,
    Empty,
    Garbage,
    CutShort,
    Huge,
    Deep,
    Directory,
    Pipe,
    Array,
    WrongTypes,
    AnotherHypervisor,
}

const STATES: [State; 11] = [
    State::Absent,
    State::Empty,
    State::Garbage,
    State::CutShort,
    State::Huge,
    State::Deep,
    State::Directory,
    State::Pipe,
    State::Array,
    State::WrongTypes,
    State::AnotherHypervisor,
];

impl State {
    fn put(self, path: &Path) {
        let text = fs::read_to_string(path).expect("the state file is there");
        fs::remove_file(path).expect("it can go");
        let content: Vec<u8> = match self {
            Self::Absent => return,
            Self::Directory => return fs::create_dir(path).expect("a directory"),
            Self::Pipe => {
                use rustix::fs::{CWD, FileType, Mode, mknodat};
                return mknodat(CWD, path, FileType::Fifo, Mode::RUSR, 0).expect("a pipe");
            }
            Self::Empty => Vec::new(),
            Self::Garbage => vec![0xff; 4096],
            Self::CutShort => text.as_bytes()[..text.len() / 2].to_vec(),
            Self::Huge => [&b" ".repeat(64 << 20), text.as_bytes()].concat(),
            Self::Deep => b"[".repeat(1 << 20),
            Self::Array => format!("[{text}]").into_bytes(),
            Self::WrongTypes => {
                br#"{"hypervisor":7,"HypervisorState":[],"resource":"x","AgentState":{"URL":1},"SandboxCgroupPath":{}}"#
                    .to_vec()
            }
            Self::AnotherHypervisor => {
                let another = if text.contains("\"qemu\"") { ("\"qemu\"", "\"clh\"") } else { ("\"clh\"", "\"qemu\"") };
                text.replace(another.0, another.1).into_bytes()
            }
        };
        fs::write(path, content).expect("the state file can be written");
    }
}

fn state_file(sandbox: &KataSandbox) -> std::path::PathBuf {
    sandbox.directory().join(match sandbox.runtime() {
        Runtime::Go => "persist.json",
        Runtime::Rust => "state.json",
    })
}

#[test]
fn no_state_file_is_needed_or_believed() {
    let mut builder = KataNode::builder();
    for (runtime, hypervisor) in KINDS {
        builder = builder.sandbox(runtime, hypervisor).containers(1).times(STATES.len());
    }
    let node = builder.start().expect("a simulated node");
    let sandboxes = node.sandboxes();
    node.advance(5);
    for (sandbox, state) in sandboxes.iter().zip(STATES.iter().cycle()) {
        state.put(&state_file(sandbox));
    }
    let agent = Agent::start(flags(&node));
    for round in 0..3 {
        node.advance(1);
        let started = Instant::now();
        let page = scrape(&agent);
        assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
        for (sandbox, state) in sandboxes.iter().zip(STATES.iter().cycle()) {
            let kind = (sandbox.runtime(), sandbox.hypervisor());
            assert_none(&differences(&page, &facts(sandbox)), &format!("{state:?} {kind:?}, round {round}"));
        }
    }
    assert_eq!(node.violations(), [], "no shim was asked what it does not survive");
}

#[test]
fn a_directory_that_comes_and_goes_costs_its_own_sandbox() {
    let mut builder = KataNode::builder();
    for (runtime, hypervisor) in KINDS {
        builder = builder.sandbox(runtime, hypervisor).containers(1);
        builder = builder.with(SandboxPlan::unmeasured_by_runtime).times(2);
    }
    let node = builder.start().expect("a simulated node");
    let (restless, calm): (Vec<_>, Vec<_>) = node.sandboxes().into_iter().enumerate().partition(|(at, _)| at % 2 == 0);
    let [restless, calm] = [restless, calm].map(|some| some.into_iter().map(|(_, it)| it).collect::<Vec<_>>());
    let agent = Agent::start(flags(&node));
    node.advance(5);
    for sandbox in &restless {
        sandbox.flap(Duration::from_millis(30));
    }
    let mut pages = Vec::new();
    for _ in 0..15 {
        let started = Instant::now();
        pages.push(scrape(&agent));
        assert!(started.elapsed() < IN_TIME, "{:?}", started.elapsed());
    }
    restless.iter().for_each(KataSandbox::settle);
    // Their directories are seen by a watch, so not by the very next scrape.
    agent.wait_until("everybody is well", PATIENCE, || {
        let listing = Listing::of(&agent);
        let all: Vec<Fact> = restless.iter().chain(&calm).flat_map(|sandbox| facts_listed(sandbox, &listing)).collect();
        differences(&scrape(&agent), &all).is_empty()
    });
    let well = scrape(&agent);
    for page in &pages {
        assert_none(&differences(page, &calm.iter().flat_map(facts).collect::<Vec<_>>()), "beside them");
        for sandbox in &restless {
            let wrong = crate::support::kata::false_values(&series_of(page, sandbox), &series_of(&well, sandbox));
            // What runs the guest may not be known while there is no directory.
            let wrong: Vec<String> =
                wrong.into_iter().filter(|told| !told.starts_with("kata_pulse_sandbox_info")).collect();
            assert_none(&wrong, "of one that comes and goes");
        }
    }
    let listing = Listing::of(&agent);
    assert!(restless.iter().all(|sandbox| listing.has(sandbox) && listing.last_error(sandbox).is_none()));
    assert_eq!(node.violations(), []);
}

#[test]
fn a_sandbox_whose_directory_is_gone_is_said_to_be_down() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
    let builder = builder.with(SandboxPlan::unmeasured_by_runtime).times(2);
    let node = builder.start().expect("a simulated node");
    let (gone, other) = (node.sandbox(0), node.sandbox(1));
    let agent = Agent::start(flags(&node));
    assert_eq!(up(&scrape(&agent), &gone), Some(1.0));
    gone.vanish();
    agent.wait_until("it is down", PATIENCE, || up(&scrape(&agent), &gone) == Some(0.0));
    let page = scrape(&agent);
    assert!(page.matching("container_memory_usage_bytes", &[("name", gone.id())]).is_empty(), "nothing old is served");
    assert_none(&differences(&page, &facts(&other)), "beside it");
    let error = Listing::of(&agent).last_error(&gone);
    assert!(error.as_ref().is_some_and(|error| error.contains("directory")), "{error:?}");
    gone.appear();
    agent.wait_until("it is up", PATIENCE, || differences(&scrape(&agent), &facts(&gone)).is_empty());
}

/// The shim's state when the guest has just been started or is being ended.
#[test]
fn a_guest_that_boots_pauses_or_loses_its_processes() {
    let mut builder = KataNode::builder();
    for (runtime, hypervisor) in KINDS {
        builder = builder.sandbox(runtime, hypervisor).containers(1).with(SandboxPlan::unmeasured_by_runtime);
    }
    let node = builder.start().expect("a simulated node");
    let sandboxes = node.sandboxes();
    node.advance(5);
    for sandbox in &sandboxes {
        sandbox.set_agent_heard(false);
        if sandbox.has(Endpoint::Agent) {
            sandbox.fail(Endpoint::Agent, Fault::Close);
        }
        sandbox.fail(Endpoint::Task, Fault::Fail);
        sandbox.set_vm_state(VmState::NotBooted);
    }
    let agent = Agent::start(flags(&node));
    for state in [VmState::NotCreated, VmState::NotBooted, VmState::Paused] {
        sandboxes.iter().for_each(|sandbox| sandbox.set_vm_state(state));
        let page = scrape(&agent);
        for sandbox in &sandboxes {
            assert_eq!(up(&page, sandbox), Some(0.0), "{state:?}");
            let series = series_of(&page, sandbox);
            assert!(!series.keys().any(|(family, _)| family.starts_with("kata_pulse_guest_")), "{state:?}");
            let counted = series.keys().any(|(family, _)| family.starts_with("kata_pulse_vmm_net"));
            let paused = state == VmState::Paused && sandbox.hypervisor() == Hypervisor::CloudHypervisor;
            assert_eq!(counted, paused, "{state:?}: a machine that does not run has counted nothing");
        }
    }
    for sandbox in &sandboxes {
        sandbox.set_vm_state(VmState::Running);
        sandbox.set_agent_heard(true);
        sandbox.heal_all();
    }
    let listing = Listing::of(&agent);
    let all: Vec<Fact> = sandboxes.iter().flat_map(|sandbox| facts_listed(sandbox, &listing)).collect();
    assert_none(&differences(&scrape(&agent), &all), "two scrapes after the boot");
    for sandbox in &sandboxes {
        for component in [Component::Shim, Component::Hypervisor, Component::Virtiofsd] {
            sandbox.end_process(component);
        }
    }
    // The guests are still there. The node's side is found by its processes, and has nothing more to say.
    scrape(&agent);
    let page = scrape(&agent);
    let of_node = ["kata_pulse_sandbox_host_", "kata_pulse_sandbox_overhead_"];
    let (gone, left): (Vec<Fact>, Vec<Fact>) =
        all.into_iter().partition(|fact| of_node.iter().any(|prefix| fact.family.starts_with(prefix)));
    assert_none(&differences(&page, &left), "without processes");
    assert!(gone.iter().all(|fact| page.matching(fact.family, &[]).is_empty()));
    assert_eq!(node.violations(), []);
}
