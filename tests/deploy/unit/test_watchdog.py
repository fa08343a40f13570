"""A hang and the watchdog, on the installed binary: signs of life go on for the two minutes in which a collection may
still end, and then stop, so that the manager starts the agent anew."""

import http.client
import os
import re
import socket
import subprocess
import threading
import time

import pytest

# What the agent believes to be stuck for good; it says the same in docs and in its status.
STUCK = 120

# The manager's patience. Signs of life come at half of it.
WATCHDOG = 4


class Hung:
    """The agent in a collection that does not end: a file of the node is a pipe into which nobody writes."""

    def __init__(self, binary, directory):
        self.pipe = directory / "proc/meminfo"
        self.pipe.parent.mkdir(parents=True)
        os.mkfifo(self.pipe)
        path = directory / "notify"
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind(str(path))
        self.messages = []
        threading.Thread(target=self.listen, daemon=True).start()
        self.log = open(directory / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(
            [binary, "--listen-address", "127.0.0.1:0", "--runtime-endpoint", "none", "--host-root", directory],
            env={"NOTIFY_SOCKET": str(path), "WATCHDOG_USEC": str(WATCHDOG * 1_000_000)}, stderr=self.log,
        )
        address = self.wait("the agent listens", 30, lambda: re.search(r"msg=listening.*address=\"?127.0.0.1:([0-9]+)", self.read_log()))
        self.port = int(address[1])
        self.asked = time.monotonic()
        # Nobody waits for the answer; the collection goes on without.
        self.scrape = socket.create_connection(("127.0.0.1", self.port))
        self.scrape.sendall(b"GET /metrics HTTP/1.1\r\nHost: node\r\n\r\n")

    def listen(self):
        while True:
            try:
                message = self.socket.recv(4096).decode()
            except OSError:
                return
            self.messages.append((time.monotonic(), message))

    def read_log(self):
        self.log.seek(0)
        return self.log.read()

    def beats(self):
        return [at for at, message in list(self.messages) if message == "WATCHDOG=1\n"]

    def status(self):
        told = [message for _, message in list(self.messages) if message.startswith("STATUS=")]
        return told[-1] if told else ""

    def wait(self, what, patience, condition):
        deadline = time.monotonic() + patience
        while not (found := condition()):
            assert time.monotonic() < deadline, f"not after {patience} s: {what}; messages {self.messages[-5:]}\n{self.read_log()}"
            assert self.process.poll() is None, f"the agent ended\n{self.read_log()}"
            time.sleep(0.05)
        return found

    def ask(self, path):
        connection = http.client.HTTPConnection("127.0.0.1", self.port, timeout=10)
        try:
            connection.request("GET", path)
            answer = connection.getresponse()
            return answer.status, answer.read().decode()
        finally:
            connection.close()

    def close(self):
        self.process.kill()
        self.process.wait()
        self.scrape.close()
        self.socket.close()
        self.log.close()


@pytest.fixture(scope="session")
def hung(installed, tmp_path_factory):
    hung = Hung(installed.path("usr/bin/kata-pulse"), tmp_path_factory.mktemp("hung"))
    yield hung
    hung.close()


@pytest.mark.first
def test_a_collection_that_may_still_end_is_no_hang(hung):
    first = hung.wait("a sign of life after the scrape", 30, lambda: [at for at in hung.beats() if at > hung.asked + WATCHDOG])
    assert first[0] - hung.asked < STUCK
    assert hung.messages[0][1] == "READY=1\n"
    assert hung.ask("/livez")[0] == 200


@pytest.mark.last
def test_the_watchdog_starves_when_a_collection_is_stuck_for_good(hung):
    hung.wait("two minutes have gone by", STUCK + 10, lambda: time.monotonic() > hung.asked + STUCK)
    hung.wait("no sign of life for three times the manager's patience", 60,
              lambda: time.monotonic() - hung.beats()[-1] > 3 * WATCHDOG)
    last = hung.beats()[-1] - hung.asked
    # It went on until then: at least one sign in the last stretch before the two minutes were over.
    assert STUCK - 2 * WATCHDOG < last < STUCK + WATCHDOG, f"the last sign of life came {last:.1f} s after the scrape"
    status, body = hung.ask("/livez?verbose")
    assert status == 503 and "collection: one has been running for" in body, (status, body)
    assert "collection: one has been running for" in hung.status(), hung.status()
