"""The plain manifests are the chart's, and kustomize takes them as a base."""

import subprocess

import kubernetes_validate
import pytest

import manifests
import render


@pytest.mark.parametrize("name", manifests.SHAPES)
def test_the_manifests_are_those_of_the_chart(name):
    assert (manifests.DIRECTORY / name).read_text() == manifests.files()[name], "run `make manifests`"


@pytest.mark.parametrize("name", manifests.SHAPES)
def test_the_manifests_lack_only_what_says_helm(name):
    found = render.documents((manifests.DIRECTORY / name).read_text())
    rendered = render.render(manifests.SHAPES[name], version="3", namespace=manifests.NAMESPACE)
    assert found[0]["kind"] == "Namespace" and len(found) == len(rendered) + 1
    for each in found:
        if each["kind"] != "PodMonitor":
            kubernetes_validate.validate(each, "1.25", strict=True)
    assert "elm" not in (manifests.DIRECTORY / name).read_text().removeprefix(manifests.HEADER)


def test_kustomize_builds_on_the_base(tmp_path):
    overlay = tmp_path / "kustomization.yaml"
    base = manifests.DIRECTORY
    link = tmp_path / "base"
    link.mkdir()
    for file in base.glob("*.yaml"):
        (link / file.name).write_text(file.read_text())
    overlay.write_text("resources: [base]\nimages: [{name: ghcr.io/kata-pulse/kata-pulse, newTag: '9'}]\nnamespace: other\n")
    kubectl = render.TOOLS / "helm4" / "kubectl"
    done = subprocess.run([str(kubectl), "kustomize", str(tmp_path)], capture_output=True, text=True, timeout=60)
    assert done.returncode == 0, done.stderr
    objects = render.documents(done.stdout)
    assert render.container(objects)["image"] == "ghcr.io/kata-pulse/kata-pulse:9"
    assert {each["metadata"].get("namespace", "other") for each in objects} == {"other"}
    assert len(objects) == len(render.documents((base / "kata-pulse.yaml").read_text()))
