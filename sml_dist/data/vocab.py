"""Vocabularies: which token has which id. Counted in parts, merged by ranges of the tokens' hashes, looked up by hash.

    count    each task writes files of (field, token, count), one row group for each of P ranges of hashes
    merge    one task for each range adds the counts up and drops tokens below min_count
    finish   one task for each field orders them: id = 1 + rank by (count descending, token), after the values of
             an earlier dataset (earlier.py); row 0 is the rest

so no process ever holds much more than 2/P of the distinct tokens while counting, nor more than one field's own at the end.
"""

from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import quote as url_quote

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.compute as pc
import pyarrow.parquet as pq

from sml_dist.data.earlier import Earlier
from sml_dist.data.hashing import hash64
from sml_dist.spec import InputError

SPILL_BYTES = 64 << 20
COMPACT_BYTES = 256 << 20
RANGE_BYTES = 2 << 30  # of raw input for each range of hashes
MAX_RANGES = 256
COUNTS = pa.schema([("field", pa.int16()), ("token", pa.large_string()), ("count", pa.int64())])
VOCABULARY = pa.schema([("token", pa.large_string()), ("count", pa.int64())])


def ranges_for(raw_bytes: int) -> int:
    return int(np.clip(raw_bytes // RANGE_BYTES + 1, 1, MAX_RANGES))


def vocabulary_path(name: str) -> str:
    """The file of a field's vocabulary relative to the dataset: vocab/<field>.parquet, odd characters of the name as %XX."""
    return f"vocab/{url_quote(name, safe='')}.parquet"


@dataclass
class TokenCounter:
    """Counts the tokens of some fields and writes what it has whenever that reaches SPILL_BYTES."""

    prefix: str  # path of its files without their number
    fields: list[str]
    ranges: int
    tokens: dict[str, list[pa.Array]] = field(default_factory=dict)
    bytes: int = 0
    files: list[str] = field(default_factory=list)

    def add(self, name: str, tokens: pa.Array) -> None:
        self.tokens.setdefault(name, []).append(tokens)
        self.bytes += tokens.nbytes

    def spill_if_full(self) -> None:
        if self.bytes >= SPILL_BYTES:
            self.spill()

    def spill(self) -> None:
        if not self.tokens:
            return
        counted = [self._count(name, arrays) for name, arrays in self.tokens.items()]
        table, hashes = pa.concat_tables([c[0] for c in counted]), np.concatenate([c[1] for c in counted])
        ranges = (hashes % np.uint64(self.ranges)).astype(np.int16)
        order = np.argsort(ranges, kind="stable")
        table, cuts = table.take(pa.array(order)), np.searchsorted(ranges[order], np.arange(self.ranges + 1))
        path = f"{self.prefix}-{len(self.files):04d}.parquet"
        _write_groups(path, [table.slice(start, end - start) for start, end in pairwise(cuts.tolist())])
        self.files.append(path)
        self.tokens, self.bytes = {}, 0

    def _count(self, name: str, arrays: list[pa.Array]) -> tuple[pa.Table, np.ndarray]:
        counts = pa.chunked_array(arrays).value_counts()
        tokens, index = counts.field("values"), self.fields.index(name)
        columns = [pa.array(np.full(len(tokens), index, np.int16)), tokens.cast(pa.large_string()), counts.field("counts")]
        return pa.table(columns, schema=COUNTS), hash64(tokens, name)


def _write_groups(url: str, groups: list[pa.Table]) -> None:
    """One row group for each table, also for an empty one."""
    fs, path = fsspec.url_to_fs(url)
    fs.makedirs(path.rsplit("/", 1)[0], exist_ok=True)
    with fs.open(path, "wb") as sink, pq.ParquetWriter(sink, COUNTS, compression="zstd") as writer:
        for group in groups:
            writer.write_table(group, row_group_size=max(len(group), 1))


def merge_range(files: list[str], number: int, min_counts: list[int], target: str) -> str:
    """Adds up row group `number` of all count files; writes one row group for each field to `target`."""
    pending, held, limit = [], 0, COMPACT_BYTES
    for file in files:
        pending.append(_read_group(file, number))
        held += pending[-1].nbytes
        if held > limit:
            pending = [_add_up(pending)]
            held = pending[0].nbytes
            limit = max(COMPACT_BYTES, 2 * held)  # at COMPACT_BYTES, a larger sum would be added up again with every file
    merged = _add_up(pending)
    enough = np.asarray(min_counts)[merged["field"].to_numpy()]
    merged = merged.filter(pc.greater_equal(merged["count"], pa.array(enough, pa.int64())))
    _write_groups(target, [merged.filter(pc.equal(merged["field"], index)) for index in range(len(min_counts))])
    return target


def _read_group(url: str, number: int) -> pa.Table:
    with fsspec.open(url, "rb") as file, pq.ParquetFile(file) as parquet:
        return parquet.read_row_group(number, use_threads=False)


def _add_up(tables: list[pa.Table]) -> pa.Table:
    counts = pa.concat_tables(tables).group_by(["field", "token"], use_threads=False).aggregate([("count", "sum")])
    return counts.rename_columns({"count_sum": "count"}).select(COUNTS.names).cast(COUNTS)


def finish_field(merged: list[str], index: int, name: str, root: str, earlier: Earlier | None = None) -> int:
    """Writes a field's vocabulary in the order of its ids, those of an earlier one first; returns the rows of its table."""
    found = pa.concat_tables([_read_group(file, index) for file in merged]).select(VOCABULARY.names)
    found = found.sort_by([("count", "descending"), ("token", "ascending")])
    if earlier:
        found = earlier.extended(name, found)
    found = found.filter(pa.array(_first_of_hash(hash64(found["token"].combine_chunks(), name))))
    if len(found) >= 2**31 - 1:
        raise InputError(f"field {name!r} has {len(found)} values, more than ids can number; raise --min-count or use `hash`")
    with fsspec.open(f"{root}/{vocabulary_path(name)}", "wb", auto_mkdir=True) as sink:
        pq.write_table(found, sink, compression="zstd", write_page_checksum=True)
    return len(found) + 1


def _first_of_hash(hashes: np.ndarray) -> np.ndarray:
    """Which tokens keep an entry: of two with one 64-bit hash (3 in 10,000 vocabularies of 10^8 tokens) the more frequent one;
    the other then shares its id."""
    keep = np.zeros(len(hashes), bool)
    keep[np.unique(hashes, return_index=True)[1]] = True
    return keep


@dataclass(frozen=True)
class Vocabulary:
    """Ids by binary search among sorted hashes: 12 bytes a token in memory, whatever the tokens' length."""

    name: str
    hashes: np.ndarray  # uint64, increasing
    ids: np.ndarray  # int32

    @staticmethod
    def of(name: str, tokens: pa.Array) -> "Vocabulary":
        """From tokens in the order of their ids."""
        hashes = hash64(tokens, name)
        order = np.argsort(hashes, kind="stable")
        return Vocabulary(name, hashes[order], (order + 1).astype(np.int32))

    @property
    def rows(self) -> int:
        return len(self.ids) + 1

    def lookup(self, tokens: pa.Array) -> np.ndarray:
        """int32[n]; 0 for a token that is not in the vocabulary."""
        if not len(self.ids):
            return np.zeros(len(tokens), np.int32)
        hashes = hash64(tokens, self.name)
        place = np.minimum(np.searchsorted(self.hashes, hashes), len(self.hashes) - 1)
        return np.where(self.hashes[place] == hashes, self.ids[place], 0)


def read_vocabulary(root: str, name: str) -> Vocabulary:
    return Vocabulary.of(name, read_tokens(root, name))


def read_tokens(root: str, name: str) -> pa.Array:
    """A field's tokens in the order of their ids, which begin with 1."""
    with fsspec.open(f"{root}/{vocabulary_path(name)}", "rb") as file:
        table = pq.read_table(file, columns=["token"], use_threads=False)
    return table["token"].combine_chunks()
