"""Clusters to scrape: each is a set of jobs whose samples carry its name as `cluster`.

One Prometheus scrapes them all, because every rule and dashboard keeps clusters apart by that label. A recipe is one
cluster; the same recipe without one of its rules is another, in which the count has to be wrong.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from typing import Any

import yaml

import chart
import documented
import monitors
from kubelets import NODE_NAME, CapturedKubelet, DemoKubelet, Pages
from node import Node

Job = dict[str, Any]
Rule = dict[str, Any]

# What kube-prometheus' ServiceMonitor of the kubelet drops at the cAdvisor endpoint.
_SERIES_OF_NO_POD = "container_(spec_.*|file_descriptors|sockets|threads_max|threads|start_time_seconds|last_seen);;"
KUBE_PROMETHEUS_DROPS: list[Rule] = [
    {
        "source_labels": ["__name__"],
        "regex": "container_(network_tcp_usage_total|network_udp_usage_total|tasks_state|cpu_load_average_10s)",
        "action": "drop",
    },
    {"source_labels": ["__name__", "pod", "namespace"], "regex": _SERIES_OF_NO_POD, "action": "drop"},
    {
        "source_labels": ["__name__", "container"],
        "regex": "container_blkio_device_usage_total;.+",
        "action": "drop",
    },
]
# A port of this machine on which nobody listens.
NOBODY = "127.0.0.1:1"


def values(name: str, *more: str) -> dict[str, Any]:
    """Values as the page gives them; later ones are laid over earlier ones, as Helm does it."""

    def merged(below: Any, above: Any) -> Any:
        if isinstance(below, dict) and isinstance(above, dict):
            return below | {key: merged(below.get(key), value) for key, value in above.items()}
        return above

    result: Any = {}
    for one in (name, *more):
        result = merged(result, yaml.safe_load(documented.block(one)))
    return result


def kubelet_rules(name: str, endpoint: str) -> list[Rule]:
    monitor = values(name)["kubelet"]["serviceMonitor"]
    return [monitors.relabel_config(rule) for rule in monitor.get(f"{endpoint}MetricRelabelings", [])]


@dataclass
class Site:
    """Everything there is to scrape."""

    node: Node
    kubelet: DemoKubelet
    kubelet_with_runtime_stats: DemoKubelet
    kubelet_with_crio: DemoKubelet
    captured: CapturedKubelet
    cluster_state: Pages

    def agent_with(self, scope: str) -> str:
        return {"kata": self.node.kata_only, "all": self.node.everything}[scope].address


def kubelet_job(address: str, path: str, rules: list[Rule] | None = None, job: str = "kubelet") -> Job:
    """An endpoint of the kubelet's ServiceMonitor."""
    return {
        "job_name": f"kubelet{path}",
        "honor_labels": True,
        "honor_timestamps": False,
        "metrics_path": path,
        "static_configs": [{"targets": [address], "labels": {"namespace": "kube-system", "service": "kubelet"}}],
        "relabel_configs": [
            {"source_labels": ["__metrics_path__"], "target_label": "metrics_path"},
            {"target_label": "job", "replacement": job},
            {"target_label": "endpoint", "replacement": "https-metrics"},
            {"target_label": "node", "replacement": NODE_NAME},
        ],
        "metric_relabel_configs": rules or [],
    }


def _without(rules: list[Rule], *texts: str) -> list[Rule]:
    """The rules that do not contain any of `texts`; each of them has to be in one."""
    kept = []
    missing = set(texts)
    for rule in rules:
        here = {text for text in texts if text in str(rule)}
        missing -= here
        if not here:
            kept.append(rule)
    assert not missing, f"no rule says {missing}: {rules}"
    return kept


MACHINE_RULE, TAP_RULE, OVERHEAD_RULE, OWN_NETWORK_RULE = "cpu|memory", "tap", "overhead", "container_network_.+"


def recipe_a(
    site: Site,
    *,
    kubelet: DemoKubelet | CapturedKubelet | None = None,
    leave_out: tuple[str, ...] = (),
    leave_out_ours: tuple[str, ...] = (),
    resource: bool | None = None,
    change: Callable[[dict[str, Any]], None] = lambda values: None,
    override_honor_labels: bool = False,
    job: str = "kubelet",
) -> list[Job]:
    given = values("recipe-a-kata-pulse")
    change(given)
    rules = given["podMonitor"]["metricRelabelings"]
    given["podMonitor"]["metricRelabelings"] = _without(rules, *leave_out_ours)
    theirs = (kubelet or site.kubelet).address
    cadvisor = KUBE_PROMETHEUS_DROPS + _without(kubelet_rules("recipe-a-kubelet", "cAdvisor"), *leave_out)
    jobs = [
        *_ours(site, given, override_honor_labels),
        kubelet_job(theirs, "/metrics/cadvisor", cadvisor, job),
        kubelet_job(theirs, "/metrics", job=job),
    ]
    if resource is not None:
        rules = kubelet_rules("recipe-a-kubelet", "resource") if resource else []
        jobs.append(kubelet_job(theirs, "/metrics/resource", rules, job))
    return jobs


def recipe_b(
    site: Site,
    *more: str,
    kubelet: DemoKubelet | CapturedKubelet | None = None,
    cadvisor: bool = False,
    resource: bool | None = None,
    override_honor_labels: bool = False,
    job: str = "kubelet",
) -> list[Job]:
    monitor = values("recipe-b-kubelet")["kubelet"]["serviceMonitor"]
    assert monitor["cAdvisor"] is False, "the recipe is that this endpoint is off"
    theirs = (kubelet or site.kubelet).address
    jobs = [
        *_ours(site, values("recipe-b-kata-pulse", *more), override_honor_labels),
        kubelet_job(theirs, "/metrics", job=job),
    ]
    if cadvisor:
        jobs.append(kubelet_job(theirs, "/metrics/cadvisor", KUBE_PROMETHEUS_DROPS, job))
    if resource is not None:
        rules = kubelet_rules("recipe-b-kubelet", "resource") if resource else []
        jobs.append(kubelet_job(theirs, "/metrics/resource", rules, job))
    return jobs


def _ours(site: Site, given: dict[str, Any], override_honor_labels: bool = False, target: str = "") -> list[Job]:
    monitor, pod, scope = chart.pod_monitor(given)
    return monitors.scrape_configs(monitor, target or site.agent_with(scope), pod, override_honor_labels)


def agent_down(site: Site) -> list[Job]:
    return [*_ours(site, values("recipe-b-kata-pulse"), target=NOBODY), kubelet_job(site.kubelet.address, "/metrics")]


def agent_down_with_job_on_target(site: Site) -> list[Job]:
    """Not what we do: the kubelet's name on the target and not on the samples."""
    given = values("recipe-b-kata-pulse")
    given["podMonitor"]["relabelings"] = [
        {"targetLabel": "job", "replacement": "kubelet"},
        {"targetLabel": "metrics_path", "replacement": "/metrics"},
    ]
    return [*_ours(site, given, target=NOBODY), kubelet_job(site.kubelet.address, "/metrics")]


def labels_renamed_back(given: dict[str, Any]) -> None:
    """Not what we do where honorLabels is overridden: it cannot bring back blank labels."""
    given["podMonitor"]["metricRelabelings"] += [
        {"action": "labelmap", "regex": "exported_(namespace|pod|container)", "replacement": "$1"},
        {"action": "labeldrop", "regex": "exported_(namespace|pod|container)"},
    ]


def plain(site: Site) -> list[Job]:
    """The configuration for those without the operator, with static targets instead of discovery."""
    jobs = yaml.safe_load(documented.block("prometheus-recipe-a"))["scrape_configs"]
    found = {
        "pod": {
            "targets": [site.node.kata_only.address],
            "labels": {
                "__meta_kubernetes_pod_label_app_kubernetes_io_name": "kata-pulse",
                "__meta_kubernetes_pod_container_port_name": "metrics",
                "__meta_kubernetes_pod_node_name": NODE_NAME,
            },
        },
        "node": {"targets": [site.kubelet.address], "labels": {"__meta_kubernetes_node_name": NODE_NAME}},
    }
    for job in jobs:
        [discovery] = job.pop("kubernetes_sd_configs")
        job["static_configs"] = [found[discovery["role"]]]
        # The fake kubelet wants neither.
        for key in ("scheme", "authorization", "tls_config"):
            job.pop(key, None)
    return [*jobs, kubelet_job(site.kubelet.address, "/metrics")]


CRI_STATS = "a-runtime-stats"
K3S_JOB = "k3s-server"


def clusters(site: Site) -> dict[str, list[Job]]:
    """Jobs by cluster, kube-state-metrics included."""
    override = "override-honor-labels-kata-pulse"

    def on_override(given: dict[str, Any]) -> None:
        given["kubeletCompat"] |= values(override)["kubeletCompat"]

    def on_k3s(given: dict[str, Any]) -> None:
        given["kubeletCompat"] |= values("k3s-kata-pulse")["kubeletCompat"]

    all_of_them = {
        "a": recipe_a(site, resource=True),
        "a-plain": plain(site),
        "a-captured": recipe_a(site, kubelet=site.captured),
        "a-k3s": recipe_a(site, change=on_k3s, job=K3S_JOB),
        "a-override": recipe_a(site, change=on_override, override_honor_labels=True),
        "a-crio": recipe_a(site, kubelet=site.kubelet_with_crio),
        "a-without-machine-rule": recipe_a(site, leave_out=(MACHINE_RULE,)),
        "a-crio-without-machine-rule": recipe_a(site, kubelet=site.kubelet_with_crio, leave_out=(MACHINE_RULE,)),
        "a-without-tap-rule": recipe_a(site, leave_out=(TAP_RULE,)),
        "a-without-overhead-rule": recipe_a(site, leave_out=(OVERHEAD_RULE,)),
        "a-without-own-network-rule": recipe_a(site, leave_out_ours=(OWN_NETWORK_RULE,)),
        "a-without-resource-rule": recipe_a(site, resource=False),
        CRI_STATS: recipe_a(site, kubelet=site.kubelet_with_runtime_stats),
        "b": recipe_b(site, resource=True),
        "b-captured": recipe_b(site, kubelet=site.captured),
        "b-k3s": recipe_b(site, "k3s-kata-pulse", job=K3S_JOB),
        "b-override": recipe_b(site, override, override_honor_labels=True),
        "b-with-cadvisor": recipe_b(site, cadvisor=True),
        "b-captured-with-cadvisor": recipe_b(site, kubelet=site.captured, cadvisor=True),
        "b-without-resource-rule": recipe_b(site, resource=False),
        "honor-labels-overridden": recipe_a(site, override_honor_labels=True),
        "override-renamed-back": recipe_a(site, change=labels_renamed_back, override_honor_labels=True),
        "agent-down": agent_down(site),
        "agent-down-job-on-target": agent_down_with_job_on_target(site),
    }
    named = {cluster: in_cluster(site, cluster, jobs) for cluster, jobs in all_of_them.items()}
    # Without kube-state-metrics, whose job is the last.
    named["b-without-state"] = in_cluster(site, "b-without-state", recipe_b(site))[:-1]
    return named


def in_cluster(site: Site, cluster: str, jobs: list[Job]) -> list[Job]:
    state = {
        "job_name": "kube-state-metrics",
        "honor_labels": True,
        "static_configs": [{"targets": [site.cluster_state.address], "labels": {"namespace": "monitoring"}}],
    }
    named = deepcopy([*jobs, state])
    for job in named:
        # `job` is what the operator or the page has set; only its default comes from the name of the configuration.
        original = job["job_name"]
        job["job_name"] = f"{cluster}/{original}"
        job.setdefault("relabel_configs", [])
        job["relabel_configs"][:0] = [
            {"target_label": "job", "replacement": original},
            {"target_label": "cluster", "replacement": cluster},
        ]
    return named
