"""Arrow rows to tensors and back: nothing lost, nothing out of range."""

import numpy as np
import pyarrow as pa
import pytest
from torch.fx import _symbolic_trace

from sml_dist.data.dataset import Field, Manifest, arrow_schema
from sml_dist.embeddings.batch import Collator
from sml_dist.spec import InputError

FIELDS = [Field(name="a", rows=5), Field(name="tags", rows=9, multivalued=True), Field(name="b", rows=7)]


def manifest(fields=FIELDS, dense=("x", "y"), **extra) -> Manifest:
    counts = {"rows_read": 0, "rows_kept": 0, "rows_rejected": 0}
    return Manifest(name="t", fields=list(fields), dense=list(dense), splits={}, split_rule="", **counts, **extra)


def table(a, b, tags, label=None) -> pa.Table:
    rows = len(a)
    schema = arrow_schema(FIELDS, ["x", "y"], weight=False, group=True, timestamp=False)
    flat = pa.array(np.stack([a, b], 1).astype(np.int32).reshape(-1))
    dense = pa.array(np.arange(2 * rows, dtype=np.float32))
    columns = [
        pa.FixedSizeListArray.from_arrays(dense, 2),
        pa.FixedSizeListArray.from_arrays(flat, 2),
        pa.array(tags, pa.list_(pa.int32())),
        pa.array(label or [0.0] * rows, pa.float32()),
        pa.array(range(rows), pa.int64()),
    ]
    return pa.table(columns, schema=schema)


def test_torch_logs_nothing_while_a_batch_is_made(monkeypatch):
    """It would once in each process, so it is made to think that it has not yet."""
    said = []
    _symbolic_trace.is_fx_tracing_warning.cache_clear()
    monkeypatch.setattr(_symbolic_trace.log, "handle", said.append)
    Collator(manifest())(table([0], [0], [[]]))
    assert not said


def test_every_id_arrives_at_its_field_and_row():
    batch = Collator(manifest())(table([0, 4, 2], [6, 0, 1], [[1, 2], [], [8]], [1.0, 0.0, 1.0]))
    found = {key: batch.ids[key].to_dense() for key in batch.ids.keys()}  # noqa: SIM118
    assert {key: [row.tolist() for row in rows] for key, rows in found.items()} == {
        "a": [[0], [4], [2]],
        "b": [[6], [0], [1]],
        "tags": [[1, 2], [], [8]],
    }
    assert batch.dense.tolist() == [[0, 1], [2, 3], [4, 5]]
    assert batch.label.tolist() == [1, 0, 1] and batch.group.tolist() == [0, 1, 2] and batch.weight.tolist() == [1, 1, 1]


def test_a_slice_of_a_table_gives_the_slice_of_its_batch():
    whole = table([0, 4, 2, 3], [6, 0, 1, 1], [[1, 2], [], [8], [3]])
    part = Collator(manifest())(whole.slice(1, 2))
    copy = Collator(manifest())(pa.concat_tables([whole.slice(1, 1), whole.slice(2, 1)]))
    for batch in (part, copy):
        assert batch.ids["a"].values().tolist() == [4, 2]
        assert batch.ids["tags"].lengths().tolist() == [0, 1] and batch.ids["tags"].values().tolist() == [8]
        assert batch.dense.tolist() == [[2, 3], [4, 5]]


@pytest.mark.parametrize(
    ("a", "tags", "named"),
    [([5], [[1]], "field a: id 5"), ([-1], [[1]], "field a: id -1"), ([1], [[9]], "field tags: id 9")],
)
def test_an_id_out_of_range_never_reaches_the_tables(a, tags, named):
    with pytest.raises(InputError, match=f"{named} is outside its table of"):
        Collator(manifest())(table(a, [0], tags))


def test_rows_without_dense_features_have_width_zero():
    batch = Collator(manifest(dense=()))(table([1], [1], [[1]]).drop_columns(["dense"]))
    assert batch.dense.shape == (1, 0)
