//! From facts to the page a scraper would get, and the page held against the format.

use std::collections::BTreeMap;
use std::sync::Arc;

use kata_pulse::expose::family::Profile;
use kata_pulse::expose::text::{Format, Text};
use kata_pulse::expose::walk::{View, walk};
use kata_pulse::model::guest::Hypervisor;
use kata_pulse::model::identity::{LabelBlock, Labels, SandboxId};
use kata_pulse::model::inventory::{Kind, Network, Runtime, Sandbox, SandboxState, Subject};
use kata_pulse::model::snapshot::{KataReport, Row, SandboxReport, Snapshot};
use kata_pulse::model::usage::Usage;

use crate::exposition::Page;

/// The id of the sandbox that facts are hung on.
pub const SANDBOX: &str = "5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a5a";

/// The page of a snapshot, in Prometheus text.
///
/// # Panics
/// When it is not what the format asks, in either format.
pub fn of(snapshot: &Snapshot) -> Page {
    of_text(|format| {
        let mut text = Text::new(format, 0);
        walk(snapshot, &View::All, Profile::All, &mut text);
        text
    })
}

/// The same of whatever else writes text.
pub fn of_text(write: impl Fn(Format) -> Text) -> Page {
    has_no_clash(&String::from_utf8(write(Format::OpenMetrics).finish()).expect("UTF-8"));
    let body = String::from_utf8(write(Format::Prometheus).finish()).expect("UTF-8");
    let page = Page::parse(&body).unwrap_or_else(|fault| panic!("{fault}\n{body}"));
    for family in &page.families {
        assert!(family.kind.is_some() && family.help.is_some(), "{} has neither HELP nor TYPE", family.name);
        assert!(!family.samples.is_empty(), "{} has no samples", family.name);
    }
    let odd = page.samples().find(|sample| !sample.value.is_finite() || sample.timestamp.is_some());
    assert!(odd.is_none(), "{odd:?}");
    page
}

/// The page of what one container uses.
pub fn of_usage(usage: Usage) -> Page {
    of(&Snapshot { rows: vec![Row { subject: Arc::new(subject(Labels::default())), usage }], ..Snapshot::default() })
}

/// The page of what was learnt of one Kata sandbox.
pub fn of_kata(report: KataReport) -> Page {
    let kata = Some(Box::new(KataReport { hypervisor: Some(Hypervisor::CloudHypervisor), ..report }));
    let report = SandboxReport { sandbox: Arc::new(sandbox(SANDBOX)), up: Some(true), last_error: String::new(), kata };
    of(&Snapshot { sandboxes: vec![report], ..Snapshot::default() })
}

/// A container's row.
pub fn subject(labels: Labels) -> Subject {
    Subject {
        kind: Kind::Container,
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

/// A Kata sandbox.
pub fn sandbox(id: &str) -> Sandbox {
    Sandbox {
        id: SandboxId::from(id),
        pod_name: "web".to_owned(),
        namespace: "shop".to_owned(),
        uid: "11111111-2222-4333-8444-555555555555".into(),
        runtime: Runtime::Kata,
        runtime_handler: "kata".to_owned(),
        kata: None,
        state: SandboxState::Ready,
        created_at: None,
        host_network: false,
        containers: Vec::new(),
    }
}

/// In OpenMetrics a family's type reserves names beside its own. No other family may have one of them, the text ends
/// with its mark, and metadata comes once.
fn has_no_clash(body: &str) {
    assert!(body.ends_with("# EOF\n"), "the text does not end as it should");
    let mut kinds: BTreeMap<&str, &str> = BTreeMap::new();
    for line in body.lines() {
        let Some((name, kind)) = line.strip_prefix("# TYPE ").and_then(|rest| rest.split_once(' ')) else { continue };
        assert!(kinds.insert(name, kind).is_none(), "second TYPE of {name}");
    }
    for (name, kind) in &kinds {
        let reserved: &[&str] = match *kind {
            "counter" => &["_total", "_created"],
            "histogram" => &["_bucket", "_sum", "_count", "_created"],
            "summary" => &["_sum", "_count", "_created"],
            "gauge" | "unknown" => &[],
            other => panic!("{name} is of type {other}"),
        };
        for suffix in reserved {
            let taken = format!("{name}{suffix}");
            assert!(!kinds.contains_key(&*taken), "{taken} belongs to the {kind} {name}");
        }
    }
}
