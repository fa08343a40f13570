//! The soak: the real agent for a long time on a node where everything goes wrong at once, watched from outside.
//!
//! ```text
//! node ── pods that stay and pods that come and go: real cgroups and processes, simulated guests, a simulated runtime
//!   │ churn, havoc: pods replaced; sandboxes ill, lying, flooding; the runtime restarts, hangs; SIGHUPs
//!   ▼
//! agent ◄── scrapers: six that check every answer, one that leaves midway, one that never reads
//!   │
//!   ▼
//! samples ──► trend ──► verdict      ledger ──► check ──► breaches
//! ```
//!
//! While it runs, every answer is checked: it comes in time with 200, parses strictly, has all of everybody who is well
//! and nothing of who has gone, and no counter has stepped back. At the end everybody is healed and every value of every
//! guest is compared with the truth, pods go, and what was held for them must be gone as well. What was sampled must show
//! no trend. Exit codes: 0 clean, 1 a breach, 2 this host or this user cannot run it, or bad usage.

mod agent;
mod check;
mod churn;
#[allow(dead_code, reason = "the tests' parser; a part of it is used here")]
#[path = "../../support/exposition.rs"]
mod exposition;
mod havoc;
mod ledger;
mod node;
mod samples;
mod scrapers;
mod stage;
mod trend;
mod truth;
mod verdict;
mod workload;

use std::fs::{self, File};
use std::io::{self, Write};
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::atomic::Ordering;
use std::thread;
use std::time::Duration;

use anyhow::Context;
use clap::{Parser, Subcommand};
use kata_pulse_simulator::kata::KataSandbox;

use agent::Agent;
use churn::{Pods, Population};
use ledger::Patience;
use node::Node;
use samples::Sample;
use scrapers::{READERS, Scraper};
use stage::Stage;

/// Time between two pods that are replaced.
const CHURN: Duration = Duration::from_millis(700);

/// Time between two clients that leave midway, and how long one that never reads stays.
const LEAVING: Duration = Duration::from_millis(1700);
const HOLDING: Duration = Duration::from_secs(15);

/// Sandboxes among those that stay that fall ill, and that lie.
const PATIENTS: usize = 8;
const LIARS: usize = 3;

const POPULATION: Population = Population { kata_staying: 20, kata_passing: 10, runc_staying: 6, runc_passing: 6 };

/// Runs kata-pulse for a long time on a node where everything goes wrong.
#[derive(Debug, Parser)]
#[command(args_conflicts_with_subcommands = true, disable_help_subcommand = true)]
struct Args {
    /// Path of the kata-pulse binary
    #[arg(required = true)]
    agent: Option<PathBuf>,

    /// How long
    #[arg(long, default_value_t = 30.0)]
    minutes: f64,

    /// Where samples, report and the agent's log are written
    #[arg(long, default_value = "target/soak")]
    output: PathBuf,

    /// Makes other things happen
    #[arg(long, default_value_t = 1)]
    seed: u64,

    /// How many times the usual things may take as long as usual
    #[arg(long, default_value_t = 1.0)]
    patience: f64,

    /// Judge no trends: for runs that are too short for them
    #[arg(long)]
    without_trends: bool,

    /// NAME=VALUE for the agent's environment, which is empty otherwise
    #[arg(long = "env")]
    environment: Vec<String>,

    #[command(subcommand)]
    inner: Option<Inner>,
}

/// What this binary does when it starts itself.
#[derive(Debug, Subcommand)]
enum Inner {
    /// Be a process of a pod
    #[command(hide = true)]
    Workload(workload::Args),
    /// Become the agent, which dies with the soak
    #[command(hide = true)]
    Leashed(agent::LeashedArgs),
}

fn main() -> ExitCode {
    let args = Args::parse();
    let outcome = match &args.inner {
        Some(Inner::Workload(args)) => workload::run(args).map(|()| true),
        Some(Inner::Leashed(args)) => agent::become_leashed(args).map(|()| true),
        None if !rustix::process::geteuid().is_root() => {
            writeln!(io::stderr(), "soak: it makes cgroups and network namespaces, so it needs root").ok();
            return ExitCode::from(2);
        }
        None => soak(&args),
    };
    match outcome {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            writeln!(io::stderr(), "soak: {error:#}").ok();
            ExitCode::FAILURE
        }
    }
}

/// Runs it, writes and shows the report, and says whether all was well.
fn soak(args: &Args) -> anyhow::Result<bool> {
    fs::create_dir_all(&args.output).with_context(|| format!("make {}", args.output.display()))?;
    let node = Node::start()?;
    let program = args.agent.as_ref().context("the agent's path")?;
    let agent = Agent::start(program, &node, &args.output, &args.environment)?;
    let stage = Stage::new(agent, node, Patience(args.patience));
    let (samples, times) = perform(args, &stage)?;
    let report = report(args, &stage, &samples, &times);
    fs::write(args.output.join("report.txt"), &report.0)?;
    io::stdout().lock().write_all(report.0.as_bytes())?;
    Ok(report.1)
}

type Times = Vec<(scrapers::Reads, Vec<Duration>)>;

/// Everything that happens, from the first pod to the last.
fn perform(args: &Args, stage: &Stage) -> anyhow::Result<(Vec<Sample>, Times)> {
    let mut pods = Pods::staying(stage, POPULATION)?;
    let alone = truth::settled(stage, &pods)?;
    pods.let_pass(stage, POPULATION)?;
    let guests: Vec<KataSandbox> = pods.staying.iter().filter_map(|pod| pod.guest.clone()).collect();
    let (patients, rest) = guests.split_at(PATIENTS);
    let liars = &rest[..LIARS];
    let dice = |number: u64| fastrand::Rng::with_seed(args.seed.wrapping_mul(1000) + number);
    let (samples, times, pods) = thread::scope(|scope| {
        let readers: Vec<_> =
            READERS.map(|(reads, every)| scope.spawn(move || Scraper::new(stage, reads).run(every))).into();
        scope.spawn(|| havoc::sicken(stage, patients, liars, dice(1)));
        scope.spawn(|| havoc::disturb(stage, dice(2)));
        scope.spawn(|| scrapers::leave_midway(stage, LEAVING, dice(3)));
        scope.spawn(|| scrapers::never_read(stage, HOLDING));
        scope.spawn(|| live_on(stage));
        let sampler = scope.spawn(|| sample(args, stage));
        // On this thread, because processes of pods end with the thread that has started them.
        let pods = pods.come_and_go(stage, CHURN, dice(4));
        let times = readers.into_iter().filter_map(|reader| reader.join().ok()).collect();
        (sampler.join(), times, pods)
    });
    let samples = samples.map_err(|_| anyhow::anyhow!("the sampler panicked"))??;
    end(stage, pods, alone)?;
    Ok((samples, times))
}

/// Guests live by the clock.
fn live_on(stage: &Stage) {
    while stage.pause(Duration::from_secs(1)) {
        stage.node.guests.advance(1);
    }
}

/// Samples until the time is over or the agent ends, and then ends everything.
fn sample(args: &Args, stage: &Stage) -> anyhow::Result<Vec<Sample>> {
    let samples = sample_all(args, stage);
    stage.stop();
    samples
}

fn sample_all(args: &Args, stage: &Stage) -> anyhow::Result<Vec<Sample>> {
    let path = args.output.join("samples.csv");
    let mut table = File::create(&path).with_context(|| format!("create {}", path.display()))?;
    writeln!(table, "{}", samples::COLUMNS)?;
    let length = Duration::from_secs_f64(args.minutes * 60.0);
    let every = (length / 360).clamp(Duration::from_secs(1), Duration::from_secs(5));
    let rhythm = Rhythm::of(length);
    let mut samples = Vec::new();
    while stage.begun.elapsed() < length {
        let (lull, calm) = rhythm.at(stage.begun.elapsed());
        stage.set_lull(lull);
        if !stage.pause(if lull { every.min(Duration::from_secs(1)) } else { every }) {
            break;
        }
        stage.agent.still_runs()?;
        let mut sample = Sample::of(stage.agent.pid())?;
        sample.at = stage.begun.elapsed().as_secs_f64();
        sample.pods_removed = stage.ledger().churned as f64;
        sample.scrapes = stage.scrapes.load(Ordering::Relaxed) as f64;
        sample.calm = calm;
        writeln!(table, "{}", sample.row())?;
        samples.push(sample);
    }
    stage.set_lull(false);
    Ok(samples)
}

/// How havoc and lulls follow one another. What is held while somebody lies is more than what is held otherwise, and who
/// lies is chance; what is held in lulls can be compared.
#[derive(Clone, Copy, Debug)]
struct Rhythm {
    period: Duration,
}

impl Rhythm {
    /// At least twelve lulls.
    fn of(length: Duration) -> Self {
        Self { period: (length / 12).min(Duration::from_secs(75)) }
    }

    /// Whether there is a lull at this time, and whether it has lasted long enough for all to be well: the last fifth of
    /// each period, and the last tenth.
    fn at(self, time: Duration) -> (bool, bool) {
        let part = (time.as_secs_f64() / self.period.as_secs_f64()).fract();
        (part >= 0.8, part >= 0.9)
    }
}

/// All are well, then all that came have gone: what is told is the truth, and what was held is let go of.
fn end(stage: &Stage, mut pods: Pods, alone: Sample) -> anyhow::Result<()> {
    stage.node.guests.sandboxes().iter().for_each(|guest| guest.lie(None));
    stage.agent.still_runs()?;
    pods.let_go(stage)?;
    let settled = truth::settled(stage, &pods);
    stage.expect("a guest is not told as it is", settled);
    let left = truth::is_left(stage, alone);
    stage.expect("something is left of pods that went", left);
    let stopped = stage.agent.stop();
    stage.expect("the agent did not end well", stopped);
    for violation in stage.node.guests.take_violations() {
        stage.breach("a call that an agent must never make", violation);
    }
    Ok(())
}

/// The report, and whether there is no breach.
fn report(args: &Args, stage: &Stage, samples: &[Sample], times: &Times) -> (String, bool) {
    let mut lines = Vec::new();
    let Some(last) = samples.last() else { return ("no sample was taken\n".to_owned(), false) };
    let peak = samples.iter().map(|sample| sample.rss).fold(0.0, f64::max);
    let scrapes = stage.scrapes.load(Ordering::Relaxed);
    lines.push(format!(
        "{:.1} minutes, {} pods replaced, {scrapes} scrapes, {:.0} MB read",
        last.at / 60.0,
        stage.ledger().churned,
        stage.bytes.load(Ordering::Relaxed) as f64 / 1e6,
    ));
    lines.push(format!(
        "resident memory at the end {:.0} KiB, at most {peak:.0} KiB; {:.1} ms of CPU time for each scrape, {:.1} % of a core",
        last.rss,
        last.cpu * 1e3 / scrapes.max(1) as f64,
        last.cpu * 100.0 / last.at,
    ));
    for (reads, times) in times {
        let mut times = times.clone();
        times.sort_unstable();
        if let (Some(median), Some(longest)) = (times.get(times.len() / 2), times.last()) {
            lines.push(format!("{reads:?}: {} answers, median {median:.2?}, longest {longest:.2?}", times.len()));
        }
    }
    let done: Vec<String> = stage.done().into_iter().map(|(what, count)| format!("{what} {count}")).collect();
    lines.push(done.join(", "));
    let mut well = true;
    if !args.without_trends {
        for line in verdict::judge(samples) {
            well &= !line.breach;
            lines.push(line.text);
        }
    }
    for (kind, (count, told)) in stage.breaches() {
        well = false;
        lines.push(format!("BREACH: {kind}, {count} times:"));
        lines.extend(told.into_iter().map(|what| format!("  {what}")));
    }
    lines.push(if well { "soak: ok".to_owned() } else { "soak: FAILED".to_owned() });
    (lines.join("\n") + "\n", well)
}
