"""Reading raw files: every row once, with its number, however the file is stored and cut."""

import gzip
import json
import re
from pathlib import Path

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from fsspec.implementations.memory import MemoryFile

from sml_dist.data.schema import Schema, load_schema
from sml_dist.data.sources import columns_of, count_rows, first_spans, read
from sml_dist.data.spans import group_spans, list_files, number_rows
from sml_dist.spec import InputError, from_dict
from tests.data.raw_logs import clicks, to_text, write_logs, write_schema, write_with_flipped_bit


def spans_of(pattern, schema, part_bytes=1 << 20):
    files = list_files(str(pattern), "--input", schema)
    return number_rows([counted for span in first_spans(files, schema, part_bytes) for counted in count_rows(span, schema, part_bytes)])


def rows_in(spans, schema, columns=None):
    return [
        (span.file.path, int(number), *row.values())
        for span in spans
        for batch in read(span, schema, columns)
        for number, row in zip(batch.rows, batch.table.to_pylist(), strict=True)
    ]


@pytest.mark.parametrize("part_bytes", [1, 7, 100, 5000, 1 << 20])
def test_cuts_anywhere_give_every_row_once_with_its_number(tmp_path, part_bytes):
    schema = load_schema(write_schema(tmp_path))
    path = write_logs(tmp_path / "a.csv", clicks(40))
    whole = rows_in(spans_of(path, schema), schema)
    spans = spans_of(path, schema, part_bytes)
    assert rows_in(spans, schema) == whole and [row[1] for row in whole] == list(range(1, 41))
    assert sum(span.rows for span in spans) == 40


def test_the_last_row_needs_no_line_end(tmp_path):
    schema = load_schema(write_schema(tmp_path))
    (tmp_path / "a.csv").write_text(to_text(clicks(10)).rstrip("\n"))
    for part_bytes in (1, 50, 1 << 20):
        assert len(rows_in(spans_of(tmp_path / "a.csv", schema, part_bytes), schema)) == 10


def test_blocks_smaller_than_a_line_change_nothing(tmp_path, monkeypatch):
    schema = load_schema(write_schema(tmp_path))
    paths = [write_logs(tmp_path / name, clicks(30)) for name in ("a.csv", "a.csv.gz", "a.csv.zst")]
    whole = [rows_in(spans_of(path, schema), schema) for path in paths]
    monkeypatch.setattr("sml_dist.data.text_files.BLOCK_BYTES", 16)
    assert [rows_in(spans_of(path, schema), schema) for path in paths] == whole


def test_a_parquet_file_is_cut_at_row_groups(tmp_path):
    schema = load_schema(write_schema(tmp_path, format="parquet"))
    path = write_logs(tmp_path / "a.parquet", clicks(250))
    spans = spans_of(path, schema, 1)
    assert [(span.start, span.rows, span.first_row) for span in spans] == [(0, 100, 1), (1, 100, 101), (2, 50, 201)]
    assert rows_in(spans, schema) == rows_in(spans_of(path, schema), schema)


@pytest.mark.parametrize("item", ["distinct", "pad"])
def test_a_batch_of_parquet_has_the_fewer_rows_the_longer_its_lists_are(tmp_path, monkeypatch, item):
    """Pads are almost nothing in the file, but not in memory; and a column that is not read costs no rows."""
    monkeypatch.setattr("sml_dist.data.parquet_files.BATCH_BYTES", 64 << 10)
    schema = from_dict(Schema, {"name": "x", "format": "parquet", "label": "y", "multivalued": [{"columns": "seen"}]})
    for length, most in ((1, 4_096), (100, 81), (1_000, 8), (10_000, 1)):
        rows = max(2, 8_000 // length)
        values = np.full(rows * length, -1) if item == "pad" else np.arange(rows * length)
        seen = pa.FixedSizeListArray.from_arrays(pa.array(values), length).cast(pa.list_(pa.int64()))
        unread = pa.array(["x" * 10_000] * rows)
        pq.write_table(pa.table({"y": [1] * rows, "seen": seen, "seen_too": unread}), tmp_path / f"{length}.parquet")
        batches = [batch for span in spans_of(tmp_path / f"{length}.parquet", schema) for batch in read(span, schema)]
        assert most // 2 <= max(len(batch.rows) for batch in batches) <= most
        assert [row for batch in batches for row in batch.rows] == list(range(1, rows + 1))
        assert pa.concat_tables(batch.table for batch in batches)["seen"].to_pylist() == seen.to_pylist()


def test_files_are_read_in_the_order_of_their_names_and_numbered_over_all(tmp_path):
    schema = load_schema(write_schema(tmp_path))
    (tmp_path / "logs").mkdir()
    for name, rows in (("b.csv", 3), ("a.csv.gz", 5), ("c.csv", 2), ("_SUCCESS", 1), (".hidden.csv", 1)):
        write_logs(tmp_path / "logs" / name, clicks(rows))
    spans = spans_of(tmp_path / "logs", schema)
    assert [(span.file.path.rsplit("/")[-1], span.first_row, span.first_index) for span in spans] == [
        ("a.csv.gz", 1, 0),
        ("b.csv", 1, 5),
        ("c.csv", 1, 8),
    ]


@pytest.mark.parametrize("folder", ["{tmp_path}/run[1]", "memory://run[1]*?"])
def test_a_folder_is_its_visible_files_whatever_its_name(tmp_path, folder):
    schema, folder = load_schema("criteo"), folder.format(tmp_path=tmp_path)
    for name in ("b.tsv", "a.tsv", "_SUCCESS", ".hidden.tsv", "deeper/c.tsv"):
        with fsspec.open(f"{folder}/{name}", "wb", auto_mkdir=True) as file:
            file.write(b"1")
    if folder.startswith("memory:"):  # as object stores mark a folder: an empty object
        marker = folder.removeprefix("memory:/") + "/"
        fsspec.filesystem("memory").store[marker] = MemoryFile(path=marker)
    for path in (folder, f"{folder}/"):
        assert [file.path.rsplit("/")[-1] for file in list_files(path, "--input", schema)] == ["a.tsv", "b.tsv"]


def test_a_link_to_a_file_is_a_file_of_its_folder_and_of_a_glob(tmp_path):
    (tmp_path / "elsewhere").write_text("1")
    (tmp_path / "logs" / "folder").mkdir(parents=True)
    for name, target in (("a.tsv", tmp_path / "elsewhere"), ("b.tsv", tmp_path / "logs" / "folder"), (".c.tsv", tmp_path / "elsewhere")):
        (tmp_path / "logs" / name).symlink_to(target)
    for pattern in ("logs", "logs/*.tsv"):
        files = list_files(str(tmp_path / pattern), "--input", load_schema("criteo"))
        assert [(file.path.rsplit("/")[-1], file.size) for file in files] == [("a.tsv", 1)]


def test_small_files_share_a_part_and_large_ones_do_not(tmp_path):
    schema = load_schema(write_schema(tmp_path))
    for i in range(6):
        write_logs(tmp_path / f"{i}.csv", clicks(5))
    spans = spans_of(tmp_path / "*.csv", schema)
    assert len(group_spans(spans, 1 << 20)) == 1
    assert len(group_spans(spans, spans[0].bytes * 2 + 20)) == 3
    assert [span for part in group_spans(spans, 1) for span in part] == spans


def test_headers_may_order_columns_differently_and_hold_a_byte_order_mark(tmp_path):
    schema = load_schema(write_schema(tmp_path))
    table = clicks(4)
    write_logs(tmp_path / "a.csv", table)
    write_logs(tmp_path / "b.csv", table.select(sorted(table.column_names)).append_column("extra", pa.array(["x"] * 4)))
    (tmp_path / "b.csv").write_bytes(b"\xef\xbb\xbf" + (tmp_path / "b.csv").read_bytes())
    rows = rows_in(spans_of(tmp_path / "*.csv", schema), schema, ["click", "site"])
    assert [row[1:] for row in rows[:4]] == [row[1:] for row in rows[4:]]


def test_a_byte_order_mark_is_no_part_of_the_first_value(tmp_path):
    schema = load_schema("criteo")
    (tmp_path / "a.tsv").write_bytes(b"\xef\xbb\xbf" + "\t".join(["1", *["3"] * 13, *["ab"] * 26]).encode())
    assert rows_in(spans_of(tmp_path / "a.tsv", schema), schema, ["label"]) == [(str(tmp_path / "a.tsv"), 1, "1")]


def test_any_file_system_of_fsspec_is_read():
    schema = load_schema("criteo")
    line = "\t".join(["1", *["3"] * 13, *["ab"] * 26]) + "\n"
    with fsspec.open("memory://logs/day.tsv.gz", "wb") as file:
        file.write(gzip.compress((line * 5).encode()))
    with fsspec.open("memory://logs/day2.tsv", "wb") as file:
        file.write((line * 3).encode())
    spans = spans_of("memory://logs/*", schema, 100)
    assert len(rows_in(spans, schema)) == 8
    assert spans[0].file.path == "memory:///logs/day.tsv.gz"


def test_a_name_in_a_glob_can_be_a_plain_path_with_odd_characters(tmp_path):
    schema = load_schema(write_schema(tmp_path))
    path = write_logs(tmp_path / "a[1].csv", clicks(3))
    assert len(rows_in(spans_of(path, schema), schema)) == 3


def damage(tmp_path, name):
    """A file with one fault and, where the schema matters, its schema's format."""
    table, path = clicks(300), tmp_path / name
    if name.startswith(("truncated", "flipped")):
        data = Path(write_logs(path, table)).read_bytes()
        half = len(data) // 2
        path.write_bytes(data[:half] if name.startswith("truncated") else data[:half] + bytes([data[half] ^ 255]) + data[half + 1 :])
    elif name == "empty.csv":
        path.write_bytes(b"")
    elif name in ("nothing.csv.gz", "nothing.csv"):
        path.write_bytes(gzip.compress(b"") if name.endswith("gz") else b"\n")
    elif name == "no_site.csv":
        write_logs(path, table.rename_columns(["click", "price", "age", "sites", "user", "device", "tags", "time", "w"]))
    elif name == "twice.csv":
        write_logs(path, table)
        path.write_text(path.read_text().replace("device", "site", 1))
    elif name == "no_header.csv":
        path.write_text(to_text(table, header=False))
    elif name == "gzipped.csv":
        path.write_bytes(gzip.compress(b"click\n"))
    elif name == "parquet.csv":
        pq.write_table(table, path)
    elif name == "plain.csv.gz" or name == "text.parquet":
        path.write_text(to_text(table))
    elif name == "times.parquet":
        pq.write_table(table.set_column(1, "price", pa.array([0] * 300, pa.timestamp("s"))), path)
    elif name == "nested.parquet":
        pq.write_table(table.set_column(3, "site", pa.array([["a"]] * 300)), path)
    elif name == "zone.parquet":
        pq.write_table(table.set_column(3, "site", pa.array([0] * 300, pa.timestamp("us", "Mars/Base"))), path)
    elif name == "logs.zip":
        path.write_bytes(b"PK\x03\x04")
    return path


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("absent.csv", "--input {path} matches no file; check the path"),
        ("empty.csv", "{path} is empty (0 bytes); fetch it again or leave it out"),
        ("nothing.csv", "{path}: the first line, which should be the header row, is empty"),
        ("nothing.csv.gz", "{path}: the first line, which should be the header row, is empty"),
        ("truncated.csv.gz", "{path} cannot be read: Truncated compressed stream; is the file whole?"),
        ("truncated.csv.zst", "{path} cannot be read: Truncated compressed stream; is the file whole?"),
        ("flipped.csv.gz", "{path} cannot be read: zlib inflate failed"),
        ("plain.csv.gz", "{path} cannot be read: zlib inflate failed: incorrect header check"),
        ("gzipped.csv", "{path}: the content is gzip, not text; rename the file, or set the schema's format"),
        ("parquet.csv", "{path}: the content is Parquet, not text; rename the file, or set the schema's format"),
        ("logs.zip", "{path}: this kind of archive is not read; unpack it"),
        ("no_site.csv", "{path}: column 'site' of the schema is missing in the file; did you mean 'sites'?"),
        ("no_header.csv", "{path}: column 'click' of the schema is missing in the file; it has: "),
        ("twice.csv", "{path}: column 'site' stands twice in the header"),
        ("truncated.parquet", "{path} cannot be read: "),
        ("text.parquet", "{path} cannot be read: Parquet magic bytes not found"),
        ("times.parquet", "{path}: column 'price' is timestamp[ms], which cannot be read as double"),
        ("zone.parquet", "{path}: column 'site' is timestamp[us, tz=Mars/Base], which cannot be read as string"),
        ("nested.parquet", "{path}: column 'site' is list<element: string>, which cannot be read as string"),
    ],
)
def test_a_bad_file_stops_with_one_line_that_names_it(tmp_path, name, message):
    path = damage(tmp_path, name)
    schema = load_schema(write_schema(tmp_path, format="parquet" if name.endswith("parquet") else "csv"))
    with pytest.raises(InputError) as error:
        rows_in(spans_of(path, schema), schema)
    assert message.format(path=path) in str(error.value)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(("own", "other"), [(",", ";"), (",", "\t"), (",", "|"), (";", ",")])
def test_a_header_that_another_delimiter_would_split_names_that_one(tmp_path, own, other):
    (tmp_path / "a.csv").write_text(f"y{other}c\n1{other}a\n")
    plan = {"name": "x", "format": "csv", "delimiter": own, "label": "y", "categorical": [{"columns": "c"}]}
    shown = json.dumps(other)
    line = f"the header is the one name {f'y{other}c'!r}; is the delimiter {shown}? Then give the schema `delimiter: {shown}`"
    with pytest.raises(InputError, match=re.escape(line)):
        spans_of(tmp_path / "a.csv", from_dict(Schema, plan))


@pytest.mark.parametrize(("name", "kind"), [("gzipped.csv", "gzip"), ("parquet.csv", "Parquet")])
def test_the_names_of_what_is_no_text_are_not_looked_for(tmp_path, name, kind):
    schema = load_schema(write_schema(tmp_path))
    [file] = list_files(str(damage(tmp_path, name)), "--input", schema)
    with pytest.raises(InputError, match=f"{name}: the content is {kind}, not text; rename the file, or set the schema's format"):
        columns_of(file, schema)


def test_a_header_that_the_schema_denies_is_an_error_and_not_a_row(tmp_path):
    schema = load_schema("criteo")
    (tmp_path / "a.tsv").write_text("\t".join(schema.columns) + "\n")
    with pytest.raises(InputError, match="the first line is a header"):
        spans_of(tmp_path / "a.tsv", schema)


@pytest.mark.parametrize(("line", "labelled"), [("1,5,a\n", True), ("5,a\n", False), ("", True)])
@pytest.mark.parametrize("blank", ["\n", "\r\n\n", "\ufeff\n"])
def test_the_first_line_of_a_log_without_a_header_that_is_not_blank_tells_whether_it_is_labelled(tmp_path, line, labelled, blank):
    text = "name: x\nformat: csv\nlabel: y\ncolumns: [y, t, c]\ncategorical: [{{columns: c}}]"
    schema = load_schema(write_schema(tmp_path, text))
    (tmp_path / "a.csv").write_text(blank + line * 2)
    [file] = list_files(str(tmp_path / "a.csv"), "--input", schema)
    assert columns_of(file, schema) == ["y", "t", "c"][not labelled :]
    found = [(row[1], row[2]) for row in rows_in(spans_of(tmp_path / "a.csv", schema), schema, ["c"])]
    lines = blank.count("\n")
    assert found == ([(lines + 1, "a"), (lines + 2, "a")] if line else [])


def test_a_protocol_that_nothing_opens_is_named():
    with pytest.raises(InputError, match="s4://bucket/x: Protocol not known"):
        list_files("s4://bucket/x", "--input", load_schema("criteo"))


def test_a_flipped_bit_in_a_parquet_page_is_found(tmp_path):
    schema = load_schema(write_schema(tmp_path, format="parquet"))
    path = tmp_path / "a.parquet"
    write_with_flipped_bit(path)
    with pytest.raises(InputError, match="a.parquet cannot be read"):
        rows_in(spans_of(path, schema), schema)
