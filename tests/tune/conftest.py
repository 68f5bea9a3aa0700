"""One small dataset for all sweeps."""

import pytest

from sml_dist.data.synthetic import synth


@pytest.fixture(scope="session")
def rows(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("sweeps") / "data")
    synth(10_000, path, fields=3, dense=2, table_rows=60)
    return path
