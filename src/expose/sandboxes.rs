//! `/sandboxes`: every pod sandbox with its containers and how its sources fare.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::model::inventory::{Runtime, Sandbox};
use crate::model::snapshot::{SandboxReport, Snapshot};

/// One element of the JSON array.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    #[serde(flatten)]
    sandbox: &'a Sandbox,
    hypervisor: Option<&'static str>,
    /// What came of each source.
    sources: BTreeMap<&'static str, String>,
    /// Which source the values came from.
    values_from: BTreeMap<&'static str, &'static str>,
    last_error: Option<&'a str>,
}

/// The sandboxes and how their reading went, of one runtime if it is named.
pub fn entries(snapshot: &Snapshot, runtime: Option<Runtime>) -> Vec<Entry<'_>> {
    let wanted = |report: &&SandboxReport| runtime.is_none_or(|runtime| report.sandbox.runtime == runtime);
    let reports = snapshot.sandboxes.iter().filter(wanted);
    reports
        .map(|report| {
            let SandboxReport { sandbox, up, last_error, kata } = report;
            let sources = match (kata, up) {
                (Some(kata), _) => kata.sources.iter().map(|(name, state)| (*name, state.describe())).collect(),
                (None, Some(true)) => BTreeMap::from([("cgroup", "up".to_owned())]),
                (None, Some(false)) => BTreeMap::from([("cgroup", "failed".to_owned())]),
                (None, None) => BTreeMap::new(),
            };
            let values_from = match (kata, up) {
                (Some(kata), _) => kata.values_from.clone(),
                (None, Some(true)) => BTreeMap::from([("containers", "cgroup")]),
                (None, _) => BTreeMap::new(),
            };
            let hypervisor = Some(report.hypervisor()).filter(|name| !name.is_empty());
            let last_error = (!last_error.is_empty()).then_some(last_error.as_str());
            Entry { sandbox, hypervisor, sources, values_from, last_error }
        })
        .collect()
}

/// One id per line.
pub fn plain(entries: &[Entry<'_>]) -> String {
    entries.iter().fold(String::new(), |mut text, entry| {
        let _ = writeln!(text, "{}", entry.sandbox.id);
        text
    })
}

/// A table for browsers.
pub fn html(entries: &[Entry<'_>]) -> String {
    let mut page = String::from(
        "<!doctype html><html lang=\"en\"><head><meta charset=\"utf-8\"><title>kata-pulse sandboxes</title><style>\
         body{font-family:sans-serif;margin:2em}td,th{text-align:left;padding:.2em 1em .2em 0;border-bottom:1px solid #ddd}\
         code{font-size:90%}</style></head><body><h1>Sandboxes</h1><table><tr><th>Namespace</th><th>Pod</th>\
         <th>Runtime</th><th>State</th><th>Containers</th><th>Sandbox</th></tr>",
    );
    for Entry { sandbox, sources, .. } in entries {
        let containers: Vec<String> = sandbox.containers.iter().map(|container| escape(&container.name)).collect();
        let id = escape(sandbox.id.as_str());
        let _ = write!(
            page,
            "<tr><td>{}</td><td>{}</td><td>{}</td><td>{:?}, {}</td><td>{}</td>\
             <td><a href=\"/metrics?sandbox={id}\"><code>{id}</code></a></td></tr>",
            escape(&sandbox.namespace),
            escape(&sandbox.pod_name),
            sandbox.runtime.as_str(),
            sandbox.state,
            sources.iter().map(|(name, state)| format!("{name} {}", escape(state))).collect::<Vec<_>>().join(", "),
            containers.join(", "),
        );
    }
    page.push_str("</table></body></html>\n");
    page
}

/// Text as HTML text or attribute value.
pub fn escape(text: &str) -> String {
    text.chars().fold(String::with_capacity(text.len()), |mut out, character| {
        match character {
            '&' => out.push_str("&amp;"),
            '<' => out.push_str("&lt;"),
            '>' => out.push_str("&gt;"),
            '"' => out.push_str("&quot;"),
            '\'' => out.push_str("&#39;"),
            other => out.push(other),
        }
        out
    })
}
