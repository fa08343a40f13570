//! `/stats/summary` against what a kubelet said there, and against the recorded node.

#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs::File;
use std::path::Path;

use flate2::read::GzDecoder;
use kata_pulse_simulator::cri::Pod;
use kata_pulse_simulator::kata::{Fault, Hypervisor, KataNode, ReplayedNode, Runtime, SandboxPlan};
use kata_pulse_simulator::recorded::{Capture, RecordedNode};
use serde_json::{Value, json};

mod support;

use support::agent::Agent;
use support::node::NamedNode;

const PATH: &str = "/stats/summary";

/// Parts of the kubelet's answer that are not in ours.
const LACKING: &[(&str, &str)] = &[
    (".avg10", "Only totals of stalls are read; the averages can be computed from them."),
    (".avg60", "Only totals of stalls are read; the averages can be computed from them."),
    (".avg300", "Only totals of stalls are read; the averages can be computed from them."),
    (".ephemeral-storage", "Logs and volumes are part of it, which are not measured here."),
    (".logs", "Not measured."),
    (".node.fs", "Which filesystem the kubelet takes for its own is not known."),
    (".node.nodeName", "The name that the node has in the cluster is not known."),
    (".rlimit", "Not measured."),
    (".rootfs.availableBytes", "Unknown: part of what is free may be kept for root."),
    (".rootfs.inodes", "The runtime's count of the layer's inodes is not read."),
    (".runtime", "The runtime's images are not measured."),
    (".usageNanoCores", "There from the second answer on: see the clock's tests."),
    (".volume", "The names of volumes in the pod's specification are not on the node."),
];

fn start(mut flags: Vec<OsString>, more: &[&str]) -> Agent {
    flags.extend(more.iter().map(Into::into));
    Agent::start(flags)
}

#[track_caller]
fn ask(agent: &Agent, path: &str) -> Value {
    let answer = agent.get(path);
    assert_eq!((answer.status, answer.header("content-type")), (200, "application/json"), "{}", answer.text());
    serde_json::from_str(answer.text()).expect("JSON")
}

fn capture() -> Value {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubelet-1.35-summary.json.gz");
    serde_json::from_reader(GzDecoder::new(File::open(path).expect("the fixture is there"))).expect("JSON")
}

fn recorded() -> ReplayedNode {
    ReplayedNode::start(RecordedNode::unpack().unwrap(), Capture::T0).unwrap()
}

/// Every leaf's path, `.pods[].cpu.time`, and the type of what is there.
fn leaves(value: &Value, path: &str, found: &mut BTreeMap<String, &'static str>) {
    let kind = match value {
        Value::Object(fields) => {
            return fields.iter().for_each(|(name, value)| leaves(value, &format!("{path}.{name}"), found));
        }
        Value::Array(items) => return items.iter().for_each(|item| leaves(item, &format!("{path}[]"), found)),
        Value::String(_) => "text",
        Value::Number(_) => "number",
        Value::Bool(_) => "truth",
        Value::Null => "nothing",
    };
    found.insert(path.to_owned(), kind);
}

fn of_name<'v>(list: &'v Value, name: &str) -> &'v Value {
    let named = |one: &&Value| one["name"] == name || one["podRef"]["name"] == name;
    list.as_array().unwrap().iter().find(named).unwrap_or_else(|| panic!("no {name} in {list}"))
}

/// A pod `shop/web` whose container `app` has a writable layer of 123456 bytes.
fn named_node() -> NamedNode {
    let node = NamedNode::start();
    let web = Pod::new("shop", "web").created_at(1_795_230_771_250_000_000);
    let app = web.container("app");
    node.run(&web, 41, &[&app]);
    node.host.v2_process(&format!("{}/{}", web.cgroup(), app.id()), 42, &[]);
    node.host.v2_cgroup("kubepods");
    node.set_writable_layer(&app, 123_456);
    node
}

#[test]
fn fields_and_types_are_the_kubelets_and_what_lacks_is_known() {
    let mut theirs = BTreeMap::new();
    leaves(&capture(), "", &mut theirs);
    let (recorded, named) = (recorded(), named_node());
    let mut ours = BTreeMap::new();
    for flags in [recorded.flags(), named.flags()] {
        leaves(&ask(&start(flags, &[]), PATH), "", &mut ours);
    }
    for (path, kind) in &ours {
        assert_eq!(theirs.get(path), Some(kind), "{path}");
    }
    let missing: Vec<&String> = theirs.keys().filter(|path| !ours.contains_key(*path)).collect();
    for path in &missing {
        assert!(LACKING.iter().any(|(part, _)| path.contains(part)), "{path} is not in our answer");
    }
    for (part, why) in LACKING {
        assert!(why.ends_with('.') && missing.iter().any(|path| path.contains(part)), "{part} is there");
    }
}

/// Worked out by hand from the recorded bytes, see `recorded_kata.rs`.
#[test]
fn the_recorded_node_is_told_as_it_was() {
    let node = recorded();
    let summary = ask(&start(node.flags(), &[]), PATH);
    let pods = &summary["pods"];
    let names: Vec<&str> = pods.as_array().unwrap().iter().map(|pod| pod["podRef"]["name"].as_str().unwrap()).collect();
    assert_eq!(names, ["runc-throttled", "runc-writer", "runc-idle", "kata-idle", "kata-web"]);

    let web = of_name(pods, "kata-web");
    assert_eq!(
        web["podRef"],
        json!({ "name": "kata-web", "namespace": "shop", "uid": "3b7e61c0-5a0d-4f0e-9d51-6c1f0a7be201" })
    );
    let spin = of_name(&web["containers"], "spin");
    assert_eq!(spin["cpu"]["usageCoreNanoSeconds"], 55_526_802_000_u64);
    let memory = &spin["memory"];
    assert_eq!((&memory["usageBytes"], &memory["workingSetBytes"]), (&json!(1_736_704), &json!(155_648)));
    assert_eq!((&memory["rssBytes"], &memory["majorPageFaults"]), (&json!(57_344), &json!(15)));
    assert_eq!(web["containers"].as_array().map(Vec::len), Some(2), "the pause container is nobody's");
    let network = &web["network"];
    assert_eq!(
        (&network["name"], &network["rxBytes"], &network["txBytes"]),
        (&json!("eth0"), &json!(84_922), &json!(3_919_271))
    );
    assert_eq!(network["interfaces"].as_array().map(Vec::len), Some(1));

    // Not what its pod's cgroup has, which is 4856960 µs and 2424832 bytes.
    let idle = of_name(pods, "kata-idle");
    assert_eq!(idle["cpu"]["usageCoreNanoSeconds"], 48_975_064_000_u64);
    assert_eq!(idle["memory"]["workingSetBytes"], 190_615_552);
    assert_eq!(idle["memory"].get("usageBytes"), None);
    // 128 MiB − 188416
    let app = of_name(&idle["containers"], "app");
    assert_eq!(app["memory"]["availableBytes"], 134_029_312);

    let throttled = of_name(pods, "runc-throttled");
    let cgroup = node.host_root().join("sys/fs/cgroup/kubepods/burstable/pod7f1b3c5d-2e8a-4d6f-91b0-4c5d6e7f8a04");
    let pressure = std::fs::read_to_string(cgroup.join("cpu.pressure")).unwrap();
    let total = |line: &str| -> u64 {
        let line = pressure.lines().find(|text| text.starts_with(line)).unwrap();
        line.rsplit_once("total=").unwrap().1.parse().unwrap()
    };
    assert_eq!(
        throttled["cpu"]["psi"],
        json!({ "full": { "total": total("full") }, "some": { "total": total("some") } })
    );
    assert_eq!(throttled["process_stats"], json!({ "process_count": 2 }));
    assert_eq!(web.get("process_stats"), None, "a guest tells threads, and no processes");
}

#[test]
fn times_layers_and_limits_are_told_where_they_are_known() {
    let node = named_node();
    let summary = ask(&start(node.flags(), &[]), PATH);
    let web = of_name(&summary["pods"], "web");
    assert_eq!(web["startTime"], "2026-11-21T03:12:51.250Z");
    let app = of_name(&web["containers"], "app");
    assert_eq!(app["rootfs"]["usedBytes"], 123_456);
    // 64 MiB − (33554432 − 4194304)
    assert_eq!(app["memory"]["availableBytes"], 37_748_736);
    assert_eq!(app["swap"]["swapUsageBytes"], 0, "a true zero is said");
    assert_eq!(app["swap"].get("swapAvailableBytes"), None, "there is no bound");
    assert_eq!(web["process_stats"]["process_count"], 1);
    let node = &summary["node"];
    assert_eq!(node["startTime"], "2023-11-14T22:13:20.000Z");
    assert_eq!(node["swap"]["swapUsageBytes"], 536_870_912);
    assert_eq!(node["swap"]["swapAvailableBytes"], 1_610_612_736);
    assert_eq!(node["network"]["interfaces"][0]["name"], "ens5");
    assert_eq!(node["network"].get("rxBytes"), None, "no interface stands for all");
    assert_eq!(of_name(&node["systemContainers"], "pods")["cpu"]["usageCoreNanoSeconds"], 3_500_000_000_u64);
}

#[test]
fn only_cpu_and_memory_is_the_short_answer() {
    let node = named_node();
    let agent = start(node.flags(), &["--max-age-secs", "3600"]);
    let whole = ask(&agent, PATH);
    for other in [
        "?only_cpu_and_memory=false",
        "?only_cpu_and_memory",
        "?only_cpu_and_memory=true&only_cpu_and_memory=true",
        "?x=1",
    ] {
        assert_eq!(ask(&agent, &format!("{PATH}{other}")), whole, "{other}");
    }
    let short = ask(&agent, &format!("{PATH}?only_cpu_and_memory=true"));
    let (mut of_whole, mut of_short) = (BTreeMap::new(), BTreeMap::new());
    leaves(&whole, "", &mut of_whole);
    leaves(&short, "", &mut of_short);
    let further = [".network", ".io.", ".rootfs", ".process_stats"];
    assert!(further.iter().all(|part| of_whole.keys().any(|path| path.contains(part))));
    of_whole.retain(|path, _| !further.iter().any(|part| path.contains(part)));
    assert_eq!(of_short, of_whole);
}

#[test]
fn of_a_sandbox_that_hangs_there_is_what_the_node_knows() {
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1);
    let node = builder.with(SandboxPlan::unmeasured_by_runtime).start().unwrap();
    node.advance(3);
    let sandbox = node.sandbox(0);
    sandbox.fail_all(&Fault::Hang);
    let summary = ask(&start(node.flags(), &["--scope", "kata"]), PATH);
    assert_eq!(summary["node"], json!({}));
    let pod = of_name(&summary["pods"], sandbox.pod().1);
    assert_eq!(pod["cpu"]["usageCoreNanoSeconds"], sandbox.truth().host.cpu_us() * 1000);
    let container = pod["containers"][0].as_object().unwrap();
    assert_eq!(container.keys().collect::<Vec<_>>(), ["name", "startTime"]);
}
