"""The loader reads columns of any type as prepare does, without a model."""

import numpy as np
import pyarrow as pa
import pytest
import torch

from sml_dist.data.clean import clean
from sml_dist.data.hashing import hash64
from sml_dist.data.numeric import dense_feature as prepared_feature
from sml_dist.data.schema import Schema
from sml_dist.serve.light import Model, dense_feature
from sml_dist.spec import from_dict


def reader(*missing: str) -> Model:
    model = Model.__new__(Model)
    model.spec = {"missing": [*missing]}
    return model


@pytest.mark.parametrize("kind", [pa.string(), pa.int8(), pa.float16(), pa.float32(), pa.decimal128(19, 0)])
def test_a_number_that_spells_missing_is_missing_in_every_type(kind):
    numbers = pa.array([-1, 3]).cast(kind)
    assert reader("-1").number(numbers).isnan().tolist() == [True, False]
    assert reader().number(numbers).tolist() == [-1, 3]


@pytest.mark.parametrize("transform", ["log1p", "none", "standard"])
def test_a_dense_feature_is_that_of_prepare_up_to_the_largest_number(transform):
    numbers = pa.array([torch.finfo(torch.float32).max, torch.finfo(torch.float32).min, 0.1, -3.0, None])
    found = dense_feature(reader().number(numbers), {"transform": transform, "mean": 1e-3, "std": 1e-9})
    np.testing.assert_allclose(found.numpy(), prepared_feature(numbers, transform, (1e-3, 1e-9)), rtol=1e-6)


def test_truth_is_one_and_zero_as_prepare_has_it():
    numbers = pa.array([True, False, None])
    for missing in ([], ["-1"], ["0"]):
        assert reader(*missing).number(numbers).nan_to_num(9).tolist() == [1, 0, 9]


@pytest.mark.parametrize("kind", [pa.string(), pa.float32(), pa.float64(), pa.decimal128(10, 2), pa.int16(), pa.bool_()])
@pytest.mark.parametrize("origin", ["bucket", "log_square"])
def test_a_number_is_held_against_edges_as_prepare_does_in_every_type(kind, origin):
    texts = ["1", "0", None] if kind in (pa.int16(), pa.bool_()) else ["0.70", "3.60", "0.35", "-2.35", "5.00", None]
    numbers = pa.array(texts).cast(kind)
    group = {"columns": "n", "transform": origin} | ({"buckets": 9} if origin == "bucket" else {})
    schema = from_dict(Schema, {"name": "x", "format": "parquet", "label": "y", "numeric": [group]})
    expected = clean(pa.table({"n": numbers}), np.arange(len(texts)), schema, labelled=False)[0]["number:n"]
    assert reader().number(numbers, compared=True).nan_to_num(-1e9).tolist() == expected.fill_null(-1e9).to_pylist()
    assert expected.to_pylist() == [text and float(text) for text in texts]


@pytest.mark.parametrize("origin", ["bucket", "log_square", None])
def test_a_dense_feature_of_a_column_that_is_also_held_against_edges_is_that_of_prepare(origin):
    raw = pa.table({"n": pa.array([0.7, 1e6 + 0.1, None], pa.float32())})
    again = {"columns": "n", "transform": origin} | ({"buckets": 9} if origin == "bucket" else {})
    groups = [{"columns": "n", "transform": "none"}] + ([again] if origin else [])
    schema = from_dict(Schema, {"name": "x", "format": "parquet", "label": "y", "numeric": groups})
    model, fields = reader(), [{"column": f.column, "origin": f.origin} for f in schema.features]
    model.ids = lambda rows, field: field
    model.spec |= {"fields": fields, "dense": [{"column": "n", "transform": "standard", "mean": 0.7, "std": 1e-9}]}
    expected = clean(raw, np.arange(3), schema, labelled=False)[0]["number:n"]
    assert model.features(raw)[1].squeeze(1).tolist() == prepared_feature(expected, "standard", (0.7, 1e-9)).tolist()


LISTS = [
    pa.array([[1.0, 2.5, float("nan")], None, [], [2.0**60, -0.0, None]]),
    pa.array([[0.1, 7.0], None], pa.list_(pa.float32())),
    pa.array([[0.1, 7.0], None], pa.list_(pa.float16())),
    pa.array([[1, 2], [3, 4], None, [5, 6]], pa.list_(pa.int64(), 2)).slice(1),
    pa.array([[True], [False, True]]),
    pa.array([[b"x", b""]], pa.large_list(pa.binary())),
    pa.array([["a", None, "", "none", "a b"]]),
    pa.array([["a"], ["b"]]).slice(1),
    pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.ExtensionArray.from_storage(pa.uuid(), pa.array([b"\xff" * 16, None], pa.binary(16)))),
    pa.ListArray.from_arrays(pa.array([0, 1, 2]), pa.ExtensionArray.from_storage(pa.bool8(), pa.array([0, 1], pa.int8()))),
    pa.nulls(2),
    pa.array([], pa.list_(pa.string())),
    pa.array(["a|none|b", "none", None, "|none ||a"]),
]


@pytest.mark.parametrize("lists", LISTS, ids=lambda lists: str(lists.type))
def test_the_values_of_a_list_are_those_of_prepare_in_every_type(lists):
    raw, separator = pa.table({"y": [1] * len(lists), "l": lists}), "|" if pa.types.is_string(lists.type) else None
    group = {"columns": "l", "hash": 99} | ({"separator": separator} if separator else {})
    schema = {"name": "x", "format": "parquet", "label": "y", "multivalued": [group], "missing": ["none"]}
    expected = clean(raw, np.arange(len(raw)), from_dict(Schema, schema))[0]["list:l"].combine_chunks()
    assert "none" not in expected.flatten().to_pylist()
    field = {"column": "l", "origin": "list", "separator": separator, "max_length": None, "hash": 99, "of": "l"}
    ids, lengths = reader("none").ids(raw, field)
    assert torch.equal(ids, torch.from_numpy((hash64(expected.flatten(), "l") % np.uint64(99)).astype(np.int64)))
    assert lengths.dtype == torch.int64 and lengths.tolist() == [len(cell) for cell in expected.to_pylist()]


def test_a_pad_takes_no_place_of_a_history():
    seen = pa.array([[-1, -1, 5], [5, 7, 9, -1], [-1]])
    found = {"column": "seen", "origin": "sequence", "separator": None, "max_length": 2, "hash": 99, "of": "item"}
    ids, _ = reader("-1").ids(pa.table({"seen": seen}), found)
    five, seven, nine = (hash64(pa.array(["5", "7", "9"]), "item") % np.uint64(99)).tolist()
    assert ids.tolist() == [[five, -1], [nine, seven], [-1, -1]]


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%F %T", "2020-02-29 23:59:60"),
        ("%F %T", "2020-02-30 00:00:00"),
        ("%FT%T%z", "2020-04-30T23:00:00-0800"),
        ("%FT%T%z", "2020-04-31T23:00:00+0800"),
        ("%y%m%d%H", "14102123"),
        ("%y%m%d%H", "141021"),
        (None, "253402300799"),
        (None, "1718000000000"),
        (None, str(-(1 << 38))),
    ],
)
def test_a_time_of_text_is_refused_where_prepare_rejects_it(form, text):
    raw = pa.table({"n": ["1"], "t": [text]})
    time = {"column": "t", "format": form, "unit": "s", "fields": ["hour"]}
    schema = {"name": "x", "format": "csv", "label": "y", "numeric": [{"columns": "n"}], "timestamp": time}
    rows, _, rejects = clean(raw, np.arange(1), from_dict(Schema, schema), labelled=False)
    model = reader()
    model.spec["timestamp"] = time
    if rejects:
        with pytest.raises(ValueError):
            model.times(pa.array([text]), "hour")
    else:
        assert model.times(pa.array([text]), "hour") == [str(rows["timestamp"][0].as_py() // 3600 % 24)]
