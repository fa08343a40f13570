"""Chart.yaml says what catalogues want to know, and says it of this agent; the chart works packed, and inside another."""

import re
import shutil
import tarfile
import tomllib

import yaml

import render

TEXT = (render.CHART / "Chart.yaml").read_text()
METADATA = yaml.safe_load(TEXT)
KINDS = {"added", "changed", "deprecated", "removed", "fixed", "security"}


def annotation(name: str):
    return yaml.safe_load(METADATA["annotations"][f"artifacthub.io/{name}"])


def test_the_version_is_the_agents():
    cargo = tomllib.loads((render.ROOT / "Cargo.toml").read_text())["workspace"]["package"]
    assert METADATA["appVersion"] == cargo["version"] and f'appVersion: "{cargo["version"]}"' in TEXT
    assert re.fullmatch(r"\d+\.\d+\.\d+(-[0-9A-Za-z.-]+)?", METADATA["version"])
    assert METADATA["annotations"]["artifacthub.io/license"] == cargo["license"]
    assert (METADATA["apiVersion"], METADATA["type"], METADATA["kubeVersion"]) == ("v2", "application", ">=1.25.0-0")


def test_what_a_catalogue_shows():
    for key in ("description", "home", "sources", "icon", "keywords", "maintainers"):
        assert METADATA[key], key
    # The icon is a file of the chart, by the address that it has in the repository.
    assert (render.CHART / METADATA["icon"].split("/helm/kata-pulse/")[1]).exists()
    assert METADATA["annotations"]["artifacthub.io/category"] == "monitoring-logging"
    assert "support" in [link["name"] for link in annotation("links")]
    assert annotation("changes") and all(change["kind"] in KINDS for change in annotation("changes"))
    (image,) = annotation("images")
    assert image["image"] == render.container(render.render())["image"]
    assert {"linux/amd64", "linux/arm64"} <= set(image["platforms"])
    assert {METADATA["annotations"][f"artifacthub.io/{name}"] for name in ("prerelease", "containsSecurityUpdates")} <= {"true", "false"}


def test_old_clusters_are_refused():
    for version in render.HELMS:
        assert render.text(version=version, extra=("--kube-version", "1.25.0"))
        try:
            render.text(version=version, extra=("--kube-version", "1.24.9"))
        except render.Refused as refused:
            assert "kubeVersion" in str(refused)
        else:
            raise AssertionError("1.24 is not refused")


def test_the_package_has_what_is_rendered_and_nothing_else(tmp_path):
    render.run("4", "package", str(render.CHART), "--destination", str(tmp_path))
    (package,) = tmp_path.glob("*.tgz")
    with tarfile.open(package) as archive:
        names = {name.removeprefix("kata-pulse/") for name in archive.getnames()}
    tops = {name.split("/")[0] for name in names}
    # Helm's own list of what it leaves out goes into the package as well.
    assert tops == {"Chart.yaml", "README.md", "values.yaml", "values.schema.json", "templates", "files", "icon.svg", ".helmignore"}
    packed = render.run("4", "template", "kata-pulse", str(package), "--namespace", "monitoring")
    assert render.documents(packed) == render.render(version="4")


def test_it_is_a_part_of_other_charts(tmp_path):
    """A parent chart hands over its globals and the condition by which it takes this one."""
    parent = tmp_path / "parent"
    shutil.copytree(render.CHART, parent / "charts" / "kata-pulse")
    (parent / "Chart.yaml").write_text(
        "{apiVersion: v2, name: parent, version: 0.1.0, dependencies: [{name: kata-pulse, version: '*', condition: kata-pulse.enabled}]}"
    )
    values = {"global": {"imageRegistry": "mirror", "storageClass": "x"}, "kata-pulse": {"enabled": True, "logLevel": "debug"}}
    (parent / "values.yaml").write_text(yaml.safe_dump(values))
    for version in render.HELMS:
        objects = render.documents(render.run(version, "template", "whole", str(parent)))
        assert render.container(objects)["image"].startswith("mirror/")
        assert "debug" in render.config(objects)
        assert render.one(objects, "DaemonSet")["metadata"]["name"] == "whole-kata-pulse"
        none = render.run(version, "template", "whole", str(parent), "--set", "kata-pulse.enabled=false")
        assert not render.documents(none)
