#!/usr/bin/env python3
"""Runs a command as the unit's hardening would have it, without systemd: confine.py UNIT COMMAND...

A unit that the analysis calls safe may still forbid what the service needs; this shows whether it does. Mounts,
capabilities and the system call filter are taken from the unit. A line that this file does not know is an error, so
that none goes untried. Not applied: PrivateTmp and ProtectHome, under which the program under test and the node of the
test may lie, and limits of memory and tasks.
"""

import ctypes
import errno
import os
import re
import socket
import subprocess
import sys

APPLIED = {
    "CapabilityBoundingSet", "AmbientCapabilities", "NoNewPrivileges", "ProtectSystem", "ProtectControlGroups",
    "ProtectKernelTunables", "PrivateDevices", "PrivateMounts", "MemoryDenyWriteExecute", "RestrictAddressFamilies",
    "SystemCallArchitectures", "SystemCallFilter", "SystemCallErrorNumber", "UMask", "RestrictNamespaces",
}
# Covered by the dropped capabilities, by the system calls left out, or without a meaning for a single process.
IMPLIED = {
    "DevicePolicy", "ProtectClock", "ProtectHostname", "ProtectKernelLogs", "ProtectKernelModules", "RestrictRealtime",
    "RestrictSUIDSGID", "LockPersonality", "KeyringMode", "RemoveIPC",
}
NOT_APPLIED = {"PrivateTmp", "ProtectHome", "MemoryMax", "TasksMax", "OOMScoreAdjust"}
LIFE = {
    "Type", "EnvironmentFile", "ExecStart", "ExecReload", "Restart", "RestartSec", "RestartPreventExitStatus",
    "TimeoutStopSec", "WatchdogSec",
}

PROT_WRITE, PROT_EXEC = 2, 4
MS_RDONLY, MS_REMOUNT, MS_BIND = 1, 32, 4096


def settings(unit):
    """The unit's [Service] lines, in their order; a name may come several times."""
    found, section = [], None
    with open(unit, encoding="utf-8") as lines:
        for line in map(str.strip, lines):
            if line.startswith("["):
                section = line
            elif section == "[Service]" and line and line[0] not in "#;":
                name, _, value = line.partition("=")
                found.append((name, value))
    unknown = {name for name, _ in found} - APPLIED - IMPLIED - NOT_APPLIED - LIFE
    if unknown:
        sys.exit(f"confine: {unit}: not known here: {', '.join(sorted(unknown))}")
    return found


def values(found, name):
    return " ".join(value for key, value in found if key == name).split()


def system_calls(group):
    """The system calls of a group of systemd's, as this machine's systemd defines it."""
    text = subprocess.run(["systemd-analyze", "syscall-filter", "--no-pager", group], check=True, text=True,
                          stdout=subprocess.PIPE, stderr=subprocess.DEVNULL).stdout
    calls = set()
    for word in (line.strip() for line in text.splitlines()[1:]):
        if word.startswith("@"):
            calls |= system_calls(word)
        elif word and not word.startswith("#"):
            calls.add(word)
    return calls


def allowed_calls(found):
    allowed = system_calls("@default")
    for value in (value for name, value in found if name == "SystemCallFilter"):
        groups = value.lstrip("~").split()
        calls = set().union(*(system_calls(word) if word.startswith("@") else {word} for word in groups))
        allowed = allowed - calls if value.startswith("~") else allowed | calls
    return allowed


class Mounts:
    """Mount calls of the C library: a program would need /dev and more."""

    def __init__(self):
        self.libc = ctypes.CDLL(None, use_errno=True)

    def mount(self, source, target, kind, flags):
        arguments = [text.encode() if text else None for text in (source, target, kind)]
        if self.libc.mount(*arguments, ctypes.c_ulong(flags), None) != 0:
            code = ctypes.get_errno()
            # It may have gone since it was listed.
            if code not in (errno.ENOENT, errno.EINVAL):
                raise OSError(code, os.strerror(code), target)

    def read_only(self, target):
        self.mount(None, target, None, MS_REMOUNT | MS_BIND | MS_RDONLY)


def mount_points():
    with open("/proc/self/mountinfo", encoding="utf-8") as lines:
        points = [line.split()[4] for line in lines]
    return [re.sub(r"\\([0-7]{3})", lambda octal: chr(int(octal[1], 8)), point) for point in points]


def below(point, *directories):
    return any(point == directory or point.startswith(directory + "/") for directory in directories)


def close_files(found):
    mounts = Mounts()
    if values(found, "PrivateDevices") == ["yes"]:
        mounts.mount("tmpfs", "/dev", "tmpfs", 0)
        for name, minor in [("null", 3), ("zero", 5), ("full", 7), ("random", 8), ("urandom", 9)]:
            os.mknod(f"/dev/{name}", 0o020666, os.makedev(1, minor))
    if values(found, "ProtectSystem") == ["strict"]:
        for point in mount_points():
            if not below(point, "/proc", "/sys", "/dev"):
                mounts.read_only(point)
    if values(found, "ProtectKernelTunables") == ["yes"]:
        mounts.mount("/proc/sys", "/proc/sys", None, MS_BIND)
        mounts.read_only("/proc/sys")
        mounts.read_only("/sys")
    if values(found, "ProtectControlGroups") == ["yes"]:
        for point in mount_points():
            if below(point, "/sys/fs/cgroup"):
                mounts.read_only(point)


def filter_calls(found):
    import pyseccomp as seccomp

    allowed = allowed_calls(found) - {"unshare", "setns"}
    conditional = {"socket", "mmap", "mprotect"}
    if not conditional <= allowed:
        sys.exit("confine: the filter leaves out system calls that every program makes")
    # systemd's own default is to end the process; the unit says what is answered instead.
    code = getattr(errno, values(found, "SystemCallErrorNumber")[0])
    calls = seccomp.SyscallFilter(defaction=seccomp.ERRNO(code))
    for call in sorted(allowed - conditional):
        try:
            calls.add_rule(seccomp.ALLOW, call)
        except (OSError, ValueError):
            # A call of another processor.
            pass
    for family in values(found, "RestrictAddressFamilies"):
        number = 40 if family == "AF_VSOCK" else int(getattr(socket, family))
        calls.add_rule(seccomp.ALLOW, "socket", seccomp.Arg(0, seccomp.EQ, number))
    if values(found, "MemoryDenyWriteExecute") == ["yes"]:
        calls.add_rule(seccomp.ALLOW, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_WRITE, 0))
        calls.add_rule(seccomp.ALLOW, "mmap", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
        calls.add_rule(seccomp.ALLOW, "mprotect", seccomp.Arg(2, seccomp.MASKED_EQ, PROT_EXEC, 0))
    calls.load()


def main():
    if len(sys.argv) < 3:
        sys.exit("confine: confine.py UNIT COMMAND...")
    step, unit, *command = sys.argv[1:]
    if step not in ("--mounts", "--calls"):
        # A namespace of its own for the mounts: what the host mounts later still comes in, nothing gets out.
        again = [sys.executable, __file__, "--mounts", *sys.argv[1:]]
        os.execvp("unshare", ["unshare", "--mount", "--propagation=slave", *again])
    found = settings(unit)
    if step == "--mounts":
        os.umask(int(values(found, "UMask")[0], 8))
        close_files(found)
        kept = "".join(f",+{name.removeprefix('CAP_').lower()}" for name in values(found, "CapabilityBoundingSet"))
        again = [sys.executable, __file__, "--calls", unit, *command]
        os.execvp("setpriv", ["setpriv", "--no-new-privs", "--inh-caps=-all", f"--bounding-set=-all{kept}", *again])
    filter_calls(found)
    os.execvp(command[0], command)


if __name__ == "__main__":
    main()
