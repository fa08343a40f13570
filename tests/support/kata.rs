//! What a page must say of a simulated Kata sandbox that is well, and what it may say of one that is not.
//!
//! A well sandbox is compared with the simulated truth, fact by fact. One that is not may lack anything, but whatever
//! is served of it must be what a page says of it once it is well again at the same tick.

use std::collections::BTreeMap;

use kata_pulse_simulator::kata::{Endpoint, Hypervisor, KataNode, KataSandbox, Runtime};

use super::agent::{Agent, Answer};
use super::exposition::{Labels, Page};

/// A scrape as Prometheus makes it by default: it gives up after ten seconds.
pub const SCRAPE: [(&str, &str); 1] = [("X-Prometheus-Scrape-Timeout-Seconds", "10")];

/// The flags for a node of which every scrape is to be a collection of its own.
pub fn flags(node: &KataNode) -> Vec<std::ffi::OsString> {
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    flags
}

/// Scrapes and parses strictly.
#[track_caller]
pub fn scrape(agent: &Agent) -> Page {
    let answer = agent.get_with("/metrics", &SCRAPE);
    assert_eq!(answer.status, 200, "{}", answer.text());
    page(&answer)
}

/// The page of an answer.
#[track_caller]
pub fn page(answer: &Answer) -> Page {
    Page::parse(answer.text()).unwrap_or_else(|fault| panic!("{fault}"))
}

/// One sample that has to be on the page.
pub struct Fact {
    pub family: &'static str,
    pub labels: Vec<(&'static str, String)>,
    pub value: f64,
}

/// Everything a page says of the sandbox that the truth has as well. For guests with cgroup v2 on nodes with cgroup v2,
/// and sandboxes whose network the guest tells.
pub fn facts(sandbox: &KataSandbox) -> Vec<Fact> {
    facts_by(sandbox, "guest")
}

/// The same, with the network of the side that was chosen for the sandbox: one that was ill from the beginning keeps
/// the node's side when it is well.
pub fn facts_listed(sandbox: &KataSandbox, listing: &Listing) -> Vec<Fact> {
    facts_by(sandbox, &listing.network_side(sandbox).unwrap_or_default())
}

fn facts_by(sandbox: &KataSandbox, network_side: &str) -> Vec<Fact> {
    let mut facts = Facts { sandbox, found: Vec::new() };
    facts.containers();
    facts.guest();
    facts.network(network_side);
    facts.machine();
    facts.node();
    let mut found = facts.found;
    if sandbox.hypervisor() == Hypervisor::Qemu {
        found.retain(|fact| told_by_shim(sandbox.runtime(), fact.family));
    }
    found
}

/// Whether a family is told of a sandbox whose agent cannot be reached, as a simulated QEMU's never can.
fn told_by_shim(runtime: Runtime, family: &str) -> bool {
    let of_guest = family.starts_with("kata_pulse_guest") || family.contains("_network_");
    match runtime {
        // The shim's own text has the guest's in it.
        Runtime::Go => !["container_memory_kernel_usage", "container_memory_max_usage_bytes"].contains(&family),
        // It would die of the question.
        Runtime::Rust => {
            let untold = ["kernel_usage", "rss", "cache", "mapped_file"];
            !of_guest && !untold.iter().any(|suffix| family.strip_prefix("container_memory_") == Some(suffix))
        }
    }
}

struct Facts<'a> {
    sandbox: &'a KataSandbox,
    found: Vec<Fact>,
}

/// Bytes and counts of the simulator are far below what a float holds exactly.
fn float(number: u64) -> f64 {
    number as f64
}

fn seconds(nanos: u64) -> f64 {
    float(nanos) / 1e9
}

impl Facts<'_> {
    fn put(&mut self, family: &'static str, more: &[(&'static str, &str)], value: f64) {
        let (namespace, pod) = self.sandbox.pod();
        let pod = [("namespace", namespace.to_owned()), ("pod", pod.to_owned())];
        let more = more.iter().map(|(name, value)| (*name, (*value).to_owned()));
        self.found.push(Fact { family, labels: pod.into_iter().chain(more).collect(), value });
    }

    fn containers(&mut self) {
        for container in &self.sandbox.truth().containers {
            let name = if container.id == self.sandbox.id() { "" } else { container.name.as_str() };
            let row = [("container", name), ("name", container.id.as_str())];
            let (cpu, memory) = (&container.cpu, &container.memory);
            for (family, value) in [
                ("container_cpu_usage_seconds_total", seconds(cpu.total_ns())),
                ("container_cpu_user_seconds_total", seconds(cpu.user_ns)),
                ("container_cpu_system_seconds_total", seconds(cpu.kernel_ns)),
                ("container_memory_usage_bytes", float(memory.usage())),
                ("container_memory_working_set_bytes", float(memory.working_set())),
                ("container_memory_rss", float(memory.anon())),
                ("container_memory_cache", float(memory.file())),
                ("container_memory_mapped_file", float(memory.file_mapped)),
                ("container_memory_kernel_usage", float(memory.kernel())),
                ("container_memory_max_usage_bytes", float(memory.peak)),
                ("container_threads", float(container.pids)),
            ] {
                self.put(family, &row, value);
            }
        }
    }

    fn guest(&mut self) {
        let (guest, id) = (self.sandbox.truth().guest, self.sandbox.id());
        for (mode, millis) in guest.cpu_total().items() {
            let labels = [("mode", mode), ("sandbox_id", id)];
            self.put("kata_pulse_guest_cpu_seconds_total", &labels, float(millis) / 1e3);
        }
        let memory = &guest.memory;
        for (family, value) in [
            ("kata_pulse_guest_memory_total_bytes", memory.total),
            ("kata_pulse_guest_memory_free_bytes", memory.free),
            ("kata_pulse_guest_memory_available_bytes", memory.available),
            ("kata_pulse_guest_memory_cached_bytes", memory.cached),
            ("kata_pulse_guest_memory_anon_bytes", memory.anon_pages),
            ("kata_pulse_guest_threads", guest.tasks.1),
            ("kata_pulse_guest_oom_kills_total", guest.vm_stat("oom_kill")),
        ] {
            self.put(family, &[("sandbox_id", id)], float(value));
        }
        self.put("kata_pulse_guest_vcpus", &[("sandbox_id", id)], guest.cpus.len() as f64);
        let [load1, load5, load15] = guest.load.map(f64::from);
        self.put("kata_pulse_guest_load1", &[("sandbox_id", id)], load1);
        self.put("kata_pulse_guest_load5", &[("sandbox_id", id)], load5);
        self.put("kata_pulse_guest_load15", &[("sandbox_id", id)], load15);
        for filesystem in &guest.filesystems {
            let labels = [("device", &*filesystem.device), ("mount", &*filesystem.mount), ("sandbox_id", id)];
            self.put("kata_pulse_guest_filesystem_size_bytes", &labels, float(filesystem.total_bytes));
            self.put("kata_pulse_guest_filesystem_used_bytes", &labels, float(filesystem.used_bytes));
        }
    }

    fn network(&mut self, side: &str) {
        let (truth, id) = (self.sandbox.truth(), self.sandbox.id());
        let eth0 = match side {
            "host" => truth.host.network.iter().find(|interface| interface.name == "eth0"),
            _ => Some(truth.guest.interface("eth0")),
        };
        let eth0 = eth0.expect("every sandbox has a network");
        for (family, value) in [
            ("container_network_receive_bytes_total", eth0.received.bytes),
            ("container_network_receive_packets_total", eth0.received.packets),
            ("container_network_receive_errors_total", eth0.received.errors),
            ("container_network_receive_packets_dropped_total", eth0.received.drops),
            ("container_network_transmit_bytes_total", eth0.sent.bytes),
            ("container_network_transmit_packets_total", eth0.sent.packets),
            ("container_network_transmit_errors_total", eth0.sent.errors),
            ("container_network_transmit_packets_dropped_total", eth0.sent.drops),
        ] {
            self.put(family, &[("container", ""), ("interface", "eth0"), ("name", id)], float(value));
        }
    }

    /// What Cloud Hypervisor counts, where it is the hypervisor.
    fn machine(&mut self) {
        if self.sandbox.hypervisor() != Hypervisor::CloudHypervisor {
            return;
        }
        let (vmm, id) = (self.sandbox.truth().vmm, self.sandbox.id());
        self.put("kata_pulse_vmm_memory_bytes", &[("sandbox_id", id)], float(vmm.memory_bytes));
        for disk in &vmm.disks {
            let labels = [("device", &*disk.id), ("sandbox_id", id)];
            self.put("kata_pulse_vmm_block_read_bytes_total", &labels, float(disk.read_bytes));
            self.put("kata_pulse_vmm_block_writes_total", &labels, float(disk.write_ops));
        }
        for net in &vmm.nets {
            let labels = [("device", &*net.id), ("sandbox_id", id)];
            self.put("kata_pulse_vmm_net_receive_bytes_total", &labels, float(net.rx_bytes));
            self.put("kata_pulse_vmm_net_transmit_bytes_total", &labels, float(net.tx_bytes));
        }
    }

    /// What the node itself knows, whatever the guest says.
    fn node(&mut self) {
        let (truth, id) = (self.sandbox.truth(), self.sandbox.id());
        self.put("kata_pulse_sandbox_up", &[("sandbox_id", id)], 1.0);
        let cpu = float(truth.host.cpu_us()) / 1e6;
        self.put("kata_pulse_sandbox_host_cpu_seconds_total", &[("sandbox_id", id)], cpu);
        let memory: u64 = truth.host.cgroups().map(|cgroup| cgroup.anon + cgroup.shmem + cgroup.kernel).sum();
        self.put("kata_pulse_sandbox_host_memory_bytes", &[("sandbox_id", id)], float(memory));
        let used: u64 = truth.containers.iter().map(|container| container.memory.usage()).sum();
        let overhead = float(memory.saturating_sub(used));
        self.put("kata_pulse_sandbox_overhead_memory_bytes", &[("sandbox_id", id)], overhead);
    }
}

/// Facts that the page lacks or tells otherwise, in words.
pub fn differences<'f>(page: &Page, facts: impl IntoIterator<Item = &'f Fact>) -> Vec<String> {
    // Looked up by pod first: a page of a hundred sandboxes has ten thousand samples.
    let mut samples: BTreeMap<(&str, &str), Vec<_>> = BTreeMap::new();
    for sample in page.samples() {
        if let (Some(namespace), Some(pod)) = (sample.label("namespace"), sample.label("pod")) {
            samples.entry((namespace, pod)).or_default().push(sample);
        }
    }
    let mut told = Vec::new();
    for fact in facts {
        let labels: Vec<(&str, &str)> = fact.labels.iter().map(|(name, value)| (*name, value.as_str())).collect();
        let [(_, namespace), (_, pod), ..] = labels[..] else { unreachable!("every fact is about a pod") };
        let of_pod = samples.get(&(namespace, pod)).map(Vec::as_slice).unwrap_or_default();
        let matching: Vec<f64> = of_pod
            .iter()
            .filter(|sample| sample.name == fact.family && sample.has(&labels))
            .map(|sample| sample.value)
            .collect();
        if matching != [fact.value] {
            told.push(format!("{}{labels:?} is {matching:?} and should be {}", fact.family, fact.value));
        }
    }
    told
}

/// Every series by name and labels, with its value.
pub type Series = BTreeMap<(String, Labels), f64>;

/// What a page says of one pod that does not change from one scrape to the next at the same tick.
pub fn series_of(page: &Page, sandbox: &KataSandbox) -> Series {
    let (namespace, pod) = sandbox.pod();
    settled(page, |labels| labels.get("namespace").is_some_and(|is| is == namespace) && is(labels, "pod", pod))
}

/// What a page says of everything but these pods.
pub fn series_without(page: &Page, left_out: &[KataSandbox]) -> Series {
    settled(page, |labels| {
        !left_out.iter().any(|sandbox| {
            let (namespace, pod) = sandbox.pod();
            is(labels, "namespace", namespace) && is(labels, "pod", pod)
        })
    })
}

fn is(labels: &Labels, name: &str, value: &str) -> bool {
    labels.get(name).is_some_and(|is| is == value)
}

fn settled(page: &Page, wanted: impl Fn(&Labels) -> bool) -> Series {
    let kept = page.samples().filter(|sample| !is_restless(&sample.name) && wanted(&sample.labels));
    // The disk that this machine's root filesystem is on.
    let kept = kept.filter(|sample| !(sample.name.starts_with("container_fs_") && sample.label("id") == Some("/")));
    kept.map(|sample| ((sample.name.clone(), sample.labels.clone()), sample.value)).collect()
}

/// The clock, durations, the agent itself, and how a sandbox's sources fare, which is looked at by itself.
fn is_restless(name: &str) -> bool {
    let of_pods = ["kata_pulse_container_", "kata_pulse_guest_", "kata_pulse_sandbox_", "kata_pulse_vmm_"];
    let of_agent = name.starts_with("kata_pulse_") && !of_pods.iter().any(|prefix| name.starts_with(prefix));
    let asking = [
        "kata_pulse_sandbox_scrape_duration_seconds",
        "kata_pulse_sandbox_scrape_failures_total",
        "kata_pulse_sandbox_scrape_skipped",
        "kata_pulse_sandbox_scrapes_total",
    ];
    // That the runtime tells of kills is known a second after the start.
    let kills = ["container_oom_events_total", "kata_pulse_container_oom_kills_total"];
    let of_agent = of_agent || kills.contains(&name);
    of_agent || name.starts_with("process_") || name == "container_last_seen" || asking.contains(&name)
}

/// Series that the reference does not have, or with another value, in words. `up` and what follows from it may differ.
pub fn false_values(served: &Series, reference: &Series) -> Vec<String> {
    let differs = |(series, value): &(&(String, Labels), &f64)| {
        series.0 != "kata_pulse_sandbox_up" && reference.get(*series) != Some(*value)
    };
    let told = served.iter().filter(differs);
    told.map(|(series, value)| format!("{}{:?} is {value}, not {:?}", series.0, series.1, reference.get(series)))
        .collect()
}

/// Where two sets of series differ, in words.
pub fn changes(is: &Series, should: &Series) -> Vec<String> {
    let lacking = should.iter().filter(|(series, _)| !is.contains_key(*series));
    let lacking = lacking.map(|(series, value)| format!("{}{:?} {value} is not there", series.0, series.1));
    false_values(is, should).into_iter().chain(lacking).collect()
}

/// Fails when there is anything in the list, and shows the beginning of it.
#[track_caller]
pub fn assert_none(list: &[String], context: &str) {
    let shown = list.iter().take(8).map(|line| format!("\n  {line}")).collect::<String>();
    assert!(list.is_empty(), "{context}: {} of them{shown}", list.len());
}

/// Whether the page calls the sandbox well.
pub fn up(page: &Page, sandbox: &KataSandbox) -> Option<f64> {
    page.lookup("kata_pulse_sandbox_up", &[("sandbox_id", sandbox.id())])
}

/// Reasons why sources of the sandbox were not asked.
pub fn skipped(page: &Page, sandbox: &KataSandbox) -> Vec<String> {
    let skipped = page.matching("kata_pulse_sandbox_scrape_skipped", &[("sandbox_id", sandbox.id())]);
    skipped.iter().filter_map(|sample| sample.label("reason").map(str::to_owned)).collect()
}

/// What `/sandboxes` calls the source that is behind a door.
pub fn source(endpoint: Endpoint) -> &'static str {
    match endpoint {
        Endpoint::Agent => "agent",
        Endpoint::Task => "task",
        Endpoint::Shim => "shim",
        Endpoint::Hypervisor => "vmm",
        Endpoint::Reserved => "nobody's",
    }
}

/// `/sandboxes` by sandbox id.
pub struct Listing {
    entries: BTreeMap<String, serde_json::Value>,
}

impl Listing {
    /// Asks for it, which is a collection of its own.
    #[track_caller]
    pub fn of(agent: &Agent) -> Self {
        let answer = agent.get_with("/sandboxes", &SCRAPE);
        assert_eq!(answer.status, 200, "{}", answer.text());
        let list: Vec<serde_json::Value> = serde_json::from_slice(&answer.body).expect("JSON");
        let by_id = |entry: serde_json::Value| Some((entry["sandbox_id"].as_str()?.to_owned(), entry));
        Self { entries: list.into_iter().filter_map(by_id).collect() }
    }

    /// Whether the sandbox is listed.
    pub fn has(&self, sandbox: &KataSandbox) -> bool {
        self.entries.contains_key(sandbox.id())
    }

    /// What came of each source.
    pub fn sources(&self, sandbox: &KataSandbox) -> BTreeMap<String, String> {
        let sources = self.entries.get(sandbox.id()).and_then(|entry| entry["sources"].as_object());
        let text = |(name, state): (&String, &serde_json::Value)| Some((name.clone(), state.as_str()?.to_owned()));
        sources.into_iter().flatten().filter_map(text).collect()
    }

    /// Which side tells the sandbox's network.
    pub fn network_side(&self, sandbox: &KataSandbox) -> Option<String> {
        self.entries.get(sandbox.id())?["values_from"]["network"].as_str().map(str::to_owned)
    }

    /// Why the sandbox is not up.
    pub fn last_error(&self, sandbox: &KataSandbox) -> Option<String> {
        self.entries.get(sandbox.id())?["last_error"].as_str().map(str::to_owned)
    }
}
