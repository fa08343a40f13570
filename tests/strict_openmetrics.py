"""Reads an OpenMetrics body with the reference parser of Prometheus' Python client, which is stricter than a scraper.

Body on standard input; on standard output a JSON list of families: name, type, unit, help and samples, each a name,
labels and the value as Python writes it. Anything the parser refuses ends the program with 1 and the reason.
"""

import json
import sys

try:
    from prometheus_client.openmetrics.parser import text_string_to_metric_families
except ImportError as error:
    sys.exit(f"{sys.executable} lacks the Python package prometheus-client: {error}")


def main() -> None:
    body = sys.stdin.buffer.read().decode("utf-8")
    try:
        families = list(text_string_to_metric_families(body))
    except ValueError as error:
        sys.exit(f"not OpenMetrics: {error}")
    json.dump(
        [
            {
                "name": family.name,
                "type": family.type,
                "unit": family.unit,
                "help": family.documentation,
                "samples": [[sample.name, sample.labels, repr(float(sample.value))] for sample in family.samples],
            }
            for family in families
        ],
        sys.stdout,
    )


main()
