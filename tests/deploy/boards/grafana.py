"""Does with a dashboard what Grafana does before it asks Prometheus: gives the variables values and fills them in."""

import json
import re
from dataclasses import dataclass

from lab import FILES, SCRAPE_INTERVAL, Prometheus

DASHBOARDS = {path.stem: json.loads(path.read_text()) for path in sorted((FILES / "dashboards").glob("*.json"))}

# label_values(METRIC, LABEL), METRIC with or without matchers.
LABEL_VALUES = re.compile(r"label_values\((?P<selector>.*),\s*(?P<label>[a-z_]+)\)")

# What Grafana fills in by itself: one point per scrape, and $__rate_interval as its documentation defines it,
# max($__interval + scrape interval, 4 * scrape interval).
STEP = SCRAPE_INTERVAL
RATE_INTERVAL = max(STEP + SCRAPE_INTERVAL, 4 * SCRAPE_INTERVAL)


@dataclass(frozen=True)
class Target:
    """One expression of a panel, filled in."""

    panel: str
    kind: str
    ref_id: str
    legend: str
    expr: str
    instant: bool

    def __str__(self) -> str:
        return f"{self.panel} / {self.ref_id}: {self.expr}"

    def series(self, prometheus: Prometheus, begin: float, end: float) -> list[dict]:
        """What Prometheus answers, as a list of {metric, values}."""
        if self.instant:
            result = prometheus.ask("query", query=self.expr, time=end)["result"]
            return [{"metric": one["metric"], "values": [one["value"]]} for one in result]
        return prometheus.ask("query_range", query=self.expr, start=begin, end=end, step=STEP)["result"]


def panels(dashboard: dict) -> list[dict]:
    """Every panel that is not a row."""
    return [panel for panel in dashboard["panels"] if panel["type"] != "row"]


def choices(dashboard: dict, prometheus: Prometheus, picked: dict[str, str], begin: float, end: float) -> dict[str, list[str]]:
    """The values that each variable offers, one after the other, because a later query has the earlier ones in it."""
    offered: dict[str, list[str]] = {}
    for variable in _variables(dashboard):
        selector, label = LABEL_VALUES.fullmatch(variable["query"]["query"]).group("selector", "label")
        selector = fill_in(selector, dashboard, picked, end - begin)
        offered[variable["name"]] = prometheus.ask(f"label/{label}/values", **{"match[]": selector, "start": begin, "end": end})
    return offered


def fill_in(text: str, dashboard: dict, picked: dict[str, str], seconds: float) -> str:
    """`picked` has a value for every variable that is not to be All. Anything left to fill in is an error."""
    values = {"__rate_interval": f"{RATE_INTERVAL}s", "__range": f"{max(round(seconds), 1)}s"}
    for variable in _variables(dashboard):
        name = variable["name"]
        several = variable["multi"] or variable["includeAll"]
        if name in picked:
            values[name] = _regular(picked[name]) if several else picked[name].replace("\\", "\\\\").replace('"', '\\"')
        elif variable["includeAll"]:
            values[name] = variable["allValue"]
    filled = re.sub(r"\$(\w+)", lambda match: values[match.group(1)], text)
    assert "$" not in filled and "[[" not in filled, f"not filled in: {filled}"
    return filled


def targets(dashboard: dict, picked: dict[str, str], seconds: float) -> list[Target]:
    """Every expression of every panel."""
    return [
        Target(panel["title"], panel["type"], target["refId"], target["legendFormat"],
               fill_in(target["expr"], dashboard, picked, seconds), target["instant"])
        for panel in panels(dashboard) for target in panel["targets"]
    ]


def _variables(dashboard: dict) -> list[dict]:
    return [variable for variable in dashboard["templating"]["list"] if variable["type"] == "query"]


def _regular(value: str) -> str:
    """A value inside a matcher with =~, as Grafana's Prometheus data source writes it: a literal, escaped twice."""
    return re.sub(r"[\\^$.*+?()|\[\]{}]", lambda match: "\\\\" + match.group(0), value)
