"""Builds the real Dockerfile without a registry: with buildah, on a base image made from this machine's own compiler.

The base image is a skeleton of empty directories; cargo, gcc and the libraries come into it as read-only mounts while it
is used, so that nothing of this machine gets into a layer. What the build does is in no way different.
"""

import json
import os
import shutil
import subprocess
from pathlib import Path

REPOSITORY = Path(__file__).resolve().parents[3]
BUILD = "tests/deploy/image/build"
TOOLCHAIN = "localhost/kata-pulse-toolchain"

# What the Dockerfile may read, as .dockerignore has it, and what drives it.
CONTEXT = ["Dockerfile", ".dockerignore", "Cargo.toml", "Cargo.lock", "protos", "src", "docs/LICENSE", BUILD]


# The release profile without what makes it slow to compile.
QUICK = ["OPT_LEVEL=0", "LTO=off", "CODEGEN_UNITS=16", "DEBUG=0"]

# What the last lines of a run say of the image: whether it was built, and linted.
FATE = {}


class CannotBuild(Exception):
    """There is no builder here, or no compiler to build with."""


def run(*command, **options):
    """Runs a command and gives its standard output; a failure shows everything it said."""
    done = subprocess.run(command, text=True, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, **options)
    if done.returncode != 0:
        raise AssertionError(f"{' '.join(map(str, command))} exited with {done.returncode}:\n{done.stdout}")
    return done.stdout


class Builder:
    """buildah with a store of its own, so that no image of the machine is touched."""

    def __init__(self, store: Path):
        if shutil.which("buildah") is None:
            raise CannotBuild("buildah is not installed")
        if os.geteuid() != 0:
            raise CannotBuild("buildah without root would need user namespaces")
        store.mkdir(parents=True, exist_ok=True)
        filesystem = run("stat", "--file-system", "--format=%T", store).strip()
        # An overlay on an overlay is refused by the kernel; whole copies work everywhere.
        driver = "vfs" if filesystem == "overlayfs" else "overlay"
        configuration = store / "storage.conf"
        configuration.write_text(
            f'[storage]\ndriver = "{driver}"\ngraphroot = "{store}/graph"\nrunroot = "{store}/run"\n'
        )
        self.environment = {
            "PATH": os.environ["PATH"],
            "HOME": os.environ.get("HOME", "/root"),
            "CONTAINERS_STORAGE_CONF": str(configuration),
            # Needs neither a runtime nor namespaces that a CI machine may forbid.
            "BUILDAH_ISOLATION": "chroot",
            "BUILDER": "buildah",
        }
        self.cargo_home = Path(os.environ.get("CARGO_HOME") or Path.home() / ".cargo")
        self.sysroot = Path(run("rustc", "--print", "sysroot", cwd=REPOSITORY).strip())

    def buildah(self, *arguments):
        """Runs buildah on the store."""
        return run("buildah", *arguments, env=self.environment).strip()

    def make_toolchain(self, work: Path, optimised: bool) -> str:
        """Makes the base image and gives its name. One name per compiler, so that another one's layers are not reused.

        Cargo takes a profile's settings from the environment too, and with it from the base image: so the Dockerfile
        need not know that a build is to be a quick one.
        """
        skeleton = work / "skeleton"
        for directory in ["usr", "etc/alternatives", "opt/rust", "opt/cargo/registry", "tmp", "proc", "dev", "sys", "var/tmp"]:
            (skeleton / directory).mkdir(parents=True, exist_ok=True)
        for name in ["bin", "lib", "lib64", "sbin"]:
            (skeleton / name).symlink_to(f"usr/{name}")
        version = run("rustc", "--version", cwd=REPOSITORY).split()[1]
        name = f"{TOOLCHAIN}:{version}-{'optimised' if optimised else 'quick'}"
        profile = [] if optimised else [f"CARGO_PROFILE_RELEASE_{setting}" for setting in QUICK]
        container = self.buildah("from", "scratch")
        try:
            self.buildah("copy", container, str(skeleton), "/")
            for setting in ["PATH=/opt/rust/bin:/usr/bin:/bin", "HOME=/tmp", "CARGO_HOME=/opt/cargo", "CARGO_NET_OFFLINE=true",
                            *profile]:
                self.buildah("config", "--env", setting, container)
            # The same content is the same image, however often it is made.
            self.buildah("commit", "--timestamp", "0", container, name)
        finally:
            self.buildah("rm", container)
        return name

    def build(self, context: Path, image: str, toolchain: str, *more, environment=None):
        """Runs the build script over a context; gives what it said."""
        for host, inside, mode in [
            ("/usr", "/usr", "ro"),
            ("/etc/alternatives", "/etc/alternatives", "ro"),
            (self.sysroot, "/opt/rust", "ro"),
            # cargo unpacks crates there, as it does without us.
            (self.cargo_home / "registry", "/opt/cargo/registry", "rw"),
        ]:
            more = ("--volume", f"{host}:{inside}:{mode}", *more)
        environment = self.environment | {"IMAGE": image, "RUST_IMAGE": toolchain} | (environment or {})
        return run(str(context / BUILD), "--pull-never", *more, env=environment)

    def configuration(self, image: str) -> dict:
        """The image's configuration as OCI defines it."""
        return json.loads(self.buildah("inspect", "--type", "image", image))["OCIv1"]

    def unpack(self, image: str, to: Path):
        """Copies the image's root out of the store."""
        container = self.buildah("from", "--pull-never", image)
        try:
            mounted = self.buildah("mount", container)
            shutil.copytree(mounted, to, symlinks=True)
        finally:
            self.buildah("rm", container)


def copy_context(to: Path):
    """Copies what a build reads, so that it can be changed."""
    manifests = [path.relative_to(REPOSITORY) for path in REPOSITORY.glob("tests/*/Cargo.toml")]
    for path in [*map(Path, CONTEXT), *manifests]:
        (to / path).parent.mkdir(parents=True, exist_ok=True)
        if (REPOSITORY / path).is_dir():
            shutil.copytree(REPOSITORY / path, to / path)
        else:
            shutil.copy2(REPOSITORY / path, to / path)
