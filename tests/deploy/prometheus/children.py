"""Programs that a test starts: their output goes to files, and all of them end with the test."""

import ctypes
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

T = TypeVar("T")


class Children:
    """Starts programs and stops them in reverse, whatever happens between."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self._running: list[tuple[str, subprocess.Popen, signal.Signals]] = []

    def start(
        self, name: str, command: list[str], stop: signal.Signals = signal.SIGTERM, **options
    ) -> subprocess.Popen:
        with open(self.output(name), "wb") as output:
            child = subprocess.Popen(
                command,
                stdin=subprocess.DEVNULL,
                stdout=output,
                stderr=subprocess.STDOUT,
                preexec_fn=_die_with_parent,
                **options,
            )
        self._running.append((name, child, stop))
        return child

    def signal(self, name: str, number: signal.Signals) -> None:
        [child] = [child for of_name, child, _ in self._running if of_name == name]
        child.send_signal(number)

    def output(self, name: str) -> Path:
        return self.directory / f"{name}.log"

    def still_run(self) -> None:
        """Fails when a program has ended, with the end of what it said."""
        for name, child, _ in self._running:
            if child.poll() is not None:
                tail = "\n  ".join(self.output(name).read_text(errors="replace").splitlines()[-15:])
                raise AssertionError(f"{name} has ended with {child.returncode}:\n  {tail}")

    def stop(self, *but: str) -> list[str]:
        """Ends them all, those named `but` excepted; tells which of them had to be killed."""
        complaints = []
        for name, child, how in reversed([one for one in self._running if one[0] not in but]):
            if child.poll() is None:
                child.send_signal(how)
            try:
                child.wait(timeout=20)
            except subprocess.TimeoutExpired:
                complaints.append(f"{name} did not end")
                child.kill()
                child.wait()
        self._running = [one for one in self._running if one[0] in but]
        return complaints


def _die_with_parent() -> None:
    # Otherwise a test that is killed would leave its programs behind. 1 is PR_SET_PDEATHSIG.
    ctypes.CDLL(None).prctl(1, signal.SIGINT)


def wait_until(what: str, look: Callable[[], T | None], seconds: float = 30, every: float = 0.1) -> T:
    """The first answer of `look` that is neither None nor False; an error while it waits is told when time is up."""
    last: object = None
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        try:
            last = look()
            if last is not None and last is not False:
                return last
        except (OSError, ValueError, KeyError) as error:
            last = error
        time.sleep(every)
    raise AssertionError(f"in {seconds} s it did not come true that {what} (last: {last!r})")


def free_port() -> int:
    """A port nobody listens on now, for programs that cannot tell which they took."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def get(url: str, accept: str = "text/plain", timeout: float = 10) -> str:
    """The body of a successful answer."""
    request = urllib.request.Request(url, headers={"Accept": accept})
    try:
        with urllib.request.urlopen(request, timeout=timeout) as answer:
            return answer.read().decode()
    except urllib.error.HTTPError as error:
        raise OSError(f"{url}: {error.code} {error.read()[:300]!r}") from error
