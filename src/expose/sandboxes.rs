//! `/sandboxes`: every pod sandbox with its containers and how its sources fare.

use std::collections::BTreeMap;
use std::fmt::Write;

use serde::Serialize;

use crate::model::inventory::{Inventory, Runtime, Sandbox};
use crate::model::snapshot::Snapshot;

/// One element of the JSON array.
#[derive(Debug, Serialize)]
pub struct Entry<'a> {
    #[serde(flatten)]
    sandbox: &'a Sandbox,
    /// `up`, `down` or `unknown` per source.
    sources: BTreeMap<&'static str, &'static str>,
    last_error: Option<String>,
}

/// The list, joined with how the last collection fared; filtered by runtime if one is named.
pub fn entries<'a>(inventory: &'a Inventory, last: Option<&Snapshot>, runtime: Option<Runtime>) -> Vec<Entry<'a>> {
    let wanted = inventory.sandboxes.iter().filter(|sandbox| runtime.is_none_or(|runtime| sandbox.runtime == runtime));
    wanted
        .map(|sandbox| {
            let report = last.and_then(|last| last.sandboxes.iter().find(|report| report.sandbox.id == sandbox.id));
            let cgroup = match report.and_then(|report| report.up) {
                Some(true) => "up",
                Some(false) => "down",
                None => "unknown",
            };
            Entry {
                sandbox,
                sources: BTreeMap::from([("cgroup", cgroup)]),
                last_error: report.filter(|report| report.up == Some(false)).map(|report| report.last_error.clone()),
            }
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
            sources.get("cgroup").copied().unwrap_or_default(),
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
