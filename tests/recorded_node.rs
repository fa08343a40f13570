//! The recorded node, replayed: its files as host root, its CRI replies from a replaying server. Pure cgroup v2, three
//! runc pods and two Kata pods, both Kata cgroup placements, captured twice 30 s apart.

#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::collections::BTreeMap;
use std::path::Path;
use std::process::Command;

use kata_pulse_simulator::cri::CriServer;
use kata_pulse_simulator::recorded::{Capture, RecordedNode, RecordedPod};

mod support;

use support::exposition::{Kind, Page};
use support::golden::{golden, settled};

/// What one capture gives: the body of a collection with every family on.
fn collect(node: &RecordedNode, capture: Capture) -> String {
    let socket = node.capture(capture).join("cri.sock");
    let _server = CriServer::start(&socket, &node.cri(capture).unwrap()).unwrap();
    let output = Command::new(env!("CARGO_BIN_EXE_kata-pulse"))
        .arg("collect")
        .args(["--metrics-profile", "all", "--enable-collectors", "fd"])
        .arg("--host-root")
        .arg(node.root(capture))
        .arg("--runtime-endpoint")
        .arg(&socket)
        .output()
        .unwrap();
    let log = String::from_utf8_lossy(&output.stderr).into_owned();
    assert!(output.status.success(), "collect failed:\n{log}");
    String::from_utf8(output.stdout).unwrap()
}

#[test]
fn both_captures_give_the_golden_exposition() {
    let node = RecordedNode::unpack().unwrap();
    for (capture, name) in [(Capture::T0, "mixed-node-t0.txt"), (Capture::T1, "mixed-node-t1.txt")] {
        let body = collect(&node, capture);
        Page::parse(&body).unwrap();
        golden(name, &settled(&body));
    }
}

/// A recorded cgroup directory, read by this test's own means.
struct Recorded<'a> {
    dir: &'a Path,
}

impl Recorded<'_> {
    fn text(&self, file: &str) -> String {
        std::fs::read_to_string(self.dir.join(file)).unwrap_or_else(|error| panic!("{file}: {error}"))
    }

    fn single(&self, file: &str) -> f64 {
        self.text(file).trim().parse().unwrap()
    }

    fn key(&self, file: &str, key: &str) -> f64 {
        let text = self.text(file);
        let line =
            text.lines().find_map(|line| line.strip_prefix(&format!("{key} "))).unwrap_or_else(|| panic!("{key}"));
        line.parse().unwrap()
    }

    fn limit(&self, file: &str) -> f64 {
        match self.text(file).trim() {
            "max" => 0.0,
            number => number.parse().unwrap(),
        }
    }

    fn pressure(&self, file: &str, line: &str) -> f64 {
        let text = self.text(file);
        let line = text.lines().find(|text| text.starts_with(line)).unwrap();
        line.rsplit_once("total=").unwrap().1.parse::<f64>().unwrap() / 1e6
    }

    /// Every value that a single file of the cgroup states, by family and extra labels.
    fn facts(&self) -> BTreeMap<String, f64> {
        let mut facts = BTreeMap::new();
        let mut fact = |name: &str, value: f64| facts.insert(name.to_owned(), value);
        fact("container_cpu_usage_seconds_total", self.key("cpu.stat", "usage_usec") / 1e6);
        fact("container_cpu_user_seconds_total", self.key("cpu.stat", "user_usec") / 1e6);
        fact("container_cpu_system_seconds_total", self.key("cpu.stat", "system_usec") / 1e6);
        fact("container_memory_usage_bytes", self.single("memory.current"));
        let inactive = self.key("memory.stat", "inactive_file");
        fact("container_memory_working_set_bytes", (self.single("memory.current") - inactive).max(0.0));
        fact("container_memory_rss", self.key("memory.stat", "anon"));
        fact("container_memory_cache", self.key("memory.stat", "file"));
        fact("container_memory_mapped_file", self.key("memory.stat", "file_mapped"));
        fact("container_memory_kernel_usage", self.key("memory.stat", "kernel"));
        fact("container_memory_swap", self.single("memory.swap.current"));
        fact("container_memory_max_usage_bytes", self.single("memory.peak"));
        fact("container_memory_events_max_total", self.key("memory.events", "max"));
        fact("container_memory_pgscan_total", self.key("memory.stat", "pgscan"));
        fact("container_memory_workingset_refault_file_total", self.key("memory.stat", "workingset_refault_file"));
        fact("container_oom_events_total", self.key("memory.events", "oom_kill"));
        fact("container_threads", self.single("pids.current"));
        fact("container_threads_max", self.limit("pids.max"));
        fact("container_spec_memory_limit_bytes", self.limit("memory.max"));
        fact("container_processes", self.text("cgroup.procs").lines().count() as f64);
        for (resource, file) in [("cpu", "cpu.pressure"), ("memory", "memory.pressure"), ("io", "io.pressure")] {
            fact(&format!("container_pressure_{resource}_waiting_seconds_total"), self.pressure(file, "some"));
            fact(&format!("container_pressure_{resource}_stalled_seconds_total"), self.pressure(file, "full"));
        }
        let quota = self.text("cpu.max");
        if let [quota, period] = quota.split_whitespace().collect::<Vec<_>>().as_slice()
            && *quota != "max"
        {
            fact("container_spec_cpu_quota", quota.parse().unwrap());
            fact("container_spec_cpu_period", period.parse().unwrap());
            fact("container_cpu_cfs_periods_total", self.key("cpu.stat", "nr_periods"));
            fact("container_cpu_cfs_throttled_periods_total", self.key("cpu.stat", "nr_throttled"));
            fact("container_cpu_cfs_throttled_seconds_total", self.key("cpu.stat", "throttled_usec") / 1e6);
        }
        facts
    }
}

/// Compares a row with its cgroup's files.
fn check(page: &Page, root: &Path, id: &str, labels: &[(&str, &str)]) {
    let dir = root.join("sys/fs/cgroup").join(id.trim_start_matches('/'));
    let mut all = vec![("id", id)];
    all.extend_from_slice(labels);
    let facts = Recorded { dir: &dir }.facts();
    assert!(facts.len() >= 25);
    for (family, value) in &facts {
        assert_eq!(page.value(family, &all), *value, "{family} of {id}");
    }
    let throttling = "container_cpu_cfs_periods_total";
    let throttled = page.lookup(throttling, &all).is_some();
    assert_eq!(throttled, facts.contains_key(throttling), "throttling of {id} is served only beside a quota");
}

fn network_of(root: &Path, pid: &str, interface: &str) -> Vec<f64> {
    let text = std::fs::read_to_string(root.join("proc").join(pid).join("net/dev")).unwrap();
    let line = text.lines().find_map(|line| line.trim().strip_prefix(&format!("{interface}:"))).unwrap();
    line.split_whitespace().map(|column| column.parse().unwrap()).collect()
}

fn is_kata(pod: &RecordedPod) -> bool {
    pod.handler.contains("kata")
}

#[test]
fn every_runc_value_equals_the_recorded_file() {
    let node = RecordedNode::unpack().unwrap();
    for capture in Capture::ALL {
        let page = Page::parse(&collect(&node, capture)).unwrap();
        let root = node.root(capture);
        for pod in node.pods().unwrap().iter().filter(|pod| !is_kata(pod)) {
            let named = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
            for (name, id) in &pod.containers {
                let path = format!("{}/{id}", pod.cgroup_parent);
                let image = ("image", "docker.io/library/busybox:1.35");
                check(&page, &root, &path, &[named[0], named[1], ("container", name), ("name", id), image]);
            }
            let pause = format!("{}/{}", pod.cgroup_parent, pod.sandbox);
            let image = ("image", "registry.k8s.io/pause:3.6");
            check(&page, &root, &pause, &[named[0], named[1], ("container", ""), ("name", &pod.sandbox), image]);
            check(
                &page,
                &root,
                &pod.cgroup_parent,
                &[named[0], named[1], ("container", ""), ("name", ""), ("image", "")],
            );

            let procs = std::fs::read_to_string(root.join(format!("sys/fs/cgroup{pause}/cgroup.procs"))).unwrap();
            let columns = network_of(&root, procs.trim(), "eth0");
            for (family, column) in [
                ("container_network_receive_bytes_total", 0),
                ("container_network_receive_packets_total", 1),
                ("container_network_receive_errors_total", 2),
                ("container_network_receive_packets_dropped_total", 3),
                ("container_network_transmit_bytes_total", 8),
                ("container_network_transmit_packets_total", 9),
                ("container_network_transmit_errors_total", 10),
                ("container_network_transmit_packets_dropped_total", 11),
            ] {
                let served = page.matching(family, &named);
                assert_eq!(served.len(), 1, "{family} of {} stands once", pod.name);
                assert_eq!(page.value(family, &[("id", &pause), ("interface", "eth0")]), columns[column], "{family}");
            }
        }
    }
}

#[test]
fn kata_pods_show_what_the_kubelet_shows_and_no_more() {
    let node = RecordedNode::unpack().unwrap();
    for capture in Capture::ALL {
        let body = collect(&node, capture);
        let page = Page::parse(&body).unwrap();
        for pod in node.pods().unwrap().iter().filter(|pod| is_kata(pod)) {
            let named = [("namespace", pod.namespace.as_str()), ("pod", pod.name.as_str())];
            check(
                &page,
                &node.root(capture),
                &pod.cgroup_parent,
                &[named[0], named[1], ("container", ""), ("name", ""), ("image", "")],
            );
            // On the host the sandbox's cgroup is the whole machine and looks like a runc pause container.
            let cgroup = format!("/{}\"", pod.sandbox);
            assert!(!body.lines().any(|line| line.starts_with("container_") && line.contains(&cgroup)));
            for container in pod.containers.keys() {
                // With agent and shim silent, the runtime tells two numbers, and a third that is not believed.
                let row = [named[0], named[1], ("container", container.as_str())];
                assert_eq!(page.matching("container_cpu_usage_seconds_total", &row).len(), 1);
                assert_eq!(page.matching("container_memory_usage_bytes", &row).len(), 1);
                assert!(page.matching("container_memory_working_set_bytes", &row).is_empty());
            }
            let info = [named[0], named[1], ("runtime", "kata"), ("sandbox_id", pod.sandbox.as_str())];
            assert_eq!(page.value("kata_pulse_sandbox_info", &info), 1.0);
        }
        assert!(!body.contains("kata_overhead"));
    }
}

#[test]
fn counters_only_rise_between_the_captures() {
    let node = RecordedNode::unpack().unwrap();
    let [first, second] = Capture::ALL.map(|capture| Page::parse(&collect(&node, capture)).unwrap());
    let mut compared = 0;
    for sample in first.samples().filter(|sample| sample.name.starts_with("container_")) {
        let family = first.family(&sample.name).unwrap();
        if family.kind != Some(Kind::Counter) {
            continue;
        }
        let labels: Vec<(&str, &str)> =
            sample.labels.iter().map(|(key, value)| (key.as_str(), value.as_str())).collect();
        let later =
            second.lookup(&sample.name, &labels).unwrap_or_else(|| panic!("{} {labels:?} is gone", sample.name));
        assert!(later >= sample.value, "{} {labels:?} fell from {} to {later}", sample.name, sample.value);
        compared += 1;
    }
    assert!(compared > 400, "only {compared} counters compared");
}
