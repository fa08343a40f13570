"""Alerts and recording rules: checked and tested by promtool, and evaluated on a Prometheus that scrapes the demo node."""

import math
import re
import subprocess
import time
from pathlib import Path

import pytest
import yaml

from lab import ROOT, RULES, TOO_LITTLE_MEMORY, wait_until

CASES = sorted((Path(__file__).parent / "rules").glob("*_test.yaml"))
RULE_LIST = [rule for path in RULES for group in yaml.safe_load(path.read_text())["groups"] for rule in group["rules"]]
ALERTS = {rule["alert"]: rule for rule in RULE_LIST if "alert" in rule}
RECORDS = {rule["record"]: rule for rule in RULE_LIST if "record" in rule}

# Seconds, as in test_dashboard_queries.
DATA_PATIENCE = 120

# In the demo node, in each of the three clusters: batch/stuck hangs, and pay/ledger is runtime-rs with QEMU, whose agent is
# out of reach and whose shim would not survive the question.
LOUD = {("KataSandboxHung", "batch/stuck"), ("KataPulseUnsafeShimSkipped", "unsafe_qemu")}


def promtool(*arguments: str) -> str:
    done = subprocess.run(["promtool", *arguments], capture_output=True, text=True)
    output = done.stdout + done.stderr
    assert done.returncode == 0, output
    return output


def cases_in(path: Path) -> list[dict]:
    return yaml.safe_load(path.read_text())["tests"]


def test_promtool_accepts_the_rules():
    assert len(RULES) == 2 and ALERTS and RECORDS
    promtool("check", "rules", "--lint=all", "--lint-fatal", *map(str, RULES))


@pytest.mark.parametrize("path", CASES, ids=lambda path: path.stem)
def test_the_rules_do_as_their_cases_say(path):
    promtool("test", "rules", str(path))


def test_every_alert_has_a_case_that_fires_and_one_that_is_silent():
    asked = [case for path in CASES for test in cases_in(path) for case in test.get("alert_rule_test", [])]
    fires = {case["alertname"] for case in asked if case.get("exp_alerts")}
    silent = {case["alertname"] for case in asked if not case.get("exp_alerts")}
    assert fires == silent == set(ALERTS)


def test_every_recording_rule_has_a_case():
    asked = " ".join(case["expr"] for path in CASES for test in cases_in(path) for case in test.get("promql_expr_test", []))
    assert [record for record in RECORDS if record not in asked] == []


def test_every_alert_says_what_to_do():
    headings = {line.removeprefix("## ") for line in (ROOT / "docs/alerts.md").read_text().splitlines() if line.startswith("## ")}
    for name, alert in ALERTS.items():
        assert alert["labels"]["severity"] in {"critical", "warning", "info"}, name
        assert "for" in alert, name
        notes = alert["annotations"]
        assert set(notes) == {"summary", "description", "runbook_url"}, name
        assert "$" not in notes["summary"], f"{name}: a summary that varies keeps alerts from being grouped"
        assert name in headings, f"{name} is not in docs/alerts.md"
        assert notes["runbook_url"].endswith(f"/docs/alerts.md#{name.lower()}"), name


def test_docs_name_no_rule_that_there_is_not():
    text = (ROOT / "docs/alerts.md").read_text()
    named = set(re.findall(r"\bKata[A-Z]\w+", text))
    assert named == set(ALERTS)
    assert set(re.findall(r"\bcluster_\w+:\w+:\w+", text)) == set(RECORDS)


def test_no_rule_is_tied_to_one_installation():
    for rule in RULE_LIST:
        for name in re.findall(r"\bjob\s*=~?\s*\"([^\"]*)\"", rule["expr"]):
            assert name == ".*kata-pulse.*", rule


def test_every_recording_rule_has_data_on_the_demo_node(lab):
    kata = sorted((one["namespace"], one["pod_name"]) for one in lab.sandboxes() if one["runtime"] == "kata")

    def look():
        missing = [record for record in RECORDS if not lab.prometheus.now(record)]
        host = [one["metric"] for one in lab.prometheus.now("cluster_namespace_pod:kata_pulse_host_cpu_seconds:rate5m")]
        pods = sorted((labels["namespace"], labels["pod"]) for labels in host)
        return not missing and pods == sorted(3 * kata), (missing, pods)

    wait_until("every rule has data, and in each of the three clusters each Kata pod is recorded once", DATA_PATIENCE, look)


def test_only_what_is_broken_in_the_demo_node_is_alerted(lab):
    expected = {(cluster, *alert) for cluster in ("", "lab", "plain") for alert in LOUD}
    # Where kube-state-metrics is.
    expected |= {(cluster, "KataMemoryOverheadAboveDeclared", pod) for cluster in ("", "lab") for pod in TOO_LITTLE_MEMORY}

    def fired(result) -> set:
        found = set()
        for labels in (one["metric"] for one in result):
            subject = f"{labels['namespace']}/{labels['pod']}" if "pod" in labels else labels.get("reason", labels.get("instance"))
            found.add((labels.get("cluster", ""), labels["alertname"], subject))
        return found

    firing = 'ALERTS{alertstate="firing"}'

    def look():
        now = fired(lab.prometheus.now(firing))
        return expected <= now, sorted(expected - now)

    wait_until("what is broken is alerted", DATA_PATIENCE, look)
    # The last of them has waited for a minute. Nothing else has fired in all that time.
    # The steps are counted from the start, and the last of them has to be this moment: an alert may be that young.
    end = time.time()
    start = end - math.ceil(end - lab.begun)
    answer = lab.prometheus.ask("query_range", query=firing, start=start, end=end, step=1)
    assert fired(answer["result"]) == expected


def test_the_rules_are_loaded_and_healthy(lab):
    groups = lab.prometheus.ask("rules")["groups"]
    loaded = {rule["name"] for group in groups for rule in group["rules"]}
    assert loaded == set(ALERTS) | set(RECORDS)

    def look():
        rules = [rule for group in lab.prometheus.ask("rules")["groups"] for rule in group["rules"]]
        bad = [(rule["name"], rule["health"], rule.get("lastError")) for rule in rules if rule["health"] != "ok"]
        return not bad, bad

    wait_until("every rule was evaluated without an error", DATA_PATIENCE, look)
