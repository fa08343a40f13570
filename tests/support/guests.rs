//! Simulated guests under a real containerd: where they are, and what a page must say of their containers.
//!
//! Guests live by the clock, a tick each second, and every number follows from container and tick. So a page is right
//! when there is a tick in the time of its making at which all of a container's values are the served ones.

use std::fs;
use std::ops::RangeInclusive;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use anyhow::{Context, Result};
use kata_pulse_realnode::{APP_IMAGE, Cgroup, Container, Handler, Node, PAUSE_IMAGE, Pod};
use kata_pulse_simulator::kata::shim::Settings;
use kata_pulse_simulator::kata::truth::ContainerTruth;
use kata_pulse_simulator::kata::{ContainerPlan, Runtime};

use super::agent::Agent;
use super::cadvisor::scrape;
use super::exposition::{Labels, Page};
use super::shim::containerd_shim_kata;
use super::truth::Resident;

/// The handler's name.
pub const HANDLER: &str = "kata";

/// So many ticks the shims may be behind the clock, at which they look now and then.
const BEHIND: u64 = 3;

/// The guests of a node.
pub struct Guests {
    settings: Settings,
    flags: Vec<String>,
}

/// The handler by which a node runs pods in guests.
pub fn handler() -> Handler {
    Handler::new(HANDLER, "io.containerd.kata.v2", containerd_shim_kata())
}

impl Guests {
    /// Lets pods of [`handler`] run on this node.
    pub fn on(node: &Node, runtime: Runtime) -> Result<Self> {
        let run = node.directory().join("run");
        fs::create_dir(&run).context("make the run directory")?;
        // Where shims have their sockets cannot be chosen.
        symlink("/run/containerd", run.join("containerd")).context("link the shims' sockets")?;
        let settings = Settings::new(&run, runtime);
        settings.write(&node.handler_configuration(HANDLER))?;
        let paths = [("--runtime-endpoint", node.socket()), ("--containerd-state", node.state()), ("--run-dir", run)];
        let mut flags = vec!["--max-age-secs".to_owned(), "0".to_owned()];
        flags.extend(paths.into_iter().flat_map(|(flag, path)| [flag.to_owned(), path.display().to_string()]));
        Ok(Self { settings, flags })
    }

    /// The flags that make the agent read this node.
    pub fn flags(&self) -> &[String] {
        &self.flags
    }

    /// The cgroup in which a pod's shim and hypervisor are: runtime-rs puts them where runc has the pause container, the
    /// Go runtime on cgroup v1 beside all pods.
    pub fn cgroup(&self, node: &Node, pod: &Pod<'_>) -> Cgroup {
        match self.settings.runtime {
            Runtime::Rust => pod.sandbox_cgroup(),
            Runtime::Go => node.cgroup(&format!("kata_overhead/{}", pod.id())),
        }
    }

    /// Everything that sandboxes have in the run directory.
    pub fn files(&self) -> Vec<PathBuf> {
        // Not the link to the shims' sockets.
        let mut files: Vec<PathBuf> = ["kata", "vc", "kata-containers"].map(|top| self.settings.run.join(top)).into();
        let mut next = 0;
        while let Some(directory) = files.get(next) {
            let below = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
            files.extend(below.collect::<Vec<_>>());
            next += 1;
        }
        files
    }

    /// What was asked of the guests, their shims and hypervisors and must not have been.
    pub fn violations(&self) -> String {
        fs::read_to_string(self.settings.violations()).unwrap_or_default()
    }

    /// Every running container of these pods is served as it is in its guest, and the pause containers are.
    #[track_caller]
    pub fn are_told_as_they_are(&self, agent: &Agent, residents: &[Resident<'_>]) {
        let first = self.settings.tick().saturating_sub(BEHIND);
        let page = scrape(agent);
        let differences = self.differences(&page, residents, first..=self.settings.tick());
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }

    /// Says where a page differs from what was true at these ticks.
    fn differences(&self, page: &Page, residents: &[Resident<'_>], ticks: RangeInclusive<u64>) -> Vec<String> {
        let plan = self.settings.plan();
        let mut differences = Vec::new();
        for Resident { pod, running, .. } in residents {
            let pause = identity(pod, "", PAUSE_IMAGE, pod.id());
            let truth = |tick| plan.pause_truth(pod.id(), tick);
            differences.extend(difference(page, &pause, ticks.clone().map(truth)));
            for container in running {
                let labels = identity(pod, container.name(), APP_IMAGE, container.id());
                let truth = |tick| plan.container_truth(&planned(container), tick);
                differences.extend(difference(page, &labels, ticks.clone().map(truth)));
            }
        }
        differences
    }
}

/// The container as the simulator describes it.
fn planned(container: &Container<'_>) -> ContainerPlan {
    let mut plan = ContainerPlan::new(container.name()).with_id(container.id());
    if let Some(bytes) = container.memory_limit() {
        plan = plan.memory_limit(bytes);
    }
    match container.cpu_quota() {
        Some((quota, period)) => plan.cpu_quota(quota * 100_000 / period),
        None => plan,
    }
}

/// The kubelet's labels. The container has no cgroup on the node; its row has the id that it would have under runc.
fn identity(pod: &Pod<'_>, container: &str, image: &str, id: &str) -> Labels {
    let path = format!("{}/{id}", pod.cgroup().path());
    let labels = [
        ("container", container),
        ("id", &path),
        ("image", image),
        ("name", id),
        ("namespace", pod.namespace()),
        ("pod", pod.name()),
    ];
    labels.into_iter().map(|(name, value)| (name.to_owned(), value.to_owned())).collect()
}

/// Where the row differs from each of these truths; nothing if it is one of them.
fn difference(page: &Page, row: &Labels, truths: impl Iterator<Item = ContainerTruth>) -> Option<String> {
    let mut attempts = Vec::new();
    for truth in truths {
        let facts = facts(&truth);
        let wrong = facts.iter().filter_map(|(family, more, value)| {
            let mut labels = row.clone();
            labels.extend(more.iter().map(|(name, value)| ((*name).to_owned(), (*value).to_owned())));
            // All labels, and no others: a row that is there twice under different labels is no match.
            let served: Vec<f64> = page
                .samples()
                .filter(|sample| sample.name == *family && sample.label("name") == Some(truth.id.as_str()))
                .filter(|sample| sample.labels == labels || more.is_empty())
                .map(|sample| if sample.labels == labels { sample.value } else { f64::NAN })
                .collect();
            (served != [*value]).then(|| format!("{family}{more:?}: served {served:?}, true {value}"))
        });
        let wrong: Vec<String> = wrong.collect();
        if wrong.is_empty() {
            return None;
        }
        attempts.push(wrong);
    }
    let nearest = attempts.into_iter().min_by_key(Vec::len).unwrap_or_default();
    Some(format!("{row:?}:\n  {}", nearest.join("\n  ")))
}

type Fact = (&'static str, &'static [(&'static str, &'static str)], f64);

#[expect(clippy::cast_precision_loss, reason = "the exposition's numbers are doubles anyway")]
fn facts(truth: &ContainerTruth) -> Vec<Fact> {
    let seconds = |nanos: u64| nanos as f64 / 1e9;
    let ContainerTruth { cpu, memory, pids, .. } = truth;
    vec![
        ("container_cpu_usage_seconds_total", &[("cpu", "total")], seconds(cpu.total_ns())),
        ("container_cpu_user_seconds_total", &[], seconds(cpu.user_ns)),
        ("container_cpu_system_seconds_total", &[], seconds(cpu.kernel_ns)),
        ("container_memory_usage_bytes", &[], memory.usage() as f64),
        ("container_memory_working_set_bytes", &[], memory.working_set() as f64),
        ("container_memory_rss", &[], memory.anon() as f64),
        ("container_memory_cache", &[], memory.file() as f64),
        ("container_memory_mapped_file", &[], memory.file_mapped as f64),
        ("container_threads", &[], *pids as f64),
    ]
}
