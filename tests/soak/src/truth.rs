//! The quiet moments before and after: every guest is told exactly as it is, and nothing is held for who is not there.

use std::time::{Duration, Instant};

use anyhow::{Context, bail};

use crate::churn::Pods;
use crate::exposition::Page;
use crate::samples::Sample;
use crate::scrapers;
use crate::stage::Stage;

/// How long it may take until all that was ill is told as it is: those that answered nothing are asked less often.
const SETTLED_WITHIN: Duration = Duration::from_secs(60);

/// Descriptors more than before that are no leak: connections that are being closed, a file that is being read.
const DESCRIPTORS: f64 = 12.0;

/// Threads more than before: those for blocking reads end when they had nothing to do for a while.
const THREADS: f64 = 4.0;

const PAUSE: Duration = Duration::from_millis(500);

/// Waits until everything of all pods is told as it is; gives what the agent holds then.
pub fn settled(stage: &Stage, pods: &Pods) -> anyhow::Result<Sample> {
    let begun = Instant::now();
    loop {
        let page = scrapers::last_page(stage)?;
        let differences = differences(&page, pods);
        if differences.is_empty() {
            return Sample::of(stage.agent.pid());
        }
        if begun.elapsed() > SETTLED_WITHIN.mul_f64(stage.patience.0) {
            let some: Vec<&String> = differences.iter().take(5).collect();
            bail!("{} differences, among them {some:?}", differences.len());
        }
        std::thread::sleep(PAUSE);
    }
}

/// Where the page differs from what is true, in words.
fn differences(page: &Page, pods: &Pods) -> Vec<String> {
    let mut differences = Vec::new();
    for pod in &pods.staying {
        let Some(guest) = &pod.guest else {
            differences.extend(lacking(page, pod.pod.pod_name(), &pod.containers));
            continue;
        };
        let mut expect = |family: &str, labels: &[(&str, &str)], value: f64| {
            let told: Vec<f64> = page.matching(family, labels).iter().map(|sample| sample.value).collect();
            if told != [value] {
                differences.push(format!("{family}{labels:?} of {:?} is {told:?}, not {value}", guest.runtime()));
            }
        };
        expect("kata_pulse_sandbox_up", &[("sandbox_id", guest.id())], 1.0);
        for container in guest.truth().containers.iter().skip(1) {
            let row = [("name", container.id.as_str())];
            let cpu = [("name", container.id.as_str()), ("cpu", "total")];
            expect("container_cpu_usage_seconds_total", &cpu, container.cpu.total_ns() as f64 / 1e9);
            expect("container_memory_working_set_bytes", &row, container.memory.working_set() as f64);
            expect("container_threads", &row, container.pids as f64);
        }
    }
    differences
}

/// Containers of a runc pod that are not told of; their numbers are the kernel's.
fn lacking(page: &Page, pod: &str, containers: &[String]) -> Vec<String> {
    let there = |container: &&String| {
        let labels = [("pod", pod), ("container", container.as_str())];
        page.matching("container_memory_working_set_bytes", &labels).len() == 1
    };
    containers.iter().filter(|name| !there(name)).map(|name| format!("{pod}/{name} is not told of")).collect()
}

/// Waits until the agent holds no more than it did when the same pods were there and nobody had come or gone.
pub fn is_left(stage: &Stage, before: Sample) -> anyhow::Result<()> {
    let begun = Instant::now();
    loop {
        let now = Sample::of(stage.agent.pid()).context("look at the agent")?;
        let (descriptors, threads) = (now.descriptors - before.descriptors, now.threads - before.threads);
        if descriptors <= DESCRIPTORS && threads <= THREADS {
            return Ok(());
        }
        if begun.elapsed() > SETTLED_WITHIN.mul_f64(stage.patience.0) {
            bail!("{descriptors:+} descriptors, {threads:+} threads: {before:?} before, {now:?} now");
        }
        std::thread::sleep(PAUSE);
    }
}
