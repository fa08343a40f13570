"""Panels and boards in this project's style, on Grafana's own generated builders.

The builders know every key that Grafana knows, so that a misspelt option fails here and not silently in a browser.
"""

import json
from dataclasses import dataclass

from grafana_foundation_sdk.builders import bargauge, common, dashboard, prometheus, stat, table, timeseries
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import common as common_model
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import prometheus as prometheus_model

# Grafana's grid is 24 columns wide.
GRID_WIDTH = 24

# All boards carry it, and link to each other by it.
TAG = "kata-pulse"

DATASOURCE = model.DataSourceRef(type_val="prometheus", uid="${datasource}")


@dataclass(frozen=True)
class Query:
    """One expression of a panel. `below` draws it below the axis, `dashed` as a thin dashed line: a limit or size."""

    expr: str
    legend: str = ""
    below: bool = False
    dashed: bool = False


class Board:
    """A dashboard being laid out: panels go from left to right, and a row begins anew below all of them."""

    def __init__(self, uid: str, title: str, description: str):
        link = dashboard.DashboardLink("Kata dashboards").type(model.DashboardLinkType.DASHBOARDS).tags([TAG])
        self._board = (
            dashboard.Dashboard(title).uid(uid).description(description).tags([TAG, "kubernetes"])
            .time("now-1h", "now").refresh("30s").timezone("browser")
            .tooltip(model.DashboardCursorSync.CROSSHAIR)
            .link(link.icon("external link").include_vars(True).keep_time(True))
            .with_variable(dashboard.DatasourceVariable("datasource").label("Data source").type("prometheus"))
        )
        self._id = self._x = self._y = self._height = 0

    def choice(self, name: str, label: str, query: str, *, every: bool) -> None:
        """A variable. `every`: several values or none may be picked, and all of them is the beginning. A label that no
        series has can still be selected that way: `.*` matches its absence too."""
        variable = (
            dashboard.QueryVariable(name).label(label).datasource(DATASOURCE)
            .query({"qryType": 1, "query": query, "refId": "PrometheusVariableQueryEditor-VariableQuery"})
            .refresh(model.VariableRefresh.ON_TIME_RANGE_CHANGED).sort(model.VariableSort.ALPHABETICAL_ASC)
        )
        if every:
            everything = model.VariableOption(selected=True, text=["All"], value=["$__all"])
            variable = variable.multi(True).include_all(True).all_value(".*").current(everything)
        self._board.with_variable(variable)

    def row(self, title: str) -> None:
        self._y += self._height
        position = model.GridPos(h=1, w=GRID_WIDTH, x=0, y=self._y)
        self._board.with_row(dashboard.Row(title).id(self._next_id()).grid_pos(position))
        self._x, self._y, self._height = 0, self._y + 1, 0

    def add(self, panel, width: int, height: int) -> None:
        if self._x + width > GRID_WIDTH:
            self._x, self._y, self._height = 0, self._y + self._height, 0
        position = model.GridPos(h=height, w=width, x=self._x, y=self._y)
        self._board.with_panel(panel.id(self._next_id()).grid_pos(position))
        self._x, self._height = self._x + width, max(self._height, height)

    def text(self) -> str:
        return json.dumps(self._board.build(), cls=JSONEncoder, indent=2, sort_keys=True) + "\n"

    def _next_id(self) -> int:
        self._id += 1
        return self._id


def graph(title: str, description: str, unit: str, *queries: Query, stacked: bool = False, ratio: bool = False,
          signed: bool = False):
    """Lines over time. `ratio`: the axis ends at 1 whatever the data. `signed`: it need not begin at 0."""
    legend = common.VizLegendOptions().display_mode(common_model.LegendDisplayMode.TABLE).show_legend(True)
    tooltip = common.VizTooltipOptions().mode(common_model.TooltipDisplayMode.MULTI)
    panel = (
        _panel(timeseries.Panel(), title, description, unit, queries, instant=False)
        .legend(legend.placement(common_model.LegendPlacement.BOTTOM).calcs(["mean", "lastNotNull"]))
        .tooltip(tooltip.sort(common_model.SortOrder.DESCENDING))
        .line_width(1).fill_opacity(25 if stacked else 5).show_points(common_model.VisibilityMode.NEVER)
    )
    if stacked:
        panel = panel.stacking(common.StackingConfig().mode(common_model.StackingMode.NORMAL))
    if ratio:
        panel = panel.max(1)
    # Where something is drawn below the axis, the axis may not end at 0.
    if any(query.below for query in queries):
        panel = panel.axis_centered_zero(True)
    elif not signed:
        panel = panel.min(0)
    for ref_id, query in zip(_ref_ids(), queries):
        if query.below:
            panel = panel.override_by_query(ref_id, [model.DynamicConfigValue("custom.transform", "negative-Y")])
        if query.dashed:
            dashes = {"fill": "dash", "dash": [10, 10]}
            panel = panel.override_by_query(ref_id, [
                model.DynamicConfigValue("custom.lineStyle", dashes),
                model.DynamicConfigValue("custom.fillOpacity", 0),
                model.DynamicConfigValue("custom.stacking", {"mode": "none"}),
            ])
    return panel


def number(title: str, description: str, unit: str, *queries: Query, steps=((None, "blue"),), words=None,
           name: bool = False, decimals: int | None = None):
    """The latest value, large. `words` says numbers in words; `name` shows the legend in place of the value."""
    panel = (
        _panel(stat.Panel(), title, description, unit, queries, instant=True)
        .reduce_options(_last()).thresholds(_thresholds(steps))
        .graph_mode(common_model.BigValueGraphMode.NONE).color_mode(common_model.BigValueColorMode.VALUE)
        .text_mode(common_model.BigValueTextMode.NAME if name else common_model.BigValueTextMode.VALUE_AND_NAME
                   if len(queries) > 1 else common_model.BigValueTextMode.VALUE)
    )
    if words:
        said = {value: model.ValueMappingResult(text=text, color=color) for value, (text, color) in words.items()}
        panel = panel.mappings([model.ValueMap(options=said)])
    return panel if decimals is None else panel.decimals(decimals)


def bars(title: str, description: str, unit: str, query: Query, *, steps, top: float | None = None):
    """The latest value of each series as a bar, coloured by thresholds."""
    panel = (
        _panel(bargauge.Panel(), title, description, unit, (query,), instant=True)
        .reduce_options(_last()).thresholds(_thresholds(steps)).min(0)
        .orientation(common_model.VizOrientation.HORIZONTAL)
        .display_mode(common_model.BarGaugeDisplayMode.BASIC)
    )
    return panel if top is None else panel.max(top)


@dataclass(frozen=True)
class Column:
    """A column of a table: the field it shows, its heading, its unit, words for numbers, and where a click leads."""

    field: str
    heading: str
    unit: str = "none"
    words: dict | None = None
    url: str = ""


def listing(title: str, description: str, key: str, columns: list[Column], *queries: Query):
    """A table of the latest values, its queries joined on the label `key`."""
    shown = {column.field: position for position, column in enumerate(columns)}
    hidden = [key, "Time", *(f"Time {number}" for number in range(1, len(queries) + 1)), "Value #A"]
    layout = {
        "excludeByName": {field: True for field in hidden if field not in shown},
        "indexByName": shown,
        "renameByName": {column.field: column.heading for column in columns},
    }
    panel = (
        _panel(table.Panel(), title, description, "none", queries, instant=True, as_table=True)
        .with_transformation(model.DataTransformerConfig("joinByField", options={"byField": key, "mode": "outer"}))
        .with_transformation(model.DataTransformerConfig("organize", options=layout))
        .sort_by([common.TableSortByFieldState().display_name(columns[0].heading)])
    )
    for column in columns:
        properties = [model.DynamicConfigValue("unit", column.unit)]
        if column.words:
            said = {value: {"text": text, "color": color} for value, (text, color) in column.words.items()}
            properties.append(model.DynamicConfigValue("mappings", [{"type": "value", "options": said}]))
            properties.append(model.DynamicConfigValue("custom.cellOptions", {"type": "color-text"}))
        if column.url:
            link = {"title": f"Open {column.heading.lower()}", "url": column.url}
            properties.append(model.DynamicConfigValue("links", [link]))
        panel = panel.override_by_name(column.heading, properties)
    return panel


def _panel(panel, title, description, unit, queries, *, instant, as_table=False):
    panel = panel.title(title).description(description).unit(unit).datasource(DATASOURCE)
    for ref_id, query in zip(_ref_ids(), queries):
        target = prometheus.Dataquery().ref_id(ref_id).expr(query.expr).datasource(DATASOURCE)
        target = target.legend_format(query.legend or "__auto").editor_mode(prometheus_model.QueryEditorMode.CODE)
        target = target.instant() if instant else target.range()
        panel = panel.with_target(target.format(
            prometheus_model.PromQueryFormat.TABLE if as_table else prometheus_model.PromQueryFormat.TIME_SERIES))
    return panel


def _ref_ids():
    return "ABCDEFGHIJKLMNOPQRSTUVWXYZ"


def _last():
    return common.ReduceDataOptions().calcs(["lastNotNull"]).values(False).fields("")


def _thresholds(steps):
    steps = [model.Threshold(value=value, color=color) for value, color in steps]
    return dashboard.ThresholdsConfig().mode(model.ThresholdsMode.ABSOLUTE).steps(steps)
