"""Writes the first inputs of every target: real captures out of tests/fixtures, and what the formats' own tests say.

    python3 tests/fuzz/seeds.py DIRECTORY

One directory per target, named by content. What is in tests/fuzz/corpus was made of these and of what the fuzzer found
(`make fuzz-corpus`).
"""

import base64
import gzip
import hashlib
import struct
import sys
import tarfile
from collections.abc import Iterator
from pathlib import Path

FIXTURES = Path(__file__).parent.parent / "fixtures"


def members(name: str) -> dict[str, bytes]:
    """All files of a packed fixture, by their path in it."""
    with tarfile.open(FIXTURES / name) as archive:
        return {item.name: archive.extractfile(item).read() for item in archive if item.isfile()}


def kata(name: str) -> bytes:
    """A single recorded reply."""
    content = (FIXTURES / "kata" / name).read_bytes()
    return gzip.decompress(content) if name.endswith(".gz") else content


NODE = members("mixed-node-cgroup2.tar.gz")
TREES = members("cgroup-trees.tar.gz")
AT = "mixed-node-cgroup2/t0/"


def recorded(*parts: str) -> Iterator[bytes]:
    """The node's files with all these parts in their path."""
    return (content for path, content in NODE.items() if path.startswith(AT) and all(part in path for part in parts))


def varint(number: int) -> bytes:
    """A number as protobuf writes it."""
    out = b""
    while number > 0x7F:
        out += bytes([number & 0x7F | 0x80])
        number >>= 7
    return out + bytes([number])


def field(number: int, content: bytes) -> bytes:
    """A length-delimited field."""
    return varint(number << 3 | 2) + varint(len(content)) + content


def addresses() -> Iterator[bytes]:
    yield from recorded("k8s.io", "/address")
    yield from (content.partition(b"\r\n\r\n")[2] for content in recorded("agent-url.http"))
    for url in ("hvsock:///run/vc/vm/0123abcd/clh.sock:1024", "vsock://830455376:1024", "remote:///run/peerpod/abc/agent.sock",
                "hvsock:///run/kata/abc/root/kata.hvsock:1024", "hvsock:///run/kata/abc/vsock.sock:1024"):
        yield url.encode()


def agent_stats() -> Iterator[bytes]:
    for name in ("agent-stats-cgroup1.pb", "agent-stats-cgroup2-spin.pb", "agent-stats-cgroup2-writer.pb"):
        yield kata(name)
    yield field(1, kata("agent-getmetrics-guest.txt.gz")[:1500])
    yield field(1, b"0.0.1") + field(2, b"4.1.0")


def certificates() -> Iterator[bytes]:
    for path in sorted((Path(__file__).parent / "seeds" / "certificates").iterdir()):
        pem = path.read_bytes()
        yield pem
        body = b"".join(line for line in pem.splitlines() if not line.startswith(b"-----"))
        yield base64.b64decode(body)


def cgroup_files() -> Iterator[bytes]:
    yield from recorded("root/sys/fs/cgroup/kubepods/")
    yield from (content for path, content in TREES.items() if "/sys/fs/" in path or "io-stat" in path or "/spec/" in path)


def cgroup_paths() -> Iterator[bytes]:
    yield from recorded("/proc/", "/cgroup")
    for path in NODE:
        _, found, place = path.partition("root/sys/fs/cgroup")
        if found and place.endswith("/cgroup.procs"):
            yield place.removesuffix("/cgroup.procs").encode()
    pod, identifier = "0d5a2e9b-1c44-4e7d-b6f8-2a9c8d7e6f03", "af2ce51f9a7ef5c64153a8adf3bb85d468266ab8e9d337c92356ce99eb36a742"
    slice_of = f"/kubepods.slice/kubepods-burstable.slice/kubepods-burstable-pod{pod.replace('-', '_')}.slice"
    for leaf in ("cri-containerd-ID.scope", "crio-ID.scope", "docker-ID.scope", "libpod-ID.scope", "kata_ID"):
        yield f"{slice_of}/{leaf}".replace("ID", identifier).encode()
    yield f"4:memory:/kubepods/pod{pod}/{identifier}\n0::/../../kubepods/pod{pod}\n".encode()


def cloud_hypervisor() -> Iterator[bytes]:
    for name in ("ch-vmm.ping.json", "ch-vm.info.json.gz", "ch-vm.info-paused.json.gz", "ch-vm.counters.json",
                 "ch-vm.counters-before-io.json", "ch-vm.info-error-500.json"):
        yield kata(name)


def config() -> Iterator[bytes]:
    yield b"listen-address: [127.0.0.1:8090, '0.0.0.0:9100']\nmax-age-secs: 15\nscope: kata\nlog-format: json\n"
    yield b"runtime-endpoint: unix:///run/crio/crio.sock\nmetrics-interval-secs: 0.5\nenable-collectors: [fd]\n"
    yield b"# nothing\n"
    yield b"shim-scrape: off\nmetrics-profile: all\ndisable-collectors:\n  - kata\n  - network\nhost-root: /host\n"
    yield b"health-listen-address: 127.0.0.1:8091\ntls-self-signed: true\nlog-level: info,kata_pulse::discover=debug\n"


def cri() -> Iterator[bytes]:
    version, sandboxes, containers, stats = (
        NODE[f"{AT}cri/{name}.pb"] for name in ("Version", "ListPodSandbox", "ListContainers", "ListContainerStats")
    )
    sandbox_statuses = list(recorded("cri/PodSandboxStatus/", ".verbose.pb"))
    container_statuses = [content for path, content in NODE.items() if f"{AT}cri/ContainerStatus/" in path and path.endswith(".verbose.pb") is False and path.endswith(".pb")]
    paths = [place.removesuffix("/cgroup.procs").encode() for place in cgroups()]
    whole = field(1, version) + field(2, sandboxes) + field(3, containers)
    for status in sandbox_statuses:
        yield whole + field(4, status)
    yield whole + b"".join(field(5, status) for status in container_statuses) + field(6, stats)
    yield field(2, sandboxes) + field(3, containers) + b"".join(field(7, path) for path in paths)
    kill = field(1, b"\x08\x80\xe2\xcf\xaa\x06\x10\x05") + field(2, b"k8s.io") + field(3, b"/tasks/oom")
    kill += field(4, field(1, b"containerd.events.TaskOOM") + field(2, field(1, b"abc")))
    yield field(10, kill) + field(8, b"abc") + b"\x48\x01"


def cgroups() -> list[str]:
    """Directories below the recorded node's cgroup mount."""
    found = (path.partition("root/sys/fs/cgroup") for path in NODE if path.startswith(AT))
    return [place for _, there, place in found if there and "kubepods" in place and place.endswith("/cgroup.procs")]


def guest_text() -> Iterator[bytes]:
    for name in ("agent-getmetrics-guest.txt.gz", "shim-metrics-go-clh.txt.gz", "shim-metrics-dragonball.txt.gz"):
        text = kata(name)
        yield text
        lines = text.splitlines(keepends=True)
        # Every family in little: the fuzzer is quicker with short inputs.
        seen: set[bytes] = set()
        yield b"".join(line for line in lines if not (line.split(b"{")[0] in seen or seen.add(line.split(b"{")[0])))
        for family in (b"meminfo", b"netdev", b"diskstat", b"filesystem", b"cpu_time", b"load", b"rpc_durations"):
            yield b"".join(line for line in lines if family in line and not line.startswith(b"#"))[:1500]


def http_answers() -> Iterator[bytes]:
    for content in recorded(".http"):
        yield b"\x00" + content[:3000]
    for choice in b"\x01\x02\x03":
        yield bytes([choice]) + kata("ch-vm.counters.json")
    yield b"\x00HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTrailer: X\r\n\r\n5;a=b\r\nhello\r\n0\r\nX: y\r\n\r\n"
    yield b'\x00HTTP/1.1 500 Internal Server Error\r\nServer: Cloud Hypervisor API\r\nContent-Length: 5\r\n\r\n["a"]'
    yield b"\x00HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 204 No Content\r\n\r\n"


def http_headers() -> Iterator[bytes]:
    prometheus = (b"application/openmetrics-text;version=1.0.0;q=0.5,application/openmetrics-text;version=0.0.1;q=0.4,"
                  b"text/plain;version=0.0.4;q=0.3,*/*;q=0.2")
    basic = b"Basic " + base64.b64encode(b"alice:a:secret")
    yield prometheus + b"\ngzip\n" + basic
    yield b"text/html,application/xhtml+xml,*/*;q=0.8\ngzip, deflate, br;q=0.1\nBearer abc.def-_~+/=="
    yield b"text/plain; version=\"0.0.4\"; q=1\nidentity;q=1, gzip;q=0.5, x-gzip\nbasic Og=="


def http_requests() -> Iterator[bytes]:
    paths = ("/metrics", "/metrics?sandbox=0123456789abcdef01", "/metrics?sandbox=0123456789ab", "/metrics/cadvisor",
             "/metrics/kata?filter_family=kata_guest,kata_shim&sandbox=x", "/sandboxes?runtime=kata", "/", "/livez",
             "/readyz?verbose", "/healthz", "/metrics?sandbox=a&sandbox=b", "/%6detrics", "/nowhere")
    for choice in b"\x00\x01":
        for path in paths:
            yield bytes([choice]) + f"GET {path} HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n".encode()
    yield (b"\x00GET /metrics HTTP/1.1\r\nHost: x\r\nAccept: application/openmetrics-text;version=1.0.0\r\n"
           b"Accept-Encoding: gzip\r\nX-Prometheus-Scrape-Timeout-Seconds: 0.3\r\n\r\n")
    yield b"\x01GET /metrics HTTP/1.1\r\nHost: x\r\nAuthorization: Bearer a.b.c\r\n\r\nHEAD / HTTP/1.1\r\nHost: x\r\n\r\n"
    yield b"\x00POST /metrics HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\n3\r\nabc\r\n0\r\n\r\n"
    yield b"\x00GET /sandboxes HTTP/1.0\r\nAccept: text/html\r\n\r\n"


def kubernetes_reviews() -> Iterator[bytes]:
    yield (b'{"kind":"TokenReview","apiVersion":"authentication.k8s.io/v1","status":{"authenticated":true,"user":{"username":'
           b'"system:serviceaccount:monitoring:prometheus","uid":"1","groups":["system:authenticated"],"extra":{"a":["b"]}}}}')
    yield b'{"kind":"TokenReview","status":{"authenticated":false,"error":"expired"}}'
    yield b'{"kind":"SubjectAccessReview","status":{"allowed":true,"reason":"RBAC"}}'
    yield b'{"kind":"SubjectAccessReview","status":{"allowed":true,"denied":true}}'


def labels() -> Iterator[bytes]:
    yield b"\xff".join([b"eth0", b"app", b"/kubepods/pod1/abc", b"registry.k8s.io/pause:3.10", b"abc", b"default", b"web"])
    yield b"\xff".join([b'a"b\\c\nd', "é🦀\u2028".encode(), b"{},=", b"", b"\\", b'"', b"\n"])
    yield b"\xff".join([b"x" * 4095 + "é".encode()] * 2)


def node() -> Iterator[bytes]:
    container = next(path for path in NODE if path.startswith(AT) and path.endswith("/io.stat") and path.count("/") > 9)
    directory = container.rpartition("/")[0] + "/"
    names = ("cpu.stat", "memory.stat", "io.stat", "cpu.pressure", "memory.events", "cpu.max", "pids.current", "memory.max")
    yield b"\x00" + b"".join(b"@" + name.encode() + b"\n" + NODE[directory + name] for name in names if directory + name in NODE)
    root = AT + "root/"
    for name in ("proc/1/mountinfo", "proc/1/net/dev", "proc/diskstats", "proc/meminfo", "proc/1/limits"):
        yield b"\x00@" + name.encode() + b"\n" + NODE[root + name][:1500]
    stat = b" S 1 1 1 0 -1 0 0 0 0 0 150 50 0 0 20 0 3 0 40000 9000 700 0\n"
    yield b"\x00@proc/77/stat\n77 (containerd-shim)" + stat + b"@proc/77/cgroup\n0::/x\n@proc/77/cmdline\nshim\0-id\0" + b"a" * 64
    yield b"\x00@proc/77/stat\n77 (a) (b)" + stat + b"@proc/uptime\n5.5 1.0\n"
    v1 = "cgroup-trees/v1/eks-containerd-systemd/"
    text = b"\x01"
    for path, content in sorted(TREES.items()):
        controller = next((name for name in ("blkio", "cpu,cpuacct", "memory", "pids") if f"/{name}/" in path), None)
        if path.startswith(v1) and controller:
            text += b"@" + f"{controller}/{path.rpartition('/')[2]}".encode() + b"\n" + content
    yield text
    yield text[:1500]
    yield b"\x01@etc/os-release\nPRETTY_NAME=\"Debian\"\n@proc/stat\ncpu 1\ncpu0 1\nbtime 5\n@sys/class/dmi/id/product_uuid\na\n"
    yield b"\x01@sys/devices/system/edac/mc/mc0/dimm0/size\n16384\n@memory/memory.use_hierarchy\n0\n"


def numbers() -> Iterator[bytes]:
    for text in ("0", "12", "4.91552768e+08", "0.3799999952316284", "1.8446744073709550e+19", "18446744073709551615", "1e-2",
                 "NaN", "+Inf", "1200e-2", ".5e1", "-0", "5."):
        yield text.encode()
    for number in (0.1, 1e21, 123456789.0, 5e-324, 1e-5, 2.0**63, 1.7976931348623157e308):
        yield struct.pack("<dB", number, 6)


def proc_files() -> Iterator[bytes]:
    for name in ("/stat", "/status", "/io", "/limits", "/mountinfo", "/net/dev", "/meminfo", "/diskstats", "/cpuinfo"):
        for content in list(recorded("root/proc/", name))[:6]:
            yield content[:3000]
    yield from list(recorded("root/sys/fs/cgroup/", "/memory.stat"))[:2]
    yield (b"228 (a) Z 1 (b (c)) S 219 218 0 0 -1 4194560 45626 0 171 0 1949 1271 0 0 20 0 9 0 2887 1243303936 48227 "
           b"18446744073709551615 1 1 0 0 0 0 0 4096 0 0 0 0 17 0 0 0 0 0 0 0 0 0 0 0 0 0 0\n")


def shim_passthrough() -> Iterator[bytes]:
    for choice in b"\x00\x01":
        for text in guest_text():
            yield bytes([choice]) + text


def state_files() -> Iterator[bytes]:
    yield kata("state-clh.json.gz")
    yield kata("state-qemu.json.gz")
    yield (b'{"SandboxCgroupPath":"/kubepods/pod1","OverheadCgroupPath":"/kata_overhead/a","HypervisorState":{"Type":"clh",'
           b'"Pid":123,"VirtiofsDaemonPid":124},"AgentState":{"URL":"vsock://5:1024"},"Config":{"SandboxCgroupOnly":true}}')
    yield b'{"hypervisor":{"hypervisor_type":"qemu","pid":null,"virtiofs_daemon_pid":7},"resource":{"cgroup_state":{"path":"x"}}}'


def task_stats() -> Iterator[bytes]:
    for content in list(recorded("/task/", "/Stats.pb")) + [kata("task-stats-rs-spin.pb"), kata("task-stats-rs-writer.pb")]:
        for choice in b"\x00\x01\x02\x03":
            yield bytes([choice]) + content[:2000]
            # The payload alone: StatsResponse, Any, value.
            payload = inner(inner(content, 1), 2)
            if payload:
                yield bytes([choice]) + payload


def inner(message: bytes, number: int) -> bytes:
    """The first length-delimited field of this number; blank without one."""
    at = 0
    while at < len(message):
        key, at = read_varint(message, at)
        if key & 7 != 2:
            return b""
        length, at = read_varint(message, at)
        if key >> 3 == number:
            return message[at : at + length]
        at += length
    return b""


def read_varint(message: bytes, at: int) -> tuple[int, int]:
    """A number, and where the next thing begins."""
    number = shift = 0
    while at < len(message):
        byte = message[at]
        number |= (byte & 0x7F) << shift
        at, shift = at + 1, shift + 7
        if byte < 0x80:
            break
    return number, at


def ttrpc() -> Iterator[bytes]:
    version = field(2, field(1, b"0.0.1") + field(2, b"4.1.0"))
    metrics = field(2, field(1, kata("agent-getmetrics-guest.txt.gz")[:600]))
    refused = field(1, b"\x08\x07" + field(2, b"not allowed by the policy"))

    def frame(number: int, body: bytes) -> bytes:
        return struct.pack(">IIBB", len(body), number, 2, 0) + body

    for first, second in ((version, metrics), (refused, version), (version, refused)):
        yield b"\x00" + frame(1, first) + frame(3, second)
        yield b"\x01OK 1073741829\n" + frame(1, first) + frame(3, second)
        size = max(len(first), len(second))
        # Whole answers are half of the input each: fill the shorter one with an unknown field.
        fill = lambda body: body if size - len(body) < 3 else body + field(15, bytes(size - len(body) - 3))[: size - len(body)]
        yield b"\x02" + fill(first) + fill(second)
    yield b"\x04" + frame(1, field(2, kata("task-stats-rs-spin.pb")))
    yield b"\x01no such port\n"


def volumes() -> Iterator[bytes]:
    yield (b'{"attachmentID":"csi-1","driverName":"ebs.csi.aws.com","nodeName":"n1","specVolID":"pvc-2c",'
           b'"volumeHandle":"vol-0a","volumeLifecycleMode":"Persistent"}')
    yield b'{"driverName":"inline.csi","specVolID":"scratch","volumeHandle":"csi-9","volumeLifecycleMode":"Ephemeral"}'
    volume = (b'{"kind":"PersistentVolume","metadata":{"name":"pvc-2c"},"spec":{"SOURCE,"claimRef":{"namespace":"shop",'
              b'"name":"data-db-0"}},"status":{"phase":"Bound"}}')
    yield volume.replace(b"SOURCE", b'csi":{"driver":"ebs.csi.aws.com","volumeHandle":"vol-0a"}')
    yield volume.replace(b"SOURCE", b'nfs":{"server":"10.0.0.1","path":"/"}')
    pod = b"0b7c4bb1-4c5c-4d2c-9f43-6d6f0a0a0a0a"
    kubelet = b"/var/lib/kubelet"
    mounts = (
        (b"/", b"/pods/" + pod + b"/volumes/kubernetes.io~csi/pvc-2c/mount", b"ext4"),
        (b"/", b"/pods/" + pod + b"/volumes/kubernetes.io~nfs/share", b"nfs4"),
        (b"/", b"/pods/" + pod + b"/volumes/kubernetes.io~secret/tls", b"tmpfs"),
        (b"/a", b"/pods/" + pod + b"/volume-subpaths/data/app/0", b"ext4"),
        (b"/sdb", b"/plugins/kubernetes.io/csi/volumeDevices/publish/pvc-2d/" + pod, b"devtmpfs"),
    )
    lines = [b"36 35 8:16 %b %b%b rw shared:1 - %b /dev/sdb rw\n" % (root, kubelet, point, kind) for root, point, kind in mounts]
    yield b"".join(lines)
    yield b"major minor  #blocks  name\n\n 254        0  268435456 vda\n   7        0       8192 loop0\n"


def web_config() -> Iterator[bytes]:
    secret = "$2y$04$mxVqeXjKDrKkHoHhmOKwE.vFIbxVnSAKDrBkqVCJXOmH3.L3QXlIG"
    yield f"basic_auth_users:\n  alice: {secret}\nrate_limit:\n  interval: 1m30s\n  burst: 5\n".encode()
    yield b"tls_server_config:\n  cert_file: tls.crt\n  key_file: tls.key\n  min_version: TLS13\n  client_auth_type: NoClientCert\n"
    yield b"http_server_config:\n  http2: false\n  headers:\n    X-Frame-Options: deny\n    X-Content-Type-Options: nosniff\n"
    yield f"http_server_config:\n  headers:\n    {secret}: deny\n".encode()
    yield b"tls_server_config:\n  cert: |\n    -----BEGIN CERTIFICATE-----\n  key: |\n    x\n  cipher_suites: [TLS_AES_128_GCM_SHA256]\n"
    yield b"1.5h"
    yield b"90s"


def main() -> None:
    out = Path(sys.argv[1])
    targets = [addresses, agent_stats, certificates, cgroup_files, cgroup_paths, cloud_hypervisor, config, cri, guest_text,
               http_answers, http_headers, http_requests, kubernetes_reviews, labels, node, numbers, proc_files,
               shim_passthrough, state_files, task_stats, ttrpc, volumes, web_config]
    for target in targets:
        directory = out / target.__name__
        directory.mkdir(parents=True, exist_ok=True)
        for content in target():
            (directory / hashlib.sha1(content).hexdigest()).write_bytes(content)


if __name__ == "__main__":
    main()
