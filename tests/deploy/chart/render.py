"""Renders the chart with the Helm programs that `make` fetched, and finds things in what comes out."""

import functools
import json
import pathlib
import subprocess

import yaml

ROOT = pathlib.Path(__file__).resolve().parents[3]
CHART = ROOT / "helm" / "kata-pulse"
TOOLS = ROOT / ".tools"
HELMS = {version: TOOLS / f"helm{version}" / "helm" for version in ("3", "4")}
SHAPES = sorted((CHART / "ci").glob("*-values.yaml"))

# libyaml's loader: a rendering is read hundreds of times.
LOADER = getattr(yaml, "CSafeLoader", yaml.SafeLoader)


class Refused(Exception):
    """Helm would not render; the text says why."""


def documents(text: str) -> list[dict]:
    return [document for document in yaml.load_all(text, LOADER) if document]


def run(version: str, *arguments: str, stdin: str | None = None) -> str:
    command = [str(HELMS[version]), *arguments]
    done = subprocess.run(command, input=stdin, capture_output=True, text=True, timeout=60)
    if done.returncode:
        raise Refused(done.stderr + done.stdout)
    return done.stdout


@functools.lru_cache(maxsize=None)
def _template(version: str, values: str, release: str, namespace: str, files: tuple, extra: tuple) -> str:
    arguments = ["template", release, str(CHART), "--namespace", namespace, "--values", "-", *extra]
    for file in files:
        arguments += ["--values", str(file)]
    return run(version, *arguments, stdin=values)


def text(values=None, *, version="3", release="kata-pulse", namespace="monitoring", files=(), extra=()) -> str:
    return _template(version, json.dumps(values or {}), release, namespace, tuple(files), tuple(extra))


def render(values=None, **options) -> list[dict]:
    return documents(text(values, **options))


def of_kind(objects: list[dict], kind: str) -> list[dict]:
    return [found for found in objects if found["kind"] == kind]


def one(objects: list[dict], kind: str) -> dict:
    (found,) = of_kind(objects, kind)
    return found


def pod(objects: list[dict]) -> dict:
    return one(objects, "DaemonSet")["spec"]["template"]["spec"]


def container(objects: list[dict]) -> dict:
    (found,) = [each for each in pod(objects)["containers"] if each["name"] == "kata-pulse"]
    return found


def config(objects: list[dict]) -> str:
    (found,) = [each for each in of_kind(objects, "ConfigMap") if "config.yaml" in each.get("data", {})]
    return found["data"]["config.yaml"]


def nested(*path_and_value):
    """`nested("a", "b", 1)` is `{"a": {"b": 1}}`."""
    *path, value = path_and_value
    for key in reversed(path):
        value = {key: value}
    return value


def merged(base: dict, more: dict) -> dict:
    out = dict(base)
    for key, value in more.items():
        both = isinstance(value, dict) and isinstance(out.get(key), dict)
        out[key] = merged(out[key], value) if both else value
    return out
