use super::*;
use crate::expose::family::{Kind, Profile};
use crate::model::inventory::{Kind as RowKind, Network, Subject};

fn subject() -> Subject {
    let labels = Labels { container: "app".into(), pod: "we\"b".into(), ..Labels::default() };
    Subject {
        kind: RowKind::Container,
        block: LabelBlock::render(&labels),
        labels,
        cgroup: None,
        in_guest: false,
        sandbox: None,
        container: None,
        spec: None,
        started_at: None,
        created_at: None,
        network: Network::None,
    }
}

fn meta(name: &'static str, labels: &'static [&'static str]) -> Meta {
    Meta { name, kind: Kind::Counter, help: "Help.", labels, stamped: false, profile: Profile::All, source: "" }
}

fn line(labels: &'static [&'static str], values: &[&str]) -> String {
    let mut text = Text::new(Format::Prometheus, 0);
    text.sample(&meta("m", labels), &Sample { subject: Some(&subject()), values, value: Value::Int(1), at: None });
    String::from_utf8(text.finish()).unwrap()
}

#[test]
fn own_labels_are_sorted_in_among_the_six() {
    assert_eq!(line(&[], &[]), "m{container=\"app\",id=\"\",image=\"\",name=\"\",namespace=\"\",pod=\"we\\\"b\"} 1\n");
    assert_eq!(
        line(&["cpu"], &["total"]),
        "m{container=\"app\",cpu=\"total\",id=\"\",image=\"\",name=\"\",namespace=\"\",pod=\"we\\\"b\"} 1\n"
    );
    assert_eq!(
        line(&["device", "major", "minor", "operation"], &["/dev/a", "1", "2", "Read"]),
        "m{container=\"app\",device=\"/dev/a\",id=\"\",image=\"\",major=\"1\",minor=\"2\",name=\"\",namespace=\"\",operation=\"Read\",pod=\"we\\\"b\"} 1\n"
    );
    assert_eq!(
        line(&["failure_type", "scope"], &["pg\\fault", "a\nb"]),
        "m{container=\"app\",failure_type=\"pg\\\\fault\",id=\"\",image=\"\",name=\"\",namespace=\"\",pod=\"we\\\"b\",scope=\"a\\nb\"} 1\n"
    );
    assert_eq!(
        line(&["a", "b"], &["1", "2"]),
        "m{a=\"1\",b=\"2\",container=\"app\",id=\"\",image=\"\",name=\"\",namespace=\"\",pod=\"we\\\"b\"} 1\n"
    );
}

#[test]
fn a_timestamp_is_in_the_unit_of_the_format() {
    let line = |format, at| {
        let mut text = Text::new(format, 0);
        let sample = Sample { subject: None, values: &["a"], value: Value::Int(2), at: Some(at) };
        text.sample(&meta("m", &["cpu"]), &sample);
        String::from_utf8(text.finish()).unwrap()
    };
    for (at, millis, seconds) in [
        (Seconds::from_millis(1_633_253_812_125), "1633253812125", "1633253812.125"),
        (Seconds::from_nanos(1_633_253_812_007_999_999), "1633253812007", "1633253812.007"),
        (Seconds::from_secs(1_633_253_812), "1633253812000", "1633253812.000"),
    ] {
        assert_eq!(line(Format::Prometheus, at), format!("m{{cpu=\"a\"}} 2 {millis}\n"));
        assert_eq!(line(Format::OpenMetrics, at), format!("m{{cpu=\"a\"}} 2 {seconds}\n# EOF\n"));
    }
}

#[test]
fn compressed_it_is_the_same_text() {
    use std::io::Read;
    for lines in [0, 1, 2000] {
        let write = |mut text: Text| {
            text.begin(&meta("m", &["cpu"]));
            for line in 0..lines {
                let (subject, value) = (&subject(), Value::Int(line));
                let sample = Sample { subject: Some(subject), values: &["total"], value, at: None };
                text.sample(&meta("m", &["cpu"]), &sample);
            }
            text.finish()
        };
        let plain = write(Text::new(Format::OpenMetrics, 0));
        let packed = write(Text::compressed(Format::OpenMetrics));
        let mut unpacked = Vec::new();
        flate2::read::GzDecoder::new(packed.as_slice()).read_to_end(&mut unpacked).unwrap();
        assert!(unpacked == plain, "{lines} lines");
        assert!(lines < 2000 || (plain.len() > 2 * PIECE && packed.len() < plain.len() / 5));
    }
}

#[test]
fn open_metrics_headers_follow_its_rules() {
    let header = |name, kind| {
        let mut text = Text::new(Format::OpenMetrics, 0);
        text.begin(&Meta { kind, ..meta(name, &[]) });
        String::from_utf8(text.finish()).unwrap()
    };
    assert_eq!(
        header("cpu_seconds_total", Kind::Counter),
        "# TYPE cpu_seconds counter\n# UNIT cpu_seconds seconds\n# HELP cpu_seconds Help.\n# EOF\n"
    );
    assert_eq!(
        header("container_memory_failcnt", Kind::Counter),
        "# TYPE container_memory_failcnt unknown\n# HELP container_memory_failcnt Help.\n# EOF\n"
    );
    assert_eq!(
        header("container_fs_inodes_total", Kind::Gauge),
        "# TYPE container_fs_inodes_total gauge\n# HELP container_fs_inodes_total Help.\n# EOF\n"
    );
}
