"""The image under test, built once; and a line at the end that says whether it was really built."""

import os
import shutil

import pytest
from offline import FATE, REPOSITORY, Builder, CannotBuild, copy_context

IMAGE = "localhost/kata-pulse:test"


def pytest_terminal_summary(terminalreporter):
    if FATE:
        terminalreporter.section("image")
        for line in FATE.values():
            terminalreporter.write_line(line)


class Image:
    """The built image: its configuration, its root as files, and what building it said."""

    def __init__(self, builder, toolchain, context, root, said):
        self.builder, self.toolchain, self.context, self.root, self.said = builder, toolchain, context, root, said
        self.oci = builder.configuration(IMAGE)
        self.config = self.oci["config"]


@pytest.fixture(scope="session")
def image(tmp_path_factory):
    work = tmp_path_factory.mktemp("image")
    # Layers are kept between runs, as they would be on a developer's machine; `make clean` removes them.
    store = REPOSITORY / ".tools/image"
    try:
        builder = Builder(store)
    except CannotBuild as reason:
        FATE["built"] = f"NOT BUILT, ONLY LINTED: {reason}"
        pytest.skip(f"THE IMAGE WAS NOT BUILT: {reason}")
    # Optimising takes two thirds of the time and changes nothing that is looked at here.
    optimised = os.environ.get("KATA_PULSE_IMAGE") == "optimised"
    toolchain = builder.make_toolchain(work, optimised)
    context = work / "context"
    copy_context(context)
    said = builder.build(context, IMAGE, toolchain, environment={"SOURCE_DATE_EPOCH": "1700000000"})
    root = work / "root"
    builder.unpack(IMAGE, root)
    size = sum(path.stat().st_size for path in root.rglob("*") if path.is_file())
    binary = root / "usr/bin/kata-pulse"
    how = "as it is shipped" if optimised else "WITHOUT OPTIMISATION (KATA_PULSE_IMAGE=optimised builds it as it is shipped)"
    FATE["built"] = (
        f"really built by buildah from the Dockerfile, {how}, on a base image of this machine's compiler: "
        f"{size / 1e6:.1f} MB in all, of it the binary {binary.stat().st_size / 1e6:.1f} MB"
    )
    yield Image(builder, toolchain, context, root, said)
    shutil.rmtree(work, ignore_errors=True)
