"""The Debian package under test, installed in a root of its own."""

import os
import shutil
import subprocess
from pathlib import Path

import pytest
from deb import run


def pytest_collection_modifyitems(items):
    """What waits for minutes begins first and is looked at last, so that it waits while everything else is tested."""
    places = {"first": -1, "last": 1}
    items.sort(key=lambda item: next((place for name, place in places.items() if item.get_closest_marker(name)), 0))


def pytest_configure(config):
    for place in ["first", "last"]:
        config.addinivalue_line("markers", f"{place}: runs there, whatever its file")


@pytest.fixture(scope="session")
def package():
    """The package's file; `make packages` says where it is."""
    path = os.environ.get("KATA_PULSE_DEB")
    assert path, "KATA_PULSE_DEB is not set: run `make packages`"
    return Path(path).resolve()


class Root:
    """An empty system in which dpkg works."""

    def __init__(self, directory: Path):
        self.directory = directory
        database = directory / "var/lib/dpkg"
        for name in ["info", "updates", "triggers"]:
            (database / name).mkdir(parents=True)
        for name in ["status", "available"]:
            (database / name).touch()

    def dpkg(self, *arguments):
        """The package's scripts run on this machine's shell and are told of the root, as image builders have it."""
        # Nothing that it depends on is installed there.
        force = ["--force-script-chrootless", "--force-depends", "--force-confold"]
        return run("dpkg", f"--root={self.directory}", *force, *arguments, env={"PATH": os.environ["PATH"], "LC_ALL": "C"})

    def state(self):
        """The package's state as dpkg has it."""
        done = subprocess.run(["dpkg-query", f"--admindir={self.directory}/var/lib/dpkg", "-W", "-f", "${Status}", "kata-pulse"],
                              text=True, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
        return done.stdout

    def path(self, name):
        return self.directory / name


@pytest.fixture
def root(tmp_path):
    return Root(tmp_path / "root")


@pytest.fixture(scope="session")
def installed(package, tmp_path_factory):
    """A root with the package in it, not to be changed."""
    root = Root(tmp_path_factory.mktemp("installed") / "root")
    root.dpkg("--install", package)
    yield root
    shutil.rmtree(root.directory)


@pytest.fixture(scope="session")
def unit(installed):
    """The installed unit."""
    return installed.path("usr/lib/systemd/system/kata-pulse.service")
