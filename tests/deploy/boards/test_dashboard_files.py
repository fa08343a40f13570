"""The dashboard files themselves: what Grafana demands of them, and what people who load them rely on."""

import itertools
import json
import re

import pytest
from grafana_foundation_sdk.cog.encoder import JSONEncoder
from grafana_foundation_sdk.models import dashboard as model
from grafana_foundation_sdk.models import units

import grafana
from lab import FILES, ROOT
from source import BOARDS
from source.panels import GRID_WIDTH

# People's links and bookmarks carry it, so it never changes.
UIDS = {"kata-node": "kata-pulse-node", "kata-sandbox": "kata-pulse-sandbox"}

# Grafana writes a unit that it does not know behind the number, which is what is wanted of cores.
UNITS = {value for value in vars(units).values() if isinstance(value, str)} | {"cores"}

PANEL_TYPES = {"row", "timeseries", "stat", "bargauge", "table"}

boards = pytest.mark.parametrize("name, board", grafana.DASHBOARDS.items(), ids=list(grafana.DASHBOARDS))


def test_the_files_are_what_their_source_makes():
    assert sorted(grafana.DASHBOARDS) == sorted(BOARDS)
    for name, board in BOARDS.items():
        written = (FILES / "dashboards" / f"{name}.json").read_text()
        assert written == board().text(), f"{name}.json is not what its source makes: run `make dashboards`"


@boards
def test_grafana_knows_every_key(name, board):
    """A key that Grafana's model does not know is lost on the way through it."""
    through_the_model = json.loads(json.dumps(model.Dashboard.from_json(board), cls=JSONEncoder))
    assert through_the_model == board
    assert board["schemaVersion"] == model.Dashboard().schema_version


@boards
def test_the_board_can_be_found_again(name, board):
    assert board["uid"] == UIDS[name]
    assert "id" not in board, "an id belongs to one Grafana"
    assert board["title"] and board["description"] and "kata-pulse" in board["tags"]


@boards
def test_every_panel_has_its_own_id_and_title(name, board):
    ids = [panel["id"] for panel in board["panels"]]
    assert len(set(ids)) == len(ids) and min(ids) > 0
    titles = [panel["title"] for panel in board["panels"]]
    assert len(set(titles)) == len(titles), f"twice: {sorted({one for one in titles if titles.count(one) > 1})}"


@boards
def test_no_panel_covers_another(name, board):
    def cells(panel):
        place = panel["gridPos"]
        return set(itertools.product(range(place["x"], place["x"] + place["w"]), range(place["y"], place["y"] + place["h"])))

    taken = {}
    for panel in board["panels"]:
        place = panel["gridPos"]
        assert 0 <= place["x"] and place["x"] + place["w"] <= GRID_WIDTH and place["h"] > 0, panel["title"]
        for cell in cells(panel):
            assert cell not in taken, f"{panel['title']} covers {taken[cell]}"
            taken[cell] = panel["title"]


@boards
def test_every_panel_says_what_it_shows(name, board):
    for panel in grafana.panels(board):
        assert panel["type"] in PANEL_TYPES, f"{panel['title']} is a {panel['type']}"
        assert panel["description"].endswith("."), panel["title"]
        assert panel["fieldConfig"]["defaults"]["unit"] in UNITS, panel["title"]
        for override in panel["fieldConfig"]["overrides"]:
            for one in override["properties"]:
                assert one["id"] != "unit" or one["value"] in UNITS, (panel["title"], override["matcher"])
        assert panel["targets"], panel["title"]


@boards
def test_nothing_is_tied_to_one_installation(name, board):
    for panel in grafana.panels(board):
        for holder in (panel, *panel["targets"]):
            assert holder["datasource"] == {"type": "prometheus", "uid": "${datasource}"}, panel["title"]
        for target in panel["targets"]:
            expr = target["expr"]
            assert not re.search(r"\b(job|node|instance|cluster)\s*=~?\s*\"(?!\$)", expr), f"tied to one name: {expr}"
            assert not re.search(r"\[\d", expr), f"a rate over a fixed time: {expr}"
            # Each selector picks the cluster: a selector is what stands in braces.
            for selector in re.findall(r"\{([^}]*)\}", expr):
                assert 'cluster=~"$cluster"' in selector, f"another cluster's series come in: {expr}"
    for variable in board["templating"]["list"]:
        if variable["name"] == "datasource":
            assert variable["query"] == "prometheus" and "current" not in variable
        else:
            assert variable["datasource"] == {"type": "prometheus", "uid": "${datasource}"}
    cluster = next(one for one in board["templating"]["list"] if one["name"] == "cluster")
    assert cluster["includeAll"] and cluster["allValue"] == ".*", "a series without the label is matched by .* alone"


def test_a_click_on_a_pod_leads_to_its_board():
    table = next(panel for panel in grafana.panels(grafana.DASHBOARDS["kata-node"]) if panel["type"] == "table")
    headings = table["transformations"][1]["options"]["renameByName"].values()
    pod = next(one for one in table["fieldConfig"]["overrides"] if one["matcher"]["options"] == "Pod")
    url = next(one["value"] for one in pod["properties"] if one["id"] == "links")[0]["url"]
    assert url.startswith(f"/d/{UIDS['kata-sandbox']}?")
    variables = {one["name"] for one in grafana.DASHBOARDS["kata-sandbox"]["templating"]["list"]}
    assert set(re.findall(r"var-(\w+)=", url)) | set(re.findall(r"\$\{(\w+):queryparam", url)) == variables
    assert set(re.findall(r"__data\.fields\.(\w+)", url)) <= set(headings)


@boards
def test_the_documentation_has_every_panel(name, board):
    text = (ROOT / "docs/dashboards.md").read_text()
    section = next(part for part in text.split("\n## ") if part.startswith(board["title"] + "\n"))
    listed = re.findall(r"^\| ([^|]+) \| ", section, re.MULTILINE)
    assert listed[0] == "Panel"
    assert listed[1:] == [panel["title"] for panel in grafana.panels(board)], "docs/dashboards.md has other panels"
