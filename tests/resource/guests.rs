//! Kata pods on the page, beside those of runc.

use std::path::Path;

use kata_pulse_simulator::cri::Pod;
use kata_pulse_simulator::kata::{Fault, Hypervisor, KataNode, ReplayedNode, Runtime, SandboxPlan};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};

use crate::support::exposition::{Kind, Page};
use crate::support::metrics_server::{Batch, decode};
use crate::{ASKED, PATH, batch, start, text};

fn names(batch: &Batch) -> Vec<&str> {
    batch.pods.keys().map(|(_, name)| name.as_str()).collect()
}

/// Values worked out by hand from the recorded bytes, see `recorded_kata.rs`; those of runc are the files'.
#[test]
fn the_recorded_node_is_told_whole() {
    let node = ReplayedNode::start(RecordedNode::unpack().unwrap(), Capture::T0).unwrap();
    for profile in ["dashboards", "kubelet", "all"] {
        let agent = start(node.flags(), &["--metrics-profile", profile]);
        let text = text(&agent);
        let batch = decode(&text, ASKED);
        assert_eq!(batch.dropped, []);
        assert_eq!(names(&batch), ["runc-throttled", "runc-writer", "runc-idle", "kata-idle", "kata-web"], "{profile}");
        assert!(batch.node.is_some());
        let told = |pod: &str, container: &str| {
            let point = batch.pod("shop", pod)[container];
            (point.cpu_nanos, point.memory_bytes)
        };
        assert_eq!(told("kata-web", "spin"), (55_526_802_000, 155_648));
        assert_eq!(told("kata-web", "writer"), (26_933_517_000, 2_088_960));
        assert_eq!(told("kata-idle", "app"), (486_979_000, 188_416));
        assert_eq!(batch.pod("shop", "kata-web").len(), 2, "the pause container is nobody's");

        let page = Page::parse(&text).unwrap();
        assert_eq!(page.value("resource_scrape_error", &[]), 0.0);
        let samples = page.matching("container_cpu_usage_seconds_total", &[]);
        let labels: Vec<Vec<&String>> = samples.iter().map(|sample| sample.labels.values().collect()).collect();
        assert!(labels.len() == 7 && labels.is_sorted(), "in the kubelet's order: {labels:?}");
        // The cgroup of kata-idle's pod has 4.9 s and 2.4 MB: shim, virtiofsd and the guest's memory are elsewhere.
        for (pod, cpu, memory) in [("kata-web", 122.527698, 258_375_680.0), ("kata-idle", 48.975064, 190_615_552.0)] {
            assert_eq!(page.value("pod_cpu_usage_seconds_total", &[("namespace", "shop"), ("pod", pod)]), cpu);
            assert_eq!(page.value("pod_memory_working_set_bytes", &[("namespace", "shop"), ("pod", pod)]), memory);
        }
        check_runc(&page, &node.host_root().join("sys/fs/cgroup"));
    }
}

fn check_runc(page: &Page, cgroups: &Path) {
    let pod = "kubepods/burstable/pod7f1b3c5d-2e8a-4d6f-91b0-4c5d6e7f8a04";
    let spin = "3d9bd26150f36852d0ee85ebac5b5615a59ccf033b3e2dc826c308ff0dfa50f4";
    let named = [("namespace", "batch"), ("pod", "runc-throttled")];
    let container = [named[0], named[1], ("container", "spin")];
    for (kind, dir, labels) in
        [("container", cgroups.join(pod).join(spin), &container[..]), ("pod", cgroups.join(pod), &named[..])]
    {
        let read = |file: &str| std::fs::read_to_string(dir.join(file)).unwrap();
        let key = |file: &str, key: &str| -> f64 {
            let text = read(file);
            text.lines().find_map(|line| line.strip_prefix(key)).unwrap().trim().parse().unwrap()
        };
        let memory: f64 = read("memory.current").trim().parse().unwrap();
        let family = |fact: &str| format!("{kind}_{fact}");
        assert_eq!(page.value(&family("cpu_usage_seconds_total"), labels), key("cpu.stat", "usage_usec") / 1e6);
        let working_set = memory - key("memory.stat", "inactive_file");
        assert_eq!(page.value(&family("memory_working_set_bytes"), labels), working_set);
        assert_eq!(page.value(&family("swap_usage_bytes"), labels), 0.0);
    }
}

#[test]
fn with_the_scope_kata_there_are_kata_pods_and_nothing_else() {
    let node = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(2).start().unwrap();
    node.registry().add_pod(&Pod::new("shop", "plain"));
    node.advance(3);
    let all = start(node.flags(), &[]);
    let kata = start(node.flags(), &["--scope", "kata"]);
    let sandbox = node.sandbox(0);
    let (namespace, pod) = sandbox.pod();
    for agent in [&all, &kata] {
        let page = agent.page(PATH);
        let containers = decode(&text(agent), ASKED);
        assert_eq!(containers.dropped, []);
        for container in sandbox.truth().containers.iter().filter(|container| container.id != sandbox.id()) {
            let point = containers.pod(namespace, pod)[&container.name];
            assert_eq!(point.cpu_nanos, container.cpu.total_ns());
            assert_eq!(point.memory_bytes, container.memory.working_set());
        }
        let host = sandbox.truth().host.cpu_us() as f64 / 1e6;
        assert_eq!(page.value("pod_cpu_usage_seconds_total", &[("namespace", namespace), ("pod", pod)]), host);
        assert_eq!(page.family("pod_cpu_usage_seconds_total").unwrap().kind, Some(Kind::Counter));
    }
    assert!(batch(&kata).node.is_none() && batch(&kata).pods.len() == 1);
}

#[test]
fn a_sandbox_that_hangs_is_missing_and_the_others_are_there() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1);
    let node = builder.with(SandboxPlan::unmeasured_by_runtime).times(2).start().unwrap();
    node.advance(3);
    let (ill, well) = (node.sandbox(0), node.sandbox(1));
    ill.fail_all(&Fault::Hang);
    let agent = start(node.flags(), &["--max-age-secs", "0"]);
    let page = text(&agent);
    let batch = decode(&page, ASKED);
    let name = |of: (&str, &str)| (of.0.to_owned(), of.1.to_owned());
    assert_eq!(batch.dropped, [name(ill.pod())]);
    assert!(batch.pods.contains_key(&name(well.pod())));
    // That it runs is known, and that is all.
    let page = Page::parse(&page).unwrap();
    let of_ill = |family: &str| page.matching(family, &[("pod", ill.pod().1)]).len();
    assert_eq!(of_ill("container_start_time_seconds"), 1);
    assert_eq!(of_ill("container_cpu_usage_seconds_total") + of_ill("container_memory_working_set_bytes"), 0);
}
