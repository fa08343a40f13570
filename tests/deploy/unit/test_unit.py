"""The systemd unit as installed: right, hardened, and not too tight for what the agent reads."""

import os
import re
import subprocess
import sys

from deb import REPOSITORY, run

# In tenths, as systemd-analyze takes it.
MOST_EXPOSED = 25


def test_systemd_finds_nothing_wrong(installed):
    # What every system has and our package does not bring: the targets that every service is ordered by, and kill.
    units = installed.path("usr/lib/systemd/system")
    for target in ["sysinit", "basic", "shutdown", "network-online", "multi-user"]:
        (units / f"{target}.target").write_text(f"[Unit]\nDescription={target}\n")
    kill = installed.path("bin/kill")
    kill.parent.mkdir(exist_ok=True)
    kill.write_text("")
    kill.chmod(0o755)
    # A key that it does not know is only said, and a program that is not there is an error.
    said = run("systemd-analyze", "verify", "--man=no", f"--root={installed.directory}", "kata-pulse.service")
    assert said == ""


def test_it_is_hardened_enough(unit):
    said = run("systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", unit)
    exposure = re.search(r"Overall exposure level for kata-pulse.service: ([0-9.]+)", said)
    print(f"systemd-analyze security: {exposure[1]}")
    assert float(exposure[1]) * 10 <= MOST_EXPOSED


def test_a_looser_unit_would_be_noticed(unit, tmp_path):
    looser = tmp_path / "kata-pulse.service"
    looser.write_text("".join(line for line in unit.read_text().splitlines(True) if "SystemCallFilter" not in line))
    done = subprocess.run(["systemd-analyze", "security", "--offline=true", "--no-pager", f"--threshold={MOST_EXPOSED}", looser],
                          stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    assert done.returncode != 0


def test_it_hides_nothing_that_is_measured(unit):
    text = "".join(line for line in unit.read_text().splitlines(True) if not line.startswith("#"))
    for setting in ["ProtectProc", "ProcSubset", "PrivateUsers", "PrivateNetwork", "PrivatePIDs", "DynamicUser", "User",
                    "RootDirectory", "IPAddressDeny", "InaccessiblePaths", "TemporaryFileSystem"]:
        assert not re.search(rf"^{setting}=", text, re.M), setting


def test_the_settings_file_has_arguments_and_known_variables(installed):
    text = installed.path("etc/default/kata-pulse").read_text()
    assert re.search(r'^ARGS=""$', text, re.M)
    help_text = run(installed.path("usr/bin/kata-pulse"), "--help")
    for variable in re.findall(r"^#([A-Z_]+)=", text, re.M):
        assert f"[env: {variable}=" in help_text, variable


def test_a_whole_node_is_measured_under_the_units_restrictions(installed, unit, tmp_path):
    """The demonstration node, Kata sandboxes included, served by the installed agent as the unit confines it."""
    demo = REPOSITORY / "target/debug/demo"
    assert demo.exists(), "the demonstration node is not built: run `make packages`"
    agent = tmp_path / "kata-pulse"
    confine = REPOSITORY / "tests/deploy/unit/confine.py"
    agent.write_text(f'#!/bin/sh\nexec {sys.executable} {confine} {unit} {installed.path("usr/bin/kata-pulse")} "$@"\n')
    agent.chmod(0o755)
    said = run(demo, "--check", agent, cwd=tmp_path, env={"PATH": os.environ["PATH"]}, timeout=300)
    assert "demo: ok:" in said and "Kata sandboxes served as well" in said
    print(said)
