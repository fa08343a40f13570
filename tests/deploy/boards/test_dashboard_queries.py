"""Every expression of every panel and variable, evaluated by a Prometheus that scrapes the demo node."""

import math
import re
import time

import pytest

import grafana
from lab import TOO_LITTLE_MEMORY, wait_until

# In seconds: what a loaded machine gets until every rate has its two samples.
DATA_PATIENCE = 120

# shop/cart has everything that a pod can have: two containers, an agent that answers, and Cloud Hypervisor.
CART = {"namespace": "shop", "pod": "cart"}

# Empty without kube-state-metrics, and only they: (panel, legend) or the panel's only expression.
OF_KUBE_STATE_METRICS = {
    "kata-node": {"Every Kata sandbox / E", "Memory overhead against RuntimeClass / A", "Memory: measured and declared / B",
                  "CPU: measured and declared / B"},
    "kata-sandbox": {"Overhead / declared / A", "CPU: host, containers, isolation / D", "Memory: host, containers, isolation / D"},
}

BOARDS = sorted(grafana.DASHBOARDS)


# Labels of the target, which an installation may do without.
OPTIONAL_LABELS = {"cluster", "node"}


def empty(lab, board: str, picked: dict) -> set[str]:
    """The expressions without a finite value since the lab began, or without a label that their legend tells. An error of
    Prometheus is an error here."""
    end = time.time()
    found = set()
    for target in grafana.targets(grafana.DASHBOARDS[board], picked, end - lab.begun):
        series = target.series(lab.prometheus, lab.begun, end)
        shown = [one["metric"] for one in series if any(math.isfinite(float(value)) for _, value in one["values"])]
        told = set(re.findall(r"\{\{(\w+)\}\}", target.legend)) - OPTIONAL_LABELS
        if not shown or not all(any(labels.get(name) for labels in shown) for name in told):
            found.add(f"{target.panel} / {target.ref_id}")
    return found


def wait_for(lab, board: str, picked: dict, allowed: set[str] = frozenset()) -> None:
    def look():
        now = empty(lab, board, picked)
        return now == allowed, sorted(now ^ allowed)

    wait_until(f"of {board} with {picked} exactly {sorted(allowed)} are empty", DATA_PATIENCE, look)


def of(board: str, picked: dict) -> dict:
    return {**picked, **(CART if board == "kata-sandbox" else {})}


@pytest.mark.parametrize("board", BOARDS)
def test_no_panel_is_empty_when_nothing_is_picked(lab, board):
    wait_for(lab, board, of(board, {}))


@pytest.mark.parametrize("board", BOARDS)
def test_no_panel_is_empty_in_a_cluster_that_was_picked(lab, board):
    wait_for(lab, board, of(board, {"cluster": "lab"}))


def test_no_panel_is_empty_on_a_node_and_an_agent_that_were_picked(lab):
    instance = lab.agent.removeprefix("http://")
    wait_for(lab, "kata-node", {"cluster": "lab", "node": "demo", "instance": instance})


@pytest.mark.parametrize("board", BOARDS)
def test_without_kube_state_metrics_only_what_it_declares_is_missing(lab, board):
    wait_for(lab, board, of(board, {"cluster": "plain"}), OF_KUBE_STATE_METRICS[board])


def test_a_cluster_that_was_picked_is_the_only_one_shown(lab):
    def kata(picked):
        target = next(one for one in grafana.targets(grafana.DASHBOARDS["kata-node"], picked, 60) if one.panel == "Kata sandboxes")
        return lab.prometheus.value(target.expr)

    expected = sum(one["runtime"] == "kata" for one in lab.sandboxes())
    wait_until("every cluster has been scraped", DATA_PATIENCE, lambda: (kata({}) == 3 * expected, kata({})))
    assert kata({"cluster": "lab"}) == expected
    assert kata({"cluster": "no such"}) is None


def test_the_node_board_tells_what_is_known_of_the_demo(lab):
    """One sandbox hangs, one RuntimeClass declares too little, and the runtime answers."""
    def value_of(one: dict) -> float:
        return float(one["values"][-1][1])

    def look():
        end = time.time()
        targets = grafana.targets(grafana.DASHBOARDS["kata-node"], {"cluster": "lab"}, end - lab.begun)
        answers = {f"{one.panel} / {one.ref_id}": one.series(lab.prometheus, lab.begun, end) for one in targets}
        above = answers["Memory overhead against RuntimeClass / A"]
        told = {
            "not measured": [value_of(one) for one in answers["Not measured / A"]],
            "runtime": [value_of(one) for one in answers["Runtime / A"]],
            "above declared": {f"{one['metric']['namespace']}/{one['metric']['pod']}" for one in above if value_of(one) > 1},
            "rows": sorted(one["metric"]["pod"] for one in answers["Every Kata sandbox / A"]),
            "rows not measured": {one["metric"]["sandbox_id"] for one in answers["Every Kata sandbox / B"] if value_of(one) == 0},
        }
        return told == expected, told

    kata = [one for one in lab.sandboxes() if one["runtime"] == "kata"]
    expected = {
        "not measured": [1], "runtime": [1], "above declared": set(TOO_LITTLE_MEMORY),
        "rows": sorted(one["pod_name"] for one in kata),
        "rows not measured": {one["sandbox_id"] for one in kata if one["pod_name"] == "stuck"},
    }
    wait_until(f"the board tells {expected}", DATA_PATIENCE, look)


def test_every_column_of_the_table_has_a_field(lab):
    """Columns are picked by the names of labels and queries; a wrong one would be left out in silence."""
    table = next(panel for panel in grafana.panels(grafana.DASHBOARDS["kata-node"]) if panel["type"] == "table")
    wanted = set(table["transformations"][1]["options"]["renameByName"])

    def look():
        end = time.time()
        targets = grafana.targets(grafana.DASHBOARDS["kata-node"], {"cluster": "lab"}, end - lab.begun)
        fields = set()
        for target in (one for one in targets if one.panel == table["title"]):
            fields.add(f"Value #{target.ref_id}")
            fields.update(*(one["metric"] for one in target.series(lab.prometheus, lab.begun, end)))
        # Besides the columns there is the key that joins the queries, and the 1 of the first.
        return fields == wanted | {"sandbox_id", "Value #A"}, sorted(fields ^ wanted)

    wait_until("the queries have the fields of the columns", DATA_PATIENCE, look)


@pytest.mark.parametrize("board", BOARDS)
def test_every_variable_offers_what_there_is(lab, board):
    kata = [one for one in lab.sandboxes() if one["runtime"] == "kata"]
    shop = sorted(one["pod_name"] for one in kata if one["namespace"] == "shop")
    expected = {"cluster": ["lab", "plain"]}
    if board == "kata-node":
        expected |= {"node": ["demo"], "instance": [lab.agent.removeprefix("http://")]}
    else:
        expected |= {"namespace": sorted({one["namespace"] for one in kata}), "pod": shop}

    def look():
        offered = grafana.choices(grafana.DASHBOARDS[board], lab.prometheus, of(board, {}), lab.begun, time.time())
        return offered == expected, offered

    wait_until(f"the variables of {board} offer {expected}", DATA_PATIENCE, look)


def test_every_kata_pod_has_its_board(lab):
    """Whatever the hypervisor, and even when the guest hangs: what the node itself can tell is there."""
    always = {"Runtime / A", "Measured / A", "Network / A", "Network / B", "CPU by component / A", "Threads by component / A",
              "Resident memory by component / A", "CPU: host, containers, isolation / A", "Time to measure / A"}
    for one in lab.sandboxes():
        if one["runtime"] == "kata":
            picked = {"namespace": one["namespace"], "pod": one["pod_name"]}

            def look(picked=picked):
                missing = empty(lab, "kata-sandbox", picked) & always
                return not missing, sorted(missing)

            wait_until(f"what the node tells of {picked} is there", DATA_PATIENCE, look)
