"""Spans of delimited text: byte ranges of a plain file, or a whole compressed one, as blocks of lines and as raw columns."""

import json
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import chain
from typing import Any, BinaryIO

import fsspec
import pyarrow as pa

from sml_dist.data.quarantine import quote
from sml_dist.data.schema import Schema
from sml_dist.data.spans import RawBatch, RawFile, Span, check_columns
from sml_dist.data.text import BLOCK_BYTES, BOM, MAX_LINE_BYTES, Layout, line_blocks, parse, split_line
from sml_dist.spec import InputError

HEAD_BYTES = 1 << 16
MAGIC = {b"\x1f\x8b": "gzip", b"\x28\xb5\x2f\xfd": "zstd", b"PAR1": "Parquet", b"PK\x03\x04": "zip"}


def read_text(span: Span, schema: Schema, columns: list[str]) -> Iterator[RawBatch]:
    layout = _layout(span.file, schema, columns)
    row = span.first_row
    for block in text_blocks(span, schema):
        parsed = parse(block, layout, row)
        yield RawBatch(parsed.table, parsed.rows, parsed.rejects)
        row += block.count(b"\n")


def text_blocks(span: Span, schema: Schema) -> Iterator[bytes]:
    """Blocks of whole data lines: no byte order mark, no header."""
    with _open(span.file) as stream:
        blocks = line_blocks(_chunks(stream) if span.file.codec else _range(stream, span.start, span.stop))
        for index, block in enumerate(blocks):
            if index == 0 and span.start == 0:
                block = block.removeprefix(BOM)
                block = block if schema.columns else block[block.index(b"\n") + 1 :]
            if block:
                yield block


@contextmanager
def _open(file: RawFile) -> Iterator[Any]:
    with fsspec.open(file.path, "rb") as raw:
        if not file.codec:
            yield raw
            return
        with pa.CompressedInputStream(pa.PythonFile(raw, mode="r"), file.codec) as stream:
            yield stream


def _chunks(stream: Any, size: int = BLOCK_BYTES) -> Iterator[bytes]:
    while chunk := stream.read(size):
        yield chunk


def _range(stream: BinaryIO, start: int, stop: int) -> Iterator[bytes]:
    """The lines that begin in [start, stop): all of them, and no other."""
    if start:
        stream.seek(start - 1)
        stream.readline(MAX_LINE_BYTES)
    position, last = stream.tell(), b"\n"
    while position < stop:
        chunk = stream.read(min(BLOCK_BYTES, stop - position))
        if not chunk:
            raise InputError("it grew shorter while it was read")
        position, last = position + len(chunk), chunk[-1:]
        yield chunk
    if last != b"\n":
        yield stream.readline(MAX_LINE_BYTES)


def _layout(file: RawFile, schema: Schema, columns: list[str]) -> Layout:
    """The file's own header rules: files of one input may order their columns differently."""
    labelled = {label.column for label in schema.targets.values()} <= {*columns}
    names = schema.columns if schema.columns and labelled else text_columns(file, schema)
    other = max(";\t|,", key="".join(names).count)
    if len(names) == 1 and other in names[0] and {*columns} - {*names}:
        why = f"split at {json.dumps(schema.separator)} the header is the one name {quote(names[0])}"
        raise InputError(f"{why}; is the delimiter {json.dumps(other)}? Then give the schema `delimiter: {json.dumps(other)}`")
    check_columns(names, columns)
    return Layout(names, columns, schema.separator, schema.format == "csv")


def text_columns(file: RawFile, schema: Schema) -> list[str]:
    """The header's names, or the schema's `columns`: without the labels if the first line that is not blank has no values for them."""
    line = _first_line(file, schema)
    first = split_line(line, schema.separator, schema.format == "csv") if line or not schema.columns else []
    if not schema.columns:
        return first
    labels = [label.column for label in schema.targets.values()]
    features = [name for name in schema.columns if name not in labels]
    return features if len(first) == len(features) else schema.columns


def _first_line(file: RawFile, schema: Schema) -> bytes:
    """The header; without one the first line that is not blank. Raises InputError for what is no text, before it is looked at as text."""
    with _open(file) as stream:
        chunks = _chunks(stream, HEAD_BYTES)
        head = next(chunks, b"")
        for magic, kind in MAGIC.items():
            if head.startswith(magic):
                raise InputError(f"the content is {kind}, not text; rename the file, or set the schema's format")
        block = next(line_blocks(chain([head], chunks)), b"")
    block = block.removeprefix(BOM)
    block = block.lstrip(b"\r\n") if schema.columns else block
    return block[: block.find(b"\n") + 1]


def check_head(file: RawFile, schema: Schema, columns: list[str]) -> None:
    _layout(file, schema, columns)
    if schema.columns and _first_line(file, schema).rstrip(b"\r\n") == schema.separator.join(schema.columns).encode():
        raise InputError("the first line is a header with the names of the schema's `columns`; take `columns` out of the schema")
