"""The label as a key column, of raw logs and of a prepared dataset."""

from types import SimpleNamespace

import pyarrow as pa
import pytest

from sml_dist.data.schema import Schema
from sml_dist.scoring.prepared_rows import PreparedRows
from sml_dist.scoring.raw_rows import RawRows
from sml_dist.spec import from_dict

RAW = pa.table({"rating": ["5", "1", "4"]})


def keys(thresholds: dict[str, int]) -> list[dict[str, list[float]]]:
    """What either kind of rows makes of the key `label`."""
    labels = {name: {"column": "rating", "at_least": least} for name, least in thresholds.items()}
    one = {"label": labels["label"]} if [*labels] == ["label"] else {"labels": labels}
    schema = from_dict(Schema, {"name": "films", "format": "csv", "categorical": [{"columns": ["film"]}], **one})
    ratings = [5, 1, 4]
    rows = [[float(rating >= least) for least in thresholds.values()] for rating in ratings]
    column = pa.array(rows, pa.list_(pa.float32(), len(labels))) if len(labels) > 1 else pa.array([row[0] for row in rows], pa.float32())
    raw = RawRows._key(SimpleNamespace(schema=schema), "label", pa.table({}), RAW, "films.csv")
    manifest = SimpleNamespace(labels=[*labels])
    prepared = PreparedRows._key(SimpleNamespace(manifest=manifest), "label", pa.table({"label": column}), "test")
    return [{name: values.to_pylist() for name, values in found.items()} for found in (raw, prepared)]


@pytest.mark.parametrize(
    ("thresholds", "columns"),
    [
        ({"label": 4}, {"label": [1, 0, 1]}),
        ({"like": 4, "love": 5}, {"label:like": [1, 0, 1], "label:love": [1, 0, 0]}),
    ],
)
def test_one_label_is_a_column_and_of_several_each_by_its_name_whatever_rows_they_are_of(thresholds, columns):
    assert keys(thresholds) == [columns, columns]
