"""What is stored is what the agent served; whoever scrapes it together gets the same; other jobs are left alone."""

import re

import pytest
import yaml

import documented
import promql
import scenes
from conftest import Page, Scene
from promql import POD


@pytest.mark.parametrize("scope", ["kata", "all"])
def test_stored_values_are_the_served_ones(scene: Scene, scope: str) -> None:
    served, stored = scene.collections[scope]
    assert len(served) > 100
    assert described(served - stored) == {} and described(stored - served) == {}


def described(page: Page) -> dict[str, object]:
    return {f"{name}{labels}": value for name, labels, value in sorted(page)[:5]}


def test_an_ha_pair_gets_the_same_values(scene: Scene) -> None:
    one, other, later = scene.pair
    assert len(one) > 100
    assert one == other
    assert one != later, "the agent does not measure anew"


def instant(scene: Scene, expression: str) -> list[dict[str, str]]:
    return [labels for labels, _ in scene.prometheus.query(expression, scene.at)]


@pytest.mark.parametrize("cluster", ["a", "a-plain", "b", "a-override", "b-override"])
def test_only_samples_take_the_kubelets_name(scene: Scene, cluster: str) -> None:
    up = {(labels["job"], labels.get("metrics_path", "")) for labels in instant(scene, f'up{{cluster="{cluster}"}}')}
    kubelet = {("kubelet", path) for path in ("/metrics", "/metrics/cadvisor", "/metrics/resource")}
    assert up - kubelet == {("kata-pulse", ""), ("kube-state-metrics", "")}
    jobs = {labels["job"] for labels in instant(scene, f'{{cluster="{cluster}", __name__=~"kata_pulse_.+|scrape_.+"}}')}
    assert jobs == {"kata-pulse", "kubelet", "kube-state-metrics"}
    own = instant(scene, f'{{cluster="{cluster}", __name__=~"kata_pulse_.+"}}')
    assert {labels["job"] for labels in own} == {"kata-pulse"}
    assert {labels["node"] for labels in own} == {"node-1"}
    sandboxes = {
        (labels["namespace"], labels["pod"]) for labels in own if labels["__name__"] == "kata_pulse_sandbox_up"
    }
    assert {pod.key for pod in scene.pods if pod.kata} <= sandboxes <= {pod.key for pod in scene.pods}


@pytest.mark.parametrize("cluster", ["a", "b", "a-override", "b-override", "a-plain"])
def test_no_label_of_the_agents_pod_lands_on_a_container(scene: Scene, cluster: str) -> None:
    """The kubelet's rows included: between them, all pods are there."""
    selector = f'cluster="{cluster}", __name__=~"container_.+", __name__!="container_scrape_error"'
    assert instant(scene, f'{{{selector}, container="kata-pulse"}}') == []
    assert instant(scene, f'{{{selector}, exported_pod!=""}}') == []
    pods = {(labels.get("namespace", ""), labels.get("pod", "")) for labels in instant(scene, f"{{{selector}}}")}
    assert pods - {("", "")} == {pod.key for pod in scene.pods}


def test_overridden_labels_are_found(scene: Scene) -> None:
    query = documented.block("check-honor-labels").strip()
    renamed = {labels["cluster"] for labels in instant(scene, query)}
    assert renamed == {"honor-labels-overridden"}


def test_renaming_back_is_not_enough(scene: Scene) -> None:
    """Why the page advises the chart's rules: rows with a blank label take the agent's."""
    rows = instant(scene, 'container_cpu_usage_seconds_total{cluster="override-renamed-back", container="kata-pulse"}')
    assert {labels["pod"] for labels in rows} == {pod.name for pod in scene.pods if pod.kata and pod.answers}


def test_a_silent_agent_is_reported_under_its_own_name(scene: Scene) -> None:
    [down] = instant(scene, promql.target_down("agent-down"))
    assert (down["job"], down["namespace"]) == ("kata-pulse", "monitoring")
    # With the kubelet's job on the target it would be a kubelet that is down.
    [down] = instant(scene, promql.target_down("agent-down-job-on-target"))
    assert down["job"] == "kubelet"


@pytest.mark.parametrize("cluster", ["a", "a-k3s", "b", "b-k3s", "agent-down"])
def test_kubelet_alerts_stay_silent(scene: Scene, cluster: str) -> None:
    job = scenes.K3S_JOB if cluster.endswith("k3s") else "kubelet"
    assert instant(scene, promql.kubelet_down(cluster, job)) == []
    assert len(instant(scene, f'up{{job="{job}", metrics_path="/metrics", cluster="{cluster}"}}')) == 1
    if cluster != "agent-down":
        assert instant(scene, promql.target_down(cluster)) == []
    # The alert can fire.
    assert len(instant(scene, promql.kubelet_down("no-such-cluster"))) == 1


def test_k3s_rows_are_not_under_the_usual_name(scene: Scene) -> None:
    assert instant(scene, '{job="kubelet", cluster=~".+-k3s"}') == []
    assert instant(
        scene, f'container_cpu_usage_seconds_total{{job="{scenes.K3S_JOB}", cluster="b-k3s", container!=""}}'
    )


RULE = re.compile(r"rule \{(.*?)\n  \}", re.DOTALL)
SETTING = re.compile(r"^\s*(\w+)\s*=\s*(.+)$", re.MULTILINE)


def test_the_alloy_job_has_the_same_rules() -> None:
    """Alloy itself is not run here: this holds its rules against those that are."""
    text = documented.block("alloy-recipe-a")
    found = {}
    for kind in ("discovery.relabel", "prometheus.relabel"):
        [body] = re.findall(rf'{re.escape(kind)} "kata_pulse" \{{(.*?)\n\}}', text, re.DOTALL)
        found[kind] = [
            {key: yaml.safe_load(value) for key, value in SETTING.findall(rule)} for rule in RULE.findall(body)
        ]
    [job] = [
        job
        for job in yaml.safe_load(documented.block("prometheus-recipe-a"))["scrape_configs"]
        if job["job_name"] == "kata-pulse"
    ]
    assert found == {"discovery.relabel": job["relabel_configs"], "prometheus.relabel": job["metric_relabel_configs"]}
    assert "honor_labels = true" in text and job["honor_labels"] is True


def test_the_collector_finds_nothing_to_expand() -> None:
    assert "$" not in documented.block("prometheus-recipe-a")


def test_the_page_and_the_chart_have_the_same_rules_for_samples(scene: Scene) -> None:
    """Whoever does without the operator gets what the PodMonitor gives, in whatever order."""
    rules = {}
    monitor = "podMonitor/monitoring/kata-pulse/0"
    for cluster, name in (("a", monitor), ("a-plain", "kata-pulse"), ("b", monitor)):
        [job] = [job for job in scene.clusters[cluster] if job["job_name"] == f"{cluster}/{name}"]
        rules[cluster] = [str(sorted(rule.items())) for rule in job["metric_relabel_configs"]]
    assert sorted(rules["a"]) == sorted(rules["a-plain"])
    # What the page says of recipe B: without the first.
    assert sorted(rules["b"]) == sorted(rules["a-plain"][1:])


def test_pods_that_hang_keep_their_network_in_recipe_a(scene: Scene) -> None:
    """What the page says of a sandbox that hangs."""
    [stuck] = [pod for pod in scene.pods if pod.kata and not pod.answers]
    selector = f'cluster="a", namespace="{stuck.namespace}", pod="{stuck.name}"'
    assert instant(scene, f"container_network_receive_bytes_total{{{selector}}}")
    assert instant(scene, f'container_cpu_usage_seconds_total{{{selector}, image!=""}}') == []
    assert instant(scene, f"kata_pulse_sandbox_up{{{selector}}} == 0")
    assert instant(scene, f"kata_pulse_sandbox_host_cpu_seconds_total{{{selector}}}")
    network = promql.NETWORK_FAMILIES[0]
    counted = scene.prometheus.query(f"sum by ({', '.join(POD)}) ({network}{{{selector}}})", scene.at)
    assert len(counted) == 1
