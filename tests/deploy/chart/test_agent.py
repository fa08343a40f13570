"""The agent itself accepts what the chart tells it: arguments and configuration file of every shape."""

import os
import re
import shutil
import subprocess

import pytest
import yaml

import render

AGENT = render.ROOT / "target" / "debug" / "kata-pulse"
# A kubelet always sets these.
OF_THE_KUBELET = {"KUBERNETES_SERVICE_HOST": "10.0.0.1", "KUBERNETES_SERVICE_PORT": "443"}


def ask(*arguments, expected=0) -> str:
    assert AGENT.exists(), f"{AGENT} is not built: run `make chart`"
    # Nothing but what the pod says: the environment of whoever tests has settings of its own.
    environment = {"PATH": os.environ["PATH"]} | OF_THE_KUBELET
    done = subprocess.run([str(AGENT), *arguments], capture_output=True, text=True, timeout=30, env=environment)
    assert done.returncode == expected, done.stderr
    return done.stdout + done.stderr


def flags() -> set[str]:
    return set(re.findall(r"--([a-z][a-z-]+)", ask("--help")))


def names(arguments) -> set[str]:
    return {argument.removeprefix("--").partition("=")[0] for argument in arguments}


def shape(path):
    return pytest.param(path, id=path.name.removesuffix("-values.yaml"))


def files_of_the_pod(objects, directory) -> dict[str, str]:
    """Makes what the pod has below /etc/kata-pulse, and says where the flags' files are."""
    found = {"config": directory / "config.yaml"}
    found["config"].write_text(render.config(objects))
    for secret in render.of_kind(objects, "Secret"):
        found["web-config"] = directory / "web-config.yaml"
        text = secret["stringData"]["web-config.yaml"]
        found["web-config"].write_text(text.replace("/etc/kata-pulse", str(directory)))
    for name in ("tls", "client-ca"):
        (directory / name).mkdir()
    certificate, key = directory / "tls" / "tls.crt", directory / "tls" / "tls.key"
    request = ["openssl", "req", "-x509", "-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:prime256v1", "-nodes"]
    names = ["-subj", "/CN=kata-pulse", "-addext", "subjectAltName=DNS:kata-pulse", "-days", "2"]
    subprocess.run([*request, *names, "-keyout", key, "-out", certificate], check=True, capture_output=True)
    shutil.copy(certificate, directory / "client-ca" / "ca.crt")
    return {name: str(path) for name, path in found.items()}


@pytest.mark.parametrize("path", [shape(path) for path in render.SHAPES])
def test_every_shape_is_a_configuration_that_the_agent_takes(path, tmp_path):
    objects = render.render(files=[path])
    arguments = render.container(objects)["args"]
    unknown = names(arguments) - flags()
    assert not unknown, f"this agent does not have the flags {unknown}"
    files = files_of_the_pod(objects, tmp_path)
    assert files.keys() == names(arguments) & {"config", "web-config"}
    arguments = [argument for argument in arguments if not names([argument]) & files.keys()]
    arguments += [f"--{name}={file}" for name, file in files.items()]
    in_force = yaml.safe_load(ask(*arguments, "check-config"))
    given = yaml.safe_load(render.config(objects))
    for key, value in given.items():
        found = in_force[key]
        assert (sorted(found) == sorted(value)) if isinstance(value, list) else found == value, key
    assert in_force["run-dir"] == "/run" and in_force["procfs"] == "/host/proc"


def test_a_file_that_the_agent_does_not_take_is_seen(tmp_path):
    (tmp_path / "config.yaml").write_text("max-age: 1\n")
    assert "max-age" in ask("--config", str(tmp_path / "config.yaml"), "check-config", expected=2)


def test_the_charts_collectors_are_the_agents_with_its_defaults():
    table = [line.split()[:2] for line in ask("collectors").splitlines()[1:]]
    agents = {name: default == "on" for name, default in table}
    values = yaml.safe_load((render.CHART / "values.yaml").read_text())["collectors"]
    assert agents == {name: settings["enabled"] for name, settings in values.items() if "enabled" in settings}


def test_the_charts_settings_of_the_file_are_the_agents():
    """Whatever the agent can be told is a value of the chart, one way or another."""
    schema = set(yaml.safe_load((render.CHART / "values.schema.json").read_text())["properties"]["config"]["properties"])
    written = set(yaml.safe_load(render.config(render.render())))
    volumes = {"collectors": {"volume": {"enabled": True, "claims": True}}}
    passed = names(render.container(render.render({"runtime": {"containerdState": "/x"}} | volumes))["args"])
    other = {"help", "version"}
    # Flags of web security show only where it is on.
    security = {"web-config", "tls-self-signed", "auth-kubernetes", "health-listen-address", "service-account-dir"}
    assert flags() - other - security - passed - written == schema
