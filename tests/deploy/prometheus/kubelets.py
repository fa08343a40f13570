"""Kubelets and kube-state-metrics as Prometheus sees them, without a cluster.

`DemoKubelet` shows the demo's pods the way the kubelet's cAdvisor does: runc pods in full; of each Kata pod the pod
cgroup, and one sandbox row that is the whole virtual machine, with `eth0` and its mirror `tap0_kata`. Nothing in the
labels tells such a row from that of a runc pod's pause container, which is how it is with the systemd driver.
`CapturedKubelet` serves what a real kubelet said. Both answer on the kubelet's own paths, each on a port of its own.
"""

import contextlib
import gzip
import http.server
import re
import threading
import time
from collections.abc import Callable, Iterable
from typing import Generic, TypeVar

from exposition import Sample, parse, write
from node import REPOSITORY, Node, Pod

T = TypeVar("T")
CAPTURE = REPOSITORY / "tests" / "fixtures" / "kubelet-1.35-cadvisor.txt.gz"
NODE_NAME = "node-1"
TAP = "tap0_kata"
HOST_ROWS_RECEIVED = 7e8

# What of one sandbox the kubelet shows twice: some setups leave part of the machine in a cgroup of its own.
WITH_OVERHEAD_ROW = ("shop", "cart")


class Pages:
    """An HTTP server for texts that are made when they are asked for."""

    def __init__(self, pages: dict[str, Callable[[], str]], ended: threading.Event | None = None) -> None:
        self._ended = ended or threading.Event()

        class Handler(http.server.BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_GET(self) -> None:
                page = pages.get(self.path.split("?")[0])
                try:
                    status, body = (200, page().encode()) if page else (404, b"no such page\n")
                except OSError as error:
                    # The agent behind it has ended; Prometheus notes a failed scrape.
                    status, body = 503, str(error).encode()
                self.send_response(status)
                self.send_header("Content-Type", "text/plain; version=0.0.4; charset=utf-8")
                self.send_header("Content-Length", str(len(body)))
                self.end_headers()
                # A scraper that has given up has noted it; nobody is left to be told.
                with contextlib.suppress(ConnectionError):
                    self.wfile.write(body)

            def log_message(self, *_) -> None:
                pass

        self._server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self.address = f"127.0.0.1:{self._server.server_port}"
        threading.Thread(target=self._server.serve_forever, daemon=True).start()

    def stop(self) -> None:
        self._ended.set()
        self._server.shutdown()
        self._server.server_close()


class Kept(Generic[T]):
    """What is made anew every two seconds, whoever asks: a kubelet's numbers are old, too, and here many ask."""

    def __init__(self, make: Callable[[], T], ended: threading.Event) -> None:
        self._make, self._ended = make, ended
        self._last: T | None = None
        threading.Thread(target=self._keep, daemon=True).start()

    def _keep(self) -> None:
        while True:
            # An agent that does not answer leaves what there was, which the tests find out.
            with contextlib.suppress(OSError):
                self._last = self._make()
            if self._ended.wait(2):
                return

    def __call__(self) -> T:
        if self._last is None:
            raise OSError("nothing yet")
        return self._last


def measured(node: Node, ended: threading.Event) -> Kept[list[Sample]]:
    """What is known of the node's pods, and of the node. Other programs' pods are left out: they may run here, too."""

    def samples() -> list[Sample]:
        known = {pod.key for pod in node}
        return [
            one
            for one in node.everything.samples()
            if one.pod in known or (one.pod == ("", "") and _is_above_pods(one.label("id")))
        ]

    return Kept(samples, ended)


class DemoKubelet:
    """The kubelet of the demo's node. With `cri_stats` it has its containers' numbers from the runtime, which knows
    those of Kata pods, too. With `crio` sandbox rows look as they do with CRI-O: a container `POD` without an image."""

    def __init__(self, node: Node, measured: Kept[list[Sample]], cri_stats: bool = False, crio: bool = False) -> None:
        self._node, self._measured = node, measured
        self._cri_stats, self._crio = cri_stats, crio
        self._begun = time.time()
        ended = threading.Event()
        pages = {
            "/metrics/cadvisor": Kept(self._cadvisor, ended),
            "/metrics/resource": Kept(self._resource, ended),
            "/metrics": _own_page,
        }
        self.pages = Pages(pages, ended)
        self.address = self.pages.address

    def _cadvisor(self) -> str:
        samples = self._measured()
        runc = {pod.key for pod in self._node if not pod.kata}
        kata = {pod.key for pod in self._node if pod.kata}
        shown = []
        for one in samples:
            if not one.name.startswith("container_"):
                continue
            pod_row = one.pod in kata and not one.label("container") and not one.label("image")
            if one.pod in runc or one.pod == ("", "") or pod_row:
                shown.append(one)
        for number, pod in enumerate(pod for pod in self._node if pod.kata):
            shown.extend(self._machine(pod, number, samples))
        if self._cri_stats:
            shown.extend(_from_runtime(one) for one in self._kata_containers(samples))
        if self._crio:
            shown = [_as_crio(one) for one in shown]
        return write(shown, int(time.time() * 1000))

    def _machine(self, pod: Pod, number: int, samples: list[Sample]) -> Iterable[Sample]:
        """The rows of a whole virtual machine."""
        pod_row = next(
            one
            for one in samples
            if one.pod == pod.key and one.label("id") and not one.label("container") and not one.label("image")
        )
        pause = next(one.label("image") for one in samples if one.label("image") and not one.label("container"))
        labels = {"container": "", "image": pause, "name": pod.sandbox, "namespace": pod.namespace, "pod": pod.name}
        host = {one.name: one.value for one in samples if one.label("sandbox_id") == pod.sandbox}
        cpu = host["kata_pulse_sandbox_host_cpu_seconds_total"]
        memory = host["kata_pulse_sandbox_host_memory_bytes"]
        yield from _row(labels | {"id": f"{pod_row.label('id')}/{pod.sandbox}"}, cpu, memory, self._wires(number))
        if pod.key == WITH_OVERHEAD_ROW:
            yield from _row(labels | {"id": f"/kata_overhead/{pod.sandbox}"}, cpu / 8, memory / 8, self._wires(number))

    def _wires(self, number: int) -> dict[str, dict[str, float]]:
        """Interface counters that grow at a pace of the pod's own, so that a result tells what was added up."""
        lived = time.time() - self._begun
        received, sent = (1000 * (number + 1)) * (lived + 10), (700 * (number + 1)) * (lived + 7)
        eth0 = {"receive_bytes": received, "transmit_bytes": sent}
        tap = {"receive_bytes": sent, "transmit_bytes": received}
        for wire in (eth0, tap):
            for direction in ("receive", "transmit"):
                wire[f"{direction}_packets"] = float(int(wire[f"{direction}_bytes"] / 100))
                wire[f"{direction}_packets_dropped"] = 0.0
                wire[f"{direction}_errors"] = 0.0
        return {"eth0": eth0, TAP: tap}

    def _kata_containers(self, samples: list[Sample]) -> list[Sample]:
        kata = {pod.key for pod in self._node if pod.kata}
        families = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
        return [one for one in samples if one.name in families and one.pod in kata and one.label("container")]

    def _resource(self) -> str:
        families = ("container_cpu_usage_seconds_total", "container_memory_working_set_bytes")
        known = {pod.key for pod in self._node}
        shown = [
            Sample("node_cpu_usage_seconds_total", (), time.process_time()),
            Sample("resource_scrape_error", (), 0.0),
        ]
        for one in self._measured():
            if one.name in families and one.pod in known and one.label("container"):
                labels = tuple((key, value) for key, value in one.labels if key in ("container", "namespace", "pod"))
                shown.append(Sample(one.name, labels, one.value))
                shown.append(Sample("container_start_time_seconds", labels, self._begun))
        return write(dict.fromkeys(shown))


def _row(labels: dict[str, str], cpu: float, memory: float, wires: dict[str, dict[str, float]]) -> Iterable[Sample]:
    def sample(name: str, value: float, **more: str) -> Sample:
        return Sample(f"container_{name}", tuple(sorted((labels | more).items())), value)

    yield sample("cpu_usage_seconds_total", cpu, cpu="total")
    yield sample("cpu_cfs_periods_total", float(int(cpu * 10)))
    yield sample("cpu_cfs_throttled_periods_total", float(int(cpu)))
    for family in ("usage_bytes", "working_set_bytes", "rss", "cache", "swap"):
        yield sample(f"memory_{family}", memory if family != "swap" else 0.0)
    for family in ("reads_total", "writes_total", "reads_bytes_total", "writes_bytes_total"):
        yield sample(f"fs_{family}", cpu * 100, device="/dev/vda")
    for interface, counters in wires.items():
        for family, value in counters.items():
            yield sample(f"network_{family}_total", value, interface=interface)


def _from_runtime(one: Sample) -> Sample:
    """As containerd tells it: whole seconds, `id` is the container's, no `cpu` and no `name`."""
    labels = dict(one.labels)
    labels["id"] = labels.pop("name")
    labels.pop("cpu", None)
    value = float(int(one.value)) if one.name.endswith("_seconds_total") else one.value
    return Sample(one.name, tuple(sorted(labels.items())), value)


def _as_crio(one: Sample) -> Sample:
    if one.label("container") or not one.label("image"):
        return one
    namespace, pod = one.pod
    return one.changed(container="POD", image="", name=f"k8s_POD_{pod}_{namespace}_{one.label('name')[:8]}_0")


def _is_above_pods(cgroup: str) -> bool:
    return cgroup == "/" or cgroup.endswith("/kubepods")


def _own_page() -> str:
    return write([Sample("kubelet_node_name", (("node", NODE_NAME),), 1.0), Sample("kubelet_running_pods", (), 11.0)])


class CapturedKubelet:
    """A real kubelet's page. Its counters are made to grow, each at a pace of its own: a page that stands still would
    hide what is counted twice, because twice nothing is nothing."""

    _COUNTER = re.compile(rb"^(container_[a-z0-9_]+_total\{[^}]*\}) (\S+)( \d+)?$", re.MULTILINE)

    def __init__(self) -> None:
        self._page = gzip.decompress(CAPTURE.read_bytes())
        self._begun = time.time()
        self.samples = parse(self._page.decode())
        self.pods = sorted({one.pod for one in self.samples if one.pod != ("", "")})
        self.host_network = {
            one.pod
            for one in self.samples
            if one.name == "container_network_receive_bytes_total" and one.value > HOST_ROWS_RECEIVED
        }
        ended = threading.Event()
        self.pages = Pages({"/metrics/cadvisor": Kept(self._cadvisor, ended), "/metrics": _own_page}, ended)
        self.address = self.pages.address

    def _cadvisor(self) -> str:
        lived = time.time() - self._begun

        def grown(match: re.Match[bytes]) -> bytes:
            pace = 1 + len(match[1]) % 7
            return b"%s %r%s" % (match[1], float(match[2]) + pace * lived, match[3] or b"")

        return self._COUNTER.sub(grown, self._page).decode()


def kube_state_metrics(node: Node, captured: CapturedKubelet) -> Pages:
    """What kube-state-metrics knows of the demo's pods and of those in the capture."""
    samples = []

    def add(namespace: str, pod: str, uid: str, host_network: bool, kata: bool) -> None:
        base = {"namespace": namespace, "pod": pod, "uid": uid}

        def sample(name: str, value: float = 1.0, **more: str) -> None:
            samples.append(Sample(name, tuple(sorted((base | more).items())), value))

        sample(
            "kube_pod_info",
            created_by_kind="DaemonSet",
            created_by_name=f"{pod}-set",
            host_ip="192.0.2.1",
            host_network="true" if host_network else "false",
            node=NODE_NAME,
            pod_ip="192.0.2.2",
        )
        sample("kube_pod_owner", owner_kind="DaemonSet", owner_name=f"{pod}-set", owner_is_controller="true")
        if kata:
            sample("kube_pod_overhead_memory_bytes", 160.0 * 2**20)
            sample("kube_pod_overhead_cpu_cores", 0.25)

    for pod in node:
        add(*pod.key, pod.uid, False, pod.kata)
    for number, (namespace, pod) in enumerate(captured.pods):
        add(namespace, pod, f"00000000-0000-4000-8000-{number:012}", (namespace, pod) in captured.host_network, False)
    text = write(samples)
    return Pages({"/metrics": lambda: text})
