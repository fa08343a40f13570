//! Both formats of real scrapes, read by parsers that are not ours: the strict text parser of `support`, Python's
//! `prometheus_client` for OpenMetrics, and `promtool`. Both must tell the same.

use std::collections::{BTreeMap, BTreeSet};
use std::ffi::OsString;
use std::os::unix::fs::symlink;
use std::process::Command;

use kata_pulse::expose::catalog::{Carries, families, volume_families};
use kata_pulse::expose::family::{self, Profile};
use kata_pulse::model::identity;
use kata_pulse::model::node::SETTINGS;
use kata_pulse_simulator::cri::{Exit, Pod};

mod support;

use support::agent::Agent;
use support::exposition::{Family, Kind, Labels, Page};
use support::host::Host;
use support::node::{NamedNode, row_of};
use support::openmetrics::{fed, parsed_by_python, python};
use support::trees::Trees;

const OPEN_METRICS: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8; escaping=underscores";

/// Collected once and kept, so that both formats say the same moment, with everything on.
const FLAGS: [&str; 6] = ["--max-age-secs", "3600", "--metrics-profile", "all", "--enable-collectors", "fd,top"];

/// What the agent counts about itself moves from one scrape to the next.
const MOVING: [&str; 5] = [
    "kata_pulse_cri_errors_total",
    "kata_pulse_cri_request_duration_seconds",
    "kata_pulse_http_requests_in_flight",
    "kata_pulse_http_requests_total",
    "process_",
];

/// cAdvisor's counters without `_total`: an OpenMetrics parser would look for another name, so they have no type there.
const UNTYPED_IN_OPEN_METRICS: [&str; 2] = ["container_hugetlb_failcnt", "container_memory_failcnt"];

/// What `promtool check metrics` objects to: names that cAdvisor gave and that dashboards know.
const PROMTOOL_FINDINGS: &[(&str, &str, &str)] = &[
    (
        "cadvisor_version_info",
        "label names should be written in 'snake_case' not 'camelCase'",
        "The kubelet's five labels are spelled like this.",
    ),
    (
        "container_fs_inodes_total",
        "non-counter metrics should not have \"_total\" suffix",
        "cAdvisor's name for the size of the inode table, a gauge.",
    ),
    (
        "container_hugetlb_failcnt",
        "counter metrics should have \"_total\" suffix",
        "cAdvisor took the kernel's file name.",
    ),
    (
        "container_memory_failcnt",
        "counter metrics should have \"_total\" suffix",
        "cAdvisor took the kernel's file name.",
    ),
    (
        "machine_dimm_count",
        "non-histogram and non-summary metrics should not have \"_count\" suffix",
        "cAdvisor's name for the number of memory modules, a gauge.",
    ),
];

/// A cgroup v2 node on which nearly every family has a source.
fn v2_node() -> NamedNode {
    let node = NamedNode::start();
    let host = &node.host;
    let web = Pod::new("shop", "web").pid(4711);
    let app = web.container("app").image("docker.io/library/nginx:1.29").pid(4712);
    let init = web.container("init").exited(&Exit::oom_killed());
    node.run(&web, 4711, &[&app]);
    node.runtime.node().add_container(&init);
    node.runtime.node().add_pod(&Pod::new("shop", "isolated").handler("kata-clh"));
    let cgroup = row_of(&web, app.id());
    host.v2_process(&cgroup, 4712, &[]);
    host.write("proc/4712/stat", "4712 (nginx) S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 40000 9000 700 0\n");
    host.write("proc/4712/cgroup", &format!("0::{cgroup}\n"));
    host.write(
        &format!("sys/fs/cgroup{cgroup}/io.stat"),
        "259:0 rbytes=4096 wbytes=8192 rios=1 wios=2 dbytes=0 dios=0 cost.usage=1000 cost.wait=2000 cost.indebt=3000 cost.indelay=4000\n",
    );
    host.write("sys/fs/cgroup/kubepods/hugetlb.2MB.current", "0\n");
    host.write(&format!("sys/fs/cgroup{cgroup}/hugetlb.2MB.current"), "4194304\n");
    host.write(&format!("sys/fs/cgroup{cgroup}/hugetlb.2MB.events"), "max 2\n");
    std::fs::create_dir(host.path("proc/4712/fd")).expect("make a directory");
    symlink("/dev/null", host.path("proc/4712/fd/0")).expect("make a link");
    symlink("socket:[14008]", host.path("proc/4712/fd/3")).expect("make a link");
    node.set_writable_layer(&app, 123_456);
    machine(host);
    node
}

/// Hardware that few machines have: books and drawers of CPUs, and memory modules that the kernel knows.
fn machine(host: &Host) {
    for cpu in 0..4 {
        for (file, id) in
            [("physical_package_id", cpu / 2), ("core_id", cpu % 2), ("book_id", cpu / 2), ("drawer_id", 0)]
        {
            host.write(&format!("sys/devices/system/cpu/cpu{cpu}/topology/{file}"), &format!("{id}\n"));
        }
    }
    host.write("sys/devices/system/edac/mc/mc0/dimm0/dimm_mem_type", "Unbuffered-DDR4\n");
    host.write("sys/devices/system/edac/mc/mc0/dimm0/size", "16384\n");
    host.write("sys/class/dmi/id/product_uuid", "EC2E1916-9099-7CAF-FD21-012345ABCDEF\n");
}

/// A cgroup v1 node, for the files that only v1 has.
fn v1_node() -> Host {
    let host = Host::bare();
    Trees::unpack().place("v1/eks-containerd-systemd/sys", &host.path("sys"));
    let container = "kubepods.slice/kubepods-burstable.slice/\
                     kubepods-burstable-pod7a96c459_d529_44ae_9f99_90d3798d6426.slice/\
                     cri-containerd-1d3d308a7d48a27814a68bf33a44acf4441c9c02463ca0bc1cdfdc8c0b4a8496.scope";
    for cgroup in ["kubepods.slice", container] {
        for (file, text) in [("usage_in_bytes", "2097152\n"), ("max_usage_in_bytes", "4194304\n"), ("failcnt", "3\n")] {
            host.write(&format!("sys/fs/cgroup/hugetlb/{cgroup}/hugetlb.2MB.{file}"), text);
        }
    }
    host
}

fn start(mut flags: Vec<OsString>) -> Agent {
    flags.extend(FLAGS.map(Into::into));
    Agent::start(flags)
}

/// Both formats of one collection.
struct Scrape {
    text: String,
    open_metrics: Vec<u8>,
}

fn scrape(agent: &Agent) -> Scrape {
    let text = agent.get("/metrics");
    assert_eq!((text.status, text.header("content-type")), (200, "text/plain; version=0.0.4; charset=utf-8"));
    let open_metrics = agent.get_with("/metrics", &[("Accept", "application/openmetrics-text; version=1.0.0")]);
    assert_eq!((open_metrics.status, open_metrics.header("content-type")), (200, OPEN_METRICS));
    Scrape { text: text.text().to_owned(), open_metrics: open_metrics.body }
}

/// Scrapes of both nodes.
fn scrapes() -> Vec<Scrape> {
    let (v1, v2) = (v1_node(), v2_node());
    vec![scrape(&start(v1.flags())), scrape(&start(v2.flags()))]
}

fn page(scrape: &Scrape) -> Page {
    Page::parse(&scrape.text).unwrap_or_else(|fault| panic!("{fault}\n{}", scrape.text))
}

fn moves(name: &str) -> bool {
    MOVING.iter().any(|moving| name.starts_with(moving))
}

/// The samples of what does not move, by name and labels, which must not be there twice.
fn still<'s>(samples: impl Iterator<Item = (&'s str, &'s Labels, f64)>) -> BTreeMap<(String, Labels), f64> {
    let mut still = BTreeMap::new();
    for (name, labels, value) in samples.filter(|(name, ..)| !moves(name)) {
        let before = still.insert((name.to_owned(), labels.clone()), value);
        assert_eq!(before, None, "{name}{labels:?} is there twice");
    }
    still
}

/// A family's name, type and help as OpenMetrics has to say them.
fn in_open_metrics(family: &Family) -> (String, &'static str, String) {
    let name = family.name.as_str();
    let (name, kind) = match family.kind {
        Some(Kind::Counter) if UNTYPED_IN_OPEN_METRICS.contains(&name) => (name, "unknown"),
        Some(Kind::Counter) => (name.strip_suffix("_total").expect("counters end in _total"), "counter"),
        Some(Kind::Gauge) => (name, "gauge"),
        Some(Kind::Histogram) => (name, "histogram"),
        other => panic!("{name}: no rule for {other:?}"),
    };
    (name.to_owned(), kind, family.help.clone().unwrap_or_default())
}

/// A scrape of a node with a Kata sandbox that has everything a sandbox can have, and one that tells nonsense.
fn kata_page() -> Page {
    use kata_pulse_simulator::kata::{Hypervisor, KataNode, Lie, Runtime};
    let builder = KataNode::builder().sandbox(Runtime::Rust, Hypervisor::CloudHypervisor).containers(1);
    let node = builder.with(|plan| plan.disks(2)).times(2).start().expect("a simulated node");
    node.sandbox(1).lie(Some(Lie::HostileFamilies));
    node.advance(3);
    let mut flags = node.flags();
    flags.extend(["--metrics-profile", "all"].map(Into::into));
    Agent::start(flags).page("/metrics")
}

/// A scrape of a node that tells everything of itself as a host: its processor's clock is governed, connections are
/// tracked, and its one interface has every file an interface can have.
fn host_page() -> Page {
    let host = Host::v2();
    for (path, text) in [
        ("etc/os-release", "ID=testing\nNAME=\"Testing\"\nVERSION_ID=\"1.2\"\n"),
        ("proc/1/net/arp", "IP address HW type Flags HW address Mask Device\n10.0.0.1 0x1 0x2 aa:bb * ens5\n"),
        ("proc/1/net/softnet_stat", "0000000a 00000001 00000002 0 0 0 0 0 0 0 0 0 00000000 0 0\n"),
        ("proc/1/net/stat/nf_conntrack", "entries  clashres\n0000001f  00000000\n"),
        ("proc/cpuinfo", "processor\t: 0\nvendor_id\t: GenuineIntel\n\n"),
        ("proc/diskstats", " 259 0 nvme0n1 1 2 3 4 5 6 7 8 9 10 11 12 13 14 15 16 17\n"),
        ("proc/loadavg", "7.67 9.60 7.76 5/127 20972\n"),
        (
            "proc/stat",
            "cpu0 25 0 25 250 0 0 0 0 0 0\nintr 5 1\nctxt 1\nbtime 1700000000\nprocesses 1\nprocs_running 2\nprocs_blocked 0\n",
        ),
        ("proc/sys/fs/file-nr", "890\t0\t2466174\n"),
        ("proc/sys/net/netfilter/nf_conntrack_max", "262144\n"),
    ] {
        host.write(path, text);
    }
    for resource in ["cpu", "io", "irq", "memory"] {
        let stall = |kind: &str| format!("{kind} avg10=0.00 avg60=0.00 avg300=0.00 total=1500000\n");
        host.write(&format!("proc/pressure/{resource}"), &[stall("some"), stall("full")].concat());
    }
    for clock in ["cpuinfo_cur", "cpuinfo_min", "cpuinfo_max", "scaling_cur", "scaling_min", "scaling_max"] {
        host.write(&format!("sys/devices/system/cpu/cpu0/cpufreq/{clock}_freq"), "2400000\n");
    }
    let counts = ["carrier_changes", "carrier_up_count", "carrier_down_count", "speed", "statistics/rx_nohandler"];
    for file in SETTINGS.iter().chain(&counts) {
        host.write(&format!("sys/class/net/ens5/{file}"), "1\n");
    }
    host.write("sys/class/net/ens5/operstate", "up\n");
    let mut flags = host.flags();
    flags.extend(["--metrics-profile", "all", "--enable-collectors", "node"].map(Into::into));
    Agent::start(flags).page("/metrics")
}

#[test]
fn every_family_there_is_comes_with_its_type_and_labels() {
    let mut pages: Vec<Page> = scrapes().iter().map(page).collect();
    pages.extend([kata_page(), host_page()]);
    // Volumes take real mounts: `volume` has the same test for their families.
    let of_volumes: Vec<&str> = volume_families().map(|meta| meta.name).collect();
    for (meta, carries) in families().into_iter().filter(|(meta, _)| !of_volumes.contains(&meta.name)) {
        let six: &[&str] = if carries == Carries::Identity { &identity::Labels::NAMES } else { &[] };
        let expected: BTreeSet<&str> = meta.labels.iter().chain(six).copied().collect();
        let found: Vec<&Family> = pages.iter().filter_map(|page| page.family(meta.name)).collect();
        assert!(!found.is_empty(), "no node of this test has {}", meta.name);
        for family in found {
            let kind = match meta.kind {
                family::Kind::Counter => Kind::Counter,
                family::Kind::Gauge => Kind::Gauge,
                family::Kind::Untyped => Kind::Untyped,
            };
            assert_eq!(family.kind, Some(kind), "{}", meta.name);
            for sample in &family.samples {
                let labels: BTreeSet<&str> = sample.labels.keys().map(String::as_str).collect();
                assert_eq!(labels, expected, "{}", meta.name);
            }
        }
    }
}

/// The names of an agent's families on a page, in their order.
fn served(agent: &Agent, path: &str) -> Vec<String> {
    agent.page(path).families.into_iter().map(|family| family.name).collect()
}

#[test]
fn a_profile_has_the_families_that_its_table_says_and_no_others() {
    let node = v2_node();
    let everything = served(&start(node.flags()), "/metrics");
    for profile in [Profile::Dashboards, Profile::Kubelet, Profile::All] {
        let mut flags = node.flags();
        flags.extend(["--metrics-profile", profile.as_str(), "--enable-collectors", "fd,top"].map(Into::into));
        let agent = Agent::start(flags);
        let of_profile: BTreeSet<&str> =
            families().iter().filter(|(meta, _)| meta.profile <= profile).map(|(meta, _)| meta.name).collect();
        let ours = |name: &&String| families().iter().any(|(meta, _)| meta.name == **name);
        let expected: Vec<&String> = everything.iter().filter(|name| of_profile.contains(name.as_str())).collect();
        let found = served(&agent, "/metrics");
        assert_eq!(found.iter().filter(ours).collect::<Vec<_>>(), expected, "{}", profile.as_str());

        let kubelets = |name: &&&String| {
            ["container_", "machine_"].iter().any(|prefix| name.starts_with(prefix))
                || **name == "cadvisor_version_info"
        };
        let cadvisor = served(&agent, "/metrics/cadvisor");
        let expected: Vec<&String> = expected.iter().filter(kubelets).copied().collect();
        assert_eq!(cadvisor.iter().collect::<Vec<_>>(), expected, "/metrics/cadvisor of {}", profile.as_str());

        let groups = agent.page("/metrics").matching("container_memory_usage_bytes", &[("id", "/")]).len();
        assert_eq!(groups, usize::from(profile >= Profile::Kubelet), "the / row in {}", profile.as_str());
    }
}

/// The strict parser has seen to grammar and duplicates; this is what only exporters must do.
#[test]
fn the_text_is_what_an_exporter_should_write() {
    for scrape in scrapes() {
        let page = page(&scrape);
        for family in &page.families {
            assert!(family.kind.is_some() && family.help.is_some(), "{} has no TYPE or HELP", family.name);
            assert!(!family.samples.is_empty(), "{} has no samples", family.name);
        }
        for sample in page.samples() {
            assert_eq!(sample.timestamp, None, "{}", sample.name);
            assert!(sample.value.is_finite(), "{} is {}", sample.name, sample.value);
        }
        let labels = scrape.text.lines().filter(|line| !line.starts_with('#'));
        for line in labels {
            let Some((_, rest)) = line.split_once('{') else { continue };
            let names: Vec<&str> = rest.split("\",").map(|part| part.split_once('=').expect("a label").0).collect();
            assert!(names.is_sorted(), "labels out of order: {line}");
        }
    }
}

#[test]
fn open_metrics_passes_the_reference_parser_and_says_the_same() {
    for scrape in scrapes() {
        let page = page(&scrape);
        let parsed = parsed_by_python(&scrape.open_metrics);

        let theirs: Vec<(String, &str, String)> =
            parsed.iter().map(|family| (family.name.clone(), family.r#type.as_str(), family.help.clone())).collect();
        let ours: Vec<(String, &str, String)> = page.families.iter().map(in_open_metrics).collect();
        assert_eq!(theirs, ours, "families in their order");

        for family in &parsed {
            let base = ["seconds", "bytes"].into_iter().find(|unit| family.name.ends_with(&format!("_{unit}")));
            assert_eq!(family.unit, base.unwrap_or_default(), "unit of {}", family.name);
        }

        let theirs = parsed.iter().flat_map(|family| &family.samples);
        let theirs = theirs.map(|(name, labels, value)| {
            (name.as_str(), labels, value.parse().unwrap_or_else(|_| panic!("{name}: {value} is no number")))
        });
        let ours = page.samples().map(|sample| (sample.name.as_str(), &sample.labels, sample.value));
        let (theirs, ours) = (still(theirs), still(ours));
        assert!(ours.len() > 80, "only {} samples", ours.len());
        let differences: Vec<String> = theirs
            .keys()
            .chain(ours.keys())
            .collect::<BTreeSet<_>>()
            .into_iter()
            .filter(|series| theirs.get(*series) != ours.get(*series))
            .map(|series| format!("{series:?}: text {:?}, OpenMetrics {:?}", ours.get(series), theirs.get(series)))
            .collect();
        assert!(differences.is_empty(), "{}", differences.join("\n"));
    }
}

/// Bucket bounds are the one label that differs: OpenMetrics wants them as floats.
#[test]
fn bucket_bounds_are_floats_in_open_metrics() {
    let node = v2_node();
    let scrape = scrape(&Agent::start(node.flags()));
    let bounds = |labels: &Labels| labels.get("le").cloned();
    let bucket = "kata_pulse_cri_request_duration_seconds_bucket";
    let text: BTreeSet<String> =
        page(&scrape).matching(bucket, &[]).iter().filter_map(|sample| bounds(&sample.labels)).collect();
    let parsed = parsed_by_python(&scrape.open_metrics);
    let samples = parsed.iter().flat_map(|family| &family.samples).filter(|(name, ..)| name == bucket);
    let open_metrics: BTreeSet<String> = samples.filter_map(|(_, labels, _)| bounds(labels)).collect();
    let alike = ["+Inf", "0.001", "0.0025", "0.005", "0.01", "0.025", "0.05", "0.1", "0.25", "0.5"];
    let with = |whole: [&str; 2]| alike.into_iter().chain(whole).map(str::to_owned).collect::<BTreeSet<_>>();
    assert_eq!(text, with(["1", "2"]));
    assert_eq!(open_metrics, with(["1.0", "2.0"]));
}

#[test]
fn promtool_objects_only_to_names_that_cadvisor_gave() {
    let mut found = BTreeSet::new();
    for scrape in scrapes() {
        let what = "promtool, of Debian's package prometheus";
        let output = fed(Command::new("promtool").args(["check", "metrics"]), scrape.text.as_bytes(), what);
        let findings = String::from_utf8(output.stderr).unwrap();
        // 3 says that something was found; 1 that the text could not be read.
        assert_eq!(output.status.code(), Some(3), "{findings}");
        for line in findings.lines() {
            let (family, problem) = line.split_once(' ').unwrap_or((line, ""));
            found.insert((family.to_owned(), problem.to_owned()));
        }
    }
    let known: BTreeSet<(String, String)> =
        PROMTOOL_FINDINGS.iter().map(|(family, problem, _)| ((*family).to_owned(), (*problem).to_owned())).collect();
    assert_eq!(found, known);
    for (family, _, why) in PROMTOOL_FINDINGS {
        assert!(why.ends_with('.'), "{family}: why it stays is a sentence");
    }
}

/// The parser is of use only if it refuses what is wrong.
#[test]
fn the_reference_parser_is_strict() {
    assert!(python(b"# TYPE a gauge\na 1\n# EOF\n").is_ok());
    for (body, problem) in [
        ("# TYPE a gauge\na 1\n", "EOF"),
        ("# TYPE a counter\na 1\n# EOF\n", "Clashing"),
        ("# TYPE a gauge\n# UNIT a bytes\na 1\n# EOF\n", "Unit"),
        ("# TYPE a gauge\na 1\n# TYPE b gauge\nb 1\n# TYPE a gauge\na 2\n# EOF\n", "Clashing"),
        ("# TYPE a counter\na_total -1\n# EOF\n", "negative"),
    ] {
        let refusal = python(body.as_bytes()).expect_err(body);
        assert!(refusal.contains(problem), "{body}: {refusal}");
    }
}
