import time
from types import SimpleNamespace

import pytest

from sml_dist.config.run import parse
from sml_dist.data.synthetic import synth
from sml_dist.train.exchange import exchanged
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress


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


def test_what_was_waited_for_before_the_first_step_is_no_share_of_the_time_after_it(tmp_path):
    data = str(tmp_path / "data")
    synth(3_000, data, fields=2, dense=1, table_rows=50)
    config = parse(
        {
            "run": {"name": "waits", "storage": str(tmp_path)},
            "data": {"path": data, "streams": 2},
            "model": {"name": "dnn", "tower": {"hidden": [4]}},
            "train": {"global_batch_size": 512, "epochs": 1},
        }
    )
    with one_process():
        laboratory = Laboratory.of(config)
        trainer = laboratory.trainer

        def late():
            for table in laboratory.stream.batches():
                time.sleep(0.3)
                yield table

        trainer.stretch(trainer.coming(late()), Progress())
    assert trainer.meter.first_batch_seconds >= 0.3
    assert 0.3 < trainer.meter.totals()["data_wait_fraction"] <= 1
