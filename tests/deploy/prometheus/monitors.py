"""PodMonitors into scrape configurations, the way prometheus-operator does it.

The order is the operator's: its own labels first, then `relabelings`, so that a monitor can change what the operator
sets. Instead of the pods of a cluster there is one static target, with the labels that discovery would have found.
"""

import re
from typing import Any

_FIELDS = {
    "sourceLabels": "source_labels",
    "targetLabel": "target_label",
    "regex": "regex",
    "replacement": "replacement",
    "separator": "separator",
    "action": "action",
    "modulus": "modulus",
}
# Endpoint fields that the translation below takes, and those that make no difference to a static plain-HTTP target.
_TAKEN = {"port", "path", "honorLabels", "honorTimestamps", "params", "relabelings", "metricRelabelings", "scheme"}
_WITHOUT_EFFECT = {
    "interval",
    "scrapeTimeout",
    "trackTimestampsStaleness",
    "filterRunning",
    "enableHttp2",
    "followRedirects",
}


def sanitized(label: str) -> str:
    return re.sub(r"[^a-zA-Z0-9_]", "_", label)


def relabel_config(rule: dict[str, Any]) -> dict[str, Any]:
    """One rule in Prometheus' spelling. A field that the operator does not know is refused."""
    unknown = set(rule) - set(_FIELDS)
    assert not unknown, f"a relabeling has no {unknown}"
    return {_FIELDS[key]: value.lower() if key == "action" else value for key, value in rule.items()}


def scrape_configs(
    monitor: dict[str, Any], target: str, pod: dict[str, Any], override_honor_labels: bool = False
) -> list[dict[str, Any]]:
    """A job for each endpoint of `monitor`, scraping `target` as if it were `pod` (a pod template with a name)."""
    assert monitor["kind"] == "PodMonitor", monitor["kind"]
    metadata, spec = monitor["metadata"], monitor["spec"]
    looked_in = spec.get("namespaceSelector", {}).get("matchNames", [metadata["namespace"]])
    assert pod["namespace"] in looked_in, f"the monitor looks in {looked_in}"
    discovered = {
        "__meta_kubernetes_namespace": pod["namespace"],
        "__meta_kubernetes_pod_name": pod["name"],
        "__meta_kubernetes_pod_node_name": pod["node"],
        "__meta_kubernetes_pod_phase": "Running",
        "__meta_kubernetes_pod_container_name": pod["container"],
        "__meta_kubernetes_pod_container_port_name": pod["port"],
    }
    for label, value in pod["labels"].items():
        discovered[f"__meta_kubernetes_pod_label_{sanitized(label)}"] = value
        discovered[f"__meta_kubernetes_pod_labelpresent_{sanitized(label)}"] = "true"
    configs = []
    for number, endpoint in enumerate(spec["podMetricsEndpoints"]):
        unknown = set(endpoint) - _TAKEN - _WITHOUT_EFFECT
        assert not unknown, f"the translation does not know {unknown} of an endpoint"
        assert endpoint.get("scheme", "http").lower() == "http", "the node serves plain HTTP"
        name = f"{metadata['namespace']}/{metadata['name']}"
        config: dict[str, Any] = {
            "job_name": f"podMonitor/{name}/{number}",
            "honor_labels": bool(endpoint.get("honorLabels", False)) and not override_honor_labels,
            "static_configs": [{"targets": [target], "labels": discovered}],
            "metrics_path": endpoint.get("path") or "/metrics",
            "relabel_configs": _target_rules(spec, endpoint, name),
        }
        if "honorTimestamps" in endpoint:
            config["honor_timestamps"] = endpoint["honorTimestamps"]
        if "params" in endpoint:
            config["params"] = endpoint["params"]
        if endpoint.get("metricRelabelings"):
            config["metric_relabel_configs"] = [relabel_config(rule) for rule in endpoint["metricRelabelings"]]
        configs.append(config)
    return configs


def _target_rules(spec: dict[str, Any], endpoint: dict[str, Any], name: str) -> list[dict[str, Any]]:
    rules: list[dict[str, Any]] = [
        {"source_labels": ["job"], "target_label": "__tmp_prometheus_job_name"},
        {"source_labels": ["__meta_kubernetes_pod_phase"], "regex": "(Failed|Succeeded)", "action": "drop"},
    ]
    selector = spec["selector"]
    assert set(selector) <= {"matchLabels"}, selector
    for label, value in sorted(selector.get("matchLabels", {}).items()):
        both = [
            f"__meta_kubernetes_pod_label_{sanitized(label)}",
            f"__meta_kubernetes_pod_labelpresent_{sanitized(label)}",
        ]
        rules.append({"source_labels": both, "regex": f"({value});true", "action": "keep"})
    port = endpoint["port"]
    rules.append({"source_labels": ["__meta_kubernetes_pod_container_port_name"], "regex": port, "action": "keep"})
    for source, label in (("namespace", "namespace"), ("pod_container_name", "container"), ("pod_name", "pod")):
        rules.append({"source_labels": [f"__meta_kubernetes_{source}"], "target_label": label})
    labels = [(label, label) for label in spec.get("podTargetLabels", [])]
    for source, label in labels:
        rules.append(_copied(source, sanitized(label)))
    rules.append({"target_label": "job", "replacement": name})
    if spec.get("jobLabel"):
        rules.append(_copied(spec["jobLabel"], "job"))
    rules.append({"target_label": "endpoint", "replacement": port})
    rules.extend(relabel_config(rule) for rule in endpoint.get("relabelings", []))
    return rules


def _copied(pod_label: str, target: str) -> dict[str, Any]:
    source = f"__meta_kubernetes_pod_label_{sanitized(pod_label)}"
    return {"source_labels": [source], "target_label": target, "regex": "(.+)", "replacement": "${1}"}
