//! One run: every load, one after the other, the agent and its floors in turn.

use std::path::PathBuf;
use std::process::Command;
use std::thread;
use std::time::{Duration, Instant};

use anyhow::{Context, ensure};

use crate::agent::Agent;
use crate::callgrind;
use crate::cgroups::Containers;
use crate::child::Told;
use crate::collectors;
use crate::figures::{CountedLoad, Figures, Floor, Idle, Kind, Load, Spread};
use crate::floor::{Peer, Task, Took};
use crate::kata::KataNode;
use crate::pods::Pods;
use crate::recorded;

/// A cgroup the agent has known for less than this is looked at harder, which is not what a node pays day by day.
pub const GROWN_UP: Duration = Duration::from_secs(11);

/// Between two sandboxes that come: those of a burst are joined in one sync, which is not what is promised.
const BETWEEN_ARRIVALS: Duration = Duration::from_millis(500);

/// Rounds that are not counted.
pub const WARM_UP: usize = 3;

/// Containers of a simulated sandbox, as the bounds say.
const PER_SANDBOX: usize = 2;

/// How much is measured.
#[derive(Debug)]
pub struct Plan {
    /// Numbers of sandboxes told of by their agents, with the rounds of each.
    pub kata: &'static [(usize, usize)],
    /// The same, asked for with gzip.
    pub compressed: &'static [(usize, usize)],
    /// The same of sandboxes told of by their shims.
    pub shims: &'static [(usize, usize)],
    /// The same of containers of this host.
    pub runc: &'static [(usize, usize)],
    /// Rounds of the collectors, one by one and all together.
    pub collectors: usize,
    /// How long sandboxes are known before they are measured: for a minute their files are looked at in every collection.
    pub settle: Duration,
    /// How long nobody asks.
    pub idle: Duration,
    /// How many starts.
    pub starts: usize,
    /// How many sandboxes come.
    pub arrivals: usize,
    /// Numbers of sandboxes and containers at which instructions are counted.
    pub counted: &'static [usize],
}

/// Every load of the bounds.
pub const FULL: Plan = Plan {
    kata: &[(0, 60), (10, 60), (100, 60), (1000, 30)],
    compressed: &[(100, 60), (1000, 30)],
    shims: &[(100, 60)],
    runc: &[(10, 100), (100, 60), (500, 30)],
    collectors: 40,
    settle: Duration::from_secs(61),
    idle: Duration::from_secs(60),
    starts: 21,
    arrivals: 21,
    counted: &[10, 100],
};

/// A look at whether it works, and at the order of things.
pub const SHORT: Plan = Plan {
    kata: &[(0, 10), (10, 10), (100, 10)],
    compressed: &[(100, 10)],
    shims: &[(100, 10)],
    runc: &[(10, 20), (100, 20)],
    collectors: 10,
    settle: Duration::ZERO,
    idle: Duration::from_secs(6),
    starts: 5,
    arrivals: 5,
    counted: &[10],
};

/// Where the programs are.
#[derive(Debug)]
pub struct Programs {
    /// The agent.
    pub agent: PathBuf,
    /// The simulator.
    pub simulator: PathBuf,
}

impl Programs {
    /// Beside this program.
    pub fn find() -> anyhow::Result<Self> {
        let ours = std::env::current_exe()?;
        let beside = |name: &str| {
            let path = ours.with_file_name(name);
            ensure!(path.is_file(), "{} is missing: `make bench` builds it", path.display());
            Ok(path)
        };
        Ok(Self { agent: beside("kata-pulse")?, simulator: beside("kata-node")? })
    }
}

/// A part of a run, for who works on one thing.
#[derive(Clone, Copy, Debug, PartialEq, Eq, clap::ValueEnum)]
pub enum Part {
    /// The agent that nobody asks
    Idle,
    /// Sandboxes told of by their agents
    Kata,
    /// Sandboxes told of by their shims
    Shims,
    /// How soon it is ready, and lists a new sandbox
    Moments,
    /// Containers of this host
    Runc,
    /// Collectors, one by one, and node_exporter
    Collectors,
    /// Instructions and allocations
    Counted,
}

/// Measures what the plan says, or these parts of it if any are named.
pub fn run(programs: &Programs, plan: &Plan, only: &[Part]) -> anyhow::Result<Figures> {
    let wanted = |part| only.is_empty() || only.contains(&part);
    let mut figures = Figures::default();
    if wanted(Part::Idle) {
        say("idle");
        figures.idle = idle(programs, plan.idle)?;
    }
    for (kind, loads) in [(Kind::Kata, plan.kata), (Kind::Compressed, plan.compressed)] {
        for (count, rounds) in loads.iter().filter(|_| wanted(Part::Kata)) {
            say(&format!("{count} Kata sandboxes, {kind:?}"));
            let node = kata(programs, *count, "rust-clh", &[])?;
            figures.loads.push(simulated(programs, node, kind, *count, (*rounds, plan.settle))?);
        }
    }
    for (count, rounds) in plan.shims.iter().filter(|_| wanted(Part::Shims)) {
        for kind in [Kind::Fallback, Kind::PassThrough] {
            say(&format!("{count} Kata sandboxes by their shims, {kind:?}"));
            let node = kata(programs, *count, "go-qemu", &[])?;
            figures.loads.push(simulated(programs, node, kind, *count, (*rounds, plan.settle))?);
        }
    }
    if wanted(Part::Moments) {
        say("start and arrival");
        (figures.ready, figures.visible) = moments(programs, plan)?;
    }
    let mut containers = Containers::new()?;
    containers.version().clone_into(&mut figures.machine.cgroup);
    for (count, rounds) in plan.runc.iter().filter(|_| wanted(Part::Runc)) {
        say(&format!("{count} containers"));
        containers.grow(*count)?;
        figures.loads.push(real(programs, *count, *rounds)?);
    }
    drop(containers);
    if wanted(Part::Collectors) {
        say("collectors, with 100 containers and 200 volumes");
        let mut containers = Containers::new()?;
        containers.grow(100)?;
        let pods = Pods::new(100)?;
        (figures.collectors, figures.walk) = collectors::each(&programs.agent, plan.collectors, &pods.flags())?;
        drop((containers, pods));
        say("the host, beside node_exporter");
        figures.host = collectors::host(&programs.agent, plan.collectors)?;
    }
    if wanted(Part::Counted) {
        // Without them the other figures are still worth having; the report shows that there are none.
        figures.counted = counted(programs, plan).unwrap_or_else(|error| {
            say(&format!("instructions and allocations were not counted: {error:#}"));
            Vec::new()
        });
    }
    Ok(figures)
}

/// A line about what comes, for those who wait.
#[expect(clippy::print_stderr, reason = "a program for people who measure")]
fn say(what: &str) {
    eprintln!("bench: {what}");
}

fn kata(programs: &Programs, count: usize, kind: &str, more: &[&str]) -> anyhow::Result<KataNode> {
    let (count, containers) = (count.to_string(), PER_SANDBOX.to_string());
    let arguments = ["--sandboxes", &count, "--containers", &containers, "--kind", kind];
    KataNode::start(&programs.simulator, &[&arguments, more].concat())
}

fn simulated(
    programs: &Programs,
    mut node: KataNode,
    kind: Kind,
    sandboxes: usize,
    (rounds, settle): (usize, Duration),
) -> anyhow::Result<Load> {
    let path = if kind == Kind::PassThrough { "/metrics/kata" } else { "/metrics" };
    let peers = recorded::record(&programs.agent, &node.says.flags, path, &node.says.host_root)?;
    let agent = Agent::start(&programs.agent, &[], &node.says.flags)?;
    let agent = if kind == Kind::Compressed { agent.compressing() } else { agent };
    agent.wait_until_ready()?;
    agent.get(path)?;
    thread::sleep(settle);
    let measured = measure(&agent, path, peers, rounds, &mut || node.advance())?;
    Ok(Load { kind, sandboxes, containers: sandboxes * PER_SANDBOX, ..measured })
}

fn real(programs: &Programs, count: usize, rounds: usize) -> anyhow::Result<Load> {
    let agent = Agent::start(&programs.agent, &[], &["--runtime-endpoint".to_owned(), "none".to_owned()])?;
    agent.wait_until_ready()?;
    agent.get("/metrics")?;
    thread::sleep(GROWN_UP);
    let measured = measure(&agent, "/metrics", Vec::new(), rounds, &mut || Ok(()))?;
    Ok(Load { kind: Kind::Runc, sandboxes: count, containers: count, ..measured })
}

/// Scrapes and floors in turn, so that a machine that slows down slows all of them.
fn measure(
    agent: &Agent,
    path: &str,
    peers: Vec<Peer>,
    rounds: usize,
    between: &mut dyn FnMut() -> anyhow::Result<()>,
) -> anyhow::Result<Load> {
    agent.wait_until_ready()?;
    let mut body = 0;
    for _ in 0..WARM_UP {
        body = agent.get(path)?.body.len();
    }
    let files = agent.held()?;
    let (held_files, requests) = (files.len(), peers.iter().map(|peer| peer.requests.len()).sum());
    let task = Task { files, peers, copied: body };
    let mut floor = Tasked::start(&task)?;
    let (mut cpu, mut wall, mut held, mut anew) = (Vec::new(), Vec::new(), Vec::new(), Vec::new());
    while cpu.len() < rounds {
        between()?;
        let before = agent.cpu()?;
        let scrape = agent.get(path)?;
        // The last thread goes to sleep a little after the last byte.
        thread::sleep(Duration::from_millis(2));
        let used = agent.cpu()?.since(&before);
        held.push(floor.round("held")?);
        anew.push(floor.round("anew")?);
        // A thread that has ended took its count with it.
        let Some(used) = used else { continue };
        cpu.push(Duration::from_nanos(used));
        wall.push(scrape.wall);
        body = scrape.body.len();
    }
    Ok(Load {
        kind: Kind::Kata,
        sandboxes: 0,
        containers: 0,
        files: held_files,
        requests,
        body,
        read: held.last().map_or(0, |took| took.bytes),
        cpu: Spread::of_times(cpu),
        wall: Spread::of_times(wall),
        held: spread(&held),
        anew: spread(&anew),
        resident: agent.status_of("VmRSS")?,
        peak: agent.status_of("VmHWM")?,
    })
}

fn spread(all: &[Took]) -> Floor {
    Floor {
        cpu: Spread::of_times(all.iter().map(|took| took.cpu)),
        wall: Spread::of_times(all.iter().map(|took| took.wall)),
    }
}

/// A floor that knows its task.
struct Tasked {
    told: Told,
    /// Where the task is written.
    _file: tempfile::NamedTempFile,
}

impl Tasked {
    fn start(task: &Task) -> anyhow::Result<Self> {
        let file = tempfile::NamedTempFile::new()?;
        serde_json::to_writer(&file, task)?;
        let mut told = Told::start(Command::new(std::env::current_exe()?).arg("floor").arg(file.path()))?;
        ensure!(told.hear()? == "ready", "the floor is not ready");
        Ok(Self { told, _file: file })
    }

    fn round(&mut self, order: &str) -> anyhow::Result<Took> {
        Took::parse(&self.told.ask(order)?)
    }
}

/// The agent on a node without sandboxes, with a runtime that answers.
fn idle(programs: &Programs, time: Duration) -> anyhow::Result<Idle> {
    let node = kata(programs, 0, "rust-clh", &[])?;
    let agent = Agent::start(&programs.agent, &[], &node.says.flags)?;
    agent.wait_until_ready()?;
    // Threads that served the start are given up after ten seconds.
    thread::sleep(GROWN_UP);
    let (begun, before, cpu) = (Instant::now(), agent.sleeps()?, agent.cpu()?);
    thread::sleep(time);
    let (after, used) = (agent.sleeps()?, agent.cpu()?.since(&cpu));
    let mut sleeps: Vec<(String, u64)> = Vec::new();
    for ((name, count), (_, was)) in after.into_iter().zip(before) {
        match sleeps.iter_mut().find(|(known, _)| *known == name) {
            Some((_, sum)) => *sum += count.saturating_sub(was),
            None => sleeps.push((name, count.saturating_sub(was))),
        }
    }
    let resident = agent.status_of("VmRSS")?;
    Ok(Idle { resident, seconds: begun.elapsed().as_secs_f64(), sleeps, cpu: used.unwrap_or_default() })
}

/// How soon the agent is ready with a hundred sandboxes, and how soon it lists a new one.
fn moments(programs: &Programs, plan: &Plan) -> anyhow::Result<(Spread, Spread)> {
    let newcomers = plan.arrivals.to_string();
    let mut node = kata(programs, 100, "rust-clh", &["--newcomers", &newcomers])?;
    let mut starts = Vec::new();
    for _ in 0..plan.starts {
        let started = Instant::now();
        let agent = Agent::start(&programs.agent, &[], &node.says.flags)?;
        agent.wait_until_ready()?;
        starts.push(started.elapsed());
    }
    let agent = Agent::start(&programs.agent, &[], &node.says.flags)?;
    agent.wait_until_ready()?;
    let mut arrivals = Vec::new();
    for (number, id) in node.says.newcomers.clone().into_iter().enumerate() {
        thread::sleep(BETWEEN_ARRIVALS);
        let started = Instant::now();
        node.appear(number)?;
        while !String::from_utf8_lossy(&agent.get("/sandboxes")?.body).contains(&id) {
            ensure!(started.elapsed() < Duration::from_secs(30), "sandbox {id} is never listed");
        }
        arrivals.push(started.elapsed());
    }
    Ok((Spread::of_times(starts), Spread::of_times(arrivals)))
}

/// Instructions and allocations of one scrape at several sizes, from which the share of one more follows.
fn counted(programs: &Programs, plan: &Plan) -> anyhow::Result<Vec<CountedLoad>> {
    let mut counted = Vec::new();
    let mut containers = Containers::new()?;
    for count in plan.counted {
        say(&format!("instructions of {count} sandboxes and of {count} containers"));
        let node = kata(programs, *count, "rust-clh", &[])?;
        let of = callgrind::count(&programs.agent, &node.says.flags, "/metrics").context("count instructions")?;
        counted.push(CountedLoad { kind: Kind::Kata, count: *count, of });
        drop(node);
        containers.grow(*count)?;
        let flags = ["--runtime-endpoint".to_owned(), "none".to_owned()];
        let of = callgrind::count(&programs.agent, &flags, "/metrics").context("count instructions")?;
        counted.push(CountedLoad { kind: Kind::Runc, count: *count, of });
    }
    Ok(counted)
}

/// Lets children of this process hold as many descriptors as the largest load has files, if that is allowed.
pub fn raise_descriptor_limit() {
    use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};
    const WANTED: u64 = 131_072;
    let now = getrlimit(Resource::Nofile);
    if now.maximum.is_some_and(|maximum| maximum < WANTED) {
        // Only who may do anything may; without it the agent opens what it may not hold, and the report says so.
        setrlimit(Resource::Nofile, Rlimit { current: Some(WANTED), maximum: Some(WANTED) }).ok();
    }
}
