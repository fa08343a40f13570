//! Which entries a list request asks for. An absent filter, like an empty field of one, asks for all.

use std::collections::HashMap;

use k8s_cri::v1;

/// containerd takes a part of an id where it means only one: `0f7e4e92315c` for the full 64 digits.
pub(super) fn is_id(full: &str, asked: &str) -> bool {
    !asked.is_empty() && full.starts_with(asked)
}

pub(super) fn sandbox(filter: Option<&v1::PodSandboxFilter>, sandbox: &v1::PodSandbox) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &sandbox.id)
            && filter.state.is_none_or(|wanted| wanted.state == sandbox.state)
            && labels_match(&filter.label_selector, &sandbox.labels)
    })
}

pub(super) fn container(filter: Option<&v1::ContainerFilter>, container: &v1::Container) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &container.id)
            && id_matches(&filter.pod_sandbox_id, &container.pod_sandbox_id)
            && filter.state.is_none_or(|wanted| wanted.state == container.state)
            && labels_match(&filter.label_selector, &container.labels)
    })
}

pub(super) fn container_stats(filter: Option<&v1::ContainerStatsFilter>, container: &v1::Container) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &container.id)
            && id_matches(&filter.pod_sandbox_id, &container.pod_sandbox_id)
            && labels_match(&filter.label_selector, &container.labels)
    })
}

pub(super) fn sandbox_stats(filter: Option<&v1::PodSandboxStatsFilter>, sandbox: &v1::PodSandbox) -> bool {
    filter.is_none_or(|filter| {
        id_matches(&filter.id, &sandbox.id) && labels_match(&filter.label_selector, &sandbox.labels)
    })
}

fn id_matches(asked: &str, full: &str) -> bool {
    asked.is_empty() || is_id(full, asked)
}

fn labels_match(selector: &HashMap<String, String>, labels: &HashMap<String, String>) -> bool {
    selector.iter().all(|(key, value)| labels.get(key) == Some(value))
}
