"""One dataset of raw clicks for all tests of scoring; its logs lie beside it."""

import pytest

from tests.scoring.runs import prepared


@pytest.fixture(scope="session")
def data(tmp_path_factory) -> str:
    return prepared(tmp_path_factory.mktemp("clicks"))
