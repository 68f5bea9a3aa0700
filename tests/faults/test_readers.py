"""Damaged input of every kind: each row is kept or rejected, or one line names the file; never another exception.

`SML_DIST_FUZZ_MINUTES` is how long the fuzzing lasts, all tests together; without it each runs one round of a fixed seed.
"""

import gzip
import json
import os
import random
import shutil
import time
from collections import Counter
from functools import cache
from io import BytesIO
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import yaml
from hypothesis import HealthCheck, assume, given, seed, settings
from hypothesis import strategies as st

from sml_dist.data import prepare as prepare_module
from sml_dist.data.dataset import MANIFEST, read_manifest, read_rows, row_groups
from sml_dist.data.prepare import prepare
from sml_dist.data.schema import Schema, load_schema
from sml_dist.spec import InputError
from tests.data.raw_logs import SCHEMA, clicks, to_text, write_logs, write_schema
from tests.faults.serial import check_dataset, check_line, without_ray

MINUTES = float(os.environ.get("SML_DIST_FUZZ_MINUTES", "0"))
pytestmark = [pytest.mark.faults, pytest.mark.timeout(300 + 60 * MINUTES)]

ROWS = 30


def fuzz(property_of, *strategies, share: float, examples: int) -> Counter:
    """Rounds of fresh seeds until this test's share of the minutes is used up, at least one; how often each outcome was seen."""
    seen: Counter = Counter()
    end, number = time.monotonic() + 60 * MINUTES * share, 0
    while True:

        @seed(number)
        @settings(max_examples=examples, deadline=None, database=None, suppress_health_check=list(HealthCheck))
        @given(st.tuples(*strategies))
        def case(values):
            seen[property_of(*values)] += 1

        case()
        number += 1
        if time.monotonic() >= end:
            print(f"\n{property_of.__name__}: {dict(seen)}")
            return seen


# ---- damage to bytes

PLACE = st.integers(0, 1 << 14) | st.integers(-1200, -1)  # negative: from the end, where Parquet keeps its footer
MUTATION = st.one_of(
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("flip"), PLACE, st.integers(0, 7)),
    st.tuples(st.just("set"), PLACE, st.integers(0, 255)),
    st.tuples(st.just("cut"), PLACE, st.none()),
    st.tuples(st.just("insert"), PLACE, st.binary(max_size=40) | st.sampled_from([b"\n", b"\r\n", b"\r", b'"', b",", b"\t", b"\xff"])),
    st.tuples(st.just("remove"), PLACE, st.integers(1, 200)),
    st.tuples(st.just("nulls"), PLACE, st.integers(1, 200)),
    st.tuples(st.just("huge"), PLACE, st.sampled_from([1000, 70_000, 200_000])),
    st.tuples(st.just("shuffle"), st.integers(2, 9), st.integers(0, 1 << 30)),
    st.tuples(st.just("repeat"), PLACE, st.integers(1, 500)),
    st.tuples(st.just("empty"), st.none(), st.none()),
)
MUTATIONS = st.lists(MUTATION, max_size=4)


def mutated(data: bytes, mutations: list) -> bytes:
    for kind, place, value in mutations:
        if kind == "empty" or not data:
            return b""
        if kind == "shuffle":
            size = max(len(data) // place, 1)
            chunks = [data[at : at + size] for at in range(0, len(data), size)]
            random.Random(value).shuffle(chunks)
            data = b"".join(chunks)
            continue
        at = place % len(data)
        head, tail = data[:at], data[at:]
        data = {
            "flip": lambda h=head, t=tail, v=value: h + bytes([t[0] ^ 1 << v]) + t[1:],
            "set": lambda h=head, t=tail, v=value: h + bytes([v]) + t[1:],
            "cut": lambda h=head: h,
            "insert": lambda h=head, t=tail, v=value: h + v + t,
            "remove": lambda h=head, t=tail, v=value: h + t[v:],
            "nulls": lambda h=head, t=tail, v=value: h + bytes(v) + t[v:],
            "huge": lambda h=head, t=tail, v=value: h + b"9" * v + t,
            "repeat": lambda h=head, t=tail, v=value: h + t[:v] + t,
        }[kind]()
    return data


def packed(data: bytes, suffix: str) -> bytes:
    if suffix == ".gz":
        return gzip.compress(data, mtime=0)
    return pa.compress(data, codec="zstd", asbytes=True) if suffix == ".zst" else data


@cache
def parquet_bytes(compression: str, dictionary: bool, checksum: bool) -> bytes:
    sink = BytesIO()
    pq.write_table(
        clicks(ROWS), sink, compression=compression, use_dictionary=dictionary, write_page_checksum=checksum, row_group_size=ROWS // 3
    )
    return sink.getvalue()


def outcome(folder: Path, schema: str, path: Path, part_bytes: int, split: str = "order:0.6,0.4") -> str:
    """Whole prepare of one file, every stage as on Ray: "dataset", or "refused" in one line."""
    out = folder / "out"
    try:
        manifest = prepare(schema, str(out), inputs=str(path), split=split, max_reject_rate=1.0, part_bytes=part_bytes, overwrite=True)
    except InputError as error:
        check_line(error, str(path), "split 'train' has no usable row", "split 'valid' has no usable row", f"--split {split}")
        assert not (out / MANIFEST).exists() or read_manifest(str(out))
        return "refused"
    check_dataset(out, manifest)
    return "dataset"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    without_ray(monkeypatch)
    return tmp_path


def test_damaged_text_is_kept_rejected_or_refused_with_the_files_name(folder):
    schemas = {name: write_schema(_made(folder / name), format=name) for name in ("csv", "tsv")}

    def damaged_text(kind, suffix, before, after, part_bytes):
        path = folder / f"a.{kind}{suffix}"
        text = to_text(clicks(ROWS), {"csv": ",", "tsv": "\t"}[kind]).encode()
        path.write_bytes(mutated(packed(mutated(text, before), suffix), after))
        return outcome(folder, schemas[kind], path, part_bytes)

    seen = fuzz(
        damaged_text,
        st.sampled_from(["csv", "tsv"]),
        st.sampled_from(["", ".gz", ".zst"]),
        MUTATIONS,
        st.just([]) | MUTATIONS,
        st.sampled_from([100, 700, 1 << 20]),
        share=0.3,
        examples=35,
    )
    assert seen["dataset"] and seen["refused"]


def test_damaged_parquet_is_kept_rejected_or_refused_with_the_files_name(folder):
    schema, path = write_schema(folder, format="parquet"), folder / "a.parquet"

    def damaged_parquet(compression, dictionary, checksum, mutations, part_bytes):
        path.write_bytes(mutated(parquet_bytes(compression, dictionary, checksum), mutations))
        return outcome(folder, schema, path, part_bytes)

    seen = fuzz(
        damaged_parquet,
        st.sampled_from(["none", "snappy", "zstd"]),
        st.booleans(),
        st.booleans(),
        MUTATIONS,
        st.sampled_from([100, 1 << 20]),
        share=0.3,
        examples=80,
    )
    assert seen["dataset"] and seen["refused"]


def test_a_column_name_that_is_not_utf8_is_refused_with_the_files_name(folder, dataset):
    (folder / "b.parquet").write_bytes(parquet_bytes("none", False, False).replace(b"click", b"\x80lick"))
    assert outcome(folder, write_schema(folder, format="parquet"), folder / "b.parquet", 1 << 20) == "refused"
    root, manifest = dataset
    path = manifest.splits["train"].files[0].path
    (root / path).write_bytes((root / path).read_bytes().replace(b"label", b"\x80abel"))
    with pytest.raises(InputError) as error:
        read_rows(str(root), path, 0)
    check_line(error.value, path)


@pytest.mark.parametrize(("kind", "name"), [("csv", "a.csv.gz"), ("parquet", "a.parquet")])
@pytest.mark.parametrize("rows", [ROWS // 2, ROWS * 2])
def test_a_file_that_changes_after_it_was_counted_is_refused_with_its_name(folder, monkeypatch, kind, name, rows):
    path, fit = write_logs(folder / name, clicks(ROWS)), prepare_module.fit
    monkeypatch.setattr(prepare_module, "fit", lambda *arguments: write_logs(folder / name, clicks(rows)) and fit(*arguments))
    assert outcome(folder, write_schema(folder, format=kind), Path(path), 1 << 20) == "refused"


# ---- columns of other types

TEXT = st.sampled_from(["", "0", "1", "a|b", " 5 ", "1e400", "nan", "NULL", "\u00e9", "x" * 3000, "\ufdd0", "\0", "-1", "1" + "0" * 19])
WHOLE = st.sampled_from([0, 1, -1, 7, 100])
REAL = st.sampled_from([0.0, 1.0, -0.0, 0.5, -3.5, 1e30, 1e39, -1e308, 2.0**53 + 2, float("nan"), float("inf"), float("-inf")])
LIMITS = {
    pa.int8(): [-128, 127],
    pa.int32(): [-(2**31), 2**31 - 1],
    pa.int64(): [-(2**63), 2**63 - 1, 2**53 + 1, 1_600_000_000],
    pa.uint8(): [255],
    pa.uint64(): [2**64 - 1, 2**63],
}
MOMENTS = [pa.timestamp("s"), pa.timestamp("ms"), pa.timestamp("us", "UTC"), pa.timestamp("ns"), pa.date32(), pa.date64(), pa.time32("s")]
SPANS = [pa.time64("us"), pa.duration("s")]
FLAT = [
    *((kind, st.sampled_from([0, 1, 7, *limits])) for kind, limits in LIMITS.items()),
    *((kind, WHOLE.map(abs)) for kind in MOMENTS + SPANS),
    (pa.timestamp("s"), st.sampled_from([-(2**40), 2**40])),
    *((kind, REAL) for kind in (pa.float32(), pa.float64())),
    (pa.bool_(), st.booleans()),
    *((kind, TEXT) for kind in (pa.string(), pa.large_string(), pa.string_view(), pa.dictionary(pa.int8(), pa.string()))),
    *((kind, st.sampled_from([b"", b"1", b"\xff\xfe", b"a|\xc3", b"7"])) for kind in (pa.binary(), pa.large_binary(), pa.binary_view())),
    (pa.binary(2), st.sampled_from([b"11", b"\xff\xff"])),
    (pa.decimal128(10, 2), WHOLE),
    (pa.decimal256(60, 5), st.sampled_from([1, 10**40, -1])),
    (pa.null(), st.none()),
    (pa.dictionary(pa.int32(), pa.int64()), WHOLE),
]
NESTED = [
    *((pa.list_(kind), st.lists(st.none() | TEXT, max_size=3)) for kind in (pa.string(), pa.large_string())),
    (pa.list_(pa.binary()), st.lists(st.sampled_from([b"a", b"\xff"]), max_size=3)),
    (pa.list_(pa.int64()), st.lists(st.none() | WHOLE, max_size=3)),
    (pa.list_(pa.float64()), st.lists(st.none() | REAL, max_size=3)),
    (pa.list_(pa.null()), st.lists(st.none(), max_size=2)),
    (pa.large_list(pa.string()), st.lists(TEXT, max_size=3)),
    (pa.list_(pa.string(), 2), st.lists(TEXT, min_size=2, max_size=2)),
    (pa.list_(pa.list_(pa.string())), st.lists(st.lists(TEXT, max_size=2), max_size=2)),
    (pa.struct([("a", pa.int64())]), st.fixed_dictionaries({"a": WHOLE})),
    (pa.map_(pa.string(), pa.int64()), st.lists(st.tuples(st.sampled_from(["a", "b"]), WHOLE), max_size=2)),
]


@st.composite
def odd_tables(draw):
    """Good clicks with one to three columns replaced by nulls and values of another type."""
    rows = draw(st.integers(3, 9))
    table = clicks(rows)
    for name in draw(st.lists(st.sampled_from(table.column_names), min_size=1, max_size=2, unique=True)):
        kind, values = draw(st.sampled_from(NESTED) if name == "tags" and draw(st.booleans()) else st.sampled_from(FLAT))
        cells = draw(st.lists(values | values | values | st.none(), min_size=rows, max_size=rows))
        table = table.set_column(table.column_names.index(name), name, column_of(cells, kind))
    return table


def column_of(cells: list, kind: pa.DataType) -> pa.Array:
    if pa.types.is_dictionary(kind):
        return pa.array(cells, kind.value_type).dictionary_encode().cast(kind)
    if kind not in MOMENTS + SPANS:
        return pa.array(cells, kind)
    return pa.array(cells, pa.int32() if kind.bit_width == 32 else pa.int64()).view(kind)


SEPARATOR = '"|"'
TIME_FORMAT = 'column: time, format: "%Y-%m-%d",'


def test_columns_of_any_type_are_kept_rejected_or_refused_with_the_files_name(folder):
    text = write_schema(_made(folder / "text"), format="parquet")
    lists = write_schema(_made(folder / "lists"), SCHEMA.replace(f"separator: {SEPARATOR}, ", ""), format="parquet")
    formats = write_schema(_made(folder / "formats"), SCHEMA.replace("column: time,", TIME_FORMAT), format="parquet")
    path = folder / "a.parquet"

    def odd_columns(schema, split, table):
        try:
            pq.write_table(table, path)
        except pa.ArrowException:
            assume(False)
        return outcome(folder, schema, path, 1 << 20, split)

    seen = fuzz(
        odd_columns,
        st.sampled_from([text, text, lists, formats]),
        st.sampled_from(["order:0.6,0.4", "time:0.5,0.5", "random:0.5,0.5"]),
        odd_tables(),
        share=0.15,
        examples=80,
    )
    assert seen["dataset"] and seen["refused"]


# ---- schemas

NAMES = ["click", "price", "age", "site", "user", "device", "tags", "time", "w", "C1..C3", "..", "a/b", "", "\ud800", "n" * 300, "\0", "é"]
SCALARS = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**70), 2**70),
    st.floats(),
    st.sampled_from(NAMES),
    st.sampled_from(["parquet", "csv", "log1p", "bucket", "hour", "${name}", "${oops}", "${oc.env:NO_SUCH}", "C1..C99999999999", "%Y"]),
    st.text(max_size=5),
)
COLUMNS = st.sampled_from([*clicks(1).column_names, "colour", "n" * 300, "a/b", ".."])
LIKELY = st.one_of(
    COLUMNS,
    st.lists(COLUMNS, max_size=3),
    st.sampled_from([1, 2, 3, 2**31 - 1, "csv", "tsv", "standard", "none", ";", "|", "%H", ["hour"], 0.5]),
)
KEYS = st.sampled_from(
    ["name", "format", "label", "columns", "delimiter", "missing", "numeric", "categorical", "multivalued", "timestamp", "group", "weight"]
    + ["column", "at_least", "transform", "buckets", "min_count", "hash", "separator", "max_length", "unit", "fields", "other"]
)
TREES = st.recursive(SCALARS, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(KEYS | SCALARS, inner, max_size=3), max_leaves=6)


@st.composite
def schema_texts(draw):
    """The good schema with some of its parts replaced, or any structure, or damaged text."""
    data = yaml.safe_load(SCHEMA.format(format="csv"))
    for _ in range(draw(st.integers(0, 2))):
        at = data
        while True:
            key = draw(st.sampled_from(list(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
            if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 3)):
                at = at[key]
                continue
            at[key] = draw(LIKELY | LIKELY | TREES)
            break
        if isinstance(at, dict) and not draw(st.integers(0, 3)):
            at[draw(KEYS)] = draw(LIKELY | TREES)
    data = draw(st.just(data) | st.just(data) | st.just(data) | TREES)
    text = yaml.safe_dump(data, allow_unicode=False).encode()
    return draw(st.just(text) | st.just(text) | MUTATIONS.map(lambda mutations: mutated(text, mutations)))


TAGGED = [b"!!int x", b"!!bool x", b"!!timestamp x", b"!!set {a}", b"!!binary x", b"!!python/name:os.x"]
TAGGED += [b"a: ${b}\nb: ${a}", b"a: &a [*a]", b"[" * 3000]


def test_any_schema_is_taken_or_refused_with_its_name(folder):
    path, log = folder / "schema.yaml", write_logs(folder / "a.csv", clicks(ROWS))

    def any_schema(text):
        path.write_bytes(text)
        try:
            assert isinstance(load_schema(str(path)), Schema)
        except InputError as error:
            check_line(error, str(path))
            return "refused"
        out = folder / "out"
        try:
            manifest = prepare(str(path), str(out), inputs=log, split="order:0.6,0.4", max_reject_rate=1.0, overwrite=True)
        except InputError as error:
            check_line(error, log, str(out), "has no usable row", "needs a timestamp")
            return "refused for the log"
        check_dataset(out, manifest)
        return "dataset"

    seen = fuzz(any_schema, schema_texts() | st.sampled_from(TAGGED), share=0.1, examples=120)
    assert seen["dataset"] and seen["refused"] and seen["refused for the log"]


# ---- prepared datasets

JSON_SCALARS = [st.none(), st.booleans(), st.integers(-(2**70), 2**70), st.floats(), st.text(max_size=4)]
JSON = st.recursive(
    st.one_of(*JSON_SCALARS, st.sampled_from(["../x", "/", "\0", "label"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)
RAW_JSON = [b"[" * 100_000, b"1" * 5000, b'{"rows_read": ' + b"9" * 5000 + b"}", b"NaN", b'"\\ud800"', b"\xff\xfe{}", b"null"]


@st.composite
def manifest_bytes(draw, good: bytes):
    if draw(st.booleans()):
        return mutated(good, draw(MUTATIONS))
    data = json.loads(good)
    at = data
    while True:
        key = draw(st.sampled_from(sorted(at)) if isinstance(at, dict) else st.integers(0, len(at) - 1))
        if isinstance(at[key], dict | list) and at[key] and draw(st.integers(0, 4)):
            at = at[key]
            continue
        at[key] = draw(JSON | st.integers(0, 100))
        return json.dumps(data).encode()


def _made(path: Path) -> Path:
    path.mkdir(parents=True, exist_ok=True)
    return path


@pytest.fixture
def dataset(folder):
    """A small good dataset with several files and rejects."""
    log = folder / "a.csv"
    log.write_text(to_text(clicks(ROWS)) + "bad\n")
    manifest = prepare(
        write_schema(folder), str(folder / "good"), inputs=str(log), split="order:0.6,0.4", max_reject_rate=1.0, part_bytes=700
    )
    shutil.copytree(folder / "good", folder / "copy")
    return folder / "copy", manifest


def test_a_damaged_manifest_is_refused_with_its_name_or_its_counts_add_up(dataset):
    root, _ = dataset
    good = (root / MANIFEST).read_bytes()

    def damaged_manifest(data):
        (root / MANIFEST).write_bytes(data)
        try:
            manifest = read_manifest(str(root))
        except InputError as error:
            check_line(error, MANIFEST)
            return "refused"
        assert manifest.rows_read == manifest.rows_kept + manifest.rows_rejected
        assert manifest.rows_kept == sum(split.rows for split in manifest.splits.values())
        assert all(split.rows == sum(rows for _, _, rows in row_groups(split)) for split in manifest.splits.values())
        groups = [(path, group) for split in manifest.splits.values() for path, group, _ in row_groups(split)]
        for path, group in groups[:4]:
            try:
                read_rows(str(root), path, group)
            except InputError as error:
                check_line(error, path.splitlines()[0] if path else MANIFEST, repr(path))
        return "taken"

    seen = fuzz(damaged_manifest, manifest_bytes(good) | st.sampled_from(RAW_JSON), share=0.05, examples=150)
    assert seen["taken"] and seen["refused"]


def test_a_damaged_file_of_a_dataset_is_refused_with_its_name_or_has_all_its_rows(dataset):
    root, manifest = dataset
    groups = [group for split in manifest.splits.values() for group in row_groups(split)]
    good = {path: (root / path).read_bytes() for path, _, _ in groups}
    columns = ["dense", "ids", "ids:tags", "label", "weight", "group", "timestamp"]

    def damaged_file(number, mutations, wanted):
        path, group, rows = groups[number]
        (root / path).write_bytes(mutated(good[path], mutations))
        try:
            table = read_rows(str(root), path, group, wanted)
        except InputError as error:
            check_line(error, path)
            return "refused"
        finally:
            (root / path).write_bytes(good[path])
        assert table.num_rows == rows and (wanted is None or sorted(table.column_names) == sorted(wanted))
        return "read"

    wanted = st.none() | st.just(columns) | st.just(["label", "ids"])
    seen = fuzz(damaged_file, st.integers(0, len(groups) - 1), MUTATIONS, wanted, share=0.1, examples=150)
    assert seen["read"] and seen["refused"]
