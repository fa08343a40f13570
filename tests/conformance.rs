//! Our tables and our numbers against what a real kubelet 1.35 said: every family it had is served with the same type
//! and labels or listed as absent with a reason, and whatever we have beyond it is accounted for.

use std::collections::{BTreeMap, BTreeSet};
use std::fs::File;
use std::io::{BufReader, Read};
use std::path::Path;

use flate2::bufread::GzDecoder;
use kata_pulse::expose::catalog::{ABSENT, Carries, families};
use kata_pulse::expose::family::{Kind as OurKind, Meta};
use kata_pulse::expose::number;
use kata_pulse::model::identity::Labels;
use kata_pulse::model::units::Value;

mod support;

use support::exposition::{Family, Kind, Page};

/// Families in the kubelet's namespaces that the capture lacks, and who has them: a later kubelet with the cAdvisor
/// it links, the same kubelet on other hardware, or cAdvisor run alone with all its metric kinds.
const BEYOND_THE_CAPTURE: &[(&str, &str)] = &[
    ("container_cpu_cfs_burst_periods_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_cpu_cfs_burst_seconds_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_creation_time_seconds", "kubelet 1.37, cAdvisor 0.57"),
    ("container_fs_io_cost_indebt_seconds_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_fs_io_cost_indelay_seconds_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_fs_io_cost_usage_seconds_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_fs_io_cost_wait_seconds_total", "kubelet 1.36, cAdvisor 0.55"),
    ("container_hugetlb_failcnt", "standalone cAdvisor"),
    ("container_hugetlb_max_usage_bytes", "standalone cAdvisor"),
    ("container_hugetlb_usage_bytes", "standalone cAdvisor"),
    ("container_memory_events_high_total", "kubelet 1.37, cAdvisor 0.57"),
    ("container_memory_events_max_total", "kubelet 1.37, cAdvisor 0.57"),
    ("container_memory_file_dirty_bytes", "kubelet 1.37, cAdvisor 0.60"),
    ("container_memory_file_writeback_bytes", "kubelet 1.37, cAdvisor 0.60"),
    ("container_memory_pgscan_total", "kubelet 1.37, cAdvisor 0.60"),
    ("container_memory_pgsteal_total", "kubelet 1.37, cAdvisor 0.60"),
    ("container_memory_workingset_refault_anon_total", "kubelet 1.37, cAdvisor 0.60"),
    ("container_memory_workingset_refault_file_total", "kubelet 1.37, cAdvisor 0.60"),
    ("machine_cpu_books", "kubelet 1.36, cAdvisor 0.56"),
    ("machine_cpu_drawers", "kubelet 1.36, cAdvisor 0.56"),
    ("machine_dimm_capacity_bytes", "every kubelet, on machines with EDAC"),
    ("machine_dimm_count", "every kubelet, on machines with EDAC"),
];

/// Listed as absent though the capture does not have them either, and who has them.
const ABSENT_BEYOND_THE_CAPTURE: &[(&str, &str)] = &[("container_health_state", "kubelet 1.36, cAdvisor 0.54")];

fn capture() -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/fixtures/kubelet-1.35-cadvisor.txt.gz");
    let mut text = String::new();
    let file = BufReader::new(File::open(path).expect("the fixture is there"));
    GzDecoder::new(file).read_to_string(&mut text).expect("inflate the fixture");
    text
}

fn page() -> Page {
    Page::parse(&capture()).unwrap_or_else(|fault| panic!("the capture: {fault}"))
}

/// The tables by family name.
fn tables() -> BTreeMap<&'static str, (&'static Meta, Carries)> {
    families().into_iter().map(|(meta, carries)| (meta.name, (meta, carries))).collect()
}

/// The names of the labels of every sample of a table's family.
fn our_labels(meta: &Meta, carries: Carries) -> BTreeSet<String> {
    let identity: &[&str] = match carries {
        Carries::Identity => &Labels::NAMES,
        Carries::Nothing => &[],
    };
    meta.labels.iter().chain(identity).map(|name| (*name).to_owned()).collect()
}

fn is_the_kubelets(name: &str) -> bool {
    ["container_", "machine_", "cadvisor_"].iter().any(|prefix| name.starts_with(prefix))
}

fn type_of(kind: OurKind) -> Kind {
    match kind {
        OurKind::Counter => Kind::Counter,
        OurKind::Gauge => Kind::Gauge,
        OurKind::Untyped => Kind::Untyped,
    }
}

/// Every set of label names that samples of the family have.
fn label_sets(family: &Family) -> BTreeSet<BTreeSet<String>> {
    family.samples.iter().map(|sample| sample.labels.keys().cloned().collect()).collect()
}

#[test]
fn the_capture_is_what_it_is_said_to_be() {
    let page = page();
    assert_eq!(page.families.len(), 78);
    assert_eq!(page.samples().count(), 4621);
    assert!(page.families.iter().all(|family| is_the_kubelets(&family.name)));
}

#[test]
fn every_family_of_the_kubelet_is_served_alike_or_absent_with_a_reason() {
    let tables = tables();
    let mut faults = Vec::new();
    for family in &page().families {
        let name = family.name.as_str();
        let absent = ABSENT.iter().any(|absent| absent.name == name);
        let Some((meta, carries)) = tables.get(name) else {
            if !absent {
                faults.push(format!("{name} is neither served nor listed as absent"));
            }
            continue;
        };
        if absent {
            faults.push(format!("{name} is both served and listed as absent"));
        }
        if family.kind != Some(type_of(meta.kind)) {
            faults.push(format!("{name} is a {:?} there and a {} here", family.kind, meta.kind.as_str()));
        }
        let ours = our_labels(meta, *carries);
        let theirs = label_sets(family);
        if theirs != BTreeSet::from([ours.clone()]) {
            faults.push(format!("{name} has the labels {theirs:?} there and {ours:?} here"));
        }
    }
    assert!(faults.is_empty(), "{}", faults.join("\n"));
}

#[test]
fn every_family_beyond_the_capture_has_an_origin() {
    let page = page();
    let beyond: BTreeSet<&str> =
        tables().into_keys().filter(|name| is_the_kubelets(name) && page.family(name).is_none()).collect();
    let known: BTreeSet<&str> = BEYOND_THE_CAPTURE.iter().map(|(name, _)| *name).collect();
    assert_eq!(beyond, known);

    let absent: BTreeSet<&str> =
        ABSENT.iter().map(|absent| absent.name).filter(|name| page.family(name).is_none()).collect();
    let known: BTreeSet<&str> = ABSENT_BEYOND_THE_CAPTURE.iter().map(|(name, _)| *name).collect();
    assert_eq!(absent, known);
}

/// The texts of all values of the capture, each once.
fn value_texts(capture: &str) -> BTreeSet<&str> {
    let samples = capture.lines().filter(|line| !line.starts_with('#'));
    // No value and no timestamp holds a brace, so what follows the last one is both.
    let after_labels = samples.map(|line| line.rsplit_once('}').or(line.split_once(' ')).expect("a value follows").1);
    after_labels.map(|rest| rest.split_whitespace().next().expect("a value")).collect()
}

#[test]
fn numbers_have_the_form_that_the_kubelet_gives_them() {
    let capture = capture();
    let texts = value_texts(&capture);
    assert_eq!(texts.len(), 748, "distinct values");
    let mut whole = 0;
    for text in texts {
        let value: f64 = text.parse().expect("a number");
        let mut written = Vec::new();
        number::write_float(value, &mut written);
        assert_eq!(String::from_utf8(written).unwrap(), text);
        // Counts and bytes take another path through the encoder.
        if let Some(count) = whole_number(value) {
            let mut written = Vec::new();
            number::write(Value::Int(count), &mut written);
            assert_eq!(String::from_utf8(written).unwrap(), text, "as a whole number");
            whole += 1;
        }
    }
    assert_eq!(whole, 437, "whole numbers");
}

/// The value as a count, if it is one that no float rounds.
fn whole_number(value: f64) -> Option<u64> {
    let exact = value.fract() == 0.0 && (0.0..9_007_199_254_740_992.0).contains(&value);
    exact.then(|| format!("{value:.0}").parse().expect("digits"))
}
