"""The chart's documented shapes are scraped in the way that the recipes are tested, and all of them can be scraped."""

from pathlib import Path
from typing import Any

import pytest
import yaml

import chart
import monitors
import scenes
from server import promtool

SHAPES = {path.name.removesuffix("-values.yaml"): path for path in sorted((chart.CHART / "ci").glob("*-values.yaml"))}
# Their scrapes need secrets of a cluster, or they have no monitor.
NOT_SCRAPED_PLAINLY = {"default", "metrics-server", "tls-client-certificates", "tls-kubernetes-auth", "tls-self-signed-basic-auth"}


def jobs(values: dict[str, Any]) -> list[dict[str, Any]]:
    monitor, pod, scope = chart.pod_monitor(values)
    return monitors.scrape_configs(monitor, f"{scope}.invalid:8090", pod)


@pytest.mark.parametrize(
    ("shape", "recipe"),
    [
        ("kube-prometheus-stack", ["recipe-a-kata-pulse"]),
        ("kubelet-cadvisor-off", ["recipe-b-kata-pulse"]),
        ("k3s", ["recipe-a-kata-pulse", "k3s-kata-pulse"]),
    ],
)
def test_a_shape_is_scraped_as_its_recipe_is(shape: str, recipe: list[str]) -> None:
    assert jobs(yaml.safe_load(SHAPES[shape].read_text())) == jobs(scenes.values(*recipe))


@pytest.mark.parametrize("shape", sorted(set(SHAPES) - NOT_SCRAPED_PLAINLY))
def test_prometheus_accepts_what_comes_of_a_shape(shape: str, tmp_path: Path) -> None:
    config = tmp_path / "prometheus.yaml"
    config.write_text(yaml.safe_dump({"scrape_configs": jobs(yaml.safe_load(SHAPES[shape].read_text()))}))
    promtool("check", "config", str(config))


def test_every_shape_is_known_here() -> None:
    assert set(SHAPES) > NOT_SCRAPED_PLAINLY
    monitored = {shape for shape, path in SHAPES.items() if (yaml.safe_load(path.read_text()) or {}).get("podMonitor")}
    assert set(SHAPES) - NOT_SCRAPED_PLAINLY <= monitored


def test_an_unknown_field_is_not_passed_over() -> None:
    monitor, pod, _ = chart.pod_monitor(scenes.values("recipe-b-kata-pulse"))
    monitor["spec"]["podMetricsEndpoints"][0]["metricRelabellings"] = []
    with pytest.raises(AssertionError, match="metricRelabellings"):
        monitors.scrape_configs(monitor, "127.0.0.1:1", pod)
