"""The prepared dataset: a folder of Parquet that is complete when, and only when, it holds `dataset.json`.

    dataset.json
    train/ valid/ test/   part-*.parquet   columns below, row groups of `row_group_rows`
    rejects/              part-*.parquet   file, row, column, reason

Columns: `dense` fixed_size_list<float32>[N] (absent if N = 0), `ids` fixed_size_list<int32>[F] over the single-valued
fields in manifest order (absent if there are none), one list<int32> column per multi-valued field or sequence under its
own name prefixed with `ids:`, `label` float32, or of T labels fixed_size_list<float32>[T], optional `weight` float32,
`group` int64, `timestamp` int64 (seconds).
"""

import hashlib
import json
import uuid
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import field, replace
from typing import Annotated, Any, Literal

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
from pydantic import Field as Option
from pydantic import ValidationError

from sml_dist.data.files import PARTIAL, UNREADABLE, write_json
from sml_dist.spec import InputError, Inside, confined, first_fault, from_dict, one_line, spec, to_dict

MANIFEST = "dataset.json"
ROW_GROUP_ROWS = 16_384
SPLITS = ("train", "valid", "test")


@spec
class Field:
    """A categorical field: ids lie in [0, rows); `multivalued` fields hold any number of ids a row.

    One with `of` is a sequence, in order and the newest last, of ids of that field, whose table it shares; `length` of
    them at most.
    """

    name: str
    rows: int
    multivalued: bool = False
    of: Annotated[str | None, Option(exclude_if=lambda of: of is None)] = None
    length: Annotated[int | None, Option(gt=0, exclude_if=lambda length: length is None)] = None

    def __post_init__(self) -> None:
        if (self.of is None) != (self.length is None) or (self.of and not self.multivalued):
            raise ValueError(f"field {self.name}: `of` and `length` go together, and with `multivalued`")


@spec
class DataFile:
    """A Parquet file of the dataset, `path` relative to its folder."""

    path: Inside
    rows: int
    bytes: int
    sha256: str
    row_groups: list[int]


@spec
class Split:
    """`positives`: the sum of labels; of several labels, of each."""

    rows: int
    positives: float | list[float]
    files: list[DataFile]

    @property
    def positives_by_label(self) -> list[float]:
        return self.positives if isinstance(self.positives, list) else [self.positives]


@spec
class Best:
    """The best AUC and logloss (nats) that any model can reach on a split; known for synthetic data alone."""

    auc: float
    logloss: float


@spec
class Manifest:
    """What `dataset.json` says. `source` is what encoding needs to score raw rows later: schema, vocabularies, statistics.

    `rejected_by`: the rejected rows by column, see quarantine.py.
    `stored_labels`: those of the files, where `labels` is the one of them that a run uses (`one_label`); in no `dataset.json`.
    """

    version: Literal[1] = 1
    name: str
    fields: list[Field]
    dense: list[str]
    labels: Annotated[list[str], Option(exclude_if=lambda labels: labels == ["label"])] = field(default_factory=lambda: ["label"])
    stored_labels: Annotated[list[str] | None, Option(exclude=True)] = None
    weight: bool = False
    group: bool = False
    timestamp: bool = False
    row_group_rows: int = ROW_GROUP_ROWS
    splits: dict[str, Split]
    rejects: list[DataFile] = field(default_factory=list)
    rows_read: int
    rows_kept: int
    rows_rejected: int
    rejected_by: Annotated[dict[str, int], Option(exclude_if=lambda counts: not counts)] = field(default_factory=dict)
    split_rule: str
    source: dict[str, Any] = field(default_factory=dict)
    best: dict[str, Best] = field(default_factory=dict)

    @property
    def group_field(self) -> str | None:
        """The field that holds the groups' own values, which as groups may be hashes."""
        name = self.source.get("schema", {}).get("group")
        return name if name in self.source.get("vocabularies", {}) else None

    @property
    def label_columns(self) -> list[str]:
        """The labels that the files have, in their order there."""
        return self.stored_labels or self.labels

    @property
    def single(self) -> list[Field]:
        return [f for f in self.fields if not f.multivalued]

    @property
    def multi(self) -> list[Field]:
        """The fields of which a row has one vector, pooled."""
        return [f for f in self.fields if f.multivalued and not f.of]

    @property
    def sequences(self) -> list[Field]:
        return [f for f in self.fields if f.of]

    @property
    def tables(self) -> list[Field]:
        """The fields that have a table of their own."""
        return [f for f in self.fields if not f.of]

    @property
    def features(self) -> list[str]:
        """What a row has one vector of, in a model's order: single-valued fields, multi-valued ones, each position of each sequence."""
        return [*(f.name for f in (*self.single, *self.multi)), *(name for f in self.sequences for name in positions(f.name, f.length))]


def positions(name: str, length: int) -> list[str]:
    """The positions of a sequence by name, the newest first."""
    return [f"{name}:{place}" for place in range(1, length + 1)]


def multi_column(name: str) -> str:
    return f"ids:{name}"


def matrix(column: pa.ChunkedArray) -> np.ndarray:
    """A fixed-size-list column as (B, width), without a copy where it is one chunk."""
    lists = whole(column)
    return lists.flatten().to_numpy(zero_copy_only=False).reshape(-1, lists.type.list_size)


def whole(column: pa.ChunkedArray) -> pa.Array:
    return column.chunk(0) if column.num_chunks == 1 else column.combine_chunks()  # which copies one chunk too


def table_name(field: str) -> str:
    """Name of a field's table; dots become underscores, as module names may hold none."""
    return "t_" + field.replace(".", "_")


def by_table(manifest: Manifest) -> dict[str, Field]:
    """Fields by table name, which cannot be turned back: `a_b` and `a.b` give the same one."""
    return {table_name(field.name): field for field in manifest.tables}


def check_table_names(fields: list[str], where: str) -> None:
    """Raises InputError that names the place and two fields whose tables would have one name."""
    owners: dict[str, str] = {}
    for name in fields:
        owner = owners.setdefault(table_name(name), name)
        if owner != name:
            both = f"fields {owner!r} and {name!r} would both have the table {table_name(name)}"
            raise InputError(f"{where}: {both}; rename one of the columns, then prepare")


def arrow_schema(fields: list[Field], dense: list[str], *, weight: bool, group: bool, timestamp: bool, labels: int = 1) -> pa.Schema:
    """The schema of a dataset with these features; its files have it in the `required` form."""
    single = [f for f in fields if not f.multivalued]
    columns: list[tuple[str, pa.DataType]] = []
    if dense:
        columns.append(("dense", pa.list_(pa.float32(), len(dense))))
    if single:
        columns.append(("ids", pa.list_(pa.int32(), len(single))))
    columns += [(multi_column(f.name), pa.list_(pa.int32())) for f in fields if f.multivalued]
    columns.append(("label", pa.float32() if labels == 1 else pa.list_(pa.float32(), labels)))
    columns += [("weight", pa.float32())] * weight + [("group", pa.int64())] * group + [("timestamp", pa.int64())] * timestamp
    return pa.schema(columns)


# Ids repeat too seldom for dictionaries. Criteo's shape, a window of 262,144 rows read and permuted: 102 ms of a core, with zstd,
# dictionaries and elements that may lack 155, for a file 7 % larger.
FAST: dict[str, Any] = {"compression": "lz4", "use_dictionary": False, "write_page_checksum": True}


class SplitWriter:
    """Writes tables of any length as one Parquet file with full row groups, page checksums and a SHA-256 of its bytes.

    Use as a context manager; `file` holds the DataFile afterwards. An exception leaves no file. Two tasks may write one path at
    the same time, when Ray takes a node for dead that is not: each writes a partial file of its own, and the last one's stays.
    """

    def __init__(self, root: str, path: str, schema: pa.Schema, row_group_rows: int = ROW_GROUP_ROWS):
        self.fs, folder = fsspec.url_to_fs(root)
        self.path, self.target, self.partial = path, f"{folder}/{path}", f"{folder}/{path}.{uuid.uuid4().hex[:8]}{PARTIAL}"
        self.row_group_rows, self.row_groups, self.pending = row_group_rows, [], []
        self.fs.makedirs(self.target.rsplit("/", 1)[0], exist_ok=True)
        self.sink = HashingSink(self.fs.open(self.partial, "wb"))
        self.writer = pq.ParquetWriter(pa.PythonFile(self.sink, mode="w"), required(schema), **FAST)
        self.file: DataFile | None = None

    def write(self, table: pa.Table) -> None:
        self.pending.append(table)
        while sum(part.num_rows for part in self.pending) >= self.row_group_rows:
            whole = pa.concat_tables(self.pending)
            self._write_group(whole.slice(0, self.row_group_rows))
            self.pending = [whole.slice(self.row_group_rows)]

    def _write_group(self, table: pa.Table) -> None:
        self.writer.write_table(without_nulls(table), row_group_size=self.row_group_rows)
        self.row_groups.append(table.num_rows)

    def __enter__(self) -> "SplitWriter":
        return self

    def __exit__(self, kind: type | None, *_: Any) -> None:
        if kind is not None:
            self._discard()
            return
        try:
            if sum(part.num_rows for part in self.pending):
                self._write_group(pa.concat_tables(self.pending))
            self.writer.close()
            self.sink.close()
            self.fs.mv(self.partial, self.target)
        except BaseException:
            self._discard()
            raise
        digest = self.sink.digest.hexdigest()
        self.file = DataFile(path=self.path, rows=sum(self.row_groups), bytes=self.sink.bytes, sha256=digest, row_groups=self.row_groups)

    def _discard(self) -> None:
        """Closing may fail once more on a full disk; room is made all the same."""
        for step in (self.writer.close, self.sink.close, lambda: self.fs.rm(self.partial)):
            with suppress(OSError):
                step()


def required(schema: pa.Schema) -> pa.Schema:
    """Fixed-size lists lack no element, and no row lacks one: saying so spares the reader a level for each number."""
    return pa.schema(_required(field) if pa.types.is_fixed_size_list(field.type) else field for field in schema)


def _required(field: pa.Field) -> pa.Field:
    element = pa.field("element", field.type.value_type, nullable=False)
    return pa.field(field.name, pa.list_(element, field.type.list_size), nullable=False)


def without_nulls(table: pa.Table) -> pa.Table:
    """The table in the `required` form of its schema."""
    schema = required(table.schema)
    for index, column in enumerate(schema):
        if pa.types.is_fixed_size_list(column.type):
            values = table.column(index).combine_chunks().flatten()
            table = table.set_column(index, column, pa.FixedSizeListArray.from_arrays(values, type=column.type))
    return table


class HashingSink:
    """A binary file that counts and hashes what passes through it."""

    def __init__(self, file: Any):
        self.file, self.digest, self.bytes, self.closed = file, hashlib.sha256(), 0, False

    def write(self, data: Any) -> int:
        view = memoryview(data)
        self.digest.update(view)
        self.bytes += view.nbytes
        return self.file.write(view)

    def tell(self) -> int:
        return self.bytes

    def flush(self) -> None:
        self.file.flush()

    def close(self) -> None:
        if not self.closed:
            self.closed = True
            self.file.close()


def write_manifest(root: str, manifest: Manifest) -> None:
    """Writes `dataset.json`, the last act of making a dataset: whole or not at all."""
    fs, folder = fsspec.url_to_fs(root)
    write_json(fs, f"{folder}/{MANIFEST}", to_dict(manifest))


def read_manifest(root: str, label: str | None = None) -> Manifest:
    """The manifest of a prepared dataset, or as if it had this label alone; raises InputError that names the folder and the way out."""
    fs, folder = fsspec.url_to_fs(root)
    path = f"{folder}/{MANIFEST}"
    if not fs.exists(path):
        raise InputError(f"{root} is not a prepared dataset (no {MANIFEST}); make one with `sml-dist prepare` or `sml-dist synth`")
    try:
        manifest = from_dict(Manifest, json.loads(fs.cat_file(path)))
        _check_counts(manifest)
        _check_parts(manifest)
        for vocabulary in dict(manifest.source.get("vocabularies", {})).values():
            confined(str(vocabulary))
    except ValidationError as error:
        raise InputError(f"{path} is damaged ({first_fault(error)}); prepare the dataset again") from None
    except (OSError, ValueError, RecursionError) as error:  # no file, no UTF-8, no JSON, a number too long, a nesting too deep
        raise InputError(f"{path} is damaged ({one_line(error)}); prepare the dataset again") from None
    return manifest if label is None else one_label(manifest, label, root)


def one_label(manifest: Manifest, label: str, root: str) -> Manifest:
    """The dataset as a run with `data.label` sees it: of its labels there is this one. Raises InputError."""
    if label not in manifest.labels:
        has = f"labels {', '.join(manifest.labels)}" if len(manifest.labels) > 1 else "one label; leave the key out"
        raise InputError(f"data.label {label}: {root} has {has}")
    place = manifest.labels.index(label)
    splits = {name: replace(split, positives=split.positives_by_label[place]) for name, split in manifest.splits.items()}
    return replace(manifest, labels=[label], stored_labels=manifest.labels, splits=splits)


def _check_counts(manifest: Manifest) -> None:
    """read = kept + rejected, and the rows of files and row groups add up to those of their splits."""
    files = [file for split in manifest.splits.values() for file in split.files]
    sums = [
        (manifest.rows_read, [manifest.rows_kept, manifest.rows_rejected]),
        (manifest.rows_kept, [split.rows for split in manifest.splits.values()]),
        *((split.rows, [file.rows for file in split.files]) for split in manifest.splits.values()),
        *((file.rows, file.row_groups) for file in files),
    ]
    if manifest.rejects:
        sums.append((manifest.rows_rejected, [file.rows for file in manifest.rejects]))
    for whole, parts in sums:
        if whole != sum(parts) or min(parts, default=0) < 0:
            raise ValueError(f"{whole} rows where its parts hold {sum(parts)}")


def _check_parts(manifest: Manifest) -> None:
    """A sequence has the ids of a single-valued field, a split a sum for each label."""
    if manifest.stored_labels:
        raise ValueError("stored_labels is no key of it")
    rows = {field.name: field.rows for field in manifest.single}
    for sequence in manifest.sequences:
        if rows.get(sequence.of) != sequence.rows:
            raise ValueError(f"{sequence.name} has {sequence.rows} rows of {sequence.of}, which is no field with as many")
    for split in manifest.splits.values():
        if len(split.positives_by_label) != len(manifest.labels):
            raise ValueError(f"{len(split.positives_by_label)} sums of {len(manifest.labels)} labels")


def fingerprint(root: str) -> str:
    """SHA-256 of a dataset's manifest, which holds the SHA-256 of every file."""
    fs, folder = fsspec.url_to_fs(root)
    return hashlib.sha256(fs.cat_file(f"{folder}/{MANIFEST}")).hexdigest()


def read_rows(root: str, path: str, row_group: int, columns: list[str] | None = None, *, rows: int | None = None) -> pa.Table:
    """One row group, page checksums verified, of so many `rows` where they are given. Raises InputError that names the file."""
    fs, folder = fsspec.url_to_fs(root)
    try:
        with fs.open(f"{folder}/{path}", "rb") as file, pq.ParquetFile(file, page_checksum_verification=True) as parquet:
            table = parquet.read_row_group(row_group, columns=columns, use_threads=False)
    except UNREADABLE as error:
        raise _unlike_written(root, path, row_group, one_line(error)) from None
    if rows is not None and table.num_rows != rows:
        raise _unlike_written(root, path, row_group, f"it has {table.num_rows} rows where {rows} were written")
    return table


def _unlike_written(root: str, path: str, row_group: int, reason: str) -> InputError:
    return InputError(f"{root}/{path}, row group {row_group}: {reason}; restore the file or prepare the dataset again")


def row_groups(split: Split) -> Iterator[tuple[str, int, int]]:
    """(path, row group, rows) of every row group of a split, in file order."""
    for file in split.files:
        for index, rows in enumerate(file.row_groups):
            yield file.path, index, rows
