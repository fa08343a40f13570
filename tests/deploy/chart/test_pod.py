"""The chart's pod at work: the real agent with the rendered mounts, arguments, user and capabilities, confined by runc on
a demo's node of real processes, real cgroups and simulated Kata sandboxes. Needs root and runc."""

import json
import os
import pathlib
import re
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid

import pytest
from prometheus_client.parser import text_string_to_metric_families

import render

BINARIES = render.ROOT / "target" / "debug"
WRAPPER = pathlib.Path(__file__).with_name("pod_agent.py")
PATIENCE = 60


class Demo:
    """A demo's node with the chart's pod on it, and what is left of them when it goes."""

    def __init__(self, values, *arguments):
        assert os.geteuid() == 0, "a node is made of cgroups and namespaces: run this as root"
        # A short path: sockets lie below it.
        self.state = tempfile.TemporaryDirectory(prefix="kpc")
        self.name = f"kata-pulse-chart-{uuid.uuid4().hex[:12]}"
        objects = render.render(values)
        given = {
            "objects": objects,
            "config": render.config(objects),
            "agent": str(BINARIES / "kata-pulse"),
            "state": self.state.name,
            "name": self.name,
        }
        file = pathlib.Path(self.state.name) / "pod.json"
        file.write_text(json.dumps(given))
        self.output = pathlib.Path(self.state.name) / "output"
        with self.output.open("wb") as output:
            self.process = subprocess.Popen(
                [str(BINARIES / "demo"), *arguments, str(WRAPPER)],
                stdout=output,
                stderr=subprocess.STDOUT,
                stdin=subprocess.DEVNULL,
                env={"PATH": os.environ["PATH"], "DEMO_PORT": "0", "POD_FILE": str(file)},
            )

    def __enter__(self):
        return self

    def __exit__(self, *_):
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        try:
            self.process.wait(PATIENCE)
        finally:
            runc = ["runc", "--root", f"{self.state.name}/runc"]
            subprocess.run([*runc, "delete", "--force", self.name], capture_output=True, timeout=PATIENCE)
            self.process.kill()
            self.state.cleanup()

    def said(self) -> str:
        return self.output.read_text(errors="replace")

    def address(self) -> str:
        """Where the agent serves, once the demo says so."""
        end = time.monotonic() + PATIENCE
        while time.monotonic() < end:
            if found := re.search(r"http://(127\.0\.0\.1:\d+)", self.said()):
                return found[1]
            assert self.process.poll() is None, self.said()
            time.sleep(0.05)
        raise AssertionError(f"the demo does not say where the agent is:\n{self.said()}")


def get(address: str, path: str) -> str:
    with urllib.request.urlopen(f"http://{address}{path}", timeout=PATIENCE) as answer:
        return answer.read().decode()


def samples(address: str) -> dict[str, list]:
    """Samples by name."""
    found = {}
    for family in text_string_to_metric_families(get(address, "/metrics")):
        for sample in family.samples:
            found.setdefault(sample.name, []).append(sample)
    return found


def test_every_container_and_sandbox_is_served_from_the_charts_pod():
    with Demo({}, "--check") as demo:
        assert demo.process.wait(PATIENCE) == 0, demo.said()
        assert "demo: ok: " in demo.said()


def eventually(check):
    """Returns when `check` no longer finds anything wrong: pods come and go on this node, as on others."""
    end = time.monotonic() + PATIENCE
    while True:
        try:
            return check()
        except (AssertionError, KeyError):
            if time.monotonic() > end:
                raise
            time.sleep(0.2)


def components(found, name) -> set[str]:
    return {sample.labels["component"] for sample in found.get(name, [])}


READ = "kata_pulse_sandbox_process_read_bytes_total"


def test_every_collector_works_without_capabilities():
    with Demo({}) as demo:
        address = demo.address()
        found = samples(address)
        success = {sample.labels["collector"]: sample.value for sample in found["kata_pulse_collector_success"]}
        values = render.yaml.safe_load((render.CHART / "values.yaml").read_text())["collectors"]
        on = {name for name, settings in values.items() if settings.get("enabled")}
        assert success == dict.fromkeys(on, 1), demo.said()
        checks = get(address, "/readyz?verbose")
        assert "[-]" not in checks and "failed" not in checks, checks
        # A sample of what each mount gives.
        assert found["kata_pulse_cri_up"][0].value == 1, "the runtime's socket"
        assert any(sample.labels["container"] for sample in found["container_cpu_usage_seconds_total"]), "cgroups"
        assert any(sample.labels["pod"] for sample in found["container_network_receive_bytes_total"]), "/proc"
        assert found["machine_cpu_physical_cores"][0].value > 0, "/sys/devices or /proc"
        assert found["kata_pulse_vmm_memory_bytes"], "sockets of Cloud Hypervisor"
        assert found["kata_pulse_guest_memory_total_bytes"], "sockets that lead to guests"
        assert components(found, "kata_pulse_sandbox_process_resident_memory_bytes") >= {"shim", "hypervisor"}
        assert components(found, "kata_pulse_sandbox_process_open_fds") >= {"shim", "hypervisor"}
        # Tracing is what this needs, and nobody has allowed it.
        assert READ not in found


def test_guests_are_reached_through_the_sockets_of_every_hypervisor():
    with Demo({}) as demo:
        address = demo.address()

        def check():
            # One guest hangs, as the demo wants it.
            found = [each for each in json.loads(get(address, "/sandboxes?runtime=kata")) if each["pod_name"] != "stuck"]
            agents = {(each["hypervisor"], each["sources"]["agent"]) for each in found}
            # QEMU's vsock is what a default seccomp profile denies.
            reached = {(hypervisor, "up") for hypervisor in ("clh", "dragonball", "firecracker")}
            assert agents == reached | {("qemu", "skipped: not_permitted")}

        eventually(check)


# What takes the pids of the processes in a cgroup, which the kernel tells in the reader's namespace only.
OF_PROCESSES = ("container_processes", "container_ulimits_soft", "container_network_receive_bytes_total")


def rows_of_processes(values) -> set[tuple[str, ...]]:
    """The pods' rows of those families, once every container has a process and what it says."""
    with Demo(values) as demo:
        address = demo.address()

        def check():
            found = samples(address)
            running = [sample for sample in found["container_processes"] if sample.labels["container"]]
            assert running and all(sample.value >= 1 for sample in running), "a running container has a process"
            limited = {sample.labels["id"] for sample in found["container_ulimits_soft"] if sample.labels["container"]}
            assert limited == {sample.labels["id"] for sample in running}
            keys = ("namespace", "pod", "container", "interface")
            return {
                (name, *(sample.labels.get(key, "") for key in keys))
                for name in OF_PROCESSES
                for sample in found[name]
                if sample.labels["pod"]
            }

        return eventually(check)


def test_a_process_namespace_of_its_own_hides_nothing_of_the_node():
    apart, shared = rows_of_processes({}), rows_of_processes({"hostPID": True})
    assert apart == shared
    assert {name for name, *_ in apart} == set(OF_PROCESSES)


def test_the_collectors_that_need_capabilities_get_what_they_need():
    with Demo({"collectors": {"kata": {"processIo": True}, "fd": {"enabled": True}}}) as demo:
        found = samples(demo.address())
        assert components(found, READ) >= {"shim", "hypervisor"}
        assert any(sample.labels["container"] and sample.value > 0 for sample in found["container_file_descriptors"])
        success = {sample.labels["collector"]: sample.value for sample in found["kata_pulse_collector_success"]}
        assert success["fd"] == 1


def test_the_nodes_root_shows_its_filesystems():
    with Demo({"hostPaths": {"root": {"enabled": True}, "osRelease": {"enabled": True}}}) as demo:
        found = samples(demo.address())
        sizes = [sample.value for sample in found["container_fs_limit_bytes"] if sample.labels["id"] == "/"]
        root = os.statvfs("/")
        assert root.f_blocks * root.f_frsize in sizes
        (version,) = found["cadvisor_version_info"]
        names = [line for line in pathlib.Path("/etc/os-release").read_text().splitlines() if "PRETTY_NAME" in line]
        assert names == [f'PRETTY_NAME="{version.labels["osVersion"]}"']
