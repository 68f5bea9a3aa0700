"""Raw columns to typed ones: equal from text and from Parquet, and each bad value told apart from a missing one."""

from calendar import monthrange
from datetime import date, datetime
from decimal import Decimal
from itertools import combinations
from uuid import UUID

import numpy as np
import pyarrow as pa
import pytest

from sml_dist.data.clean import as_text, clean, group_ids, label_or_null, weight_or_null
from sml_dist.data.hashing import hash64
from sml_dist.data.schema import Schema, load_schema
from sml_dist.data.text import BROKEN
from sml_dist.spec import from_dict
from tests.data.raw_logs import write_schema

BASE = {"name": "x", "format": "csv", "label": "y", "numeric": [{"columns": "n"}]}


def schema(**changes) -> Schema:
    return from_dict(Schema, BASE | changes)


LISTS = {"format": "parquet", "multivalued": [{"columns": "g"}]}


def cleaned(raw: dict, **changes):
    table = pa.table({"y": ["1"] * len(next(iter(raw.values()))), "n": ["0"] * len(next(iter(raw.values()))), **raw})
    rows, numbers, rejects = clean(table, np.arange(1, len(table) + 1), schema(**changes))
    assert len(numbers) + len(rejects) == len(table)
    return rows, [str(reject) for reject in rejects]


def test_numbers_are_parsed_and_bad_ones_rejected_with_their_value():
    rows, rejects = cleaned({"n": ["1", "", " 2.5 ", "-3e2", "+4", "x", "nan", "inf", "1_0", "0x1", "0x10", "1e39", "1e400"]})
    assert rows["number:n"].to_pylist() == [1, None, 2.5, -300, 4]
    assert rejects[0] == "row 6: column n: 'x' is not a finite number"
    assert len(rejects) == 8


def test_numbers_of_parquet_may_be_null_nan_or_of_any_type():
    for column in (pa.array([1, None], pa.int8()), pa.array([1.0, float("nan")]), pa.array([True, None]), pa.array(["1", None])):
        rows, rejects = cleaned({"n": column})
        assert rows["number:n"].to_pylist() == [1, None] and not rejects
    assert cleaned({"n": pa.array([float("inf")])})[1] == ["row 1: column n: inf is not a finite number"]


@pytest.mark.parametrize("kind", [pa.decimal32(7, 2), pa.decimal64(12, 3), pa.decimal128(10, 2), pa.decimal256(50, 9)])
def test_a_decimal_is_the_number_that_its_text_is(kind):
    texts = [f"{cents / 100:.2f}" for cents in range(-2000, 2000)]
    rows, rejects = cleaned({"n": pa.array([*map(Decimal, texts), None], kind)})
    assert rows["number:n"].to_pylist() == [*map(float, texts), None] and not rejects


NUMBERS = ["0.7", "3.6", "0.1", "-2.35", "16777216", "1e-7", "3.4028235e38", "", "5"]
SPELT = {
    "text": pa.array(NUMBERS),
    "float32": pa.array([float(text) if text else None for text in NUMBERS], pa.float32()),
    "float64": pa.array([float(text) if text else float("nan") for text in NUMBERS]),
}


@pytest.mark.parametrize("spelt", SPELT)
def test_a_number_that_is_compared_is_the_same_from_text_and_from_floats_of_either_size(spelt):
    edges = {"numeric": [{"columns": "n", "transform": "bucket", "buckets": 9}]}
    rows, rejects = cleaned({"n": SPELT[spelt]}, **edges)
    assert rows["number:n"].to_pylist() == [float(text) if text else None for text in NUMBERS] and not rejects
    rows, _ = cleaned({"y": SPELT[spelt]}, label={"column": "y", "at_least": 0.7})
    assert rows["label"].to_pylist() == [float(text) >= 0.7 for text in NUMBERS if text]


def test_labels_are_zero_or_one_unless_a_threshold_makes_them_so():
    rows, rejects = cleaned({"y": ["1", "0", "1.0", "", "2", "yes", "0.5"]})
    assert rows["label"].to_pylist() == [1, 0, 1]
    others = '0 or 1; for other values give the label as {column: y, positive: ["yes"]} or {column: y, at_least: N}'
    assert rejects == [
        f"row 6: column y: 'yes' is not {others}",
        "row 4: column y: is missing",
        f"row 5: column y: label 2 is not {others}",
        f"row 7: column y: label 0.5 is not {others}",
    ]
    rows, _ = cleaned({"y": ["3", "4", "5"]}, label={"column": "y", "at_least": 4})
    assert rows["label"].to_pylist() == [0, 1, 1]


@pytest.mark.parametrize(
    ("column", "positive", "labels"),
    [
        (["Yes", "no", "", "NULL", "yes", " true "], ["Yes", "true"], [1, 0, None, None, 0, 1]),
        (pa.array([1, 2, None, -1]), ["2", "-1"], [0, 1, None, 1]),
        (pa.array([2.0, 0.5, float("nan")], pa.float32()), ["2", "0.5"], [1, 1, None]),
        (pa.array([True, False, None]), ["true"], [1, 0, None]),
        (pa.array(["click", "view", None]).dictionary_encode(), ["click"], [1, 0, None]),
    ],
)
def test_a_label_whose_text_is_one_of_the_positive_ones_is_1_and_of_any_other_0_in_every_type(column, positive, labels):
    changes = {"label": {"column": "y", "positive": positive}, "missing": ["NULL"]}
    rows, rejects = cleaned({"y": column}, **changes)
    assert rows["label"].to_pylist() == [label for label in labels if label is not None]
    assert rejects == [f"row {row}: column y: is missing" for row, label in enumerate(labels, 1) if label is None]
    plan = schema(**changes)
    assert label_or_null(pa.table({"y": column}), plan, plan.label).to_pylist() == labels


def test_where_a_label_or_weight_is_not_needed_a_bad_one_is_null_and_no_row_is_lost():
    raw = pa.table({"y": ["1", "0", "", "2", "yes"], "w": ["2", "-1", "", "x", "0"]})
    plan = schema(weight="w")
    assert label_or_null(raw, plan, plan.label).to_pylist() == [1, 0, None, None, None]
    assert weight_or_null(raw, plan).to_pylist() == [2, None, None, None, 0]


def test_weights_are_finite_and_not_negative():
    rows, rejects = cleaned({"w": ["0", "2.5", "-1", "", "nan"]}, weight="w")
    assert rows["weight"].to_pylist() == [0, 2.5]
    assert rejects == [
        "row 5: column w: 'nan' is not a finite number",
        "row 4: column w: is missing",
        "row 3: column w: weight -1 is negative",
    ]


@pytest.mark.parametrize(
    ("column", "rule"),
    [
        (["1600000000", "1600003600"], {}),
        (["1600000000.9", " 1600003600 "], {}),
        (["1600000000999", "1600003600000"], {"unit": "ms"}),
        (["1600000000999999999", "1600003600000000000"], {"unit": "ns"}),
        (["1.6e18", " 1600003600000000000 "], {"unit": "ns"}),
        (["2020-09-13 12:26:40", "2020-09-13 13:26:40"], {"format": "%Y-%m-%d %H:%M:%S"}),
        (pa.array([1600000000, 1600003600], pa.int32()), {}),
        (pa.array([1600000000.0, 1600003600.5]), {}),
        (pa.array([1600000000999, 1600003600000], pa.timestamp("ms")), {}),
        (pa.array([datetime(2020, 9, 13, 12, 26, 40), datetime(2020, 9, 13, 13, 26, 40)]), {"unit": "s"}),
    ],
)
def test_times_become_seconds(column, rule):
    rows, rejects = cleaned({"t": column}, timestamp={"column": "t", **rule})
    assert rows["timestamp"].to_pylist() == [1600000000, 1600003600] and not rejects


def test_avazu_hours_and_dates_become_seconds():
    assert cleaned({"t": pa.array([14102123])}, timestamp={"column": "t", "format": "%y%m%d%H"})[0]["timestamp"].to_pylist() == [1413932400]
    assert cleaned({"t": pa.array([date(1970, 1, 2)])}, timestamp={"column": "t"})[0]["timestamp"].to_pylist() == [86400]
    assert cleaned({"t": ["-1"]}, timestamp={"column": "t", "unit": "ms"})[0]["timestamp"].to_pylist() == [-1]


def test_bad_times_are_rejected():
    _, rejects = cleaned({"t": ["x", "", "1e300", "5"]}, timestamp={"column": "t"})
    assert rejects == [
        "row 1: column t: 'x' is not a time in s since 1970",
        "row 2: column t: is missing",
        "row 3: column t: '1e300' is not a time in s since 1970",
    ]
    _, rejects = cleaned({"t": ["14139999", "141021"]}, timestamp={"column": "t", "format": "%y%m%d%H"})
    assert rejects[1] == "row 2: column t: '141021' is not a time of the form %y%m%d%H"


@pytest.mark.parametrize("second", [274_877_907, 1_718_000_000, -1_718_000_000, 9_000_000_000])
@pytest.mark.parametrize("kind", [pa.string(), pa.int64(), pa.float64()])
def test_a_time_in_a_finer_unit_than_the_schema_s_is_rejected_with_the_unit_that_it_looks_like(second, kind):
    units = ["s", "ms", "us", "ns"]
    for unit, found in combinations(units, 2):
        times = pa.array([second * 1000 ** units.index(each) for each in (unit, found)]).cast(kind, safe=False)
        rows, rejects = cleaned({"t": times}, timestamp={"column": "t", "unit": unit})
        assert rows["timestamp"].to_pylist() == [second] and len(rejects) == 1
        assert rejects[0].endswith(f" is not a time in {unit} since 1970; it looks like `unit: {found}`")


def test_the_last_second_of_the_year_9999_is_a_time_and_one_that_no_column_of_times_can_hold_is_none():
    last = 253_402_300_799
    for column in (pa.array([last]), pa.array([last, 1 << 40], pa.timestamp("s"))):
        rows, rejects = cleaned({"t": column}, timestamp={"column": "t"})
        assert rows["timestamp"].to_pylist() == [last] and not any("looks like" in reject for reject in rejects)


@pytest.mark.parametrize(
    ("form", "text"),
    [
        ("%Y-%m-%d %H:%M:%S", "{}-{:02}-{:02} 23:59:60"),
        ("20%y%m%d%H", "{}{:02}{:02}23"),
        ("%F %I %p", "{}-{}-{} 12 AM"),
        ("%FT%T%z", "{}-{:02}-{:02}T00:00:00+14:00"),
        ("%FT%T%z", "{}-{:02}-{:02}T23:59:59-1400"),
    ],
)
def test_a_day_that_its_month_has_not_is_rejected_and_no_other(form, text):
    days = [(year, month, day) for year in (2019, 2020) for month in range(1, 13) for day in range(1, 32)]
    rows, rejects = cleaned({"t": [text.format(*day) for day in days]}, timestamp={"column": "t", "format": form})
    moved = [row for row, (year, month, day) in enumerate(days, 1) if day > monthrange(year, month)[1]]
    assert [int(reject.split(":")[0].removeprefix("row ")) for reject in rejects] == moved
    assert (np.diff(rows["timestamp"].to_numpy()) == 86400).all()


@pytest.mark.parametrize("beside", ["5", "-5", "5.5"])
def test_a_time_in_hexadecimal_is_none_whatever_stands_beside_it(beside):
    rows, rejects = cleaned({"t": ["0x10", "0X1F", beside, "007"]}, timestamp={"column": "t"})
    assert [reject.split(" is ")[0] for reject in rejects] == ["row 1: column t: '0x10'", "row 2: column t: '0X1F'"]
    assert rows["timestamp"].to_pylist() == [int(float(beside)), 7]


NS = 1_600_000_000_000_000_000


@pytest.mark.parametrize("odd", [None, "x", "1e300", "5.5", f" {NS} ", f"{NS:e}", "9" * 30])
def test_no_time_of_text_changes_another(odd):
    rows, _ = cleaned({"t": [str(NS - 1), odd, str(NS)]}, timestamp={"column": "t", "unit": "ns"})
    found = rows["timestamp"].to_pylist()
    assert (found[0], found[-1]) == (1599999999, 1600000000)


def test_a_missing_time_of_parquet_costs_its_row_alone():
    for gap in (float("nan"), None, 2.0**64):
        rows, rejects = cleaned({"t": pa.array([float(NS), gap, NS + 1e9])}, timestamp={"column": "t", "unit": "ns"})
        assert rows["timestamp"].to_pylist() == [1600000000, 1600000001] and len(rejects) == 1


def test_tokens_are_equal_from_text_and_from_any_type_of_parquet():
    expected = ["7", "", "-12"]
    for column in (
        pa.array(["7", "", "-12"]),
        pa.array(["7", None, "-12"], pa.large_string()),
        pa.array([7, None, -12]),
        pa.array([7.0, None, -12.0]),
        pa.array([7.0, float("nan"), -12.0]),
        pa.array([7.0, None, -12.0], pa.float16()),
        pa.array([b"7", b"", b"-12"]),
        pa.array(["7", None, "-12"]).dictionary_encode(),
    ):
        rows, _ = cleaned({"c": column}, categorical=[{"columns": "c"}])
        assert rows["token:c"].to_pylist() == expected
    assert as_text(pa.array([1.5, 2.0])).to_pylist() == ["1.5", "2"]


UUIDS = [UUID(int=number) for number in (1, 2**127)]
EXTENDED = {
    "uuid": (pa.uuid(), pa.array([each.bytes for each in UUIDS] + [None], pa.binary(16)), [*map(str, UUIDS), ""]),
    "json": (pa.json_(), pa.array(["1", '{"a": 2}', None]), ["1", '{"a": 2}', ""]),
    "bool8": (pa.bool8(), pa.array([0, 1, None], pa.int8()), ["0", "1", ""]),
}


@pytest.mark.parametrize("name", EXTENDED)
@pytest.mark.parametrize("missing", [[], ["none"]])
def test_an_extension_type_is_read_as_what_it_is_stored_as_and_a_uuid_as_its_text(name, missing):
    kind, stored, expected = EXTENDED[name]
    column = pa.ExtensionArray.from_storage(kind, stored)
    rows, _ = cleaned({"c": column}, categorical=[{"columns": "c"}], missing=missing)
    assert rows["token:c"].to_pylist() == expected
    lists = pa.ListArray.from_arrays(pa.array([0, 1, 3]), column)
    rows, _ = cleaned({"g": lists}, **LISTS, missing=missing)
    assert rows["list:g"].to_pylist() == [expected[:1], expected[1:2]]
    numbers = [text for text in expected if text in ("0", "1", "")]
    rows, rejects = cleaned({"n": column}, missing=missing)
    assert rows["number:n"].to_pylist() == [float(text) if text else None for text in numbers] and len(rejects) == 3 - len(numbers)
    assert len(cleaned({"t": column}, timestamp={"column": "t"}, missing=missing)[0]) == len(numbers) - 1


def test_a_time_of_parquet_needs_no_zone_that_is_known():
    rows, rejects = cleaned({"t": pa.array([5, None], pa.timestamp("s", "Mars/Base"))}, timestamp={"column": "t"})
    assert rows["timestamp"].to_pylist() == [5] and rejects == ["row 2: column t: is missing"]


def test_further_spellings_of_missing_are_missing_everywhere():
    rows, rejects = cleaned({"n": ["NULL", "3"], "c": ["\\N", "NULLS"]}, categorical=[{"columns": "c"}], missing=["NULL", "\\N"])
    assert rows["number:n"].to_pylist() == [None, 3] and rows["token:c"].to_pylist() == ["", "NULLS"] and not rejects


@pytest.mark.parametrize("kind", [pa.string(), pa.int8(), pa.float16(), pa.float32(), pa.decimal128(19, 0)])
def test_a_number_that_spells_missing_is_missing_in_every_type(kind):
    numbers = pa.array([-1, 3]).cast(kind)
    rows, rejects = cleaned({"n": numbers, "c": numbers}, categorical=[{"columns": "c"}], missing=["-1"])
    assert rows["number:n"].to_pylist() == [None, 3] and rows["token:c"].to_pylist() == ["", "3"] and not rejects
    assert cleaned({"t": numbers}, timestamp={"column": "t"}, missing=["-1"])[1] == ["row 1: column t: is missing"]


def test_lists_come_from_strings_or_lists_without_empty_tokens():
    text = cleaned({"g": ["a|b", "", "|c||", "d"]}, multivalued=[{"columns": "g", "separator": "|"}])[0]["list:g"].to_pylist()
    assert text == [["a", "b"], [], ["c"], ["d"]]
    for kind in (pa.list_(pa.string()), pa.large_list(pa.large_string())):
        lists = pa.array([["a", "b"], None, ["", "c", None], ["d"]], kind)
        assert cleaned({"g": lists}, **LISTS)[0]["list:g"].to_pylist() == text
    assert cleaned({"g": pa.array([[1, 2], []])}, **LISTS)[0]["list:g"].to_pylist() == [["1", "2"], []]
    assert cleaned({"g": pa.array([[1, 2.5], []], pa.list_(pa.float16()))}, **LISTS)[0]["list:g"].to_pylist() == [["1", "2.5"], []]
    assert cleaned({"g": pa.array([["x"], ["a", "b"]]).slice(1)}, **LISTS)[0]["list:g"].to_pylist() == [["a", "b"]]


PADDED = [[-1, -1, 5], [5, 7, -1], [-1], [-1, -12]]
LISTED = {
    "numbers": pa.array(PADDED),
    "texts": pa.array([[*map(str, cell)] for cell in PADDED]),
    "one text": ["-1|-1|5", "5|7|-1", "-1", "-1|-12"],
}


@pytest.mark.parametrize("kind", LISTED)
def test_a_value_that_spells_missing_is_left_out_of_a_list_as_an_empty_one_is(kind):
    group = {"columns": "g"} | ({"separator": "|"} if kind == "one text" else {})
    rows, rejects = cleaned({"g": LISTED[kind]}, format="parquet", multivalued=[group], missing=["-1", "NULL"])
    assert rows["list:g"].to_pylist() == [["5"], ["5", "7"], [], ["-12"]] and not rejects


def test_bytes_that_are_not_utf8_reject_the_row_in_the_column_that_is_read():
    rows, rejects = cleaned({"c": pa.array([b"ok", b"\xff\xfeab"])}, categorical=[{"columns": "c"}])
    assert rows["token:c"].to_pylist() == ["ok"] and rejects == ["row 2: column c: not UTF-8: '??ab'"]
    rows, rejects = cleaned({"g": pa.array([[b"ok"], [b"ok", b"\xff"], []])}, **LISTS)
    assert rows["list:g"].to_pylist() == [["ok"], []] and rejects == ["row 2: column g: not UTF-8"]


def test_bytes_that_are_not_utf8_reject_the_row_in_a_key_too():
    """Passed on as marks, two such keys would be one."""
    keys = [f"caf{BROKEN}", f"caf{BROKEN}", "café"]
    rows, rejects = cleaned({"c": ["a", "b", "c"], "id": keys}, categorical=[{"columns": "c"}])
    assert rows["token:c"].to_pylist() == ["c"] and rejects == [f"row {row}: column id: not UTF-8: 'caf?'" for row in (1, 2)]


def test_groups_keep_integers_and_hash_all_else_to_non_negative_numbers():
    text = pa.array(["5", "-7", "007", "u1", "", "99999999999999999999"])
    ids = group_ids(text).to_pylist()
    assert ids[:2] == [5, -7]
    assert ids[2:] == (hash64(text)[2:] >> np.uint64(1)).tolist() and min(ids[2:]) >= 0
    assert group_ids(pa.array(["5", "6"])).to_pylist() == [5, 6]
    assert group_ids(pa.array(["5", "0x10"])).to_pylist() == [5, int(hash64(pa.array(["0x10"]))[0] >> np.uint64(1))]


def test_a_row_with_many_faults_is_rejected_once():
    rows, rejects = cleaned({"y": ["x"], "n": ["x"], "w": ["-1"]}, weight="w")
    assert len(rows) == 0 and len(rejects) == 1 and rejects[0].startswith("row 1: column y: 'x' is not 0 or 1; ")


def test_rows_to_be_scored_need_neither_label_nor_weight_nor_group(tmp_path):
    plan = load_schema(write_schema(tmp_path))
    raw = pa.table({"price": ["3"], "age": ["4"], "site": ["s"], "user": ["u"], "device": ["d"], "tags": ["a"], "time": ["0"]})
    assert set(raw.column_names) == set(plan.inputs)
    rows, _, rejects = clean(raw, np.array([1]), plan, labelled=False)
    assert len(rows) == 1 and not rejects and not {"label", "weight"} & set(rows.column_names)
