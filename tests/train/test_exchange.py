from types import SimpleNamespace

import pytest

from sml_dist.train.exchange import exchanged


class Tables:
    """Sharded tables that tell what of which batch is sent."""

    def __init__(self):
        self.told = []

    def create_context(self):
        return None

    def input_dist(self, context, ids):
        self.told.append(f"counts {ids}")
        return SimpleNamespace(wait=lambda: self.told.append(f"ids {ids}"))


@pytest.mark.parametrize("batches", [0, 1, 2, 3, 5])
def test_a_steps_ids_and_the_next_ones_number_are_under_way_before_the_step_ahead_of_them(batches):
    tables = Tables()
    items = [(number, SimpleNamespace(ids=number), 0.0) for number in range(batches)]
    seen = []
    for table, _, exchange in exchanged(items, tables, lambda phase: None):
        assert exchange.batch.ids == table
        assert tables.told.count(f"ids {table}") == 1
        assert f"ids {table + 1}" in tables.told or table + 1 == batches
        assert f"counts {table + 2}" in tables.told or table + 2 >= batches
        seen.append(table)
    assert seen == list(range(batches))
    assert len(tables.told) == 2 * batches == len(set(tables.told))
