"""Spans of Parquet: ranges of a file's row groups, read in batches."""

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace

import fsspec
import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq

from sml_dist.data.clean import plain
from sml_dist.data.schema import Schema
from sml_dist.data.spans import RawBatch, RawFile, Span, check_columns, group_spans
from sml_dist.data.text import is_text
from sml_dist.spec import InputError

BATCH_ROWS, BATCH_BYTES = 65_536, 32 << 20


def parquet_spans(span: Span, schema: Schema, columns: list[str], part_bytes: int) -> list[Span]:
    with _parquet(span.file) as parquet:
        check_columns(parquet.schema_arrow.names, columns)
        _check_types(parquet.schema_arrow, schema, columns)
        groups = [parquet.metadata.row_group(g) for g in range(parquet.metadata.num_row_groups)]
    singles = [Span(span.file, g, g + 1, group.total_byte_size, group.num_rows) for g, group in enumerate(groups)]
    return [
        replace(part[0], stop=part[-1].stop, bytes=sum(s.bytes for s in part), rows=sum(s.rows for s in part))
        for part in group_spans(singles, part_bytes)
    ]


@contextmanager
def _parquet(file: RawFile) -> Iterator[pq.ParquetFile]:
    with fsspec.open(file.path, "rb") as raw, pq.ParquetFile(raw, page_checksum_verification=True) as parquet:
        yield parquet


def parquet_types(file: RawFile) -> pa.Schema:
    with _parquet(file) as parquet:
        return parquet.schema_arrow


def _check_types(types: pa.Schema, schema: Schema, columns: list[str]) -> None:
    """Every column can be read as what the schema takes it for: tried on a column of its type."""
    labels = schema.targets.values()
    numbers = {*schema.numbers, *(label.column for label in labels if label.positive is None), schema.weight}
    lists = {column for column, separator in schema.list_separators.items() if separator is None}
    features = (feature.column for feature in schema.features if feature.origin in ("column", "list", "sequence"))
    texts = {schema.group, *(label.column for label in labels), *features}
    for column in (name for name in schema.used if name in columns):
        kind = types.field(column).type
        values = plain(pa.nulls(0, kind)).type
        wanted = pa.list_(pa.string()) if column in lists else pa.float64() if column in numbers else pa.string()
        if pa.types.is_timestamp(values) and not schema.missing and column not in numbers | texts:
            continue  # a time alone: its zone need not be known
        if not (_readable_list(kind) if column in lists else _readable(values, wanted)):
            hint = "; a multi-valued column that is no list needs its `separator`" if column in lists else ""
            raise InputError(f"column {column!r} is {kind}, which cannot be read as {wanted}{hint}")
        if schema.timestamp and column == schema.timestamp.column and (pa.types.is_time(values) or pa.types.is_duration(values)):
            raise InputError(f"column {column!r} is {kind}, which is no point in time")


def _readable(kind: pa.DataType, wanted: pa.DataType) -> bool:
    """A timestamp is tried with a value: only then does Arrow look for its zone."""
    values = pa.array([0], kind) if pa.types.is_timestamp(kind) else plain(pa.nulls(0, kind))
    try:
        (pa.nulls(0, pa.string()) if is_text(values.type) else values).cast(wanted)
    except pa.ArrowException:
        return False
    return True


def _readable_list(kind: pa.DataType) -> bool:
    """A list of anything that can be read as text; not a map, which is a list of pairs."""
    if pa.types.is_null(kind):
        return True
    listed = pa.types.is_list(kind) or pa.types.is_large_list(kind) or pa.types.is_fixed_size_list(kind)
    return listed and _readable(kind.value_type, pa.string())


def read_parquet(span: Span, schema: Schema, columns: list[str]) -> Iterator[RawBatch]:
    row = span.first_row
    with _parquet(span.file) as parquet:
        groups = list(range(span.start, span.stop))
        size = _batch_rows(parquet, groups, columns)
        for batch in parquet.iter_batches(size, row_groups=groups, columns=columns, use_threads=False):
            table = pa.Table.from_batches([batch])
            yield RawBatch(table, np.arange(row, row + len(batch)), [])
            row += len(batch)


def _batch_rows(parquet: pq.ParquetFile, groups: list[int], columns: list[str]) -> int:
    """How many rows take about BATCH_BYTES once they are decoded.

    Each value, in a list too, counts as eight bytes at least, a text as sixteen: encoded as runs, the pads of a history are next to
    nothing. Longer texts that repeat take more than is counted.
    """
    names, metadata = tuple(f"{column}." for column in columns), parquet.metadata
    read = [i for i in range(metadata.num_columns) if f"{parquet.schema.column(i).path}.".startswith(names)]
    there = [metadata.row_group(group) for group in groups if group < metadata.num_row_groups]  # iter_batches names one that is not
    fitting = [BATCH_BYTES * group.num_rows // max(1, sum(_decoded_bytes(group.column(i)) for i in read)) for group in there]
    return max(1, min(BATCH_ROWS, *fitting))


def _decoded_bytes(chunk: pq.ColumnChunkMetaData) -> int:
    return max(chunk.total_uncompressed_size, (16 if chunk.physical_type == "BYTE_ARRAY" else 8) * chunk.num_values)
