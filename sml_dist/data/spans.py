"""Raw files on any file system, and the pieces they are read in."""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from difflib import get_close_matches
from pathlib import PurePosixPath
from typing import Any

import fsspec
import numpy as np
import pyarrow as pa

from sml_dist.credentials import refuse
from sml_dist.data.files import file_system, reading
from sml_dist.data.quarantine import Reject
from sml_dist.data.schema import Schema
from sml_dist.spec import InputError

PART_BYTES = 64 << 20
CODECS = {".gz": "gzip", ".zst": "zstd", ".bz2": "bz2", ".lz4": "lz4"}
REFUSED = (".zip", ".xz", ".7z", ".tar", ".tgz", ".rar")


@dataclass(frozen=True)
class RawFile:
    """An input file; `split` where the user says which split it belongs to."""

    path: str
    size: int
    index: int
    split: str | None = None

    @property
    def codec(self) -> str | None:
        return CODECS.get(PurePosixPath(self.path).suffix)


@dataclass(frozen=True)
class Span:
    """Bytes [start, stop) of a text file (`stop` None: all of a compressed one), or row groups [start, stop) of a Parquet file.

    `rows` are known after the survey, and so are `first_row`, 1-based in the file, and `first_index`, 0-based over all files.
    """

    file: RawFile
    start: int
    stop: int | None
    bytes: int
    rows: int = 0
    first_row: int = 1
    first_index: int = 0


@dataclass
class RawBatch:
    """Raw columns as they stand in the file, with row numbers, and the rows that could not be split into columns."""

    table: pa.Table
    rows: np.ndarray
    rejects: list[Reject]

    @property
    def read(self) -> int:
        return len(self.rows) + len(self.rejects)


def list_files(pattern: str, option: str, schema: Schema, split: str | None = None) -> list[RawFile]:
    """The files of a glob, a folder or a path, in the order of their names.

    Raises InputError if there are none, if one is empty, or for a secret in the pattern: rejects, predictions and errors name the files.
    """
    refuse(pattern, option)
    fs, path = file_system(pattern)
    with reading(pattern):
        if fs.isfile(path):
            found = [fs.info(path)]
        else:
            found = _visible(fs, fs.ls(path, detail=True) if fs.isdir(path) else fs.glob(path, detail=True).values())
    local = "file" in (fs.protocol if isinstance(fs.protocol, tuple) else (fs.protocol,))
    infos = sorted(found, key=lambda info: info["name"])
    if not infos:
        raise InputError(f"{option} {pattern} matches no file; check the path (quote globs so that the shell leaves them alone)")
    files = [RawFile(i["name"] if local else fs.unstrip_protocol(i["name"]), i["size"], n, split) for n, i in enumerate(infos)]
    for file in files:
        _check_name(file, schema)
    return files


def _visible(fs: fsspec.AbstractFileSystem, infos: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """The files among these and the links to files, without folders, hidden files and marks such as _SUCCESS.

    An object store's mark of a folder is an empty file whose name ends with a slash.
    """
    named = [i for i in infos if not i["name"].endswith("/") and not PurePosixPath(i["name"]).name.startswith((".", "_"))]
    return [info for info in named if info["type"] == "file" or (info.get("islink") and fs.isfile(info["name"]))]


def _check_name(file: RawFile, schema: Schema) -> None:
    if file.size == 0:
        raise InputError(f"{file.path} is empty (0 bytes); fetch it again or leave it out")
    if schema.format != "parquet" and file.path.endswith(REFUSED):
        raise InputError(f"{file.path}: this kind of archive is not read; unpack it, or compress with gzip or zstd")


def number_rows(spans: list[Span]) -> list[Span]:
    """Spans in order, each with the number of its first row in its file and over all files."""
    numbered, row, index = [], 1, 0
    for i, span in enumerate(spans):
        row = 1 if i and spans[i - 1].file != span.file else row
        numbered.append(replace(span, first_row=row, first_index=index))
        row, index = row + span.rows, index + span.rows
    return numbered


def group_spans(spans: list[Span], part_bytes: int = PART_BYTES) -> list[list[Span]]:
    """Parts of consecutive spans: small files together, up to about `part_bytes`."""
    parts: list[list[Span]] = []
    room = 0
    for span in spans:
        if not parts or span.bytes > room:
            parts.append([])
            room = part_bytes
        parts[-1].append(span)
        room -= span.bytes
    return parts


def check_columns(names: list[str], columns: list[str]) -> None:
    for column in columns:
        if names.count(column) > 1:
            raise InputError(f"column {column!r} stands twice in the header")
        if column not in names:
            near = get_close_matches(column, names, 1)
            shown = ", ".join(names[:20]) + (", ..." if len(names) > 20 else "")
            hint = f"did you mean {near[0]!r}?" if near else f"it has: {shown}"
            raise InputError(f"column {column!r} of the schema is missing in the file; {hint}")
