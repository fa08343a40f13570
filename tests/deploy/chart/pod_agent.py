#!/usr/bin/env python3
"""Stands in for the agent on a demo's node: runs it as the chart's pod would, confined by runc.

The demo starts this with the arguments it has for an agent: where its runtime's socket, run directory and cgroups are, and
where to listen. Mounts, arguments, user and capabilities come from a rendered DaemonSet, whose host paths are looked up on
the demo's node instead of the host's. What a kubelet and a runtime do in between is done here.

Environment: POD_FILE (JSON: objects, configuration, agent, runc's state directory and the container's name).
"""

import argparse
import json
import os
import pathlib
import tempfile

SYSTEM = ("/lib", "/lib64", "/usr/lib")  # of the dynamically linked test build
RUNTIME_SOCKET = "/run/containerd/containerd.sock"


def on_node(path: str, node: argparse.Namespace) -> str:
    """Where the demo has what a real node has at `path`."""
    if path.startswith("/run/"):
        return str(pathlib.Path(node.run_dir) / path.removeprefix("/run/"))
    return node.cgroupfs if path == "/sys/fs/cgroup" else path


def host_mount(mount: dict, volume: dict, node: argparse.Namespace) -> dict:
    source = on_node(volume["path"], node)
    if volume["type"] == "DirectoryOrCreate":
        os.makedirs(source, mode=0o755, exist_ok=True)
    elif volume["type"] in ("Directory", "File"):
        expected = os.path.isdir if volume["type"] == "Directory" else os.path.isfile
        if not expected(source):
            raise SystemExit(f"pod_agent: {source} is no {volume['type']}: a kubelet would refuse the pod")
    propagation = {"None": "rprivate", "HostToContainer": "rslave"}[mount["mountPropagation"]]
    options = ["rbind", propagation] + (["ro"] if mount["readOnly"] else [])
    return {"destination": mount["mountPath"], "type": "bind", "source": source, "options": options}


def bind(source, destination) -> dict:
    return {"destination": str(destination), "type": "bind", "source": str(source), "options": ["rbind", "ro", "rprivate"]}


def capabilities(context: dict) -> dict:
    assert context["capabilities"]["drop"] == ["ALL"], "a runtime's default capabilities are not known here"
    # No ambient ones: Kubernetes has none, which is why the user matters.
    have = [f"CAP_{name}" for name in context["capabilities"].get("add", [])]
    return {kind: have for kind in ("bounding", "effective", "permitted")}


def specification(pod: dict, given: dict, node: argparse.Namespace, bundle: pathlib.Path) -> dict:
    (container,) = [each for each in pod["containers"] if each["name"] == "kata-pulse"]
    context = container["securityContext"]
    volumes = {each["name"]: each for each in pod["volumes"]}
    mounts = [
        {"destination": "/proc", "type": "proc", "source": "proc"},
        {"destination": "/dev", "type": "tmpfs", "source": "tmpfs", "options": ["nosuid", "mode=755"]},
        bind(given["agent"], "/usr/bin/kata-pulse"),
        *(bind(path, path) for path in SYSTEM if os.path.exists(path)),
    ]
    # A runtime mounts what is above before what is below.
    for mount in sorted(container["volumeMounts"], key=lambda mount: mount["mountPath"].count("/")):
        volume = volumes[mount["name"]]
        if "hostPath" in volume:
            mounts.append(host_mount(mount, volume["hostPath"], node))
        elif "configMap" in volume:
            (bundle / mount["name"]).mkdir()
            (bundle / mount["name"] / "config.yaml").write_text(given["config"])
            mounts.append(bind(bundle / mount["name"], mount["mountPath"]))
    arguments = [argument for argument in container["args"] if not argument.startswith("--listen-address=")]
    kinds = ["mount", "uts"] + [kind for kind, shared in (("pid", pod["hostPID"]), ("ipc", pod["hostIPC"])) if not shared]
    return {
        "ociVersion": "1.0.2",
        "root": {"path": "rootfs", "readonly": context["readOnlyRootFilesystem"]},
        "process": {
            "user": {"uid": context["runAsUser"], "gid": context["runAsGroup"]},
            "args": ["/usr/bin/kata-pulse", f"--listen-address={node.listen_address}", *arguments],
            "env": [],
            "cwd": "/",
            "capabilities": capabilities(context),
            "noNewPrivileges": not context["allowPrivilegeEscalation"],
        },
        "mounts": mounts,
        "linux": {
            "namespaces": [{"type": kind} for kind in kinds],
            "cgroupsPath": f"/{given['name']}",
            # Of a runtime's default profile, what makes a difference here: no direct vsock.
            "seccomp": {
                "defaultAction": "SCMP_ACT_ALLOW",
                "syscalls": [{
                    "names": ["socket"],
                    "action": "SCMP_ACT_ERRNO",
                    "args": [{"index": 0, "value": 40, "op": "SCMP_CMP_EQ"}],
                }],
            },
            "maskedPaths": ["/proc/kcore", "/proc/keys", "/proc/timer_list", "/sys/firmware"],
            "readonlyPaths": ["/proc/bus", "/proc/fs", "/proc/irq", "/proc/sys", "/proc/sysrq-trigger"],
        },
    }


def main() -> None:
    parser = argparse.ArgumentParser()
    for flag in ("--listen-address", "--runtime-endpoint", "--cgroupfs", "--run-dir", "--log-format", "--log-level"):
        parser.add_argument(flag, required=True)
    node = parser.parse_args()
    given = json.loads(pathlib.Path(os.environ["POD_FILE"]).read_text())
    (daemonset,) = [each for each in given["objects"] if each["kind"] == "DaemonSet"]
    bundle = pathlib.Path(tempfile.mkdtemp(dir=given["state"]))
    (bundle / "rootfs").mkdir()
    # The demo's runtime listens elsewhere; a second name for the socket puts it where the chart looks for it.
    socket = pathlib.Path(on_node(RUNTIME_SOCKET, node))
    socket.parent.mkdir(exist_ok=True, mode=0o711)
    os.link(node.runtime_endpoint.removeprefix("unix://"), socket)
    specified = specification(daemonset["spec"]["template"]["spec"], given, node, bundle)
    (bundle / "config.json").write_text(json.dumps(specified, indent=1))
    root = ["--root", str(pathlib.Path(given["state"]) / "runc")]
    os.execvp("runc", ["runc", *root, "run", "--bundle", str(bundle), given["name"]])


if __name__ == "__main__":
    main()
