"""The demo node and agents on it: one that serves every pod, and one with `--scope kata`."""

import json
import os
import re
import signal
from dataclasses import dataclass
from pathlib import Path

from children import Children, free_port, get, wait_until
from exposition import Sample, parse

REPOSITORY = Path(__file__).resolve().parents[3]
BINARIES = Path(os.environ.get("KATA_PULSE_BINARIES", REPOSITORY / "target" / "debug"))

# Long enough for Prometheus and the test to be served the same collection again and again.
MAX_AGE_SECONDS = 2


@dataclass
class Pod:
    namespace: str
    name: str
    uid: str
    sandbox: str
    kata: bool
    answers: bool
    containers: tuple[str, ...]
    # Where the containers' values come from: `cgroup`, `agent`, `task`.
    source: str

    @property
    def key(self) -> tuple[str, str]:
        return self.namespace, self.name


@dataclass
class Agent:
    address: str

    def samples(self, path: str = "/metrics") -> list[Sample]:
        return parse(get(f"http://{self.address}{path}"))


class Node:
    """The demo with its own agent, which only gives the wrapper its arguments, and the two agents under test."""

    def __init__(self, children: Children, directory: Path) -> None:
        agent = BINARIES / "kata-pulse"
        for program in (agent, BINARIES / "demo"):
            if not program.exists():
                raise AssertionError(f"{program} is missing: cargo build --workspace")
        arguments = directory / "arguments"
        wrapper = directory / "agent.sh"
        wrapper.write_text(f'#!/bin/sh\nprintf "%s\\n" "$@" > {arguments}\nexec {agent} "$@"\n')
        wrapper.chmod(0o755)
        children.start(
            "demo", [str(BINARIES / "demo"), str(wrapper)], signal.SIGINT, env=os.environ | {"DEMO_PORT": "0"}
        )

        def ready() -> str | None:
            children.still_run()
            match = re.search(r"kata-pulse runs at http://(\S+)", children.output("demo").read_text())
            return match and match[1]

        wait_until("the demo serves", ready, 60)
        given = arguments.read_text().split("\n")
        self._site = [
            part
            for flag in ("--runtime-endpoint", "--cgroupfs", "--run-dir")
            for part in (flag, given[given.index(flag) + 1])
        ]
        self._children = children
        self.everything = self.agent("everything", "--scope", "all")
        self.kata_only = self.agent("kata-only", "--scope", "kata")
        self.pods = wait_until("both agents know every pod", self._known_pods, 30)

    def agent(self, name: str, *options: str) -> Agent:
        """One more agent on this node."""
        port = free_port()
        command = [str(BINARIES / "kata-pulse"), "--listen-address", f"127.0.0.1:{port}", *self._site]
        self._children.start(name, [*command, "--max-age-secs", str(MAX_AGE_SECONDS), *options])
        agent = Agent(f"127.0.0.1:{port}")

        def ready() -> bool:
            self._children.still_run()
            return bool(get(f"http://{agent.address}/readyz"))

        wait_until(f"agent {name} is ready", ready)
        return agent

    def _known_pods(self) -> list[Pod] | None:
        listed = json.loads(get(f"http://{self.everything.address}/sandboxes", "application/json"))
        up = {
            one.label("sandbox_id"): one.value
            for one in self.everything.samples()
            if one.name == "kata_pulse_sandbox_up"
        }
        pods = [
            Pod(
                one["namespace"],
                one["pod_name"],
                one["uid"],
                one["sandbox_id"],
                one["runtime"] == "kata",
                up.get(one["sandbox_id"], 1) == 1,
                tuple(sorted(c["name"] for c in one["containers"] if c["state"] == "running")),
                one.get("values_from", {}).get("containers", ""),
            )
            for one in listed
        ]
        served = {one.pod for one in self.kata_only.samples("/metrics/cadvisor")}
        expected = {pod.key for pod in pods if pod.kata and pod.answers}
        return pods if pods and expected and expected <= served else None

    def __iter__(self):
        return iter(self.pods)
