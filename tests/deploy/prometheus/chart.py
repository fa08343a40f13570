"""The chart rendered: the PodMonitor of given values, the pod that it selects, and what the agent is told."""

import functools
import os
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import yaml

from kubelets import NODE_NAME
from node import REPOSITORY

CHART = REPOSITORY / "helm" / "kata-pulse"
HELM = Path(os.environ.get("KATA_PULSE_HELM", REPOSITORY / ".tools" / "helm3" / "helm"))


def rendered(values: dict[str, Any]) -> list[dict[str, Any]]:
    """Every object of the release; Helm checks the values against the chart's schema."""
    return [document for document in yaml.safe_load_all(_template(yaml.safe_dump(values))) if document]


@functools.cache
def _template(values: str) -> str:
    assert HELM.exists(), f"{HELM} is missing: make .tools/helm3"
    with tempfile.NamedTemporaryFile("w", suffix=".yaml") as file:
        file.write(values)
        file.flush()
        command = [str(HELM), "template", "kata-pulse", str(CHART), "--namespace", "monitoring", "--values", file.name]
        done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{' '.join(command)}:\n{done.stderr}"
    return done.stdout


def pod_monitor(values: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any], str]:
    """The PodMonitor, a pod of the DaemonSet as discovery finds it, and the scope that its agent has."""
    objects = rendered(values)
    [monitor] = [one for one in objects if one["kind"] == "PodMonitor"]
    [daemon_set] = [one for one in objects if one["kind"] == "DaemonSet"]
    template = daemon_set["spec"]["template"]
    [(container, port)] = [
        (container["name"], port["name"])
        for container in template["spec"]["containers"]
        for port in container.get("ports", [])
        if port["name"] == monitor["spec"]["podMetricsEndpoints"][0]["port"]
    ]
    pod = {
        "name": f"{daemon_set['metadata']['name']}-x7k2p",
        "namespace": daemon_set["metadata"]["namespace"],
        "node": NODE_NAME,
        "labels": template["metadata"]["labels"],
        "container": container,
        "port": port,
    }
    return monitor, pod, _scope(objects, daemon_set)


def _scope(objects: list[dict[str, Any]], daemon_set: dict[str, Any]) -> str:
    """From the flags of the container, or from the configuration file."""
    [container, *_] = daemon_set["spec"]["template"]["spec"]["containers"]
    arguments = container.get("args", [])
    for number, argument in enumerate(arguments):
        if argument == "--scope":
            return arguments[number + 1]
        if argument.startswith("--scope="):
            return argument.removeprefix("--scope=")
    for one in objects:
        for text in (one.get("data") or {}).values() if one["kind"] == "ConfigMap" else ():
            settings = yaml.safe_load(text)
            if isinstance(settings, dict) and "scope" in settings:
                return settings["scope"]
    raise AssertionError("the rendered objects do not tell the agent its scope")
