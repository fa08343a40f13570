"""Draws the dashboards for docs/pictures: every panel in its place, with what a Prometheus that scrapes the demo node answers
to the panel's own queries. This is no picture of Grafana; it shows what is on a board, and how it looks with real data.

    python picture.py DIRECTORY [SECONDS]
"""

import math
import re
import sys
import tempfile
import time
from pathlib import Path

import matplotlib

matplotlib.use("Agg")
from matplotlib import pyplot  # noqa: E402: the backend has to be chosen first
from matplotlib.patches import Rectangle  # noqa: E402
from PIL import Image  # noqa: E402: matplotlib brings it

import grafana  # noqa: E402
import lab as laboratory  # noqa: E402

# Pixels: the width of a column and the height of a row of the grid, the gap between panels, and a panel's inner edge.
COLUMN, ROW, GAP, EDGE = 56, 36, 6, 8
PIXELS_PER_INCH = 100

BACKGROUND, PANEL, FRAME, TEXT, FAINT = "#111217", "#181b1f", "#2c3235", "#d8d9da", "#8e8e8e"
NAMED = {"green": "#73bf69", "orange": "#ff9830", "red": "#f2495c", "blue": "#5794f2"}
PALETTE = ["#73bf69", "#f2cc0c", "#5794f2", "#ff9830", "#f2495c", "#b877d9", "#8ab8ff", "#c0d8ff", "#ffa6b0", "#96d98d"]

# A legend has room for so many lines.
LEGEND_LINES = 5

# What is picked: the cluster of the demo that has every label, and the pod that has everything a pod can have.
PICKED = {"kata-node": {"cluster": "lab"}, "kata-sandbox": {"cluster": "lab", "namespace": "shop", "pod": "cart"}}


def main() -> None:
    if len(sys.argv) not in (2, 3):
        sys.exit("usage: python picture.py DIRECTORY [SECONDS]")
    directory, seconds = Path(sys.argv[1]), float(sys.argv[2]) if len(sys.argv) == 3 else 300
    with tempfile.TemporaryDirectory() as scratch, laboratory.running(Path(scratch)) as lab:
        print(f"the demo runs for {seconds:.0f} s, to have something to show")
        laboratory.wait_until("the demo has run", seconds + 60, lambda: (time.time() >= lab.begun + seconds, None))
        for name, board in grafana.DASHBOARDS.items():
            path = directory / f"{name}.png"
            draw(board, PICKED[name], lab, path)
            print(f"{path}: {path.stat().st_size // 1000} kB")


def draw(board: dict, picked: dict, lab, path: Path) -> None:
    """Writes the picture of one board."""
    rows = max(panel["gridPos"]["y"] + panel["gridPos"]["h"] for panel in board["panels"])
    sheet = Sheet(24 * COLUMN + GAP, rows * ROW + 56)
    values = ", ".join(f"{name} {value}" for name, value in picked.items())
    sheet.text(16, 24, board["title"], size=13, weight="bold")
    sheet.text(16, 44, f"{values}; drawn by a script from the board's own queries, not by Grafana", color=FAINT)
    # A busy machine misses a scrape now and then, and the latest values with it.
    answers = laboratory.wait_until(f"every panel of {board['title']} has something to show", 60, lambda: _answers(board, picked, lab))
    for panel in board["panels"]:
        place = panel["gridPos"]
        box = (place["x"] * COLUMN + GAP, place["y"] * ROW + 56, place["w"] * COLUMN - GAP, place["h"] * ROW - GAP)
        if panel["type"] == "row":
            sheet.text(box[0] + 4, box[1] + 16, f"∨  {panel['title']}", size=10, weight="bold")
            continue
        sheet.frame(box)
        sheet.text(box[0] + EDGE, box[1] + 16, panel["title"], size=8, weight="bold")
        DRAWN[panel["type"]](sheet, box, panel, answers[panel["title"]])
    sheet.save(path)


def _answers(board: dict, picked: dict, lab) -> tuple[bool, dict[str, list]]:
    """Whether every expression has series, and by panel what Prometheus answers to each."""
    end = time.time()
    answers: dict[str, list] = {}
    for target in grafana.targets(board, picked, end - lab.begun):
        # The first scrapes have no rate yet.
        answers.setdefault(target.panel, []).append((target, target.series(lab.prometheus, lab.begun + 30, end)))
    return all(series for of_panel in answers.values() for _, series in of_panel), answers


class Sheet:
    """A picture with pixels for coordinates, from the top left."""

    def __init__(self, width: float, height: float):
        self.width, self.height = width, height
        self.figure = pyplot.figure(figsize=(width / PIXELS_PER_INCH, height / PIXELS_PER_INCH), dpi=PIXELS_PER_INCH,
                                    facecolor=BACKGROUND)

    def _across(self, x: float, y: float) -> tuple[float, float]:
        return x / self.width, 1 - y / self.height

    def text(self, x, y, words, size=7.5, color=TEXT, **more) -> None:
        self.figure.text(*self._across(x, y), words, fontsize=size, color=color, parse_math=False, **more)

    def frame(self, box, color=PANEL, edge=FRAME) -> None:
        """A rectangle. Axes lie above all of them, and later ones above earlier ones."""
        x, y, width, height = box
        corner = self._across(x, y + height)
        self.figure.add_artist(Rectangle(corner, width / self.width, height / self.height, facecolor=color, edgecolor=edge,
                                         linewidth=0.6, zorder=-1))

    def axes(self, x, y, width, height):
        left, bottom = self._across(x, y + height)
        axes = self.figure.add_axes((left, bottom, width / self.width, height / self.height), facecolor=PANEL)
        axes.tick_params(colors=FAINT, labelsize=6.5, length=0, pad=3)
        for spine in axes.spines.values():
            spine.set_visible(False)
        axes.grid(color=FRAME, linewidth=0.5)
        return axes

    def save(self, path: Path) -> None:
        self.figure.savefig(path, facecolor=BACKGROUND)
        pyplot.close(self.figure)
        # So many colours are enough for lines and letters, and make half of the size.
        Image.open(path).convert("RGB").quantize(256).save(path, optimize=True)


def _timeseries(sheet, box, panel, answers) -> None:
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    unit, custom = defaults["unit"], defaults.get("custom", {})
    of_query = {one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
                for one in panel["fieldConfig"]["overrides"]}
    lines = []
    for target, series in answers:
        override = of_query.get(target.ref_id, {})
        sign = -1 if override.get("custom.transform") == "negative-Y" else 1
        dashed = "custom.lineStyle" in override
        for one in series:
            points = [(float(at), float(value)) for at, value in one["values"] if math.isfinite(float(value))]
            if points:
                lines.append((_legend(target.legend, one["metric"]), points, dashed, sign))
    axes = sheet.axes(x + 62, y + 26, width - 62 - EDGE, height - 26 - 34 - 14 * min(len(lines), LEGEND_LINES))
    stacked = custom.get("stacking", {}).get("mode") == "normal"
    below: dict[float, float] = {}
    shown = []
    for number, (name, points, dashed, sign) in enumerate(lines):
        color = PALETTE[number % len(PALETTE)]
        times = [at for at, _ in points]
        values = [sign * value for _, value in points]
        if stacked and not dashed:
            floor = [below.get(at, 0.0) for at in times]
            values = [value + under for value, under in zip(values, floor)]
            below.update(zip(times, values))
            axes.fill_between(times, floor, values, color=color, alpha=0.25, linewidth=0)
        elif not dashed:
            axes.fill_between(times, 0, values, color=color, alpha=0.05, linewidth=0)
        axes.plot(times, values, color=color, linewidth=1, linestyle=(0, (6, 4)) if dashed else "-")
        raw = [value for _, value in points]
        shown.append((name, color, sum(raw) / len(raw), raw[-1]))
    low, high = axes.get_ylim()
    if defaults.get("min") == 0:
        low = 0
    if defaults.get("max") is not None:
        high = defaults["max"] * 1.02
    if custom.get("axisCenteredZero"):
        low, high = -max(abs(low), abs(high)), max(abs(low), abs(high))
    axes.set_ylim(low, high if high > low else low + 1)
    low, high = axes.get_ylim()
    # Bytes are counted in powers of two.
    even = matplotlib.ticker.MultipleLocator(2 ** math.ceil(math.log2((high - low) / 6)))
    axes.yaxis.set_major_locator(even if unit == "bytes" else matplotlib.ticker.MaxNLocator(5))
    axes.yaxis.set_major_formatter(lambda value, _: said(value, unit))
    axes.xaxis.set_major_locator(matplotlib.ticker.MultipleLocator(60))
    axes.xaxis.set_major_formatter(lambda at, _: time.strftime("%H:%M", time.gmtime(at)))
    top = y + height - 6 - 14 * min(len(shown), LEGEND_LINES)
    for number, (name, color, mean, last) in enumerate(shown[:LEGEND_LINES]):
        at = top + 14 * number + 8
        if number == LEGEND_LINES - 1 and len(shown) > LEGEND_LINES:
            sheet.text(x + EDGE + 14, at, f"and {len(shown) - number} more", color=FAINT, size=7)
            break
        sheet.frame((x + EDGE, at - 6, 9, 3), color, color)
        sheet.text(x + EDGE + 14, at, name, size=7)
        sheet.text(x + width - 104, at, f"mean {said(mean, unit)}", size=6.5, color=FAINT, ha="right")
        sheet.text(x + width - EDGE, at, f"last {said(last, unit)}", size=6.5, color=FAINT, ha="right")


def _stat(sheet, box, panel, answers) -> None:
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    target, series = answers[0]
    metric, value = series[0]["metric"], float(series[0]["values"][-1][1])
    words, color = _in_words(value, defaults)
    if panel["options"]["textMode"] == "name":
        words = _legend(target.legend, metric)
    # Long words are smaller.
    size = min(17.0, 1.5 * width / max(len(words), 1))
    sheet.text(x + width / 2, y + height / 2 + 16, words, size=size, color=color, ha="center", weight="bold")


def _bargauge(sheet, box, panel, answers) -> None:
    x, y, width, height = box
    defaults = panel["fieldConfig"]["defaults"]
    target, series = answers[0]
    rows = sorted(((_legend(target.legend, one["metric"]), float(one["values"][-1][1])) for one in series), key=lambda row: -row[1])
    top = defaults.get("max") or max(value for _, value in rows) or 1
    step = min(26, (height - 40) / len(rows))
    for number, (name, value) in enumerate(rows):
        words, color = _in_words(value, defaults)
        at = y + 32 + number * step
        sheet.text(x + 110, at + step / 2 + 3, name, ha="right")
        sheet.frame((x + 118, at + 3, width - 190, step - 6), "#22252b", "#22252b")
        sheet.frame((x + 118, at + 3, max((width - 190) * min(value / top, 1), 1), step - 6), color, color)
        sheet.text(x + width - EDGE, at + step / 2 + 3, words, color=color, ha="right")


def _table(sheet, box, panel, answers) -> None:
    x, y, width, height = box
    key = panel["transformations"][0]["options"]["byField"]
    layout = panel["transformations"][1]["options"]
    rows: dict[str, dict] = {}
    for target, series in answers:
        for one in series:
            row = rows.setdefault(one["metric"][key], {})
            row.update(one["metric"])
            row[f"Value #{target.ref_id}"] = float(one["values"][-1][1])
    properties = {one["matcher"]["options"]: {each["id"]: each["value"] for each in one["properties"]}
                  for one in panel["fieldConfig"]["overrides"]}
    fields = sorted(layout["indexByName"], key=layout["indexByName"].get)
    order = sorted(rows.values(), key=lambda row: (row.get("namespace", ""), row.get("pod", "")))
    columns = []
    for field in fields:
        heading = layout["renameByName"][field]
        cells = [(heading, "#6e9fff")]
        for row in order[: int((height - 60) // 24)]:
            value, color = row.get(field, ""), TEXT
            if isinstance(value, float):
                mapping = properties[heading].get("mappings")
                value, color = _in_words(value, {"unit": properties[heading]["unit"], "mappings": mapping or [], "thresholds": None})
            cells.append((value, color))
        columns.append(cells)
    # A column is as wide as its widest cell.
    needs = [max(len(words) for words, _ in cells) + 2 for cells in columns]
    left = x + EDGE
    for cells, need in zip(columns, needs):
        for number, (words, color) in enumerate(cells):
            sheet.text(left, y + 38 + number * 24, words, color=color, size=7, weight="normal" if number else "bold")
        left += (width - 2 * EDGE) * need / sum(needs)


DRAWN = {"timeseries": _timeseries, "stat": _stat, "bargauge": _bargauge, "table": _table}


def _legend(template: str, metric: dict) -> str:
    if template == "__auto":
        return ", ".join(f"{name}={value}" for name, value in sorted(metric.items())) or "value"
    for name in set(re.findall(r"\{\{(\w+)\}\}", template)):
        template = template.replace(f"{{{{{name}}}}}", metric.get(name, ""))
    return template.strip()


def _in_words(value: float, defaults: dict) -> tuple[str, str]:
    """What stands for a value, and its colour."""
    for mapping in defaults.get("mappings") or []:
        said_so = mapping["options"].get(f"{value:g}")
        if said_so:
            return said_so["text"], NAMED[said_so["color"]]
    color = TEXT
    for step in (defaults.get("thresholds") or {"steps": []})["steps"]:
        if step["value"] is None or value >= step["value"]:
            color = NAMED[step["color"]]
    return said(value, defaults["unit"], defaults.get("decimals")), color


def said(value: float, unit: str, decimals: int | None = None) -> str:
    """A number as Grafana would put it, nearly."""
    if value == 0 and unit not in ("percentunit",):
        return "0" if unit in ("none",) else f"0 {SUFFIX.get(unit, unit)}"
    if unit == "percentunit":
        return f"{100 * value:.{decimals if decimals is not None else 3 - min(len(str(int(abs(100 * value)))), 3)}f} %"
    if unit == "s":
        return f"{value:.3g} s" if abs(value) >= 1 else f"{1000 * value:.3g} ms" if abs(value) >= 0.001 else f"{1e6 * value:.3g} µs"
    base, prefixes = (1024, ["", "Ki", "Mi", "Gi", "Ti"]) if unit == "bytes" else (1000, ["", "k", "M", "G", "T"])
    power = 0 if unit == "none" and abs(value) < 10000 else min(max(int(math.log(abs(value), base)), 0), 4)
    number = f"{value / base**power:.3g}"
    return f"{number} {prefixes[power]}{SUFFIX.get(unit, unit)}".strip()


SUFFIX = {"none": "", "bytes": "B", "Bps": "B/s", "iops": "io/s", "pps": "p/s", "reqps": "req/s"}


if __name__ == "__main__":
    main()
