//! Pages that keep cAdvisor's rules: which labels a sample has, and which rows there are.

use std::collections::BTreeSet;

use super::agent::Agent;
use super::exposition::Page;

/// The label sets of cAdvisor: these on every row, and what tells samples of one row apart.
const IDENTITY: [&str; 6] = ["container", "id", "image", "name", "namespace", "pod"];
const DETAILS: [&str; 9] =
    ["cpu", "device", "failure_type", "interface", "major", "minor", "operation", "scope", "ulimit"];

/// A page of everything, which in any state of the node keeps the rules of the format and of cAdvisor's labels.
#[track_caller]
pub fn scrape(agent: &Agent) -> Page {
    let page = agent.page("/metrics");
    for sample in page.samples() {
        assert_eq!(sample.timestamp, None, "{sample:?}");
        if sample.name.starts_with("container_") && sample.name != "container_scrape_error" {
            let missing = IDENTITY.iter().find(|name| sample.label(name).is_none());
            assert!(missing.is_none(), "{sample:?} lacks a label");
            let foreign = sample
                .labels
                .keys()
                .find(|name| !IDENTITY.contains(&name.as_str()) && !DETAILS.contains(&name.as_str()));
            assert!(foreign.is_none(), "{sample:?} has a label that cAdvisor's has not");
        }
    }
    for family in page.families.iter().filter(|family| !family.samples.is_empty()) {
        assert!(family.kind.is_some() && family.help.is_some(), "{} has no TYPE or HELP", family.name);
    }
    page
}

/// The `id` labels below `root` that a family has rows for.
pub fn ids(page: &Page, family: &str, root: &str) -> BTreeSet<String> {
    let ids = page.matching(family, &[]).into_iter().filter_map(|sample| sample.label("id"));
    ids.filter(|id| id.starts_with(&format!("{root}/"))).map(str::to_owned).collect()
}
