"""Raw logs in any format: how files are cut into spans, how many rows those have, and the batches of raw columns they hold.

A span is a byte range of a text file cut at line ends, a whole compressed file, or a range of a Parquet file's row groups.
Reading one takes memory for one batch, however long it and its rows are, and of Parquet for one row group as it is stored. Spans
together make parts of about 64 MB, the unit of work.
"""

from collections.abc import Iterator
from dataclasses import replace

import pyarrow as pa

from sml_dist.data.files import reading
from sml_dist.data.parquet_files import parquet_spans, parquet_types, read_parquet
from sml_dist.data.schema import Schema
from sml_dist.data.spans import PART_BYTES, RawBatch, RawFile, Span
from sml_dist.data.text_files import check_head, read_text, text_blocks, text_columns
from sml_dist.spec import InputError


def first_spans(files: list[RawFile], schema: Schema, part_bytes: int = PART_BYTES) -> list[Span]:
    """The pieces to survey: byte ranges of plain text, whole files of all else."""
    spans = []
    for file in files:
        if schema.format == "parquet" or file.codec:
            spans.append(Span(file, 0, None, file.size))
        else:
            cuts = [*range(0, file.size, part_bytes), file.size]
            spans += [Span(file, a, b, b - a) for a, b in zip(cuts[:-1], cuts[1:], strict=True)]
    return spans


def count_rows(span: Span, schema: Schema, part_bytes: int = PART_BYTES, columns: list[str] | None = None) -> list[Span]:
    """The span with its number of rows; a Parquet file as spans of some of its row groups each.

    Finds broken files and those that lack one of the `columns`, by default all that the schema uses.
    """
    columns = columns or schema.used
    with reading(span.file.path):
        if schema.format == "parquet":
            return parquet_spans(span, schema, columns, part_bytes)
        if span.start == 0:
            check_head(span.file, schema, columns)
        rows = sum(block.count(b"\n") for block in text_blocks(span, schema))
        if not rows and span.stop is None and schema.columns:
            raise InputError("it is empty; fetch it again or leave it out")
        return [replace(span, rows=rows)]


def columns_of(file: RawFile, schema: Schema) -> list[str]:
    """The names of a file's columns; a text file without a header may lack the labels among the schema's `columns`."""
    with reading(file.path):
        return parquet_types(file).names if schema.format == "parquet" else text_columns(file, schema)


def types_of(file: RawFile) -> pa.Schema:
    """The columns of a Parquet file with their types."""
    with reading(file.path):
        return parquet_types(file)


def read(span: Span, schema: Schema, columns: list[str] | None = None) -> Iterator[RawBatch]:
    """The batches of a span; `columns` (by default all that the schema uses) limits what is decoded."""
    columns = columns or schema.used
    with reading(span.file.path):
        yield from (read_parquet if schema.format == "parquet" else read_text)(span, schema, columns)
