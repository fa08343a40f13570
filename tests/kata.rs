//! Kata sandboxes that speak the real protocols, measured by the real binary: what is served equals the simulated
//! truth, on every runtime and hypervisor, and nothing is asked that could hurt.

use std::time::{Duration, Instant};

use kata_pulse_simulator::cri::Method;
use kata_pulse_simulator::kata::{
    Endpoint, Fault, GuestCgroup, Hypervisor, KataNode, KataNodeBuilder, KataSandbox, Runtime, SandboxPlan,
};

mod support;

use support::agent::Agent;
use support::exposition::Page;

/// Long enough for anything that is not stuck, on a busy machine.
const PATIENCE: Duration = Duration::from_secs(30);

fn start(builder: KataNodeBuilder) -> (KataNode, Agent) {
    let node = builder.start().expect("a simulated node");
    let agent = agent_on(&node);
    (node, agent)
}

fn agent_on(node: &KataNode) -> Agent {
    let mut flags = node.flags();
    flags.extend(["--max-age-secs", "0", "--metrics-profile", "all"].map(Into::into));
    Agent::start(flags)
}

fn pod_labels(sandbox: &KataSandbox) -> [(String, String); 2] {
    let (namespace, pod) = sandbox.pod();
    [("namespace".to_owned(), namespace.to_owned()), ("pod".to_owned(), pod.to_owned())]
}

/// What a sandbox has to say for itself, with further labels.
fn value(page: &Page, family: &str, sandbox: &KataSandbox, more: &[(&str, &str)]) -> Option<f64> {
    let pod = pod_labels(sandbox);
    let mut labels: Vec<(&str, &str)> = pod.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
    labels.extend_from_slice(more);
    page.lookup(family, &labels)
}

/// Compares every container's row with the truth; `detailed` where the source gives more than CPU, usage and threads.
fn check_containers(page: &Page, sandbox: &KataSandbox, guest: GuestCgroup, detailed: bool) {
    let truth = sandbox.truth();
    for container in &truth.containers {
        let is_pause = container.id == sandbox.id();
        let name = if is_pause { "" } else { container.name.as_str() };
        let labels = [("container", name), ("name", container.id.as_str())];
        let served = |family: &str| value(page, family, sandbox, &labels);
        let seconds = |nanos: u64| Some(nanos as f64 / 1e9);
        let all = value(page, "container_cpu_usage_seconds_total", sandbox, &[labels[0], labels[1], ("cpu", "total")]);
        assert_eq!(all, seconds(container.cpu.total_ns()), "cpu of {name} in {}", sandbox.id());
        assert_eq!(served("container_memory_usage_bytes"), Some(container.memory.usage() as f64));
        assert_eq!(served("container_threads"), Some(container.pids as f64));
        if detailed {
            // A guest with cgroup v1 counts modes in ticks of 10 ms.
            let mode = |nanos: u64| match guest {
                GuestCgroup::V1 => seconds(nanos - nanos % 10_000_000),
                GuestCgroup::V2 => seconds(nanos),
            };
            assert_eq!(served("container_cpu_user_seconds_total"), mode(container.cpu.user_ns));
            assert_eq!(served("container_cpu_system_seconds_total"), mode(container.cpu.kernel_ns));
            assert_eq!(served("container_memory_working_set_bytes"), Some(container.memory.working_set() as f64));
            assert_eq!(served("container_memory_rss"), Some(container.memory.anon() as f64));
            assert_eq!(served("container_memory_cache"), Some(container.memory.file() as f64));
            assert_eq!(served("container_memory_mapped_file"), Some(container.memory.file_mapped as f64));
        }
        if guest == GuestCgroup::V2 {
            let io = page.matching("container_fs_reads_bytes_total", &labels);
            assert!(io.is_empty(), "agents count zeros there on cgroup v2");
        }
    }
}

fn check_guest(page: &Page, sandbox: &KataSandbox) {
    let guest = sandbox.truth().guest;
    for (mode, millis) in guest.cpu_total().items() {
        let labels = [("mode", mode), ("sandbox_id", sandbox.id())];
        let served = value(page, "kata_pulse_guest_cpu_seconds_total", sandbox, &labels);
        assert_eq!(served, Some(millis as f64 / 1e3), "{mode} of {}", sandbox.id());
    }
    let id = [("sandbox_id", sandbox.id())];
    let served = |family: &str| value(page, family, sandbox, &id);
    assert_eq!(served("kata_pulse_guest_memory_total_bytes"), Some(guest.memory.total as f64));
    assert_eq!(served("kata_pulse_guest_memory_available_bytes"), Some(guest.memory.available as f64));
    assert_eq!(served("kata_pulse_guest_vcpus"), Some(guest.cpus.len() as f64));
    assert_eq!(served("kata_pulse_guest_oom_kills_total"), Some(guest.vm_stat("oom_kill") as f64));
    let truth = sandbox.truth();
    assert_eq!(served("kata_pulse_sandbox_host_cpu_seconds_total"), Some(truth.host.cpu_us() as f64 / 1e6));
    assert!(served("kata_pulse_sandbox_host_memory_bytes").is_some_and(|bytes| bytes > 0.0));
    let memory = served("kata_pulse_sandbox_host_memory_bytes").unwrap_or_default();
    let used: u64 = truth.containers.iter().map(|container| container.memory.usage()).sum();
    assert_eq!(served("kata_pulse_sandbox_overhead_memory_bytes"), Some((memory - used as f64).max(0.0)));
    let shim = [("component", "shim"), ("sandbox_id", sandbox.id())];
    assert!(value(page, "kata_pulse_sandbox_process_threads", sandbox, &shim).is_some());
    let eth0 = guest.interface("eth0");
    for (family, count) in [
        ("container_network_receive_bytes_total", eth0.received.bytes),
        ("container_network_receive_packets_total", eth0.received.packets),
        ("container_network_transmit_bytes_total", eth0.sent.bytes),
        ("container_network_transmit_packets_dropped_total", eth0.sent.drops),
    ] {
        let labels = [("container", ""), ("interface", "eth0"), ("name", sandbox.id())];
        assert_eq!(value(page, family, sandbox, &labels), Some(count as f64), "{family} of {}", sandbox.id());
        let pod = pod_labels(sandbox);
        let pod: Vec<(&str, &str)> = pod.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        assert_eq!(page.matching(family, &pod).len(), 1, "the pod's network stands once");
    }
}

fn up(page: &Page, sandbox: &KataSandbox) -> Option<f64> {
    value(page, "kata_pulse_sandbox_up", sandbox, &[("sandbox_id", sandbox.id())])
}

#[test]
fn an_excluded_interface_of_a_guest_has_no_samples() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).start().expect("a node");
    let received = |more: &[&str]| {
        let mut flags = node.flags();
        flags.extend(more.iter().map(Into::into));
        let page = Agent::start(flags).page("/metrics");
        let sandbox = &node.sandboxes()[0];
        let of_pod = value(&page, "container_network_receive_bytes_total", sandbox, &[("interface", "eth0")]);
        (up(&page, sandbox), of_pod.is_some())
    };
    assert_eq!(received(&[]), (Some(1.0), true));
    assert_eq!(received(&["--exclude-interfaces", "^eth"]), (Some(1.0), false));
}

#[test]
fn every_guest_behind_a_hybrid_vsock_is_told_as_it_is() {
    let mut builder = KataNode::builder();
    for (runtime, hypervisor) in [
        (Runtime::Go, Hypervisor::CloudHypervisor),
        (Runtime::Rust, Hypervisor::CloudHypervisor),
        (Runtime::Rust, Hypervisor::Dragonball),
        (Runtime::Rust, Hypervisor::Firecracker),
    ] {
        builder = builder.sandbox(runtime, hypervisor).containers(2);
        builder = builder.sandbox(runtime, hypervisor).containers(1).with(|plan| plan.guest_cgroup(GuestCgroup::V1));
    }
    let (node, agent) = start(builder);
    let mut before = None;
    for _ in 0..2 {
        node.advance(7);
        let page = agent.page("/metrics");
        for (index, sandbox) in node.sandboxes().iter().enumerate() {
            assert_eq!(up(&page, sandbox), Some(1.0), "{:?} {:?}", sandbox.runtime(), sandbox.hypervisor());
            let guest = if index % 2 == 0 { GuestCgroup::V2 } else { GuestCgroup::V1 };
            check_containers(&page, sandbox, guest, true);
            check_guest(&page, sandbox);
        }
        if let Some(before) = before.replace(page) {
            let after = before_and_after(&before, &agent.page("/metrics"));
            assert!(after > 100, "only {after} counters compared");
        }
    }
    assert_eq!(node.violations(), [], "nothing was asked that could hurt");
}

/// Counts the guests' counters in both pages, none of which may have fallen.
fn before_and_after(before: &Page, after: &Page) -> usize {
    let counters = before.samples().filter(|sample| sample.name.ends_with("_total"));
    let mut compared = 0;
    for sample in counters.filter(|sample| sample.labels.contains_key("pod")) {
        let labels: Vec<(&str, &str)> =
            sample.labels.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
        let later = after.lookup(&sample.name, &labels).unwrap_or_else(|| panic!("{} {labels:?} is gone", sample.name));
        assert!(later >= sample.value, "{} {labels:?} fell", sample.name);
        compared += 1;
    }
    compared
}

#[test]
fn a_qemu_shim_survives_a_thousand_scrapes() {
    let (node, agent) = start(KataNode::builder().sandbox(Runtime::Rust, Hypervisor::Qemu).containers(1));
    let sandbox = node.sandbox(0);
    let started = Instant::now();
    for _ in 0..1000 {
        assert_eq!(agent.get("/metrics").status, 200);
    }
    assert!(started.elapsed() < Duration::from_secs(120));
    assert!(sandbox.directory().exists(), "the shim is alive");
    assert_eq!(node.violations(), []);
    let page = agent.page("/metrics");
    check_containers(&page, &sandbox, GuestCgroup::V2, false);
    let reason = [("reason", "unsafe_qemu"), ("sandbox_id", sandbox.id())];
    assert_eq!(value(&page, "kata_pulse_sandbox_scrape_skipped", &sandbox, &reason), Some(1.0));
}

#[test]
fn bad_sandboxes_cost_their_own_series_and_come_back_when_healed() {
    let (node, agent) =
        start(KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1).times(12));
    let sandboxes = node.sandboxes();
    for endpoint in [Endpoint::Agent, Endpoint::Task, Endpoint::Shim] {
        sandboxes[0].fail(endpoint, Fault::Hang);
        sandboxes[1].fail(endpoint, Fault::Drip(Duration::from_secs(1)));
    }
    for _ in 0..4 {
        let started = Instant::now();
        let page = agent.page("/metrics");
        assert!(started.elapsed() < Duration::from_secs(10), "{:?}", started.elapsed());
        for sandbox in &sandboxes[2..] {
            assert_eq!(up(&page, sandbox), Some(1.0));
            check_containers(&page, sandbox, GuestCgroup::V2, true);
        }
        for sandbox in &sandboxes[..2] {
            assert_eq!(up(&page, sandbox), Some(0.0));
            let name = [("name", sandbox.id())];
            assert!(page.matching("container_memory_usage_bytes", &name).is_empty(), "nothing old is served");
        }
    }
    for sandbox in &sandboxes[..2] {
        assert!(sandbox.counts(Endpoint::Agent).most_in_flight <= 1);
        for endpoint in [Endpoint::Agent, Endpoint::Task, Endpoint::Shim] {
            sandbox.heal(endpoint);
        }
    }
    agent.get("/metrics");
    let page = agent.page("/metrics");
    for sandbox in &sandboxes {
        assert_eq!(up(&page, sandbox), Some(1.0), "within two scrapes");
    }
    assert_eq!(node.violations(), []);
}

#[test]
fn a_guest_whose_policy_forbids_its_text_still_tells_of_its_containers() {
    let confidential = |plan: kata_pulse_simulator::kata::SandboxPlan| plan.policy_denies_metrics();
    let builder =
        KataNode::builder().sandbox(Runtime::Go, Hypervisor::CloudHypervisor).containers(1).with(confidential);
    let (node, agent) = start(builder);
    let sandbox = node.sandbox(0);
    for _ in 0..3 {
        let page = agent.page("/metrics");
        assert_eq!(up(&page, &sandbox), Some(1.0));
        check_containers(&page, &sandbox, GuestCgroup::V2, true);
        let policy = [("reason", "policy"), ("sandbox_id", sandbox.id())];
        assert_eq!(value(&page, "kata_pulse_sandbox_scrape_skipped", &sandbox, &policy), Some(1.0));
        assert!(page.matching("kata_pulse_guest_vcpus", &[]).is_empty());
    }
    assert_eq!(
        sandbox.requests(Endpoint::Agent, "grpc.AgentService/GetMetrics"),
        1,
        "a refusal is not asked for again"
    );
    assert_eq!(sandbox.requests(Endpoint::Shim, "GET /metrics"), 0, "nor by way of the shim");
    assert_eq!(node.violations(), []);
}

/// Nothing on the host tells that a container in a guest has gone; a runtime without an event stream does not either.
#[test]
fn a_sandbox_is_not_down_because_one_of_its_containers_was_removed() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(3);
    let node = builder.start().expect("a simulated node");
    node.registry().set_event_stream(false);
    let agent = agent_on(&node);
    let sandbox = node.sandbox(0);
    assert_eq!(up(&agent.page("/metrics"), &sandbox), Some(1.0));
    for id in &sandbox.containers()[1..] {
        sandbox.remove_container(id);
        let page = agent.page("/metrics");
        assert_eq!(up(&page, &sandbox), Some(1.0));
        assert!(page.matching("container_memory_usage_bytes", &[("name", id)]).is_empty());
        check_containers(&page, &sandbox, GuestCgroup::V2, true);
    }
    // One that only the guest has lost is missing, and that is said.
    let last = &sandbox.containers()[0];
    let listed = node.registry().container(last).expect("it is listed");
    sandbox.remove_container(last);
    node.registry().add_container_entry(listed);
    agent.page("/metrics");
    let asked = node.runtime().calls(Method::ListContainers);
    for _ in 0..3 {
        assert_eq!(up(&agent.page("/metrics"), &sandbox), Some(0.0));
    }
    let again = node.runtime().calls(Method::ListContainers) - asked;
    assert!(again <= 1, "the runtime was asked again for every scrape: {again}");
    assert_eq!(node.violations(), []);
}

#[test]
fn a_new_sandbox_is_seen_without_being_asked_for() {
    let (node, agent) = start(KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor));
    assert_eq!(up(&agent.page("/metrics"), &node.sandbox(0)), Some(1.0));
    let second = node
        .add(kata_pulse_simulator::kata::SandboxPlan::new(Runtime::Go, Hypervisor::CloudHypervisor).containers(1))
        .expect("another sandbox");
    agent.wait_until("the sandbox is up", PATIENCE, || up(&agent.page("/metrics"), &second) == Some(1.0));
    node.remove(&second);
    agent.wait_until("nothing is left of it", PATIENCE, || !agent.get("/metrics").text().contains(second.id()));
    let held = agent.open_files();
    assert!(!held.iter().any(|file| file.contains(second.id())), "{held:?}");
}

#[test]
fn failed_measurements_are_counted_by_their_reason() {
    let one = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor);
    let (node, agent) = start(one.with(SandboxPlan::unmeasured_by_runtime).times(3));
    let failures = |page: &Page, reason| {
        page.lookup("kata_pulse_sandbox_scrape_failures_total", &[("reason", reason)])
            .expect("it is there from the start")
    };
    let reasons = ["timeout", "unreachable", "incomplete"];
    let count = |page: &Page| reasons.map(|reason| failures(page, reason));
    let scrapes = |page: &Page| page.value("kata_pulse_sandbox_scrapes_total", &[]);
    let well = agent.page("/metrics");
    assert_eq!(count(&well), [0.0; 3]);
    let [hangs, closes, _] = &node.sandboxes()[..] else { panic!("three sandboxes") };
    hangs.fail_all(&Fault::Hang);
    closes.fail_all(&Fault::Close);
    let ill = agent.page("/metrics");
    assert_eq!(count(&ill), [1.0, 1.0, 0.0]);
    assert_eq!(scrapes(&ill), scrapes(&well) + 3.0);
    // The one that hangs is not asked, and has failed all the same.
    let left_alone = agent.page("/metrics");
    assert_eq!(count(&left_alone), [2.0, 2.0, 0.0]);
    node.sandboxes().iter().for_each(|sandbox| sandbox.heal_all());
    agent.wait_until("everybody is well", PATIENCE, || {
        let page = agent.page("/metrics");
        node.sandboxes().iter().all(|sandbox| up(&page, sandbox) == Some(1.0))
    });
    let healed = agent.page("/metrics");
    assert_eq!(count(&agent.page("/metrics")), count(&healed), "nobody fails any more");
    assert_eq!(node.violations(), []);
}
