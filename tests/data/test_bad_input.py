"""A corpus of bad rows and files: every row is kept or rejected for the right reason, and what stops says why in one line.

Without Ray; that a task's error comes through it as its line is in test_prepare.py.
"""

import gzip
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from sml_dist.data.dataset import MANIFEST
from sml_dist.data.prepare import prepare
from sml_dist.spec import InputError
from tests.data.raw_logs import SCHEMA, clicks, rejects_of, rows_of, to_text, write_logs, write_schema
from tests.faults.serial import without_ray


@pytest.fixture(autouse=True)
def serial(monkeypatch):
    without_ray(monkeypatch)


HEADER = b"click,price,age,site,user,device,tags,time,w"
GOOD = b"1,5,20,s,7,d,a|b,1600000000,2"

BAD_ROWS = [
    (b"maybe,5,20,s,7,d,a,1600000000,2", "click", "'maybe' is not 0 or 1; for other values give the label as {column: "),
    (b"2,5,20,s,7,d,a,1600000000,2", "click", "label 2 is not 0 or 1"),
    (b",5,20,s,7,d,a,1600000000,2", "click", "is missing"),
    (b"1,5,20,s,7,d,a,1600000000", None, "8 fields, 9 expected"),
    (b"1,5,20,s,7,d,a,1600000000,2,3", None, "10 fields, 9 expected"),
    (b"1,free,20,s,7,d,a,1600000000,2", "price", "'free' is not a finite number"),
    (b"1,1e999,20,s,7,d,a,1600000000,2", "price", "'1e999' is not a finite number"),
    (b"1,5,nan,s,7,d,a,1600000000,2", "age", "'nan' is not a finite number"),
    (b"1,5,20,s\xff\xfe,7,d,a,1600000000,2", "site", "not UTF-8: 's??'"),
    (b"1,5,20,s,7,d,a|\xc3,1600000000,2", "tags", "not UTF-8: 'a|?'"),
    (b"1,5,20,s,7,d,a,yesterday,2", "time", "'yesterday' is not a time in s since 1970"),
    (b"1,5,20,s,7,d,a,1600000000,-1", "w", "weight -1 is negative"),
    (b"1,5,20,s,7,d,a,1600000000,", "w", "is missing"),
    (b'1,5,20,"s,7,d,a,1600000000,2', None, "a quote is not closed on its line, or a carriage return stands inside it"),
    (b"1,5,20,s\r7,7,d,a,1600000000,2", None, "a quote is not closed on its line, or a carriage return stands inside it"),
    (b"", None, "blank line"),
    (b"\x00\x01\x02", None, "1 fields, 9 expected"),
]


def write_rows(path, rows: list[bytes]) -> str:
    path.write_bytes(b"\n".join([HEADER, *rows]) + b"\n")
    return str(path)


def run(tmp_path, inputs, **options):
    return prepare(write_schema(tmp_path), str(tmp_path / "out"), inputs=str(inputs), **({"split": "order:0.6,0.4"} | options))


def test_each_kind_of_bad_row_is_rejected_with_its_reason_and_the_counts_add_up(tmp_path):
    rows = [row for bad, _, _ in BAD_ROWS for row in (GOOD, bad)]
    path = write_rows(tmp_path / "a.csv", rows)
    manifest = run(tmp_path, path, max_reject_rate=1.0, part_bytes=100)
    assert (manifest.rows_read, manifest.rows_kept, manifest.rows_rejected) == (len(rows), len(BAD_ROWS), len(BAD_ROWS))
    rejects = sorted(rejects_of(tmp_path / "out", manifest), key=lambda reject: reject["row"])
    for number, (reject, (_, column, reason)) in enumerate(zip(rejects, BAD_ROWS, strict=True), 1):
        assert reject["file"] == path and reject["row"] == 2 * number and reject["column"] == column
        assert reject["reason"].startswith(reason)
    assert sum(file.rows for file in manifest.rejects) == len(BAD_ROWS)
    counts = [("whole row", 6), ("click", 3), ("price", 2), ("w", 2), ("age", 1), ("site", 1), ("tags", 1), ("time", 1)]
    assert [*manifest.rejected_by.items()] == counts, "however the rows are cut into parts, the largest first"
    kept = [row for name in manifest.splits for row in rows_of(tmp_path / "out", manifest, name)]
    assert len({repr(row) for row in kept}) == 1


def test_a_bad_row_changes_nothing_that_is_learnt(tmp_path):
    table = clicks(200)
    clean = run(tmp_path, write_logs(tmp_path / "clean.csv", table), split="random:0.99,0.01")
    dirty = to_text(table).encode() + b"\n".join(bad for bad, _, _ in BAD_ROWS) + b"\n"
    (tmp_path / "dirty.csv").write_bytes(dirty)
    result = run(tmp_path, tmp_path / "dirty.csv", split="random:0.99,0.01", max_reject_rate=1.0, overwrite=True)
    assert result.source == clean.source and result.rows_kept == 200


@pytest.mark.parametrize("first", ["5,a", ""], ids=["a value short", "blank"])
def test_the_first_line_of_a_log_without_a_header_is_a_row_to_a_split_by_time_too(tmp_path, first):
    """One value short, it would be a row without a label to whoever asks for the time alone."""
    columns = "columns: [y, t, c]\ncategorical: [{columns: c}]\ntimestamp: {column: t}"
    schema = write_schema(tmp_path, "name: x\nformat: csv\nlabel: y\n{columns}", columns=columns)
    (tmp_path / "a.csv").write_text(f"{first}\n1,5,a\n0,9,b\n1,7,c\n")
    manifest = prepare(schema, str(tmp_path / "out"), inputs=str(tmp_path / "a.csv"), split="time:0.67,0.33", max_reject_rate=0.25)
    assert [[row["timestamp"] for row in rows_of(tmp_path / "out", manifest, name)] for name in ("train", "valid")] == [[5, 7], [9]]
    [reject] = rejects_of(tmp_path / "out", manifest)
    assert reject["row"] == 1 and reject["reason"] in ("2 fields, 3 expected", "blank line")


def test_past_the_limit_prepare_stops_with_counts_an_example_and_the_way_out(tmp_path):
    path = write_rows(tmp_path / "a.csv", [GOOD] * 95 + [b"x" + GOOD] * 5)
    with pytest.raises(InputError) as error:
        run(tmp_path, path, max_reject_rate=0.04)
    assert str(error.value) == (
        f"5 of 100 rows read so far (100 in all) cannot be used (click 5), more than --max-reject-rate 0.04 allows; the first: "
        f"{path} row 96: column click: 'x1' is not 0 or 1; for other values give the label as {{column: click, positive: [\"yes\"]}} "
        "or {column: click, at_least: N}. Mend the input or the schema, or raise --max-reject-rate"
    )
    assert not (tmp_path / "out" / MANIFEST).exists()
    assert run(tmp_path, path, max_reject_rate=0.05).rows_rejected == 5


def test_a_separator_that_splits_no_row_is_told(tmp_path):
    path = write_rows(tmp_path / "a.csv", [GOOD] * 10)
    said = "column tags: no row has more than one value by the separator '||'; if the log has another, correct the schema"
    for separator, expected in (('"|"', []), ('"||"', [said]), ('"||", max_length: 1', [])):
        schema, lines = write_schema(tmp_path, SCHEMA.replace('separator: "|"', f"separator: {separator}")), []
        prepare(schema, str(tmp_path / "out"), inputs=path, split="order:0.6,0.4", overwrite=True, warn=lines.append, part_bytes=100)
        assert lines == expected


def test_the_default_limit_is_one_row_in_a_thousand(tmp_path):
    assert run(tmp_path, write_rows(tmp_path / "a.csv", [GOOD] * 999 + [b"x"])).rows_rejected == 1
    with pytest.raises(InputError, match="1 of 999 rows"):
        run(tmp_path, write_rows(tmp_path / "b.csv", [GOOD] * 998 + [b"x"]), overwrite=True)


def test_a_file_of_another_kind_stops_early(tmp_path):
    path = write_rows(tmp_path / "a.csv", [b";".join(GOOD.split(b","))] * 1000)
    with pytest.raises(InputError, match="a.csv row 1: 1 fields, 9 expected. Mend the input"):
        run(tmp_path, path)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (
            {"inputs": "absent/*.csv"},
            "--input absent/*.csv matches no file; check the path (quote globs so",
        ),
        ({"inputs": "a.csv", "split": None}, "give --input with --split, or else --train with --valid (and --test)"),
        ({"inputs": "a.csv", "train": "a.csv"}, "give --input with --split, or else --train with --valid (and --test)"),
        ({"inputs": None, "split": None, "train": "a.csv"}, "give --input with --split, or else --train with --valid (and --test)"),
        ({"inputs": None, "split": None}, "give --input with --split, or else --train with --valid (and --test)"),
        ({"inputs": None, "split": None, "train": "a.csv", "valid": "*.csv"}, "/a.csv is in more than one of --train, --valid and --test"),
        ({"inputs": None, "split": None, "train": "a.csv", "valid": "b.csv"}, "--valid b.csv matches no file"),
        ({"inputs": "http://bob:hunter22@host.invalid/a.csv"}, "--input holds a URL with a password; give it through the environment"),
        (
            {"inputs": None, "split": None, "train": "a.csv", "valid": "s3://bob:hunter22@bucket/*.csv"},
            "--valid holds a URL with a password; give it through the environment",
        ),
        ({"inputs": "a.csv", "max_reject_rate": 1.5}, "--max-reject-rate 1.5 must lie between 0 and 1"),
        ({"inputs": "a.csv", "split": "half"}, "--split half is no rule"),
        ({"inputs": "a.csv", "split": "time:0.5,0.5"}, "too few different times"),
        ({"inputs": "only_header.csv"}, "only_header.csv"),
    ],
)
def test_wrong_options_stop_with_one_line_and_write_nothing(tmp_path, monkeypatch, options, message):
    monkeypatch.chdir(tmp_path)
    write_rows(tmp_path / "a.csv", [GOOD] * 10)
    if options["inputs"] == "only_header.csv":
        (tmp_path / "only_header.csv").write_bytes(HEADER + b"\n")
    with pytest.raises(InputError) as error:
        prepare(write_schema(tmp_path), "out", **({"split": "order:0.6,0.4"} | options))
    assert message in str(error.value) and "\n" not in str(error.value) and "hunter22" not in str(error.value)
    assert not (tmp_path / "out").exists()


def test_a_split_that_ends_up_empty_is_refused(tmp_path):
    path = write_rows(tmp_path / "a.csv", [GOOD] * 6 + [b"x"] * 4)
    with pytest.raises(InputError, match="split 'valid' has no usable row"):
        run(tmp_path, path, max_reject_rate=1.0)
    with pytest.raises(InputError, match="needs a timestamp, but schema frappe names none"):
        prepare("frappe", str(tmp_path / "out"), inputs=path, split="time:0.5,0.5")


@pytest.mark.parametrize("group", ["{{columns: site}}", "{{columns: site, hash: 9}}"], ids=["vocabulary", "hash"])
@pytest.mark.parametrize("split", ["files", "order:0.1,0.9", "random:0.000001,0.999999"])
def test_without_a_training_row_there_is_nothing_to_prepare(tmp_path, group, split):
    path = write_rows(tmp_path / "a.csv", [GOOD] * 4)
    inputs = {"inputs": path, "split": split}
    if split == "files":
        inputs = {"train": write_rows(tmp_path / "header_only.csv", []), "valid": path}
    with pytest.raises(InputError, match="split 'train' has no usable row; give it more rows with --split, or other input files"):
        prepare(write_schema(tmp_path, "name: x\nformat: csv\nlabel: click\ncategorical: [" + group + "]"), str(tmp_path / "out"), **inputs)
    assert not (tmp_path / "out" / MANIFEST).exists()


@pytest.mark.parametrize("name", ["truncated.csv.gz", "empty.csv", "half.parquet"])
def test_one_bad_file_among_good_ones_stops_and_is_named(tmp_path, name):
    kind = name.rsplit(".")[-1]
    (tmp_path / "logs").mkdir()
    good = write_logs(tmp_path / "logs" / ("a.parquet" if kind == "parquet" else "a.csv.gz"), clicks(200))
    data = Path(good).read_bytes()
    (tmp_path / "logs" / name).write_bytes(b"" if name == "empty.csv" else data[: len(data) * 2 // 3])
    schema = write_schema(tmp_path, format="parquet" if kind == "parquet" else "csv")
    with pytest.raises(InputError, match=name):
        prepare(schema, str(tmp_path / "out"), inputs=f"{tmp_path}/logs/*", split="order:0.6,0.4")
    assert not (tmp_path / "out").exists()


@settings(deadline=None, max_examples=8, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(st.binary(min_size=1, max_size=2000))
def test_any_bytes_after_a_header_are_rows_kept_or_rejected(tmp_path, data):
    rows = data.count(b"\n") + (not data.endswith(b"\n"))
    (tmp_path / "a.csv.gz").write_bytes(gzip.compress(HEADER + b"\n" + (GOOD + b"\n") * 4 + data))
    manifest = run(tmp_path, tmp_path / "a.csv.gz", max_reject_rate=1.0, overwrite=True, split=f"order:2,{rows + 2}")
    assert manifest.rows_read == rows + 4 == manifest.rows_kept + manifest.rows_rejected


def test_the_rejects_of_many_parts_are_all_told(tmp_path):
    path = write_rows(tmp_path / "a.csv", [GOOD, b"x"] * 200)
    manifest = run(tmp_path, path, max_reject_rate=1.0, part_bytes=1000)
    assert len(manifest.rejects) > 3
    assert sorted(reject["row"] for reject in rejects_of(tmp_path / "out", manifest)) == list(range(2, 401, 2))
