//! The shims' own metrics as text: kata-monitor's four labels behind the shim's own, families of all sandboxes merged.

use std::collections::BTreeMap;

use crate::expose::text::Text;
use crate::model::identity::{bounded, escape_label_value};
use crate::model::inventory::Sandbox;
use crate::model::passthrough::{PassedFamily, PassedKind, Passthrough};

/// Writes the families whose names begin with one of the prefixes; all of them without any.
pub fn write(passed: &Passthrough, prefixes: &[String], text: &mut Text) {
    let mut families: BTreeMap<&str, Vec<(usize, &PassedFamily)>> = BTreeMap::new();
    for (at, sandbox) in passed.sandboxes.iter().enumerate() {
        for (name, family) in &sandbox.families {
            if prefixes.is_empty() || prefixes.iter().any(|prefix| name.starts_with(prefix)) {
                families.entry(name).or_default().push((at, family));
            }
        }
    }
    let identities: Vec<String> = passed.sandboxes.iter().map(|passed| identity(&passed.sandbox)).collect();
    for (name, members) in &families {
        let Some((_, PassedFamily { kind, help, .. })) = members.first() else { continue };
        // To OpenMetrics a counter `x_total` is a family `x`, which may be there in its own right.
        let clashes = name.strip_suffix("_total").is_some_and(|stem| families.contains_key(stem));
        text.passed_header(name, word(*kind), help, clashes);
        for (at, family) in members {
            for sample in &family.samples {
                text.passed_sample(name, *kind, sample, &identities[*at]);
            }
        }
    }
}

const fn word(kind: PassedKind) -> &'static str {
    match kind {
        PassedKind::Counter => "counter",
        PassedKind::Gauge => "gauge",
        PassedKind::Histogram => "histogram",
        PassedKind::Summary => "summary",
        PassedKind::Untyped => "untyped",
    }
}

/// kata-monitor's labels, in its order.
fn identity(sandbox: &Sandbox) -> String {
    let mut labels = String::new();
    let values = [
        ("sandbox_id", sandbox.id.as_str()),
        ("cri_uid", sandbox.uid.as_str()),
        ("cri_name", &sandbox.pod_name),
        ("cri_namespace", &sandbox.namespace),
    ];
    for (name, value) in values {
        if !labels.is_empty() {
            labels.push(',');
        }
        labels.push_str(name);
        labels.push_str("=\"");
        escape_label_value(bounded(value), &mut labels);
        labels.push('"');
    }
    labels
}
