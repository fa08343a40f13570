"""Recording rules and dashboard queries in the shape that kube-prometheus gives them.

The expressions are what kube-prometheus' rules, dashboards, alerts and prometheus-adapter ask, written down from the
description of their selectors, aggregations and joins. `$cluster` is the one under test, `$cadvisor` the selector of
the kubelet's cAdvisor endpoint, `$range` what Grafana puts for its rate interval.
"""

import math
import string
from collections.abc import Callable, Iterable
from dataclasses import dataclass, field

RANGE = "1m"
DISKS = 'device=~"(/dev/)?(mmcblk.p.+|nvme.+|rbd.+|sd.+|vd.+|xvd.+|dm-.+|md.+|dasd.+)"'
NODE_OF_POD = (
    "* on (cluster, namespace, pod) group_left(node) "
    'topk by (cluster, namespace, pod) (1, max by (cluster, namespace, pod, node) (kube_pod_info{node!=""}))'
)
CPU_RECORD = "node_namespace_pod_container:container_cpu_usage_seconds_total:sum_rate5m"
CPU_IRATE_RECORD = "node_namespace_pod_container:container_cpu_usage_seconds_total:sum_irate"
MEMORY_RECORDS = {
    family: f"node_namespace_pod_container:container_memory_{family}"
    for family in ("working_set_bytes", "rss", "cache", "swap")
}
WORKLOADS = "namespace_workload_pod:kube_pod_owner:relabel"


def cadvisor(job: str = "kubelet") -> str:
    return f'job="{job}", metrics_path="/metrics/cadvisor"'


def rules(jobs: Iterable[str]) -> dict:
    """The rule file. kube-prometheus is made for one job name; here every name under test has its own copy."""
    names = "|".join(jobs)
    selector = f'job=~"{names}", metrics_path="/metrics/cadvisor", image!=""'
    by_container = "sum by (cluster, namespace, pod, container)"
    records = [
        (CPU_RECORD, f"{by_container} (rate(container_cpu_usage_seconds_total{{{selector}}}[5m])) {NODE_OF_POD}"),
        (
            CPU_IRATE_RECORD,
            f"{by_container} (irate(container_cpu_usage_seconds_total{{{selector}}}[5m])) {NODE_OF_POD}",
        ),
        *(
            (record, f"container_memory_{family}{{{selector}}} {NODE_OF_POD}")
            for family, record in MEMORY_RECORDS.items()
        ),
    ]
    workload = (
        "max by (cluster, namespace, workload, pod) (label_replace("
        'kube_pod_owner{job="kube-state-metrics", owner_kind="DaemonSet"}, "workload", "$1", "owner_name", "(.*)"))'
    )
    owner = {"record": WORKLOADS, "expr": workload, "labels": {"workload_type": "daemonset"}}
    return {
        "groups": [
            {
                "name": "k8s",
                # Not in step with scrapes, so that some evaluations meet none that is under way.
                "interval": "3s",
                "rules": [*({"record": record, "expr": expression} for record, expression in records), owner],
            }
        ]
    }


def _max_then_sum(family: str, matchers: str, by: str) -> str:
    return (
        f"sum(max by (cluster, namespace, pod, container) "
        f'({family}{{$cadvisor, cluster="$cluster", {matchers}}})) by ({by})'
    )


Key = tuple[str, ...]


@dataclass(frozen=True)
class Measured:
    """A series by its labels, and what was asked of it."""

    labels: dict[str, str]
    value: float

    def key(self, names: Iterable[str]) -> Key:
        return tuple(self.labels.get(name, "") for name in names)


@dataclass(frozen=True)
class Query:
    """A query, and what it has to give: the sum of `measure`, of each of the right series of `families`, by `by`."""

    name: str
    text: str
    families: tuple[str, ...]
    measure: str
    by: tuple[str, ...]
    rows: Callable[[dict[str, str]], bool] = field(default=lambda labels: True)

    def expression(self, cluster: str, job: str = "kubelet") -> str:
        # The selector has no placeholders of its own.
        return string.Template(self.text).safe_substitute(cluster=cluster, cadvisor=cadvisor(job), range=RANGE)


# Of one series, which takes the place of `$series`.
RATE_5M, RATE, INCREASE_5M, INCREASE = (
    "rate($series[5m])",
    f"rate($series[{RANGE}])",
    "increase($series[5m])",
    f"increase($series[{RANGE}])",
)
IRATE_5M, IRATE_2M, LATEST = "irate($series[5m])", "irate($series[120s])", "$series"


def in_container(labels: dict[str, str]) -> bool:
    return bool(labels.get("container"))


def with_image(labels: dict[str, str]) -> bool:
    return bool(labels.get("image"))


def of_pod(labels: dict[str, str]) -> bool:
    return bool(labels.get("namespace"))


CONTAINER = ("namespace", "pod", "container")
POD = ("namespace", "pod")
_CPU = ("container_cpu_usage_seconds_total",)
_WORKING_SET = ("container_memory_working_set_bytes",)

CPU_RULE = Query(
    "recording rule: CPU by rate",
    'sum by (cluster, namespace, pod, container) (rate(container_cpu_usage_seconds_total{$cadvisor, image!="", '
    f'cluster="$cluster"}}[5m])) {NODE_OF_POD}',
    _CPU,
    RATE_5M,
    CONTAINER,
    with_image,
)
CPU_NAMESPACE = Query(
    "dashboard: CPU of a namespace",
    "sum by (namespace) (sum by (cluster, namespace, pod, container) (rate(container_cpu_usage_seconds_total"
    f'{{$cadvisor, image!="", cluster="$cluster"}}[5m])) {NODE_OF_POD})',
    _CPU,
    RATE_5M,
    ("namespace",),
    with_image,
)
MEMORY_IMAGE = Query(
    "dashboard: memory of a pod, all rows with an image",
    _max_then_sum("container_memory_working_set_bytes", 'image!=""', "namespace, pod"),
    _WORKING_SET,
    LATEST,
    POD,
    with_image,
)
HPA_CPU = Query(
    "prometheus-adapter: CPU",
    "sum by (namespace, pod) (irate(container_cpu_usage_seconds_total"
    '{cluster="$cluster", container!="", pod!=""}[120s]))',
    _CPU,
    IRATE_2M,
    POD,
    in_container,
)
HPA_MEMORY = Query(
    "prometheus-adapter: memory",
    'sum by (namespace, pod) (container_memory_working_set_bytes{cluster="$cluster", container!="", pod!=""})',
    _WORKING_SET,
    LATEST,
    POD,
    in_container,
)
NETWORK_FAMILIES = tuple(
    f"container_network_{direction}_{what}_total"
    for direction in ("receive", "transmit")
    for what in ("bytes", "packets", "packets_dropped")
)


def _network(family: str) -> list[Query]:
    joined = (
        "* on (cluster, namespace, pod) group_left() topk by (cluster, namespace, pod) (1, "
        'max by (cluster, namespace, pod) (kube_pod_info{host_network="false"}))'
    )
    short = family.removeprefix("container_network_").removesuffix("_total")
    shapes = [
        (
            f"network of a namespace: {short}",
            f'{family}{{$cadvisor, cluster="$cluster", namespace=~".+"}}',
            "",
            ("namespace",),
        ),
        (f"network of a pod: {short}", f'{family}{{$cadvisor, cluster="$cluster", namespace=~".+"}}', "", POD),
        (f"network without the host's: {short}", f'{family}{{cluster="$cluster", namespace!=""}}', joined, POD),
        (f"network whatever the job: {short}", f'{family}{{cluster="$cluster", namespace!="", pod!=""}}', "", POD),
    ]
    return [
        Query(
            f"dashboard: {name}",
            f"sum by ({', '.join(by)}) (rate({selector}[$range]) {join})",
            (family,),
            RATE,
            by,
            of_pod,
        )
        for name, selector, join, by in shapes
    ]


QUERIES: tuple[Query, ...] = (
    CPU_RULE,
    Query(
        "recording rule: CPU by irate",
        CPU_RULE.text.replace("(rate(", "(irate("),
        _CPU,
        IRATE_5M,
        CONTAINER,
        with_image,
    ),
    CPU_NAMESPACE,
    Query(
        "dashboard: CPU of a pod's containers",
        "sum(max by (cluster, namespace, pod, container) (sum by (cluster, namespace, pod, container) "
        '(rate(container_cpu_usage_seconds_total{$cadvisor, image!="", container!="", cluster="$cluster"}[5m])))) '
        "by (namespace, pod, container)",
        _CPU,
        RATE_5M,
        CONTAINER,
        in_container,
    ),
    *(
        Query(
            f"recording rule: memory {family}",
            f'container_memory_{family}{{$cadvisor, image!="", cluster="$cluster"}} {NODE_OF_POD}',
            (f"container_memory_{family}",),
            LATEST,
            CONTAINER,
            with_image,
        )
        for family in MEMORY_RECORDS
    ),
    *(
        Query(
            f"dashboard: memory {family} of a {by[-1]}",
            _max_then_sum(
                f"container_memory_{family}", 'container!=""' + (', image!=""' if needs_image else ""), ", ".join(by)
            ),
            (f"container_memory_{family}",),
            LATEST,
            by,
            in_container,
        )
        for family, needs_image in (("working_set_bytes", True), ("rss", False), ("cache", False), ("swap", False))
        for by in (("namespace",), CONTAINER)
    ),
    MEMORY_IMAGE,
    Query(
        "dashboard: memory of a workload, whatever the job",
        "sum by (namespace, pod) (max by (cluster, namespace, pod, container) (container_memory_working_set_bytes"
        '{cluster="$cluster", container!="", image!=""}) * on (cluster, namespace, pod) '
        "group_left(workload, workload_type) "
        f'max by (cluster, namespace, pod, workload, workload_type) ({WORKLOADS}{{cluster="$cluster"}}))',
        _WORKING_SET,
        LATEST,
        POD,
        in_container,
    ),
    *(query for family in NETWORK_FAMILIES for query in _network(family)),
    Query(
        "dashboard: disk operations of a container",
        "sum by (namespace, pod, container) ("
        f'rate(container_fs_reads_total{{$cadvisor, {DISKS}, container!="", cluster="$cluster"}}[$range]) + '
        f'rate(container_fs_writes_total{{$cadvisor, {DISKS}, container!="", cluster="$cluster"}}[$range]))',
        ("container_fs_reads_total", "container_fs_writes_total"),
        RATE,
        CONTAINER,
        in_container,
    ),
    Query(
        "dashboard: disk bytes of a pod",
        "sum by (namespace, pod) ("
        f'rate(container_fs_reads_bytes_total{{{DISKS}, container!="", cluster="$cluster"}}[$range]) + '
        f'rate(container_fs_writes_bytes_total{{{DISKS}, container!="", cluster="$cluster"}}[$range]))',
        ("container_fs_reads_bytes_total", "container_fs_writes_bytes_total"),
        RATE,
        POD,
        in_container,
    ),
    HPA_CPU,
    HPA_MEMORY,
)

CFS = _PERIODS, _THROTTLED = "container_cpu_cfs_periods_total", "container_cpu_cfs_throttled_periods_total"


def throttling(cluster: str, job: str = "kubelet") -> str:
    """The panel of the pod dashboard, for all pods at once."""
    matchers = f'{{{cadvisor(job)}, cluster="{cluster}", container!=""}}[{RANGE}]'
    by = "by (namespace, pod, container)"
    return f"sum(increase({_THROTTLED}{matchers})) {by} / sum(increase({_PERIODS}{matchers})) {by}"


def throttling_alert(cluster: str, job: str = "kubelet") -> str:
    """CPUThrottlingHigh without its `for`."""

    def side(family: str, matchers: str) -> str:
        return (
            "sum without (id, metrics_path, name, image, endpoint, job, node) ("
            "topk by (cluster, namespace, pod, container, instance) (1, "
            f'increase({family}{{{matchers}{cadvisor(job)}, cluster="{cluster}"}}[5m])))'
        )

    numerator = side(_THROTTLED, 'container!="", ')
    return (
        f"{numerator} / on (cluster, namespace, pod, container, instance) group_left {side(_PERIODS, '')} > (25 / 100)"
    )


def target_down(cluster: str) -> str:
    down, all_of_them = (
        f'count by (cluster, job, namespace, service) (up{{cluster="{cluster}"}}{what})' for what in (" == 0", "")
    )
    return f"100 * ({down} / {all_of_them}) > 10"


def kubelet_down(cluster: str, job: str = "kubelet") -> str:
    return f'absent(up{{job="{job}", metrics_path="/metrics", cluster="{cluster}"}} == 1)'


def close(left: float, right: float) -> bool:
    return math.isclose(left, right, rel_tol=1e-9, abs_tol=1e-9)
