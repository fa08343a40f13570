"""Writes JSON schemas of custom resources, closed to unknown keys.

Usage: crd_schemas.py DIRECTORY. The models are generated from the definitions of the Prometheus operator and of
cert-manager. Importing them takes many seconds, hence the files.
"""

import json
import pathlib
import shutil
import sys

from cloudcoil.models.cert_manager import v1 as cert_manager
from cloudcoil.models.prometheus_operator import v1 as monitoring

MODELS = (monitoring.PodMonitor, monitoring.ServiceMonitor, monitoring.PrometheusRule, cert_manager.Certificate)


def close(schema):
    """Makes every object with named properties refuse others."""
    if isinstance(schema, list):
        for item in schema:
            close(item)
    elif isinstance(schema, dict):
        if "properties" in schema:
            schema.setdefault("additionalProperties", False)
        for item in schema.values():
            close(item)


def main(directory: str) -> None:
    target = pathlib.Path(directory)
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    for model in MODELS:
        schema = model.model_json_schema(by_alias=True)
        close(schema)
        (fresh / f"{model.__name__}.json").write_text(json.dumps(schema))
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
