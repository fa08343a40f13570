"""Every shape of ci/ is linted and rendered by Helm 3 and 4, and what comes out is what Kubernetes and operators know."""

import json
import re

import jsonschema
import kubernetes_validate
import pytest

import render

# The oldest minor that the chart admits, and the newest whose schemas are to be had.
MINORS = ("1.25", "1.37")
# Custom resources with a schema here; the rest are Kubernetes' own, or among UNCHECKED.
CUSTOM = ("PodMonitor", "ServiceMonitor", "PrometheusRule", "Certificate")
# No package has schemas of these: test_behaviour.py looks at their fields.
UNCHECKED = ("VerticalPodAutoscaler", "SecurityContextConstraints")

shapes = pytest.mark.parametrize("shape", render.SHAPES, ids=lambda path: path.name.removesuffix("-values.yaml"))
helms = pytest.mark.parametrize("helm", render.HELMS)


def validator(kind):
    schema = json.loads((render.TOOLS / "crds" / f"{kind}.json").read_text())
    return jsonschema.Draft202012Validator(schema)


@shapes
@helms
def test_lint(helm, shape):
    output = render.run(helm, "lint", "--strict", str(render.CHART), "--values", str(shape))
    assert "1 chart(s) linted, 0 chart(s) failed" in output


@shapes
def test_both_helms_render_the_same(shape):
    three, four = (render.render(version=version, files=[shape]) for version in ("3", "4"))
    key = lambda found: (found["kind"], found["metadata"]["name"])
    assert sorted(three, key=key) == sorted(four, key=key)
    assert render.of_kind(three, "DaemonSet")


@shapes
@pytest.mark.parametrize("minor", MINORS)
def test_kubernetes_knows_every_key(shape, minor):
    checked = 0
    for found in render.render(files=[shape]):
        if found["kind"] not in CUSTOM + UNCHECKED:
            kubernetes_validate.validate(found, minor, strict=True)
            checked += 1
    assert checked >= 3


def test_the_kubernetes_schemas_are_strict_and_the_newest_is_taken():
    daemonset = render.one(render.render(), "DaemonSet")
    daemonset["spec"]["template"]["spec"]["hostNetwrk"] = True
    for minor in MINORS:
        with pytest.raises(kubernetes_validate.ValidationError):
            kubernetes_validate.validate(daemonset, minor, strict=True)
    assert kubernetes_validate.latest_version() == f"{MINORS[-1]}.0"


@shapes
def test_operators_know_every_key(shape):
    for found in render.render(files=[shape]):
        if found["kind"] in CUSTOM:
            validator(found["kind"]).validate(found)


def test_every_custom_resource_is_rendered_by_some_shape_and_unknown_keys_are_refused():
    objects = [found for shape in render.SHAPES for found in render.render(files=[shape])]
    for kind in CUSTOM:
        first = render.of_kind(objects, kind)[0]
        first["spec"]["unheardOf"] = 1
        with pytest.raises(jsonschema.ValidationError, match="unheardOf"):
            validator(kind).validate(first)
    monitor = render.one(render.render({"podMonitor": {"enabled": True}}), "PodMonitor")
    monitor["spec"]["podMetricsEndpoints"][0]["relabelings"][0]["sourceLabel"] = ["x"]
    with pytest.raises(jsonschema.ValidationError, match="sourceLabel"):
        validator("PodMonitor").validate(monitor)


def without_text(value):
    """Keys and values of an object, without the text of files in it."""
    if isinstance(value, dict):
        for key, item in value.items():
            yield key, item
            yield from without_text(item)
    elif isinstance(value, list):
        for item in value:
            yield "", item
            yield from without_text(item)


@shapes
def test_nothing_is_null_and_nothing_is_left_of_the_templates(shape):
    output = render.text(files=[shape])
    for found in render.documents(output):
        if found["kind"] in ("PrometheusRule",) or "dashboard" in json.dumps(found["metadata"]):
            continue
        for key, value in without_text(found):
            assert value is not None, f"{found['kind']}: {key} is null"
            if isinstance(value, str):
                assert "{{" not in value and "<nil>" not in value and "map[" not in value, f"{key}: {value}"
    assert not re.search(r"\de\+\d", re.sub(r"sha256:\S+|checksum/\S+ \S+", "", output)), "a number became a float"
