"""The image: the Dockerfile is linted, really built without a registry, and its root run as a container."""

import json
import os
import re
import subprocess
import sys
import time
import uuid
from pathlib import Path

import pytest
from offline import FATE, REPOSITORY, run

VERSION = re.search(r'^\[workspace\.package\]\nversion = "(.*)"$', (REPOSITORY / "Cargo.toml").read_text(), re.M)[1]


def test_hadolint_finds_nothing():
    said = run(Path(sys.executable).parent / "hadolint", "--failure-threshold", "info", "Dockerfile", cwd=REPOSITORY)
    FATE["linted"] = "Dockerfile linted by hadolint"
    assert said.strip() == ""


def test_the_dockerfiles_own_version_is_the_projects():
    default = re.search(r"^ARG VERSION=(.*)$", (REPOSITORY / "Dockerfile").read_text(), re.M)[1]
    assert default == VERSION


def test_a_builder_that_is_not_known_is_refused():
    done = subprocess.run([REPOSITORY / "tests/deploy/image/build"], env={"PATH": os.environ["PATH"], "BUILDER": "cargo"},
                          text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (1, "image: BUILDER=cargo: docker, podman or buildah\n")


def test_it_holds_the_binary_and_its_licence_and_no_shell(image):
    files = {str(path.relative_to(image.root)) for path in image.root.rglob("*") if not path.is_dir()}
    assert files == {"usr/bin/kata-pulse", "usr/share/doc/kata-pulse/copyright"}
    assert (image.root / "usr/bin/kata-pulse").stat().st_mode & 0o7777 == 0o755


def test_the_binary_needs_no_library(image):
    headers = run("readelf", "--wide", "--program-headers", image.root / "usr/bin/kata-pulse")
    assert "LOAD" in headers and "INTERP" not in headers


def test_its_configuration_is_what_kubernetes_and_people_rely_on(image):
    config = image.config
    assert config["Entrypoint"] == ["/usr/bin/kata-pulse"] and not config.get("Cmd")
    assert config["User"] == "65532:65532"
    assert list(config["ExposedPorts"]) == ["8090/tcp"]
    assert config["StopSignal"] in ("SIGTERM", "15")
    assert "KATA_PULSE_LISTEN=0.0.0.0:8090" in config["Env"]
    assert not any("cargo" in value.lower() for value in config["Env"]), "nothing of the build is left"
    labels = {name.removeprefix("org.opencontainers.image."): value for name, value in config["Labels"].items()
              if name.startswith("org.opencontainers.image.")}
    assert labels["title"] == labels["vendor"] == "kata-pulse"
    assert labels["licenses"] == "Apache-2.0"
    assert labels["version"] == VERSION
    assert labels["created"] == "2023-11-14T22:13:20Z", "SOURCE_DATE_EPOCH"
    assert image.oci["created"].startswith("2023-11-14T22:13:20"), "SOURCE_DATE_EPOCH"
    assert len(labels["description"]) > 20
    assert "revision" in labels


def test_a_changed_source_leaves_the_dependencies_layer(image):
    """The same build once more, up to the dependencies: they are taken from the last one, though a source differs."""
    source = image.context / "src/agent.rs"
    source.write_text(source.read_text() + f"\n// {uuid.uuid4()}\n")
    said = image.builder.build(image.context, "localhost/kata-pulse-dependencies:test", image.toolchain, "--target", "dependencies")
    step = said[said.index("RUN cargo build"):]
    assert "Using cache" in step, said
    assert "Compiling" not in said, said


def test_a_changed_lock_file_does_not(image):
    """The counterpart: what decides about dependencies changes the layer below their build."""
    lock = image.context / "Cargo.lock"
    kept = lock.read_bytes()
    # Another change each time: layers are kept from run to run.
    lock.write_bytes(kept + f"# {uuid.uuid4()}\n".encode())
    try:
        said = image.builder.build(image.context, "localhost/kata-pulse-manifests:test", image.toolchain, "--target", "manifests")
    finally:
        lock.write_bytes(kept)
    copying = said[said.index("COPY . ."):]
    assert "Using cache" not in copying, said


class Container:
    """The image's root run by runc as its configuration says: its user, its environment, a network of its own."""

    def __init__(self, image, bundle):
        self.name = f"kata-pulse-{uuid.uuid4().hex[:12]}"
        self.bundle = bundle
        run("runc", "spec", cwd=bundle)
        spec = json.loads((bundle / "config.json").read_text())
        user, _, group = image.config["User"].partition(":")
        spec["process"] |= {
            "terminal": False,
            "user": {"uid": int(user), "gid": int(group)},
            "args": image.config["Entrypoint"],
            "env": image.config["Env"],
            "cwd": "/",
            "capabilities": {kind: [] for kind in ("bounding", "effective", "permitted")},
            "noNewPrivileges": True,
            "rlimits": [],
        }
        spec["root"] = {"path": str(image.root), "readonly": True}
        (bundle / "config.json").write_text(json.dumps(spec))
        self.log = open(bundle / "log", "w+", encoding="utf-8")
        self.process = subprocess.Popen(["runc", "run", "--bundle", bundle, self.name], stdin=subprocess.DEVNULL,
                                        stdout=self.log, stderr=self.log)

    def said(self):
        self.log.seek(0)
        return self.log.read()

    def wait(self, what, condition, patience=30):
        deadline = time.monotonic() + patience
        while not condition():
            assert time.monotonic() < deadline, f"not after {patience} s: {what}\n{self.said()}"
            assert self.process.poll() is None, f"ended before {what}\n{self.said()}"
            time.sleep(0.05)

    def pid(self):
        return json.loads(run("runc", "state", self.name))["pid"]

    def close(self):
        subprocess.run(["runc", "delete", "--force", self.name], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
        self.process.wait()
        self.log.close()


@pytest.fixture
def container(image, tmp_path):
    container = Container(image, tmp_path)
    yield container
    container.close()


def test_it_runs_as_nobody_in_particular_and_answers_on_every_address(container):
    container.wait("it listens", lambda: "msg=listening" in container.said())
    status = Path(f"/proc/{container.pid()}/status").read_text()
    assert re.search(r"^Uid:\s+65532\s+65532\s", status, re.M) and re.search(r"^CapEff:\s+0+$", status, re.M)
    # Another address than the loopback one, in the container's own network.
    network = ["nsenter", f"--net=/proc/{container.pid()}/ns/net"]
    run(*network, "ip", "link", "set", "lo", "up")
    run(*network, "ip", "address", "add", "192.0.2.1/32", "dev", "lo")
    ask = "import sys, urllib.request; print(urllib.request.urlopen(sys.argv[1], timeout=20).read().decode())"
    page = run(*network, sys.executable, "-c", ask, "http://192.0.2.1:8090/metrics")
    assert re.search(rf'^kata_pulse_build_info{{.*version="{re.escape(VERSION)}".*}} 1$', page, re.M), page[:2000]
    assert f"version={VERSION}" in container.said() or f'version="{VERSION}"' in container.said()


def test_the_health_check_tells_a_living_agent_from_none(container):
    container.wait("it listens", lambda: "msg=listening" in container.said())
    run("nsenter", f"--net=/proc/{container.pid()}/ns/net", "ip", "link", "set", "lo", "up")
    check = ["runc", "exec", container.name, "/usr/bin/kata-pulse", "healthcheck"]
    done = subprocess.run(check, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert (done.returncode, done.stdout) == (0, "")
    # Nobody listens there.
    done = subprocess.run([*check, "--listen-address", "127.0.0.1:1"], text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT)
    assert done.returncode == 1 and "Connection refused" in done.stdout


def test_its_stop_signal_ends_it_cleanly(container, image):
    container.wait("it listens", lambda: "msg=listening" in container.said())
    run("runc", "kill", container.name, image.config["StopSignal"].removeprefix("SIG"))
    assert container.process.wait(timeout=20) == 0, container.said()
