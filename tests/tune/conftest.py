"""One small dataset for all sweeps."""

import pytest


@pytest.fixture(scope="session")
def rows(synthetic) -> str:
    return synthetic(10_000, fields=3, dense=2, table_rows=60)
