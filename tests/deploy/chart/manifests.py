"""Renders docs/manifests for those who do without Helm. `manifests.py` writes them."""

import re

import render

DIRECTORY = render.ROOT / "docs" / "manifests"
NAMESPACE = "kata-pulse"

SHAPES = {
    "kata-pulse.yaml": {},
    "kata-pulse-podmonitor.yaml": {"podMonitor": {"enabled": True}},
}

HEADER = """\
# Rendered from the Helm chart by `make manifests`; change the chart instead.
"""

NAMESPACE_OBJECT = f"""\
---
apiVersion: v1
kind: Namespace
metadata:
  name: {NAMESPACE}
  labels:
    # Host paths are allowed at this level only.
    pod-security.kubernetes.io/enforce: privileged
"""


def manifest(values) -> str:
    text = render.text(values, version="4", namespace=NAMESPACE)
    # Helm does not manage these objects, and has versions that differ in blank lines.
    text = re.sub(r"^\s*(app\.kubernetes\.io/managed-by: Helm|helm\.sh/chart: .*|# Source: .*)\n", "", text, flags=re.M)
    text = re.sub(r"^\s*\n", "", text, flags=re.M)
    return HEADER + NAMESPACE_OBJECT + text


def files() -> dict[str, str]:
    return {name: manifest(values) for name, values in SHAPES.items()}


if __name__ == "__main__":
    for name, text in files().items():
        (DIRECTORY / name).write_text(text)
