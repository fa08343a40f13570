"""A real Prometheus applies the rendered relabelings of samples, with honoured labels and where it may not honour them."""

import http.server
import json
import pathlib
import re
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request

import pytest
import yaml

import render

PATIENCE = 60
# What the operator gives a pod's target.
TARGET = {"job": "kata-pulse", "namespace": "monitoring", "pod": "kata-pulse-x", "container": "kata-pulse"}
SAMPLES = """\
container_a{container="app",id="/c",image="i",name="n",namespace="shop",pod="cart"} 1
container_a{container="",id="/",image="",name="",namespace="",pod=""} 1
kata_pulse_b{namespace="shop",pod="cart"} 1
kata_pulse_c 1
"""


class Exposition(http.server.BaseHTTPRequestHandler):
    def do_GET(self):  # noqa: N802
        self.send_response(200)
        self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
        self.end_headers()
        self.wfile.write(SAMPLES.encode())

    def log_message(self, *_):
        pass


@pytest.fixture
def exposition():
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Exposition)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    yield f"127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()


def snake(name: str) -> str:
    return re.sub(r"[A-Z]", lambda letter: "_" + letter[0].lower(), name)


def ask(address: str, path: str, **query):
    query = urllib.parse.urlencode(query)
    with urllib.request.urlopen(f"http://{address}{path}?{query}", timeout=PATIENCE) as answer:
        return json.load(answer)["data"]


def series(values, exposition: str, directory: pathlib.Path, honour: bool) -> dict[tuple, dict]:
    """What Prometheus keeps of the samples, by name and id."""
    monitor = render.one(render.render(values), "PodMonitor")["spec"]["podMetricsEndpoints"][0]
    job = {
        "job_name": "x",
        "honor_labels": honour,
        "scrape_interval": "1s",
        "scrape_timeout": "1s",
        "static_configs": [{"targets": [exposition], "labels": TARGET}],
        "metric_relabel_configs": [
            {snake(key): value for key, value in rule.items()} for rule in monitor.get("metricRelabelings", [])
        ],
    }
    file = directory / "prometheus.yml"
    file.write_text(yaml.safe_dump({"scrape_configs": [job]}))
    log = directory / "log"
    command = ["prometheus", f"--config.file={file}", f"--storage.tsdb.path={directory / 'data'}", "--web.listen-address=127.0.0.1:0"]
    with log.open("wb") as output:
        prometheus = subprocess.Popen(command, stdout=output, stderr=subprocess.STDOUT)
    try:
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            assert prometheus.poll() is None, log.read_text()
            # It says on which port it listens in its log.
            found = re.search(r"address=(127\.0\.0\.1:[1-9]\d*)", log.read_text())
            try:
                result = found and ask(found[1], "/api/v1/query", query='{__name__=~"container_.+|kata_pulse_.+|up"}')["result"]
            except (OSError, urllib.error.URLError):
                result = None
            if result and len(result) == 5:
                return {(each["metric"]["__name__"], each["metric"].get("id")): each["metric"] for each in result}
            time.sleep(0.1)
        raise AssertionError(f"no samples:\n{log.read_text()}")
    finally:
        prometheus.terminate()
        prometheus.wait(PATIENCE)


def identity(labels: dict) -> tuple:
    return tuple(labels.get(name) for name in ("job", "metrics_path", "namespace", "pod", "container"))


OWN = ("kata-pulse", None, "monitoring", "kata-pulse-x", "kata-pulse")
KUBELET = ("kubelet", "/metrics/cadvisor")


@pytest.mark.parametrize("honour", [True, False], ids=["honoured", "overridden"])
def test_samples_are_those_of_the_pods_and_the_target_stays_ours(exposition, tmp_path, honour):
    values = {"podMonitor": {"enabled": True}, "kubeletCompat": {"enabled": True, "restoreExportedLabels": not honour}}
    found = series(values, exposition, tmp_path, honour)
    assert identity(found["container_a", "/c"]) == (*KUBELET, "shop", "cart", "app")
    # The node's own row is nobody's: not the agent's pod either.
    assert identity(found["container_a", "/"]) == (*KUBELET, None, None, None)
    # A sandbox has no container; that the agent's stays is without harm, because it is no label of the family.
    assert identity(found["kata_pulse_b", None])[:4] == ("kata-pulse", None, "shop", "cart")
    assert identity(found["kata_pulse_c", None]) == OWN == identity(found["up", None])
    assert not [label for labels in found.values() for label in labels if label.startswith("exported_")]
