"""A demo node, the real Prometheus that scrapes it, and the few series of kube-state-metrics that the boards read.

The one agent is scraped as three clusters, so that what is selected can be told apart:

| cluster  | kube-state-metrics | labels of the target          |
|----------|--------------------|-------------------------------|
| (none)   | yes                | none but job and instance     |
| lab      | yes                | cluster, node                 |
| plain    | no                 | cluster, node                 |
"""

import json
import os
import signal
import subprocess
import threading
import time
import urllib.error
import urllib.parse
import urllib.request
from contextlib import ExitStack, contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import yaml

ROOT = Path(__file__).resolve().parents[3]
FILES = ROOT / "helm/kata-pulse/files"
RULES = sorted((FILES / "rules").glob("*.yaml"))

# Seconds, and the timeout of a scrape as well. A sandbox that hangs makes a collection take four; with less time than
# that, sandboxes that are slow but well would be cut off too.
SCRAPE_INTERVAL = 5

# An alert that waits for 10 minutes waits for 20 seconds here: longer than one scrape that a busy machine misses.
HURRY = 30

# What a slow machine gets, in seconds.
START_PATIENCE = 60
STOP_PATIENCE = 15

# What the RuntimeClass of every Kata pod of the demo declares: more than its stand-ins for shim and VMM take. One pod has
# a RuntimeClass that declares too little.
DECLARED_MEMORY = 160 << 20
DECLARED_CPU = 0.25
TOO_LITTLE_MEMORY = {"edge/resize": 16 << 20}


class Prometheus:
    """The HTTP API of a Prometheus."""

    def __init__(self, url: str):
        self.url = url

    def ask(self, path: str, **parameters):
        """`data` of the answer; an error has Prometheus' own words."""
        body = urllib.parse.urlencode(parameters, doseq=True).encode()
        # label/…/values knows no POST.
        request = (urllib.request.Request(f"{self.url}/api/v1/{path}", data=body) if path.startswith("query")
                   else urllib.request.Request(f"{self.url}/api/v1/{path}?{body.decode()}"))
        try:
            with urllib.request.urlopen(request, timeout=30) as answer:
                return json.load(answer)["data"]
        except urllib.error.HTTPError as error:
            raise ValueError(f"{error.code}: {json.load(error)['error']}: {parameters}") from None

    def now(self, expr: str) -> list[dict]:
        return self.ask("query", query=expr)["result"]

    def value(self, expr: str) -> float | None:
        """The value of an expression that has one series or none."""
        result = self.now(expr)
        assert len(result) <= 1, f"{expr}: {len(result)} series"
        return float(result[0]["value"][1]) if result else None


class Lab:
    """What a test gets."""

    def __init__(self, agent: str, prometheus: Prometheus, begun: float):
        self.agent = agent
        self.prometheus = prometheus
        self.begun = begun

    def sandboxes(self) -> list[dict]:
        return _sandboxes(self.agent)


@contextmanager
def running(directory: Path):
    """A lab with files in `directory`, which is given up afterwards, whatever happened."""
    with ExitStack() as stack:
        agent = stack.enter_context(_demo(directory))
        state = stack.enter_context(_kube_state_metrics(_sandboxes(agent)))
        rules = [_hurried(path, directory) for path in RULES]
        configuration = directory / "prometheus.yaml"
        configuration.write_text(yaml.safe_dump(_configuration(agent.removeprefix("http://"), state, rules)))
        url = stack.enter_context(_prometheus(directory, configuration))
        yield Lab(agent, Prometheus(url), time.time())


def wait_until(what: str, patience: float, look):
    """The first true answer of `look`; its last false one is told when there is none in time."""
    end = time.monotonic() + patience
    while True:
        done, answer = look()
        if done:
            return answer
        if time.monotonic() > end:
            raise AssertionError(f"not within {patience} s: {what}; last seen: {answer}")
        time.sleep(0.2)


def binary(name: str) -> Path:
    """A program of this project, from KATA_PULSE_TARGET or target/debug."""
    path = Path(os.environ.get("KATA_PULSE_TARGET", ROOT / "target/debug")) / name
    if not path.is_file():
        raise FileNotFoundError(f"{path} is missing: cargo build --workspace makes it, or KATA_PULSE_TARGET names its directory")
    return path


def _hurried(path: Path, directory: Path) -> Path:
    """A copy of a rule file in which alerts wait as many times shorter as HURRY says. Nothing else is changed."""
    content = yaml.safe_load(path.read_text())
    for rule in (rule for group in content["groups"] for rule in group["rules"]):
        if "for" in rule:
            rule["for"] = f"{int(rule['for'].removesuffix('m')) * 60 // HURRY}s"
    copy = directory / path.name
    copy.write_text(yaml.safe_dump(content))
    return copy


def _configuration(agent: str, state: str, rules: list[Path]) -> dict:
    def job(name: str, target: str, **labels: str) -> dict:
        return {"job_name": name, "honor_labels": True, "static_configs": [{"targets": [target], "labels": labels}]}

    return {
        "global": {"scrape_interval": f"{SCRAPE_INTERVAL}s", "scrape_timeout": f"{SCRAPE_INTERVAL}s",
                   "evaluation_interval": "1s"},
        "rule_files": [str(path) for path in rules],
        # Job names that nothing in boards or rules may depend on.
        "scrape_configs": [
            job("bare", agent), job("first", agent, cluster="lab", node="demo"), job("second", agent, cluster="plain", node="demo"),
            job("state", state), job("state-lab", state, cluster="lab"),
        ],
    }


def _sandboxes(agent: str) -> list[dict]:
    with urllib.request.urlopen(f"{agent}/sandboxes", timeout=10) as answer:
        return json.load(answer)


@contextmanager
def _program(command: list, directory: Path, name: str, environment: dict, look):
    """A running program, once `look` finds in its output what tells that it runs; its answer is given. SIGINT ends it."""
    output = directory / f"{name}.log"
    with output.open("wb") as log:
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL, stdout=log, stderr=log,
                                   env={**os.environ, **environment})

        def ready():
            text = output.read_text(errors="replace")
            if process.poll() is not None:
                raise AssertionError(f"{name} has ended with {process.returncode}: {text[-1000:]}")
            found = look(text)
            return found is not None, found if found is not None else text[-1000:]

        try:
            yield wait_until(f"{name} runs", START_PATIENCE, ready)
        finally:
            process.send_signal(signal.SIGINT)
            try:
                process.wait(STOP_PATIENCE)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()
                raise AssertionError(f"{name} did not end within {STOP_PATIENCE} s of SIGINT") from None


def _after(text: str, mark: str) -> str | None:
    """The word after `mark`, once its line is complete."""
    for line in text.splitlines(keepends=True):
        _, found, rest = line.partition(mark)
        if found and line.endswith("\n"):
            return rest.split()[0]
    return None


@contextmanager
def _demo(directory: Path):
    command = [binary("demo"), binary("kata-pulse")]
    with _program(command, directory, "demo", {"DEMO_PORT": "0"}, lambda text: _after(text, "kata-pulse runs at ")) as url:
        yield url


@contextmanager
def _prometheus(directory: Path, configuration: Path):
    command = ["prometheus", f"--config.file={configuration}", f"--storage.tsdb.path={directory / 'tsdb'}",
               "--web.listen-address=127.0.0.1:0", "--log.format=logfmt"]
    # exporter-toolkit tells the port that it was given.
    with _program(command, directory, "prometheus", {}, lambda text: _after(text, 'msg="Listening on" address=')) as address:
        url = f"http://{address}"
        # It listens before it has opened its storage, and until then answers 503.
        wait_until("Prometheus is ready", START_PATIENCE, lambda: _status(f"{url}/-/ready"))
        yield url


def _status(url: str) -> tuple[bool, int]:
    try:
        with urllib.request.urlopen(url, timeout=10) as answer:
            return True, answer.status
    except urllib.error.HTTPError as error:
        return False, error.code


@contextmanager
def _kube_state_metrics(sandboxes: list[dict]):
    """Serves what kube-state-metrics would say of the overhead of the node's Kata pods."""
    lines = ["# TYPE kube_pod_overhead_memory_bytes gauge", "# TYPE kube_pod_overhead_cpu_cores gauge"]
    for one in (one for one in sandboxes if one["runtime"] == "kata"):
        labels = f'{{namespace="{one["namespace"]}",pod="{one["pod_name"]}",uid="{one["uid"]}"}}'
        memory = TOO_LITTLE_MEMORY.get(f'{one["namespace"]}/{one["pod_name"]}', DECLARED_MEMORY)
        lines.insert(1, f"kube_pod_overhead_memory_bytes{labels} {memory}")
        lines.append(f"kube_pod_overhead_cpu_cores{labels} {DECLARED_CPU}")
    body = ("\n".join(lines) + "\n").encode()

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self):
            self.send_response(200)
            self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()
