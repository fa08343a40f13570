//! Captured texts as they are passed on, cut at every place; hostile texts.

use proptest::prelude::*;

use super::*;
use crate::collect::kata::fixtures::unpacked;

fn go() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/shim-metrics-go-clh.txt.gz"))
}

fn dragonball() -> Vec<u8> {
    unpacked(include_bytes!("../../../../tests/fixtures/kata/shim-metrics-dragonball.txt.gz"))
}

fn read(runtime: KataRuntime, text: &[u8]) -> (BTreeMap<Box<str>, PassedFamily>, u64) {
    let mut reading = Reading::new(runtime);
    reading.feed(text);
    reading.finish()
}

fn value(families: &BTreeMap<Box<str>, PassedFamily>, family: &str, labels: &str) -> Option<f64> {
    let found = families.get(family)?.samples.iter().find(|sample| &*sample.labels == labels);
    found.map(|sample| sample.value)
}

#[test]
fn a_go_shims_text_is_passed_on_with_true_types() {
    let (families, dropped) = read(KataRuntime::Go, &go());
    assert_eq!(dropped, 0);
    let kind = |name: &str| families.get(name).map(|family| family.kind);
    assert_eq!(kind("kata_guest_cpu_time"), Some(PassedKind::Counter));
    assert_eq!(kind("kata_shim_proc_status"), Some(PassedKind::Untyped));
    assert_eq!(kind("kata_guest_meminfo"), Some(PassedKind::Gauge));
    assert_eq!(kind("kata_shim_process_cpu_seconds_total"), Some(PassedKind::Counter));
    assert_eq!(kind("kata_shim_pod_overhead_memory_in_bytes"), None);
    assert!(families.keys().all(|name| name.starts_with("kata_")));
    let histogram = &families["kata_shim_agent_rpc_durations_histogram_milliseconds"];
    let first: Vec<_> = histogram.samples.iter().take(13).map(|one| (one.suffix, one.bound, one.value)).collect();
    // 10 buckets, +Inf, sum and count of grpc.GetMetricsRequest, as they stand in the text.
    assert_eq!(first[0], ("_bucket", Some(1.0), 0.0));
    assert_eq!(first[10], ("_bucket", Some(f64::INFINITY), 41.0));
    assert_eq!(first[11..], [("_sum", None, 141.0), ("_count", None, 41.0)]);
    let pauses = &families["kata_shim_go_gc_duration_seconds"];
    assert_eq!(pauses.samples.len(), 5 + 2);
    assert_eq!((pauses.samples[1].bound, pauses.samples[1].value), (Some(0.25), 5.8801e-05));
}

#[test]
fn both_runtimes_speak_in_bytes_and_one_spelling() {
    let text = b"kata_shim_proc_status{item=\"vmrss\"} 1000\n\
        kata_shim_proc_status{item=\"voluntary_ctxt_switches\"} 7\n\
        kata_shim_io_stat{item=\"read_bytes\"} 512\n\
        kata_agent_proc_status{item=\"vmrss\"} 9\n";
    let (families, dropped) = read(KataRuntime::Rs, text);
    assert_eq!(dropped, 0);
    assert_eq!(value(&families, "kata_shim_proc_status", "item=\"vmrss\""), Some(1_024_000.0));
    assert_eq!(value(&families, "kata_shim_proc_status", "item=\"voluntary_ctxt_switches\""), Some(7.0));
    assert_eq!(value(&families, "kata_shim_io_stat", "item=\"readbytes\""), Some(512.0));
    assert_eq!(value(&families, "kata_agent_proc_status", "item=\"vmrss\""), Some(9.0));
    let (families, _) = read(KataRuntime::Rs, &dragonball());
    assert_eq!(families["kata_hypervisor_vcpu"].kind, PassedKind::Counter);
}

#[test]
fn every_split_gives_the_same() {
    let text = go();
    let whole = read(KataRuntime::Go, &text);
    for size in [1, 2, 3, 7, 64, 1000, 4096] {
        let mut reading = Reading::new(KataRuntime::Go);
        for piece in text.chunks(size) {
            reading.feed(piece);
        }
        assert_eq!(reading.finish(), whole, "pieces of {size}");
    }
}

#[test]
fn what_would_forge_break_or_flood_is_left_out_and_counted() {
    for (line, why) in [
        ("kata_guest_load{item=\"a\",sandbox_id=\"x\"} 1", "another's identity"),
        ("kata_guest_load{cri_name=\"x\"} 1", "another's identity"),
        ("kata_guest_load{__name__=\"up\"} 1", "a reserved label"),
        ("kata_guest_load{le=\"1\"} 1", "a bucket where there are none"),
        ("kata_guest_load{item=\"a\",item=\"b\"} 1", "a label twice"),
        ("kata_guest_load{9=\"a\"} 1", "no label's name"),
        ("kata_guest_cpu_time{item=\"a\"} -1", "a counter below zero"),
        ("kata_guest_cpu_time{item=\"a\"} NaN", "no number"),
        ("kata_guest_load{item=\"a\"} +Inf", "no number"),
        ("kata_guest_load{item=\"a\"} x", "no number"),
        ("kata_agent_threads 0", "before 3.3.0"),
        ("kata_guest_load{item=\"a\"", "broken off"),
    ] {
        let (families, dropped) = read(KataRuntime::Rs, format!("{line}\n").as_bytes());
        assert!(families.is_empty(), "{line}: {why}");
        assert_eq!(dropped, 1, "{line}: {why}");
    }
    let (families, dropped) = read(KataRuntime::Rs, b"kata_guest_load{item=\"a\"} 1\nkata_guest_load{item=\"a\"} 2\n");
    assert_eq!((value(&families, "kata_guest_load", "item=\"a\""), dropped), (Some(1.0), 1), "the first of two");
    // Lines of strangers are no fault.
    let (families, dropped) = read(KataRuntime::Rs, b"up 1\ncontainer_cpu_usage_seconds_total 5\nkata_pulse_x 1\n");
    assert!(families.is_empty());
    assert_eq!(dropped, 0);
    let flood: String = (0..MAX_SAMPLES + 5).map(|at| format!("kata_guest_flood{{item=\"{at}\"}} 1\n")).collect();
    let (families, dropped) = read(KataRuntime::Rs, flood.as_bytes());
    assert_eq!((families["kata_guest_flood"].samples.len(), dropped), (MAX_SAMPLES, 5));
}

#[test]
fn histograms_that_do_not_add_up_are_left_out() {
    let name = "kata_shim_rpc_durations_histogram_milliseconds";
    let text = |buckets: &[(&str, u64)], count: u64| {
        let lines: String =
            buckets.iter().map(|(le, value)| format!("{name}_bucket{{action=\"a\",le=\"{le}\"}} {value}\n")).collect();
        format!("{lines}{name}_sum{{action=\"a\"}} 9\n{name}_count{{action=\"a\"}} {count}\n")
    };
    let passed = |text: String| !read(KataRuntime::Go, text.as_bytes()).0.is_empty();
    assert!(passed(text(&[("1", 1), ("2", 3), ("+Inf", 4)], 4)));
    assert!(passed(text(&[("2", 3), ("+Inf", 4), ("1", 1)], 4)), "in any order");
    assert!(!passed(text(&[("1", 3), ("2", 1), ("+Inf", 4)], 4)), "falling");
    assert!(!passed(text(&[("1", 1), ("2", 3)], 3)), "no last bucket");
    assert!(!passed(text(&[("1", 1), ("+Inf", 3)], 4)), "count at odds");
    assert!(!passed(text(&[("1", 1), ("1", 1), ("+Inf", 3)], 3)), "a bucket twice");
    assert!(!passed(text(&[("NaN", 1), ("+Inf", 3)], 3)[..60].to_owned() + "\n"));
}

proptest! {
    #[test]
    fn any_text_is_read(text in "(kata_[a-z_]{0,12}(\\{[a-z_\"=,\\\\]{0,30}\\})? ?[0-9.eInfNa+-]{0,6}\n?|.){0,30}") {
        let (families, _) = read(KataRuntime::Rs, text.as_bytes());
        for family in families.values() {
            for sample in &family.samples {
                prop_assert!(sample.value.is_finite());
                prop_assert!(!sample.labels.contains('\n'));
            }
        }
    }
}
