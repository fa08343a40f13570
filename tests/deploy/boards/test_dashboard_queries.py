"""Every expression of every panel and variable, evaluated by a Prometheus that scrapes the demo node."""

import math
import time

import pytest

import grafana
from lab import wait_until

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


def empty(lab, board: str, picked: dict) -> set[str]:
    """The expressions without a finite value since the lab began. An error of Prometheus is an error here."""
    end = time.time()
    found = set()
    for target in grafana.targets(grafana.DASHBOARDS[board], picked, end - lab.begun):
        series = target.series(lab.prometheus, lab.begun, end)
        if not any(math.isfinite(float(value)) for one in series for _, value in one["values"]):
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
