"""Both recipes: every container and pod once, with the right numbers; and wrong ones as soon as a rule is missing."""

import warnings

import pytest

import documented
import promql
import scenes
from conftest import VMAGENT, Scene
from exposition import Sample
from promql import POD, QUERIES, Key, Measured, Query

RECIPE_A = ("a", "a-plain", VMAGENT, "a-k3s", "a-crio", "a-override")
RECIPE_B = ("b", "b-k3s", "b-override")


def job_of(cluster: str) -> str:
    return scenes.K3S_JOB if cluster.endswith("k3s") else "kubelet"


class Stored:
    """What Prometheus has stored of one cluster, and whose series count in it."""

    def __init__(self, scene: Scene, cluster: str, at: float | None = None) -> None:
        self.scene, self.cluster = scene, cluster
        self.at = scene.at if at is None else at
        self.kata = {pod.key for pod in scene.pods if pod.kata}
        self.answering = {pod.key for pod in scene.pods if pod.kata and pod.answers}

    def ours(self, labels: dict[str, str]) -> bool:
        return labels["instance"] in self.scene.agents.values()

    def counts(self, family: str, series: Measured) -> bool:
        """Whether this series is the one that should be counted, told by who serves it and not by any rule."""
        labels = series.labels
        path = labels.get("metrics_path")
        if path != "/metrics/cadvisor":
            return False
        if self.cluster.startswith("b"):
            return self.ours(labels)
        network = family.startswith("container_network_")
        of_kata = (labels.get("namespace", ""), labels.get("pod", "")) in self.kata
        if network or not of_kata:
            return not self.ours(labels) and labels.get("interface") != "tap0_kata" and "overhead" not in labels["id"]
        return self.ours(labels)

    def series(self, family: str, measure: str) -> list[Measured]:
        return self.scene.series(self.cluster, family, measure, self.at)

    def expected(self, query: Query) -> dict[Key, float]:
        """The sum of the series that count, added up here."""
        return self._sums(query, counting=True)

    def surplus(self, query: Query) -> dict[Key, float]:
        """The sum of those that the other source serves."""
        return self._sums(query, counting=False)

    def _sums(self, query: Query, counting: bool) -> dict[Key, float]:
        totals: dict[Key, float] = {}
        for family in query.families:
            for one in self.series(family, query.measure):
                if self.counts(family, one) == counting and query.rows(one.labels) and one.labels.get("pod"):
                    totals[one.key(query.by)] = totals.get(one.key(query.by), 0.0) + one.value
        return totals

    def answered(self, query: Query, at: float | None = None) -> dict[Key, float]:
        return self.ask(query.expression(self.cluster, job_of(self.cluster)), query.by, at)

    def ask(self, expression: str, by: tuple[str, ...], at: float | None = None) -> dict[Key, float]:
        result = {}
        for labels, value in self.scene.prometheus.query(expression, self.at if at is None else at):
            key = tuple(labels.get(name, "") for name in by)
            assert key not in result, f"{key} twice in the answer to {expression}"
            result[key] = value
        return result

    def served(self, query: Query) -> tuple[set[Key], set[Key]]:
        """What there is to be counted, by the agent that serves every pod, and not through Prometheus: always, and at
        times. A guest that is slow to answer comes and goes."""
        before, after = (self._keys(query, page) for page in self.scene.pages)
        return before & after, before | after

    def _keys(self, query: Query, page: list[Sample]) -> set[Key]:
        keys = set()
        for one in page:
            labels = dict(one.labels)
            runc_pause = not labels.get("container") and one.pod not in self.kata
            network = one.name.startswith("container_network_")
            if one.name not in query.families or one.pod == ("", "") or not query.rows(labels):
                continue
            # The one thing recipe A gives up.
            if self.cluster.startswith("a") and runc_pause and not network:
                continue
            keys.add(tuple(labels.get(name, "") for name in query.by))
        return keys


@pytest.fixture(scope="session", params=[*RECIPE_A, *RECIPE_B])
def stored(request: pytest.FixtureRequest, scene: Scene) -> Stored:
    return Stored(scene, request.param)


def assert_equal(left: dict[Key, float], right: dict[Key, float], what: str) -> None:
    assert set(left) == set(right), (
        f"{what}: only there {set(left) - set(right)}, only expected {set(right) - set(left)}"
    )
    wrong = {key: (left[key], right[key]) for key in left if not promql.close(left[key], right[key])}
    assert not wrong, f"{what}: {wrong}"


def test_every_query_counts_each_once(stored: Stored) -> None:
    for query in QUERIES:
        what = f"{stored.cluster}: {query.name}"
        answered, (always, at_times) = stored.answered(query), stored.served(query)
        assert_equal(answered, stored.expected(query), what)
        keys = set(answered)
        assert always <= keys <= at_times, f"{what}: missing {always - keys}, too many {keys - at_times}"
        if not answered:
            assert query.families[0].startswith("container_fs_"), f"{what}: nothing there"
            warnings.warn(
                f"NOT CHECKED HERE: {what}: this machine's cgroups give the demo's containers no disk counters",
                stacklevel=1,
            )


def test_every_running_container_is_there(stored: Stored) -> None:
    running = {(*pod.key, container): pod for pod in stored.scene.pods if pod.answers for container in pod.containers}
    # A shim's Task API, which stands in for a guest that is out of reach, knows no working set.
    measured = {key for key, pod in running.items() if pod.source in ("agent", "cgroup")}
    assert {key[:2] for key in measured} >= {("shop", "cart"), ("shop", "web")}
    for query in QUERIES:
        if query.by == promql.CONTAINER and query.families[0] in (
            "container_cpu_usage_seconds_total",
            "container_memory_working_set_bytes",
        ):
            containers = {key for key in stored.answered(query) if key[2]}
            at_least = measured if "memory" in query.families[0] else set(running)
            assert at_least <= containers <= set(running), f"{stored.cluster}: {query.name}"


def test_values_are_not_nothing(stored: Stored) -> None:
    """Guards the others: a sum of zeros would be right however often it is counted."""
    for query in (promql.CPU_RULE, promql.HPA_MEMORY):
        for key, value in stored.answered(query).items():
            busy = key[:2] in stored.answering or key[:2] == ("batch", "cruncher")
            assert value > 0 or not busy or key[2:] == ("",), (stored.cluster, query.name, key, value)
    bytes_per_pod = stored.ask(
        "sum by (namespace, pod) (rate(container_network_receive_bytes_total"
        f'{{cluster="{stored.cluster}", pod!=""}}[1m]))',
        POD,
    )
    # All but the two whose network the demo does not use.
    assert sum(bytes_per_pod[key] > 0 for key in stored.answering) >= len(stored.answering) - 1, bytes_per_pod


def test_rules_are_recorded(stored: Stored) -> None:
    """What the rules wrote is what their expressions say at that moment."""
    for record, query in [
        (promql.CPU_RECORD, promql.CPU_RULE),
        *((promql.MEMORY_RECORDS[family], memory_rule(family)) for family in promql.MEMORY_RECORDS),
    ]:
        moments: dict[float, dict[Key, float]] = {}
        selector = f'{record}{{cluster="{stored.cluster}"}}'
        for labels, points in stored.scene.prometheus.points(selector, stored.scene.at, "1m"):
            assert labels["node"] == "node-1", labels
            key = tuple(labels.get(name, "") for name in promql.CONTAINER)
            for when, value in points:
                assert key not in moments.setdefault(when, {}), f"{labels} twice in {record}"
                moments[when][key] = value
        assert moments, f"{stored.cluster}: nothing recorded as {record}"
        # A guest that is slow to answer comes and goes; and at first not everything was there.
        lately = sorted(moments)[-8:]
        always = set.intersection(*(set(moments[when]) for when in lately))
        keys = set().union(*moments.values())
        assert always <= set(stored.answered(query)) <= keys, f"{stored.cluster}: {record}"
        if stored.cluster == VMAGENT:
            # What it sends is stored later than it is stamped: rules have not seen all that is there now.
            continue
        # A scrape that began before a rule was evaluated may have ended after it, so not all moments agree.
        answered = {when: stored.answered(query, when) for when in moments}
        unlike = {
            key
            for key in keys
            if not any(
                key in moments[when] and key in answered[when] and promql.close(moments[when][key], answered[when][key])
                for when in moments
            )
        }
        assert not unlike, f"{stored.cluster}: {record}: {unlike}"
    nodes = stored.ask(f'sum by (cluster, node) ({promql.CPU_RECORD}{{cluster="{stored.cluster}"}})', ("node",))
    assert set(nodes) == {("node-1",)}


def memory_rule(family: str) -> Query:
    return next(query for query in QUERIES if query.name == f"recording rule: memory {family}")


def test_rules_evaluate_without_complaint(scene: Scene) -> None:
    assert len(scene.rules) == 7
    assert {rule["name"]: rule["lastError"] for rule in scene.rules if rule["health"] != "ok"} == {}


def test_throttling_panel_and_alert(stored: Stored) -> None:
    job = job_of(stored.cluster)
    periods, throttled = (increases(stored, family, promql.INCREASE) for family in promql.CFS)
    expected = {key: throttled[key] / periods[key] for key in throttled if key[2]}
    panel = stored.ask(promql.throttling(stored.cluster, job), promql.CONTAINER)
    assert_equal(panel, expected, f"{stored.cluster}: throttling panel")
    limited = {
        (*pod.key, container) for pod in stored.scene.pods if pod.kata and pod.answers for container in pod.containers
    }
    # A guest that only its shim's Task API tells of counts periods, too.
    assert set(panel) >= {("batch", "cruncher", "spin")}
    assert set(panel) <= limited | {("batch", "cruncher", "spin")}
    periods, throttled = (increases(stored, family, promql.INCREASE_5M) for family in promql.CFS)
    expected = {key: throttled[key] / periods[key] for key in throttled if key[2]}
    expected = {key: ratio for key, ratio in expected.items() if ratio > 0.25}
    alert = stored.ask(promql.throttling_alert(stored.cluster, job), promql.CONTAINER)
    assert_equal(alert, expected, f"{stored.cluster}: CPUThrottlingHigh")
    # Not the busy container itself: on a machine that has no CPU time for it, it is not throttled.
    assert alert, f"{stored.cluster}: nothing is throttled"
    assert any(key[:2] in stored.kata for key in panel), "no Kata container has a quota"


def increases(stored: Stored, family: str, measure: str) -> dict[Key, float]:
    result: dict[Key, float] = {}
    for one in stored.series(family, measure):
        if stored.counts(family, one) and one.labels.get("pod"):
            key = one.key(promql.CONTAINER)
            # The rows of a pod and of its sandbox share a key, and no panel asks for either.
            assert key not in result or not key[2], key
            result[key] = one.value
    return result


def test_check_queries_return_nothing(stored: Stored) -> None:
    assert twice(stored) == set()
    assert missing(stored) == set()


def only(text: str, cluster: str) -> str:
    """A query of the page, for one cluster."""
    selector = f'cluster="{cluster}"'
    for end in ('pod!=""}', '_kata"}', 'runtime="kata"}'):
        text = text.replace(end, f"{end[:-1]}, {selector}}}")
    return text.replace("kata_pulse_sandbox_up ==", f"kata_pulse_sandbox_up{{{selector}}} ==")


def twice(stored: Stored) -> set[str]:
    query = only(documented.block("check-nothing-twice"), stored.cluster)
    assert query.count(f'cluster="{stored.cluster}"') == 5, query
    return {labels["twice"] for labels, _ in stored.scene.prometheus.query(query, stored.at)}


def missing(stored: Stored) -> set[tuple[str, str, str]]:
    query = only(documented.block("check-nothing-missing"), stored.cluster)
    assert query.count(f'cluster="{stored.cluster}"') == 3, query
    answer = stored.scene.prometheus.query(query, stored.at)
    return {(labels["namespace"], labels["pod"], labels["missing"]) for labels, _ in answer}


def test_what_is_missing_is_found(scene: Scene) -> None:
    """A kubelet that knows no Kata pod counts no network of any; without kube-state-metrics the CPU rule knows none."""
    kata = {pod.key for pod in scene.pods if pod.kata}
    assert missing(Stored(scene, "a-captured")) == {(*pod, "network") for pod in kata}
    answering = {pod.key for pod in scene.pods if pod.kata and pod.answers}
    assert missing(Stored(scene, "b-without-state")) == {(*pod, "cpu") for pod in answering}


RECEIVED, DISK = "network of a pod: receive_bytes", "disk operations of a container"

# What goes wrong without each rule: the query that counts too much, and what the page's check says.
MISSING_RULES = [
    ("a-without-machine-rule", promql.CPU_NAMESPACE, "sandbox"),
    ("a-without-machine-rule", promql.MEMORY_IMAGE, "sandbox"),
    ("a-crio-without-machine-rule", promql.HPA_CPU, "sandbox"),
    ("a-crio-without-machine-rule", promql.HPA_MEMORY, "sandbox"),
    ("a-crio-without-machine-rule", DISK, "sandbox"),
    ("a-without-tap-rule", RECEIVED, "tap"),
    ("a-without-overhead-rule", RECEIVED, "network"),
    ("a-without-own-network-rule", RECEIVED, "network"),
    ("a-without-resource-rule", promql.HPA_CPU, "container"),
    ("a-without-resource-rule", promql.HPA_MEMORY, "container"),
    (scenes.CRI_STATS, promql.HPA_MEMORY, "container"),
    ("b-with-cadvisor", promql.CPU_NAMESPACE, "container"),
    ("b-with-cadvisor", promql.HPA_MEMORY, "container"),
    ("b-with-cadvisor", RECEIVED, "network"),
    ("b-without-resource-rule", promql.HPA_CPU, "container"),
    ("b-without-resource-rule", promql.HPA_MEMORY, "container"),
]


@pytest.mark.parametrize(("cluster", "query", "kind"), MISSING_RULES)
def test_without_a_rule_the_count_is_wrong(scene: Scene, cluster: str, query: Query | str, kind: str) -> None:
    if isinstance(query, str):
        query = next(one for one in QUERIES if one.name == f"dashboard: {query}")
    # Between two scrapes of a kubelet whose numbers are seconds old, nothing may have moved: twice nothing is nothing.
    for at in scene.moments:
        stored = Stored(scene, cluster, at)
        answered, expected = stored.answered(query), stored.expected(query)
        too_much = {key: value - expected.get(key, 0.0) for key, value in answered.items()}
        if any(value > 1e-6 for value in too_much.values()):
            break
    else:
        pytest.fail(f"{cluster}: {query.name} counts nothing twice")
    assert kind in twice(stored)
    if query is not promql.MEMORY_IMAGE:
        # That panel takes the larger of two rows, the machine's, where others add them up.
        surplus = stored.surplus(query)
        what = f"{cluster}: {query.name}: the surplus is what the other source serves"
        assert all(
            abs(too_much[key] - surplus.get(key, 0.0)) <= 1e-6 * max(1.0, abs(answered[key])) for key in answered
        ), f"{what}: {too_much} {surplus}"


def test_each_rule_of_the_recipes_is_one_of_those_shown_to_be_needed() -> None:
    """A rule that is added to a recipe needs a cluster without it."""
    ours = scenes.values("recipe-a-kata-pulse")["podMonitor"]["metricRelabelings"]
    theirs = scenes.kubelet_rules("recipe-a-kubelet", "cAdvisor")
    resource = [scenes.kubelet_rules(f"recipe-{name}-kubelet", "resource") for name in "ab"]
    assert (len(ours), len(theirs), [len(rules) for rules in resource]) == (1, 3, [1, 1])
    assert "podMonitor" in scenes.values("recipe-b-kata-pulse") and "metricRelabelings" not in str(
        scenes.values("recipe-b-kata-pulse")
    )
