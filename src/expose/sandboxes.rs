//! `/sandboxes`: every pod sandbox with its containers and how its sources fare.

use std::collections::{BTreeMap, HashMap};
use std::fmt::Write;
use std::sync::Arc;

use serde::Serialize;

use crate::model::identity::SandboxId;
use crate::model::inventory::{Inventory, Runtime, Sandbox};
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

/// The sandboxes there are and how their reading went, of one runtime if it is named. One that came after the snapshot was
/// taken has been read by nobody yet.
pub fn entries<'a>(snapshot: &'a Snapshot, inventory: &'a Inventory, runtime: Option<Runtime>) -> Vec<Entry<'a>> {
    let reports: HashMap<&SandboxId, &SandboxReport> =
        snapshot.sandboxes.iter().map(|report| (&report.sandbox.id, report)).collect();
    let wanted = |sandbox: &&Arc<Sandbox>| runtime.is_none_or(|runtime| sandbox.runtime == runtime);
    let sandboxes = inventory.sandboxes.iter().filter(wanted);
    sandboxes.map(|sandbox| Entry::of(sandbox, reports.get(&sandbox.id).copied())).collect()
}

impl<'a> Entry<'a> {
    fn of(sandbox: &'a Sandbox, report: Option<&'a SandboxReport>) -> Self {
        let (sources, values_from) = match report.map(|report| (&report.kata, report.up)) {
            Some((Some(kata), _)) => {
                let sources = kata.sources.iter().map(|(name, state)| (*name, state.describe())).collect();
                (sources, kata.values_from.clone())
            }
            Some((None, Some(true))) => {
                (BTreeMap::from([("cgroup", "up".to_owned())]), BTreeMap::from([("containers", "cgroup")]))
            }
            Some((None, Some(false))) => (BTreeMap::from([("cgroup", "failed".to_owned())]), BTreeMap::new()),
            Some((None, None)) | None => Default::default(),
        };
        let hypervisor = report.map(SandboxReport::hypervisor).filter(|name| !name.is_empty());
        let last_error = report.map(|report| report.last_error.as_str()).filter(|error| !error.is_empty());
        Self { sandbox, hypervisor, sources, values_from, last_error }
    }
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

#[cfg(test)]
mod tests {
    use super::*;
    use crate::model::identity::PodUid;
    use crate::model::inventory::SandboxState;

    fn sandbox(id: &str, runtime: Runtime) -> Arc<Sandbox> {
        Arc::new(Sandbox {
            id: SandboxId::from(id),
            pod_name: "db".to_owned(),
            namespace: "shop".to_owned(),
            uid: PodUid::from("u"),
            runtime,
            runtime_handler: String::new(),
            kata: None,
            state: SandboxState::Ready,
            created_at: None,
            host_network: false,
            containers: Vec::new(),
        })
    }

    #[test]
    fn what_is_there_now_is_listed_with_what_was_learnt_of_it() {
        let (gone, stayed, came) =
            (sandbox("a", Runtime::Runc), sandbox("b", Runtime::Runc), sandbox("c", Runtime::Kata));
        let report = |sandbox| SandboxReport { sandbox, up: Some(true), last_error: String::new(), kata: None };
        let snapshot = Snapshot { sandboxes: vec![report(gone), report(Arc::clone(&stayed))], ..Snapshot::default() };
        let now = Inventory { sandboxes: vec![stayed, came], ..Inventory::default() };
        let listed = |runtime| serde_json::to_value(entries(&snapshot, &now, runtime)).unwrap();
        let all = listed(None);
        assert_eq!(all.as_array().map(Vec::len), Some(2));
        assert_eq!((&all[0]["sandbox_id"], &all[0]["sources"]["cgroup"]), (&"b".into(), &"up".into()));
        assert_eq!((&all[1]["sandbox_id"], &all[1]["sources"]), (&"c".into(), &serde_json::json!({})));
        assert_eq!(listed(Some(Runtime::Kata))[0]["sandbox_id"], "c");
    }
}
