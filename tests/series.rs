//! What a pod and a node cost whoever stores them: the tables of series and bytes in `docs/scaling.md` are what the agent
//! serves. Series follow from the simulated pods and are compared to the last one; bytes move with the digits of numbers.
//!
//! `UPDATE_GOLDEN=1 cargo test --test series` writes the tables anew.
#![allow(clippy::unwrap_used, reason = "whatever fails here is the test's own failure")]

use std::collections::BTreeMap;
use std::ffi::OsString;
use std::fs;
use std::io::Write;
use std::path::Path;

use flate2::Compression;
use flate2::write::GzEncoder;
use kata_pulse_simulator::cri::Pod;
use kata_pulse_simulator::kata::{ContainerPlan, Hypervisor, KataNode, Runtime, SandboxPlan};

mod support;

use support::agent::Agent;
use support::exposition::Page;
use support::node::NamedNode;

/// Pods on a node: enough for what is said once to weigh little.
const PODS: usize = 8;

/// A container each, and one pod in two has a second.
const CONTAINERS: usize = PODS + PODS / 2;

const PROFILES: [&str; 3] = ["dashboards", "kubelet", "all"];

/// Bytes may differ by so much, in per cent: by the digits of what is counted.
const BYTES_WITHIN: usize = 10;

/// How hard the agent compresses: `src/expose/page.rs`.
const EFFORT: u32 = 3;

/// Whom a sample is told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
enum Subject {
    Container,
    Pod,
    Node,
    Agent,
}

fn subject(line: &str) -> Subject {
    let says = |label: &str| line.contains(label) && !line.contains(&format!("{label}\""));
    let own = ["kata_pulse_", "process_"].iter().any(|prefix| line.starts_with(prefix));
    match (says("container=\""), says("pod=\"")) {
        (true, _) => Subject::Container,
        (false, true) => Subject::Pod,
        (false, false) if own => Subject::Agent,
        (false, false) => Subject::Node,
    }
}

/// Series and bytes of their lines.
#[derive(Clone, Copy, Debug, Default)]
struct Cost {
    series: usize,
    bytes: usize,
}

/// What a page costs, by subject; its size, and its size compressed.
struct Weighed {
    by_subject: BTreeMap<Subject, Cost>,
    whole: usize,
    packed: usize,
}

fn weigh(flags: &[OsString], profile: &str) -> Weighed {
    let more = ["--max-age-secs", "0", "--metrics-profile", profile].map(OsString::from);
    let agent = Agent::start(flags.iter().cloned().chain(more));
    // Some series need a measurement before them.
    let pages = [0; 3].map(|_| agent.get("/metrics").text().to_owned());
    let page = pages.last().unwrap();
    Page::parse(page).unwrap();
    let mut by_subject: BTreeMap<Subject, Cost> = BTreeMap::new();
    for line in page.lines().filter(|line| !line.starts_with('#')) {
        let cost = by_subject.entry(subject(line)).or_default();
        cost.series += 1;
        cost.bytes += line.len() + 1;
    }
    // As the agent compresses.
    let mut packer = GzEncoder::new(Vec::new(), Compression::new(EFFORT));
    packer.write_all(page.as_bytes()).unwrap();
    Weighed { by_subject, whole: page.len(), packed: packer.finish().unwrap().len() }
}

/// A kind of node, by profile.
struct Kind {
    name: &'static str,
    weighed: Vec<Weighed>,
}

fn kata(name: &'static str, runtime: Runtime, hypervisor: Hypervisor) -> Kind {
    // All with the same limits: a limit has series of its own.
    let limited = |name| ContainerPlan::new(name).cpu_quota(50_000).memory_limit(64 << 20);
    let with = |names: &[&'static str]| {
        SandboxPlan::new(runtime, hypervisor).with_containers(names.iter().copied().map(limited))
    };
    let builder = KataNode::builder().plan(with(&["app"])).times(PODS / 2);
    let node = builder.plan(with(&["app", "sidecar"])).times(PODS / 2).start().unwrap();
    node.advance(60);
    Kind { name, weighed: PROFILES.iter().map(|profile| weigh(&node.flags(), profile)).collect() }
}

fn runc() -> Kind {
    let node = NamedNode::start();
    for number in 0..PODS {
        let pod = Pod::new("shop", &format!("web-{number}"));
        let containers: Vec<_> =
            ["app", "sidecar"].iter().take(1 + number % 2).map(|name| pod.container(name)).collect();
        node.run(&pod, 1000 + u32::try_from(number).unwrap(), &containers.iter().collect::<Vec<_>>());
    }
    Kind { name: "runc", weighed: PROFILES.iter().map(|profile| weigh(&node.flags(), profile)).collect() }
}

/// Lines of the table of series: of each container, of each pod beside its containers, of the node.
fn series(kinds: &[Kind]) -> String {
    let mut table =
        "| Pod | Profile | Each container | Each pod besides | A pod with one container | The node |\n".to_owned();
    table += "|---|---|---|---|---|---|\n";
    for Kind { name, weighed } in kinds {
        for (profile, weighed) in PROFILES.iter().zip(weighed) {
            let of = |subject| weighed.by_subject.get(&subject).copied().unwrap_or_default().series;
            let (container, pod) = (of(Subject::Container), of(Subject::Pod));
            assert_eq!(
                (container % CONTAINERS, pod % PODS),
                (0, 0),
                "{name}, {profile}: {container} and {pod}, not all alike"
            );
            let (container, pod, node) = (container / CONTAINERS, pod / PODS, of(Subject::Node));
            table += &format!("| {name} | `{profile}` | {container} | {pod} | {} | {node} |\n", container + pod);
        }
    }
    table
}

/// Lines of the table of bytes. What HELP and TYPE take is the page's own.
fn bytes(kinds: &[Kind]) -> String {
    let mut table = "| Pod | Profile | Each container | Each pod besides | Said once | Compressed to |\n|---|---|---|---|---|---|\n".to_owned();
    for Kind { name, weighed } in kinds {
        for (profile, weighed) in PROFILES.iter().zip(weighed) {
            let of = |subject| weighed.by_subject.get(&subject).copied().unwrap_or_default().bytes;
            let (container, pod) = (of(Subject::Container), of(Subject::Pod));
            let (whole, packed) = (weighed.whole, weighed.packed);
            table += &format!(
                "| {name} | `{profile}` | {} | {} | {} | {} % |\n",
                container / CONTAINERS,
                pod / PODS,
                whole - container - pod,
                (100 * packed).div_ceil(whole)
            );
        }
    }
    table
}

/// The text between the markers of a table.
fn between<'a>(document: &'a str, name: &str) -> &'a str {
    let begin = document.split_once(&format!("<!-- {name}: generated -->\n")).expect("a marker").1;
    begin.split_once("<!-- end -->").expect("an end").0
}

/// Cells that are numbers must be near, all others the same.
fn near(is: &str, should: &str) -> bool {
    let cells =
        |line: &str| line.split('|').map(|cell| cell.trim().trim_end_matches(" %").to_owned()).collect::<Vec<_>>();
    let alike = |(is, should): (&String, &String)| match (is.parse::<usize>(), should.parse::<usize>()) {
        (Ok(is), Ok(should)) => is.abs_diff(should) * 100 <= BYTES_WITHIN * should.max(20),
        _ => is == should,
    };
    let (is, should) = (cells(is), cells(should));
    is.len() == should.len() && is.iter().zip(&should).all(alike)
}

#[test]
fn the_tables_of_docs_scaling_are_what_is_served() {
    let kinds = [
        runc(),
        kata("Kata, Cloud Hypervisor", Runtime::Go, Hypervisor::CloudHypervisor),
        kata("Kata, Firecracker", Runtime::Rust, Hypervisor::Firecracker),
    ];
    let (series, bytes) = (series(&kinds), bytes(&kinds));
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/scaling.md");
    let document = fs::read_to_string(&path).unwrap();
    if std::env::var_os("UPDATE_GOLDEN").is_some() {
        let renewed = document.replace(between(&document, "series"), &series);
        fs::write(&path, renewed.replace(between(&document, "bytes"), &bytes)).unwrap();
        return;
    }
    assert_eq!(between(&document, "series"), series, "UPDATE_GOLDEN=1 writes it anew");
    let written = between(&document, "bytes");
    assert_eq!(written.lines().count(), bytes.lines().count());
    for (is, should) in written.lines().zip(bytes.lines()) {
        assert!(near(is, should), "is     {is}\nserved {should}\nUPDATE_GOLDEN=1 writes it anew");
    }
}
