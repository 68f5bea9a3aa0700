"""What is wrong with a request has a status, a code and a line that names it; no body makes the service fail."""

import asyncio
import json
import random
import threading
import time
from types import SimpleNamespace

import numpy as np
import pyarrow as pa
import pytest

from sml_dist.data.clean import clean, timestamps
from sml_dist.data.quarantine import SHOWN
from sml_dist.data.schema import Schema
from sml_dist.serve import application, requests
from sml_dist.serve.delta import tokens
from sml_dist.serve.model import Answer, ServedModel, now
from sml_dist.serve.requests import ARROW, JSON, Ask, Refusal, as_they_came, json_column, list_values, number_cell, parse
from sml_dist.spec import from_dict
from tests.serve.bodies import arrow, fuzzed, row_of
from tests.serve.test_delta import site

ROW = {"price": 3, "age": "40", "site": "s1", "user": 3, "device": "d4", "tags": "a|b", "time": 1_600_000_000}


@pytest.fixture(scope="module")
def model(exported) -> ServedModel:
    return ServedModel(exported)


def answer(model: ServedModel, kind: str, body: bytes, max_rows: int = 100) -> Answer:
    [found] = model.score([parse(kind, body, model.schema, max_rows)])
    if isinstance(found, Refusal):
        raise found
    return found


def rows(*changed: dict, **other) -> bytes:
    return json.dumps({"rows": [{**ROW, **each} for each in changed], **other}).encode()


def without(name: str) -> bytes:
    return json.dumps({"rows": [{k: v for k, v in ROW.items() if k != name}]}).encode()


BAD = {
    "no json": (b"{", 400, "malformed", "not JSON"),
    "no utf-8": (b"\xff\xfe\x00", 400, "malformed", "not JSON"),
    "deep": (b"[" * 100_000, 400, "malformed", "not JSON"),
    "nan": (rows({"price": float("nan")}), 400, "malformed", "NaN is not a JSON number"),
    "a list": (b"[]", 400, "no_rows", '"rows"'),
    "no row": (rows(), 400, "no_rows", "no row"),
    "too many": (rows(*[{}] * 101), 413, "too_many_rows", "101 rows, at most 100"),
    "a list of a body": (rows({"tags": "a|" * (1 << 18)}), 413, "too_many_values", "262145 values in lists, at most 262144 a request"),
    "a key": (rows({}, contribution=True), 422, "unknown_key", "'contribution'"),
    "a flag": (rows({}, contributions=1), 422, "wrong_type", "true or false"),
    "no object": (b'{"rows": [1]}', 422, "wrong_type", "row 1: 1 is no object"),
    "unknown": (rows({}, {"pryce": 1}), 422, "unknown_field", "row 2: field 'pryce' is unknown; did you mean 'price'?"),
    "missing": (without("site"), 422, "missing_field", "field 'site' is not there; give null"),
    "bool": (rows({"site": True}), 422, "wrong_type", "field 'site': True is not a string or a whole number"),
    "a time": (rows({"time": True}), 422, "wrong_type", "field 'time': True is not a number or its text"),
    "fraction": (rows({"site": 1.5}), 422, "wrong_type", "field 'site'"),
    "object": (rows({}, {"price": {}}), 422, "wrong_type", "row 2: field 'price': {} is not a number or its text"),
    "list": (rows({"site": ["a"]}), 422, "wrong_type", "row 1: field 'site': ['a'] is not a string or a whole number"),
    "no list": (rows({"tags": {}}), 422, "wrong_type", "{} is not a list of strings or whole numbers, or one string with '|' between them"),
    "fractions": (rows({"tags": ["a", 1.5]}), 422, "wrong_type", "field 'tags': ['a', 1.5] is not a list of strings or whole numbers, or"),
    "list of a body": (rows({"tags": ["a"] * (1 << 18)}, {"tags": "a"}), 413, "too_many_values", "262145 values in lists, at most 262144"),
    "surrogates": (b'{"rows": [' + json.dumps(ROW | {"tags": ["\ud800"]}).encode() + b"]}", 422, "bad_value", "not Unicode"),
    "surrogate": (b'{"rows": [' + json.dumps(ROW).replace('"s1"', '"\\ud800"').encode() + b"]}", 422, "bad_value", "not Unicode"),
    "no number": (rows({}, {"price": "12x"}), 422, "bad_value", "row 2: field 'price': '12x' is not a finite number"),
    "too large": (rows({"price": "1e99"}), 422, "bad_value", "not a finite number"),
    "overflow": (rows({}, {"age": 1e38}), 422, "not_finite", "row 2: its logit is not finite"),
    "digits": (b'{"rows": [{"price": ' + b"9" * 5000 + b"}]}", 400, "malformed", "digits"),
    "no time": (rows({"time": None}), 422, "bad_value", "row 1: field 'time': is missing"),
}


@pytest.mark.parametrize("case", BAD)
def test_each_kind_of_bad_json_is_named(model, case):
    body, status, code, text = BAD[case]
    with pytest.raises(Refusal) as refused:
        answer(model, JSON, body)
    assert (refused.value.status, refused.value.code) == (status, code) and text in refused.value.message
    assert "\n" not in refused.value.message


def arrow_cases():
    good = row_of(ROW)
    site = good.column_names.index("site")
    yield "truncated", arrow(good)[:60], 400, "malformed"
    yield "empty", b"", 400, "malformed"
    yield "no rows", arrow(good.slice(0, 0)), 400, "no_rows"
    yield "too many", arrow(pa.concat_tables([good] * 101)), 413, "too_many_rows"
    yield "unknown", arrow(good.append_column("x", pa.array([1]))), 422, "unknown_field"
    yield "missing", arrow(good.drop_columns(["site"])), 422, "missing_field"
    yield "twice", arrow(good.append_column("site", pa.array(["a"]))), 422, "unknown_field"
    yield "dictionary", arrow(good.set_column(site, "site", pa.array(["a"]).dictionary_encode())), 422, "wrong_type"
    yield "struct", arrow(good.set_column(site, "site", pa.array([{"a": 1}]))), 422, "wrong_type"
    yield "bool", arrow(good.set_column(site, "site", pa.array([True]))), 422, "wrong_type"
    yield "binary", arrow(good.set_column(site, "site", pa.array([b"\xff"]))), 422, "wrong_type"
    yield "compressed", arrow(good, "zstd"), 422, "compressed"
    yield "number", arrow(good.set_column(0, "price", pa.array([float("inf")]))), 422, "bad_value"


@pytest.mark.parametrize(("body", "status", "code"), [pytest.param(*rest, id=name) for name, *rest in arrow_cases()])
def test_each_kind_of_bad_arrow_is_named(model, body, status, code):
    with pytest.raises(Refusal) as refused:
        answer(model, ARROW, body)
    assert (refused.value.status, refused.value.code) == (status, code)


def test_list_values_that_no_max_length_cuts_fill_a_batch_as_rows_do(model):
    """Whatever the form of the list: one row of half the values that are taken is half a batch, of 100 rows."""
    half = parse(JSON, rows({"tags": "a|b|c|d|e"}), model.schema, 100, max_values=10)
    assert (len(half.rows), half.size) == (1, 50)
    assert parse(JSON, rows({"tags": None}, {"tags": "a|b"}), model.schema, 100).size == 2
    lists = {"name": "x", "format": "parquet", "label": "y", "multivalued": [{"columns": ["free"]}, {"columns": ["cut"], "max_length": 2}]}
    table = pa.table({"free": pa.array([["a"] * 7, None, []]), "cut": pa.array([["a"] * 99] * 3)})
    assert list_values(table, from_dict(Schema, lists)) == 7
    texts = {**lists, "multivalued": [{"columns": ["free"], "separator": ", "}]}
    for column, values in ((["a, b,c", None, ""], 4), ([1, 2, None], 3), ([None] * 3, 3)):  # an empty text is counted, too
        assert list_values(pa.table({"free": pa.array(column)}), from_dict(Schema, texts)) == values


def test_a_list_scores_as_its_values_joined_by_the_log_s_separator_alone_and_beside_texts(model):
    tags = row_of(ROW).column_names.index("tags")
    for values, text in ((["a", "b"], "a|b"), (["c"], "c"), ([], ""), ([], None), (["b", None, "", "a"], "b|a"), ([7, 8.0, "c"], "7|8|c")):
        expected = answer(model, JSON, rows({"tags": text})).logit
        assert answer(model, JSON, rows({"tags": values})).logit == expected
        both = answer(model, JSON, rows({"tags": values}, {"tags": text}, {"tags": None}, {"tags": 7})).logit
        assert np.allclose(both[:2], expected, atol=1e-6)
        assert np.allclose(both[2:], answer(model, JSON, rows({"tags": ""}, {"tags": "7"})).logit, atol=1e-6)
        if {*map(type, values)} <= {str}:
            body = arrow(row_of(ROW).set_column(tags, "tags", pa.array([values], pa.list_(pa.string()))))
            assert answer(model, ARROW, body).logit == expected
    assert np.ptp([answer(model, JSON, rows({"tags": tags})).logit for tags in (["a"], ["b"], ["a", "b"])]) > 0


def test_a_value_of_a_list_may_hold_the_separator_and_is_missing_where_a_text_s_would_be():
    groups = {"multivalued": [{"columns": ["t", "u"], "separator": "||"}], "categorical": [{"columns": "c"}]}
    sequences = {"sequences": [{"columns": "s", "of": "c", "max_length": 2, "separator": "|"}]}
    schema = from_dict(Schema, {"name": "x", "format": "csv", "label": "y", "missing": ["-1", "N||A"], **groups, **sequences})
    body = {"rows": [{"t": ["a||b", "-1"], "u": "a||b", "s": [1, 2, 3], "c": 1}, {"t": "N||A", "u": "N||A", "s": "4|5", "c": 2}]}
    rows = parse(JSON, json.dumps(body).encode(), schema, 9).rows
    found, _, rejects = clean(rows, np.arange(2), as_they_came(schema, rows.schema), labelled=False)
    assert not rejects and found["list:t"].to_pylist() == [["a||b"], []] and found["list:u"].to_pylist() == [["a", "b"], []]
    assert found["list:s"].to_pylist() == [["1", "2", "3"], ["4", "5"]]


def test_the_service_says_what_each_input_takes(model):
    takes = {each["name"]: each["takes"] for each in model.about["inputs"]}
    assert takes["tags"] == "a list of strings or whole numbers, or one string with '|' between them"
    assert (takes["site"], takes["price"], takes["time"]) == ("a string or a whole number", *["a number or its text"] * 2)


@pytest.mark.parametrize("lists", [[[]], [None], [[None, None]]], ids=str)
@pytest.mark.parametrize("cut", [{}, {"max_length": 2}])
def test_lists_without_a_value_are_taken_whatever_type_arrow_finds_for_them(lists, cut):
    schema = from_dict(Schema, {"name": "x", "format": "parquet", "label": "y", "multivalued": [{"columns": "l", "hash": 9, **cut}]})
    for kind in (None, pa.list_(pa.null()), pa.large_list(pa.null()), pa.list_(pa.string())):
        rows = parse(ARROW, arrow(pa.table({"l": pa.array(lists, kind)})), schema, 9).rows
        found, _, rejects = clean(rows, np.arange(1), schema, labelled=False)
        assert found["list:l"].to_pylist() == [[]] and not rejects


def test_nulls_in_a_list_cost_no_more_than_their_body():
    """A body of some hundred bytes may claim 2**31 of them, each of which would take 4 bytes as text."""
    schema = from_dict(Schema, {"name": "x", "format": "parquet", "label": "y", "multivalued": [{"columns": "l", "max_length": 2}]})
    many = 10_000_000
    body = arrow(pa.table({"l": pa.ListArray.from_arrays(pa.array([0, many], pa.int32()), pa.nulls(many))}))
    assert len(body) < 1000
    assert parse(ARROW, body, schema, 9).rows["l"].type == pa.null()


def test_the_schema_is_asked_for_its_columns_as_often_for_many_rows_as_for_one(model, monkeypatch):
    """Asked for each row, that was half of the time of a large request."""
    asked, features = [], Schema.features.fget
    monkeypatch.setattr(Schema, "features", property(lambda schema: asked.append(1) or features(schema)))
    counts = []
    for many in (1, 50):
        parse(JSON, rows(*[{"click": 1}] * many), model.schema, 100)
        counts.append(len(asked))
        asked.clear()
    assert counts[0] == counts[1]


def test_a_body_is_parsed_while_others_are_answered(monkeypatch):
    answered = threading.Event()
    monkeypatch.setattr(application, "parse", lambda *_, **__: answered.wait(10) or pytest.fail("the event loop waited for a body"))

    async def body(_: object) -> bytes:
        asyncio.get_running_loop().call_soon(answered.set)
        return b""

    async def score(_: object) -> Refusal:
        return Refusal(400, "scored", "")

    settings = SimpleNamespace(concurrency=1, max_rows=1, max_list_values=1)
    service = SimpleNamespace(
        open=1, settings=settings, current=SimpleNamespace(model=SimpleNamespace(schema=None)), body=body, score=score
    )
    request = SimpleNamespace(query_params={}, headers={})
    with pytest.raises(Refusal) as refused:
        asyncio.run(application.Service.func_or_class.predict(service, request))
    assert refused.value.code == "scored"


def test_another_content_type_is_refused(model):
    with pytest.raises(Refusal, match="content type 'text/plain' is not supported") as refused:
        answer(model, "text/plain; charset=utf-8", b"")
    assert refused.value.status == 415


def test_numbers_and_their_text_arrow_and_json_score_the_same_and_other_columns_of_the_log_are_ignored(model):
    expected = answer(model, JSON, rows({})).logit
    same = [{"price": "3"}, {"price": 3.0}, {"user": "3", "age": 40}, {"time": "1600000000"}, {"time": 1600000000.5}, {"click": 1, "w": 2}]
    for changed in same:
        assert answer(model, JSON, rows(changed)).logit == expected, changed
    assert answer(model, ARROW, arrow(row_of(ROW))).logit == expected
    assert answer(model, JSON, rows({"price": None})).logit == answer(model, JSON, rows({"price": ""})).logit != expected


def test_a_truth_value_is_one_or_zero_where_a_number_is_wanted(model):
    price = row_of(ROW).column_names.index("price")
    for value in (True, False):
        expected = answer(model, JSON, rows({"price": int(value)})).logit
        assert answer(model, JSON, rows({"price": value})).logit == expected
        assert answer(model, ARROW, arrow(row_of(ROW).set_column(price, "price", pa.array([value])))).logit == expected


def test_a_truth_value_of_json_is_refused_where_it_would_be_a_value_too():
    """Whose text in the log is unknown, 1 or true; of Parquet and Arrow it is true."""
    both = {"name": "x", "format": "csv", "label": "y", "numeric": [{"columns": "n"}], "categorical": [{"columns": "n"}]}
    with pytest.raises(Refusal, match="row 1: field 'n': True is not a number or its text"):
        parse(JSON, b'{"rows": [{"n": true}]}', from_dict(Schema, both), 9)
    assert parse(ARROW, arrow(pa.table({"n": [True]})), from_dict(Schema, both), 9).rows["n"].to_pylist() == [True]


def test_a_whole_number_is_its_digits_also_where_its_column_is_one_of_values_too():
    assert json_column([3.0, 3, "3", 0.5, None], "x", number_cell).to_pylist() == ["3", "3", "3", "0.5", None]


def test_of_a_name_of_megabytes_no_more_than_is_shown_is_held_against_others(model, monkeypatch):
    """Where all of it was, it took 2.7 s."""
    held = []
    monkeypatch.setattr(requests, "get_close_matches", lambda name, *_: held.append(len(name)) or [])
    with pytest.raises(Refusal, match="row 1: field 'aabb"):
        answer(model, JSON, rows({"aabbccddee" * 800_000: 1}))
    assert held == [SHOWN]


def test_the_page_is_told_the_values_that_are_seen_most(model, exported):
    known = {each["name"]: each["values"] for each in model.about["inputs"]}
    assert known["site"] == tokens(exported, site(exported)).to_pylist()[:200] and known["price"] == known["device"] == []
    assert len(known["time"]) == 1 and abs(int(known["time"][0]) - time.time()) < 3600


@pytest.mark.parametrize("form", [{"unit": "s"}, {"unit": "ns"}, {"format": "%Y-%m-%d %H:%M:%S"}, {"format": "%y%m%d%H%M%S"}])
def test_the_page_is_told_a_time_that_the_schema_s_timestamp_parses(form):
    columns = {"format": "csv", "label": "y", "categorical": [{"columns": ["site"], "hash": 9}], "timestamp": {"column": "time", **form}}
    schema = from_dict(Schema, {"name": "x", **columns})
    [seconds] = timestamps(pa.table({"time": [now(schema.timestamp)]}), schema)
    assert abs(seconds - time.time()) < 60


def test_a_request_s_fault_is_not_its_neighbours_and_names_its_own_row(model):
    asks = [parse(JSON, body, model.schema, 100) for body in (rows({}, {}), rows({}, {"price": "x"}), rows({"site": "s2"}))]
    first, second, third = model.score(asks)
    assert isinstance(second, Refusal) and second.message.startswith("row 2: field 'price'")
    assert np.allclose(first.logit, answer(model, JSON, rows({}, {})).logit, atol=1e-6)
    assert np.allclose(third.logit, answer(model, JSON, rows({"site": "s2"})).logit, atol=1e-6)


def test_a_row_scores_the_same_alone_and_in_any_batch(model, trained):
    raw = trained.raw.select(model.features.inputs)
    [together] = model.score([Ask(raw, False, 1)])
    alone = model.score([Ask(raw.slice(i, 1), False, 1) for i in range(20)]) + [
        model.score([Ask(raw.slice(i, 1), False, 1)])[0] for i in range(20)
    ]
    assert np.abs([each.probability[0] for each in alone] - np.tile(together.probability[:20], 2)).max() < 1e-6


@pytest.mark.parametrize("bodies", [500, pytest.param(10_000, marks=pytest.mark.long)])
def test_fuzzed_bodies_are_scored_or_refused_and_nothing_else(model, bodies):
    draw = random.Random(0)
    outcomes = {"scored": 0, "refused": 0}
    for _ in range(bodies):
        kind, body = fuzzed(draw, ROW)
        try:
            found = answer(model, kind, body)
        except Refusal as refusal:
            assert 400 <= refusal.status < 500 and "\n" not in refusal.message
            outcomes["refused"] += 1
        else:
            assert np.isfinite(found.logit).all() and json.dumps(found.as_dict(), allow_nan=False)
            outcomes["scored"] += 1
    assert min(outcomes.values()) > 20, outcomes
