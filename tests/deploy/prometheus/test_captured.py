"""A real kubelet's exposition beside kata-pulse: what it says of its own pods is counted once, and nothing else is."""

import pytest

import documented
import promql
from conftest import Scene
from promql import QUERIES, Key, Query
from test_counted_once import Stored, assert_equal, only

MEASURED = [query for query in QUERIES if not query.name.startswith("recording rule: memory")]


def expected(scene: Scene, cluster: str, query: Query, instances: set[str]) -> dict[Key, float]:
    """The sum over series of these instances, as they are stored."""
    totals: dict[Key, float] = {}
    without_host = "without the host's" in query.name
    for family in query.families:
        for one in scene.series(cluster, family, query.measure, scene.at):
            pod = one.labels.get("namespace", ""), one.labels.get("pod", "")
            disk = "device" not in one.labels or one.labels["device"].startswith("/dev/vd")
            known = one.labels["instance"] in instances and one.labels.get("metrics_path") == "/metrics/cadvisor"
            if not (known and query.rows(one.labels) and pod[1] and disk):
                continue
            if without_host and pod in scene.captured.host_network:
                continue
            totals[one.key(query.by)] = totals.get(one.key(query.by), 0.0) + one.value
    return totals


@pytest.mark.parametrize("cluster", ["a-captured", "b-captured", "b-captured-with-cadvisor"])
def test_each_pod_of_the_capture_is_counted_as_the_kubelet_says(scene: Scene, cluster: str) -> None:
    stored = Stored(scene, cluster)
    kubelet = scene.captured.address
    ours = scene.agents["kata" if cluster.startswith("a") else "all"]
    seen: set[str] = set()
    for query in MEASURED:
        answered = stored.answered(query)
        assert_equal(answered, expected(scene, cluster, query, {kubelet, ours}), f"{cluster}: {query.name}")
        if query.by[:2] == promql.POD:
            seen |= {"/".join(key[:2]) for key in answered}
    captured = {"/".join(pod) for pod in scene.captured.pods}
    demo = {"/".join(pod.key) for pod in scene.pods if pod.kata or cluster.startswith("b")}
    if cluster == "b-captured":
        assert seen == demo, "the kubelet's endpoint is off"
    else:
        assert captured <= seen
        assert seen - captured == demo - ({"batch/stuck"} if cluster.startswith("a") else set())


@pytest.mark.parametrize("cluster", ["a-captured", "b-captured"])
def test_check_query_finds_nothing(scene: Scene, cluster: str) -> None:
    query = only(documented.block("check-nothing-twice"), cluster)
    assert scene.prometheus.query(query, scene.at) == []


def test_values_are_those_of_the_capture(scene: Scene) -> None:
    """Memory stands still in the capture, so it can be held against the file itself."""
    said = {
        (*one.pod, one.label("container")): one.value
        for one in scene.captured.samples
        if one.name == "container_memory_working_set_bytes" and one.label("container")
    }
    answer = scene.prometheus.query(
        'sum(max by (cluster, namespace, pod, container) (container_memory_working_set_bytes{job="kubelet", '
        'metrics_path="/metrics/cadvisor", cluster="a-captured", container!="", image!=""})) '
        "by (namespace, pod, container)",
        scene.at,
    )
    stored = {tuple(labels[name] for name in promql.CONTAINER): value for labels, value in answer}
    assert len(said) == 17
    assert {key: stored.get(key) for key in said} == said


def test_disk_panels_have_rows(scene: Scene) -> None:
    """Containers of a node with cgroup v2 have disk rows; the demo's may not, where its test says so."""
    query = next(query for query in QUERIES if query.name == "dashboard: disk operations of a container")
    answered = Stored(scene, "a-captured").answered(query)
    assert len(answered) >= 5 and any(value > 0 for value in answered.values())
