//! Parsers and encoders alone, in bytes per second: what a collection does between reading and writing.
//!
//! Input is recorded: the kernel's files of a node, what guests, shims and a hypervisor have said. Encoders write the
//! snapshot of the recorded node, and are counted by what they write.
#![allow(clippy::unwrap_used, missing_docs, reason = "a program for people who measure")]

use std::fs;
use std::hint::black_box;
use std::io::Read;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use clap::Parser as _;
use criterion::{Criterion, Throughput, criterion_group, criterion_main};
use flate2::read::GzDecoder;
use kata_pulse::agent::AgentHandle;
use kata_pulse::cli::Cli;
use kata_pulse::collect::cgroup::parse::{CpuStatV2, MemoryStatV2, io_stat, pressure};
use kata_pulse::collect::exclude::Exclude;
use kata_pulse::collect::kata::cloud_hypervisor::{parse_counters, parse_info};
use kata_pulse::collect::kata::{guest_text, stats};
use kata_pulse::collect::network::net_dev;
use kata_pulse::config::Config;
use kata_pulse::expose::family::Profile;
use kata_pulse::expose::json::JsonFamilies;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::inventory::KataRuntime;
use kata_pulse::model::snapshot::{Snapshot, SnapshotSource};
use kata_pulse::protos::agent::StatsContainerResponse;
use kata_pulse::protos::task::StatsResponse;
use kata_pulse::protos::{self};
use kata_pulse::telemetry::Telemetry;
use kata_pulse_simulator::kata::ReplayedNode;
use kata_pulse_simulator::recorded::{Capture, RecordedNode};

fn fixture(name: &str) -> Vec<u8> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("../fixtures/kata").join(name);
    let packed = fs::read(&path).unwrap();
    if !name.ends_with(".gz") {
        return packed;
    }
    let mut content = Vec::new();
    GzDecoder::new(packed.as_slice()).read_to_end(&mut content).unwrap();
    content
}

/// The largest file of this name below a directory: that of the busiest cgroup.
fn largest(root: &Path, name: &str) -> Vec<u8> {
    let mut largest = Vec::new();
    let mut left = vec![root.to_owned()];
    while let Some(directory) = left.pop() {
        for entry in fs::read_dir(&directory).into_iter().flatten().flatten() {
            let path: PathBuf = entry.path();
            if path.is_dir() && !path.is_symlink() {
                left.push(path);
            } else if path.ends_with(name) {
                let content = fs::read(&path).unwrap();
                largest = if content.len() > largest.len() { content } else { largest };
            }
        }
    }
    assert!(!largest.is_empty(), "no {name} below {}", root.display());
    largest
}

fn parse<T>(criterion: &mut Criterion, name: &str, input: &[u8], parse: impl Fn(&[u8]) -> T) {
    let mut group = criterion.benchmark_group("parse");
    group.throughput(Throughput::Bytes(input.len() as u64));
    group.bench_function(name, |bencher| bencher.iter(|| parse(black_box(input))));
    group.finish();
}

fn parsers(criterion: &mut Criterion) {
    let recorded = RecordedNode::unpack().unwrap();
    let root = recorded.root(Capture::T0);
    let (cgroup, proc) = (root.join("sys/fs/cgroup"), root.join("proc"));
    parse(criterion, "memory.stat", &largest(&cgroup, "memory.stat"), |input| MemoryStatV2::parse(input).unwrap());
    parse(criterion, "cpu.stat", &largest(&cgroup, "cpu.stat"), |input| CpuStatV2::parse(input).unwrap());
    parse(criterion, "io.stat", &largest(&cgroup, "io.stat"), |input| io_stat(input).unwrap());
    parse(criterion, "memory.pressure", &largest(&cgroup, "memory.pressure"), |input| pressure(input).unwrap());
    parse(criterion, "net dev", &largest(&proc, "net/dev"), |input| net_dev(input, &Exclude::default()).unwrap());
    parse(criterion, "guest text", &fixture("agent-getmetrics-guest.txt.gz"), guest_text::Parser::parse);
    parse(criterion, "shim text", &fixture("shim-metrics-go-clh.txt.gz"), guest_text::Parser::parse);
    parse(criterion, "agent StatsContainer", &fixture("agent-stats-cgroup2-writer.pb"), |input| {
        let response: StatsContainerResponse = protos::decode(input).unwrap();
        stats::of_agent(&response.cgroup_stats.unwrap_or_default())
    });
    parse(criterion, "shim Stats", &fixture("task-stats-rs-writer.pb"), |input| {
        let response: StatsResponse = protos::decode(input).unwrap();
        stats::of_task(&response.stats.unwrap_or_default(), KataRuntime::Rs).unwrap()
    });
    parse(criterion, "vm.info", &fixture("ch-vm.info.json.gz"), |input| parse_info(input).unwrap());
    parse(criterion, "vm.counters", &fixture("ch-vm.counters.json"), |input| parse_counters(input).unwrap());
}

/// The recorded node with its sandboxes answering, as one collection sees it.
fn snapshot() -> Arc<Snapshot> {
    let node = ReplayedNode::start(RecordedNode::unpack().unwrap(), Capture::T0).unwrap();
    let cli = Cli::parse_from(std::iter::once("kata-pulse".into()).chain(node.flags()));
    let config = Config::new(cli.settings).unwrap();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build().unwrap();
    runtime.block_on(async {
        let agent = AgentHandle::start(&config, Arc::new(Telemetry::new().unwrap()));
        agent.ready().await;
        agent.snapshot(Duration::from_secs(30)).await.unwrap()
    })
}

fn text(snapshot: &Snapshot, format: Format, profile: Profile, capacity: usize) -> Vec<u8> {
    written(snapshot, profile, Text::new(format, capacity))
}

fn written(snapshot: &Snapshot, profile: Profile, mut text: Text) -> Vec<u8> {
    walk(snapshot, &View::All, profile, &mut text);
    text.finish()
}

fn encoders(criterion: &mut Criterion) {
    let snapshot = snapshot();
    let mut group = criterion.benchmark_group("encode");
    for (name, format, profile) in [
        ("Prometheus text", Format::Prometheus, Profile::Kubelet),
        ("Prometheus text, profile all", Format::Prometheus, Profile::All),
        ("OpenMetrics", Format::OpenMetrics, Profile::Kubelet),
    ] {
        let length = text(&snapshot, format, profile, 0).len();
        group.throughput(Throughput::Bytes(length as u64));
        group.bench_function(name, |bencher| bencher.iter(|| text(black_box(&snapshot), format, profile, length)));
    }
    let length = text(&snapshot, Format::Prometheus, Profile::Kubelet, 0).len();
    group.throughput(Throughput::Bytes(length as u64));
    group.bench_function("Prometheus text, gzip", |bencher| {
        bencher.iter(|| written(black_box(&snapshot), Profile::Kubelet, Text::compressed(Format::Prometheus)));
    });
    let json = |snapshot: &Snapshot| {
        let mut families = JsonFamilies::default();
        walk(snapshot, &View::All, Profile::Kubelet, &mut families);
        families.finish().to_string()
    };
    group.throughput(Throughput::Bytes(json(&snapshot).len() as u64));
    group.bench_function("JSON", |bencher| bencher.iter(|| json(black_box(&snapshot))));
    group.finish();
}

criterion_group!(micro, parsers, encoders);
criterion_main!(micro);
