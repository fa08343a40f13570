//! The form of the page: against a kubelet's, in both formats, and the reader that the other tests go by.

use std::path::Path;

use crate::support::exposition::Page;
use crate::support::metrics_server::{Point, decode};
use crate::support::openmetrics::{fed, parsed_by_python};
use crate::{ASKED, PATH, start, text, two_containers};

const OPEN_METRICS: &str = "application/openmetrics-text";

fn fixture() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubelet-resource.txt");
    std::fs::read_to_string(path).expect("the fixture is there")
}

/// What metrics-server's own test expects of it.
#[test]
fn the_kubelets_page_is_read_as_metrics_server_reads_it() {
    let batch = decode(&fixture(), ASKED);
    let node = batch.node.unwrap();
    assert_eq!(
        (node.cpu_nanos, node.memory_bytes, node.at_millis),
        (357_354_910_000, 1_616_273_408, 1_633_253_809_720)
    );
    let expected = Point {
        cpu_nanos: 4_710_169_000,
        memory_bytes: 12_533_760,
        swap_bytes: 0,
        at_millis: 1_633_253_812_125,
        started_nanos: 1_633_252_712_000_000_000,
    };
    assert_eq!(batch.pod("kube-system", "coredns-558bd4d5db-4dpjz")["coredns"], expected);
}

/// Without this, that no pod is dropped would say nothing.
#[test]
fn the_reader_drops_whoever_lacks_something() {
    let whole = fixture();
    let without = |part: &str| {
        whole.lines().filter(|line| !line.starts_with(part)).fold(String::new(), |text, line| text + line + "\n")
    };
    assert_eq!(decode(&whole, ASKED).dropped, []);
    for part in ["container_cpu", "container_memory"] {
        assert_eq!(decode(&without(part), ASKED).dropped.len(), 1, "{part}");
    }
    for part in ["node_cpu", "node_memory"] {
        assert_eq!(decode(&without(part), ASKED).node, None, "{part}");
    }
    let zero = whole.replace("} 4.710169 ", "} 0 ");
    assert_eq!((decode(&zero, ASKED).dropped.len(), decode(&zero, ASKED).pods.len()), (1, 0));
}

#[test]
fn families_types_and_labels_are_those_of_a_kubelet() {
    let theirs = fixture();
    let (node, ..) = two_containers();
    let ours = text(&start(node.flags(), &[]));
    let (their_page, our_page) = (Page::parse(&theirs).unwrap(), Page::parse(&ours).unwrap());
    for family in &their_page.families {
        // Hidden since Kubernetes 1.30, in favour of `resource_scrape_error`.
        if family.name == "scrape_error" {
            continue;
        }
        let found = our_page.family(&family.name).unwrap_or_else(|| panic!("no {}", family.name));
        assert_eq!(found.kind, family.kind, "{}", family.name);
        assert!(found.help.is_some());
    }
    let order = |page: &Page| page.families.iter().map(|family| family.name.clone()).collect::<Vec<_>>();
    assert!(order(&their_page).is_sorted() && order(&our_page).is_sorted(), "{:?}", order(&our_page));

    // Label names as they stand in the text, in their order.
    let labels = |text: &str, name: &str| {
        let line = text.lines().find(|line| line.starts_with(name)).unwrap_or_else(|| panic!("no {name}"));
        let names: Vec<String> =
            line.split("=\"").map(|part| part.rsplit(['{', ',']).next().unwrap().to_owned()).collect();
        if line.contains('{') { names[..names.len() - 1].to_vec() } else { Vec::new() }
    };
    for family in
        ["container_cpu_usage_seconds_total", "container_memory_working_set_bytes", "container_start_time_seconds"]
    {
        assert_eq!(labels(&theirs, family), ["container", "namespace", "pod"]);
        assert_eq!(labels(&ours, family), labels(&theirs, family), "{family}");
    }
    for family in ["pod_cpu_usage_seconds_total", "pod_memory_working_set_bytes", "node_cpu_usage_seconds_total"] {
        assert_eq!(labels(&ours, family), labels(&theirs, family), "{family}");
    }
}

#[test]
fn both_formats_tell_the_same_and_promtool_has_nothing_to_say() {
    let (node, ..) = two_containers();
    let agent = start(node.flags(), &["--max-age-secs", "3600"]);
    let text = text(&agent);
    let answer = agent.get_with(PATH, &[("Accept", OPEN_METRICS)]);
    let page = Page::parse(&text).unwrap();
    let parsed = parsed_by_python(&answer.body);
    let theirs: Vec<(String, Option<f64>)> = parsed
        .iter()
        .flat_map(|family| &family.samples)
        .map(|(name, labels, value)| (format!("{name}{labels:?}"), value.parse().ok()))
        .collect();
    let ours = page.samples().map(|sample| (format!("{}{:?}", sample.name, sample.labels), Some(sample.value)));
    assert_eq!(theirs, ours.collect::<Vec<_>>());
    // The last word of a line, in seconds there and in milliseconds here.
    let stamps = |text: &str, unit: f64| -> Vec<f64> {
        let samples = text.lines().filter(|line| !line.starts_with('#'));
        let words = samples.map(|line| line.split(' ').nth(2).map_or(0.0, |at| at.parse().unwrap()));
        words.map(|at: f64| (at * unit).round()).collect()
    };
    assert_eq!(stamps(answer.text(), 1e3), stamps(&text, 1.0));
    assert!(stamps(&text, 1.0).iter().any(|at| *at > 1.7e12));
    let mut promtool = std::process::Command::new("promtool");
    let output = fed(promtool.args(["check", "metrics"]), text.as_bytes(), "promtool, of Debian's package prometheus");
    let findings = String::from_utf8_lossy(&output.stderr).into_owned();
    assert_eq!((output.status.code(), findings.as_str()), (Some(0), ""));
}
