import pytest

import lab as laboratory


@pytest.fixture(scope="session")
def lab(tmp_path_factory):
    with laboratory.running(tmp_path_factory.mktemp("lab")) as running:
        yield running
