//! `/metrics/kata` of the real binary: the shims' own metrics under kata-monitor's names and labels, on every runtime,
//! without asking a shim that would not survive it.

use std::io::Read;
use std::time::Duration;

use flate2::read::GzDecoder;
use kata_pulse_simulator::kata::truth::Component;
use kata_pulse_simulator::kata::{Endpoint, Fault, Hypervisor, KataNode, KataNodeBuilder, KataSandbox, Lie, Runtime};

mod support;

use support::agent::Agent;
use support::exposition::{Kind, Page};
use support::openmetrics::parsed_by_python;

const PATH: &str = "/metrics/kata";

/// What a scrape of a shim is to the simulator.
const SCRAPE: &str = "GET /metrics";

fn start(builder: KataNodeBuilder, more: &[&str]) -> (KataNode, Agent) {
    let node = builder.start().expect("a simulated node");
    let mut flags = node.flags();
    flags.extend(more.iter().map(Into::into));
    let agent = Agent::start(flags);
    (node, agent)
}

/// One sandbox of each kind that matters here.
fn mixed() -> KataNodeBuilder {
    KataNode::builder()
        .sandbox(Runtime::Go, Hypervisor::CloudHypervisor)
        .containers(1)
        .sandbox(Runtime::Rust, Hypervisor::CloudHypervisor)
        .containers(1)
        .sandbox(Runtime::Rust, Hypervisor::Dragonball)
        .containers(1)
        .sandbox(Runtime::Rust, Hypervisor::Firecracker)
        .containers(1)
}

fn item(page: &Page, family: &str, sandbox: &KataSandbox, item: &str) -> Option<f64> {
    page.lookup(family, &[("item", item), ("sandbox_id", sandbox.id())])
}

#[test]
fn every_runtime_is_passed_on_in_one_unit_with_true_types() {
    let (node, agent) = start(mixed(), &["--max-age-secs", "0"]);
    node.advance(5);
    let page = agent.page(PATH);
    for sandbox in node.sandboxes() {
        let (namespace, pod) = sandbox.pod();
        let id = ("sandbox_id", sandbox.id());
        let uid =
            node.registry().pod(sandbox.id()).expect("the runtime knows it").listed.metadata.expect("metadata").uid;
        let cri = [id, ("cri_uid", uid.as_str()), ("cri_name", pod), ("cri_namespace", namespace)];
        let truth = sandbox.truth();
        let total = [id, ("cpu", "total"), ("item", "user"), cri[1], cri[2], cri[3]];
        let user = page.value("kata_guest_cpu_time", &total);
        assert_eq!(user, truth.guest.cpu_total().user as f64, "{:?}", sandbox.hypervisor());
        if sandbox.hypervisor() == Hypervisor::Firecracker {
            assert_eq!(sandbox.requests(Endpoint::Shim, SCRAPE), 0, "it would abort");
            assert_eq!(page.matching("kata_shim_threads", &[id]).len(), 0, "the agent knows nothing of the shim");
            continue;
        }
        let shim = truth.process(Component::Shim);
        let resident = (shim.rss_anon + shim.rss_file + shim.rss_shmem) as f64;
        assert_eq!(
            item(&page, "kata_shim_proc_status", &sandbox, "vmrss"),
            Some(resident),
            "bytes, {:?}",
            sandbox.runtime()
        );
        assert!(item(&page, "kata_shim_io_stat", &sandbox, "readbytes").is_some(), "{:?}", sandbox.runtime());
        assert_eq!(item(&page, "kata_shim_io_stat", &sandbox, "read_bytes"), None);
    }
    let kind = |name: &str| page.family(name).and_then(|family| family.kind);
    assert_eq!(kind("kata_guest_cpu_time"), Some(Kind::Counter));
    assert_eq!(kind("kata_guest_meminfo"), Some(Kind::Gauge));
    assert_eq!(kind("kata_shim_rpc_durations_histogram_milliseconds"), Some(Kind::Histogram));
    assert_eq!(page.value("kata_monitor_running_shim_count", &[]), 4.0);
    assert_eq!(page.value("kata_monitor_scrape_count", &[]), 1.0);
    assert_eq!(page.value("kata_monitor_scrape_failed_count", &[]), 0.0);
    assert!(page.samples().all(|sample| sample.name.starts_with("kata_")));
    assert!(page.family("kata_shim_pod_overhead_cpu").is_none(), "Kata gets it wrong");
    assert_eq!(node.violations(), []);
}

#[test]
fn open_metrics_and_gzip_say_the_same() {
    let (node, agent) = start(mixed(), &["--max-age-secs", "3600"]);
    node.advance(2);
    let text = agent.page(PATH);
    let accept = ("Accept", "application/openmetrics-text; version=1.0.0");
    let packed = agent.get_with(PATH, &[accept, ("Accept-Encoding", "gzip")]);
    assert_eq!((packed.status, packed.header("content-encoding")), (200, "gzip"));
    let mut body = Vec::new();
    GzDecoder::new(&*packed.body).read_to_end(&mut body).expect("gzip");
    let families = parsed_by_python(&body);
    let count = |prefix: &str| {
        let samples = families.iter().flat_map(|family| &family.samples);
        samples.filter(|(name, ..)| name.starts_with(prefix)).count()
    };
    for prefix in ["kata_agent_", "kata_guest_", "kata_shim_", "kata_hypervisor_"] {
        let there = text.samples().filter(|sample| sample.name.starts_with(prefix)).count();
        assert_eq!(count(prefix), there, "{prefix}");
        assert!(there > 0, "{prefix}");
    }
}

#[test]
fn one_sandbox_some_families_and_bad_requests() {
    let (node, agent) = start(mixed(), &["--max-age-secs", "0"]);
    let (one, other) = (node.sandbox(0), node.sandbox(1));
    let page = agent.page(&format!("{PATH}?sandbox={}", one.id()));
    assert!(page.samples().all(|sample| sample.labels.get("sandbox_id").is_some_and(|id| id == one.id())));
    assert_eq!(other.requests(Endpoint::Shim, SCRAPE), 0, "the others are left in peace");
    let by_prefix = agent.page(&format!("{PATH}?sandbox={}", &one.id()[..12]));
    assert!(by_prefix.samples().count() > 100);
    let filtered = agent.page(&format!("{PATH}?filter_family=kata_guest_load,kata_shim_th"));
    let names: std::collections::BTreeSet<&str> = filtered.samples().map(|sample| sample.name.as_str()).collect();
    assert_eq!(names.into_iter().collect::<Vec<_>>(), ["kata_guest_load", "kata_shim_threads"]);
    let nothing = agent.get(&format!("{PATH}?filter_family=nothing"));
    assert_eq!((nothing.status, nothing.text()), (200, ""));
    for (query, status) in [
        ("sandbox=", 400),
        ("sandbox=short", 400),
        ("sandbox=000000000000", 404),
        ("sandbox=a/b", 400),
        (&format!("sandbox={0}&sandbox={0}", one.id()), 400),
        (&format!("filter_family={}", "a,".repeat(100)), 400),
    ] {
        let answer = agent.get(&format!("{PATH}?{query}"));
        assert_eq!(answer.status, status, "{query}: {}", answer.text());
    }
}

#[test]
fn those_who_ask_at_the_same_time_share_one_round() {
    let (node, agent) = start(mixed(), &["--max-age-secs", "3600"]);
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| assert_eq!(agent.get(PATH).status, 200));
        }
    });
    for sandbox in node.sandboxes() {
        assert!(sandbox.requests(Endpoint::Shim, SCRAPE) <= 1, "{:?}", sandbox.hypervisor());
    }
    assert_eq!(agent.page(PATH).value("kata_monitor_scrape_count", &[]), 1.0, "nine requests, one round");
}

#[test]
fn a_hanging_shim_that_is_passed_on_does_not_hold_up_a_scrape() {
    let builder = KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).containers(1).times(3);
    let (node, agent) = start(builder, &["--max-age-secs", "0"]);
    node.sandbox(0).fail_all(&Fault::Hang);
    std::thread::scope(|scope| {
        let passing = scope.spawn(|| agent.get(PATH).status);
        assert!(node.sandbox(0).wait_for_requests(Endpoint::Shim, SCRAPE, 1, Duration::from_secs(20)));
        let started = std::time::Instant::now();
        let hurried = agent.get_with("/metrics", &[("X-Prometheus-Scrape-Timeout-Seconds", "5")]);
        assert_eq!(hurried.status, 200, "{}", hurried.text());
        assert!(started.elapsed() < Duration::from_secs(5), "{:?}", started.elapsed());
        let page = Page::parse(hurried.text()).expect("an exposition");
        for (index, up) in [(0, 0.0), (1, 1.0), (2, 1.0)] {
            assert_eq!(page.value("kata_pulse_sandbox_up", &[("sandbox_id", node.sandbox(index).id())]), up);
        }
        assert_eq!(passing.join().expect("no panic"), 200);
    });
}

#[test]
fn a_qemu_shim_is_never_asked() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Qemu).containers(1);
    let (node, agent) = start(builder, &["--max-age-secs", "0"]);
    let sandbox = node.sandbox(0);
    for _ in 0..50 {
        let page = agent.page(PATH);
        assert!(page.matching("kata_shim_threads", &[("sandbox_id", sandbox.id())]).is_empty());
    }
    assert!(sandbox.directory().exists(), "the shim is alive");
    assert_eq!(node.violations(), []);
}

#[test]
fn bad_shims_and_liars_cost_their_own_samples() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1).times(6);
    let (node, agent) = start(builder, &["--max-age-secs", "0"]);
    let sandboxes = node.sandboxes();
    for endpoint in [Endpoint::Agent, Endpoint::Shim] {
        sandboxes[0].fail(endpoint, Fault::Hang);
        sandboxes[1].fail(endpoint, Fault::Drip(Duration::from_secs(1)));
    }
    sandboxes[2].lie(Some(Lie::HostileLabels));
    sandboxes[3].lie(Some(Lie::HostileFamilies));
    sandboxes[4].lie(Some(Lie::ManySeries(60_000)));
    let honest = &sandboxes[5];
    for _ in 0..2 {
        let started = std::time::Instant::now();
        // The strict parser refuses broken lines, series that are there twice, and second headers.
        let page = agent.page(PATH);
        assert!(started.elapsed() < Duration::from_secs(10));
        let threads = honest.truth().process(Component::Shim).threads.len() as f64;
        assert_eq!(page.value("kata_shim_threads", &[("sandbox_id", honest.id())]), threads);
        for sandbox in &sandboxes[..2] {
            assert!(page.matching("kata_guest_load", &[("sandbox_id", sandbox.id())]).is_empty(), "nothing old");
        }
        for sandbox in &sandboxes {
            let own =
                page.samples().filter(|sample| sample.labels.get("sandbox_id").is_some_and(|id| id == sandbox.id()));
            assert!(own.count() <= 10_000);
        }
        let known: Vec<&str> = sandboxes.iter().map(|sandbox| sandbox.id()).collect();
        for sample in page.samples().filter(|sample| !sample.name.starts_with("kata_monitor_")) {
            assert!(sample.name.starts_with("kata_"), "{}", sample.name);
            assert!(sample.labels.get("sandbox_id").is_some_and(|id| known.contains(&id.as_str())), "{sample:?}");
        }
        assert!(!page.samples().any(|sample| sample.name.starts_with("kata_pulse_")));
    }
    let dropped = agent.page("/metrics").value("kata_pulse_passthrough_samples_dropped_total", &[]);
    assert!(dropped > 0.0);
    for sandbox in &sandboxes[..2] {
        sandbox.heal_all();
    }
    agent.get(PATH);
    let healed = agent.page(PATH);
    for sandbox in &sandboxes[..2] {
        assert!(!healed.matching("kata_guest_load", &[("sandbox_id", sandbox.id())]).is_empty(), "within two scrapes");
    }
    assert_eq!(node.violations(), []);
}
