"""Vocabularies: counts in parts are counts of the whole, and ids follow from counts alone."""

from collections import Counter

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_dist.data import encode, vocab
from sml_dist.data.encode import load_encoder
from sml_dist.data.hashing import hash64
from sml_dist.data.prepare import prepare
from sml_dist.data.vocab import TokenCounter, Vocabulary, finish_field, merge_range, ranges_for, read_vocabulary, vocabulary_path
from tests.data.raw_logs import clicks, write_logs, write_schema
from tests.faults.serial import without_ray

FIELDS, MIN_COUNTS = ["a", "b/ü"], [3, 1]


def build(root, tokens: dict[str, list[str]], parts: int, ranges: int) -> None:
    files = []
    for part in range(parts):
        counter = TokenCounter(f"{root}/.work/counts/part-{part}", FIELDS, ranges)
        for name, values in tokens.items():
            counter.add(name, pa.array(values[part::parts], pa.string()))
        counter.spill()
        files += counter.files
    merged = [merge_range(files, number, MIN_COUNTS, f"{root}/.work/merged/{number}.parquet") for number in range(ranges)]
    for index, name in enumerate(FIELDS):
        finish_field(merged, index, name, str(root))


def draw(seed: int) -> dict[str, list[str]]:
    random = np.random.default_rng(seed)
    return {name: [f"t{i}" if i % 7 else "" for i in random.zipf(1.3, 2000) % 500] for name in FIELDS}


@pytest.mark.parametrize(("parts", "ranges"), [(1, 1), (4, 1), (3, 5)])
def test_ids_follow_counts_then_tokens_however_the_rows_are_cut(tmp_path, parts, ranges):
    tokens = draw(0)
    build(tmp_path, tokens, parts, ranges)
    for name, least in zip(FIELDS, MIN_COUNTS, strict=True):
        expected = sorted(((-n, t) for t, n in Counter(tokens[name]).items() if n >= least))
        table = pq.read_table(tmp_path / vocabulary_path(name))
        assert list(zip(table["token"].to_pylist(), table["count"].to_pylist(), strict=True)) == [(t, -n) for n, t in expected]
        found = read_vocabulary(str(tmp_path), name)
        assert found.rows == len(expected) + 1
        assert found.lookup(table["token"].combine_chunks()).tolist() == list(range(1, found.rows))
        assert found.lookup(pa.array(["never seen", "t"])).tolist() == [0, 0]


def test_counts_spill_to_files_and_still_add_up(tmp_path, monkeypatch):
    monkeypatch.setattr(vocab, "COMPACT_BYTES", 1)
    counter = TokenCounter(f"{tmp_path}/counts", FIELDS, 2)
    monkeypatch.setattr(vocab, "SPILL_BYTES", 1)
    for _ in range(5):
        counter.add("a", pa.array(["x", "y", "x"]))
        counter.spill_if_full()
    assert len(counter.files) == 5
    merged = [merge_range(counter.files, number, MIN_COUNTS, f"{tmp_path}/{number}.parquet") for number in range(2)]
    assert finish_field(merged, 0, "a", str(tmp_path)) == 3
    assert pq.read_table(tmp_path / "vocab/a.parquet").to_pylist() == [{"token": "x", "count": 10}, {"token": "y", "count": 5}]


def test_each_range_of_hashes_is_a_row_group_of_the_counts_with_its_tokens_in_the_order_they_came(tmp_path):
    counter, expected = TokenCounter(f"{tmp_path}/counts", FIELDS, vocab.MAX_RANGES), [[] for _ in range(vocab.MAX_RANGES)]
    for index, name in enumerate(FIELDS):
        tokens = pa.array(draw(0)[name])
        counter.add(name, tokens)
        for number, token in zip(hash64(tokens.unique(), name) % np.uint64(vocab.MAX_RANGES), tokens.unique().to_pylist(), strict=True):
            expected[number].append((index, token))
    counter.spill()
    with pq.ParquetFile(counter.files[0]) as file:
        groups = [file.read_row_group(number).to_pylist() for number in range(file.num_row_groups)]
    assert [[(row["field"], row["token"]) for row in group] for group in groups] == expected
    assert [] in expected and max(map(len, expected)) > 2


def test_a_merge_adds_each_count_up_a_few_times_however_many_files_and_distinct_tokens_there_are(tmp_path, monkeypatch):
    files, rows, add_up = [], [], vocab._add_up
    for part in range(64):
        counter = TokenCounter(f"{tmp_path}/counts/{part}", FIELDS, 1)
        counter.add("b/ü", pa.array([f"{part:02d}-{token}" for token in range(10)]))
        counter.spill()
        files += counter.files
    monkeypatch.setattr(vocab, "COMPACT_BYTES", 1)
    monkeypatch.setattr(vocab, "_add_up", lambda tables: rows.append(sum(map(len, tables))) or add_up(tables))
    merge_range(files, 0, MIN_COUNTS, f"{tmp_path}/merged.parquet")
    assert rows[-1] == 640 and len(rows) <= 8 and sum(rows) <= 3 * 640


def test_the_manifest_has_the_sizes_of_vocabularies_that_were_read_for_encoding_alone(tmp_path, monkeypatch):
    """Reading those of a billion tokens in all would take the driver 100 GB."""
    without_ray(monkeypatch)
    read, schema, logs = [], write_schema(tmp_path), write_logs(tmp_path / "a.csv", clicks(100))
    monkeypatch.setattr(encode, "read_vocabulary", lambda root, name: read.append(name) or read_vocabulary(root, name))
    manifest = prepare(schema, str(tmp_path / "out"), inputs=logs, split="order:0.6,0.4")
    assert read == list(manifest.source["vocabularies"])
    assert manifest.fields == load_encoder(str(tmp_path / "out"), manifest).fields


def test_tokens_with_one_hash_share_the_id_of_the_more_frequent(tmp_path, monkeypatch):
    monkeypatch.setattr(vocab, "hash64", lambda tokens, seed="": np.array([len(t) for t in tokens.to_pylist()], np.uint64))
    build(tmp_path, {"a": ["xx"] * 3 + ["yy"] * 5 + ["z"] * 4, "b/ü": ["q"]}, 2, 1)
    found = read_vocabulary(str(tmp_path), "a")
    assert found.rows == 3
    assert found.lookup(pa.array(["xx", "yy", "z"])).tolist() == [1, 1, 2]


def test_a_vocabulary_without_a_frequent_token_has_the_rest_alone(tmp_path):
    build(tmp_path, {"a": ["x", "y"], "b/ü": ["q"]}, 1, 1)
    found = read_vocabulary(str(tmp_path), "a")
    assert found.rows == 1 and found.lookup(pa.array(["x"])).tolist() == [0]


def test_the_empty_token_has_an_id_like_any_other():
    assert Vocabulary.of("f", pa.array(["b", ""])).lookup(pa.array(["", "b", "c"])).tolist() == [2, 1, 0]


def test_ranges_grow_with_the_input_and_end():
    assert [ranges_for(size) for size in (0, 1 << 30, 5 << 30, 1 << 50)] == [1, 1, 3, 256]
