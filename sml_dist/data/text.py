"""Lines of delimited text to Arrow columns. A record is a line: a stray quote or a broken byte costs its own line alone.

A quoted value may hold delimiters and doubled quotes, but no line break (such data belongs in Parquet). So any file can be cut
at any line, the row number is the line number, and one unclosed quote cannot swallow the rest of a file in silence, as it does
in CSV readers that let values span lines.
"""

import codecs
import re
from collections.abc import Iterable, Iterator
from csv import QUOTE_MINIMAL, QUOTE_NONE, Error, reader
from dataclasses import dataclass, field, replace

import numpy as np
import pyarrow as pa
import pyarrow.csv as csv

from sml_dist.data.quarantine import Reject, quote
from sml_dist.spec import InputError

BLOCK_BYTES = 16 << 20
MAX_LINE_BYTES = 64 << 20
BOM = codecs.BOM_UTF8
BROKEN = "\ufdd0"  # stands for bytes that are not UTF-8: a noncharacter, reserved for use inside a program (Unicode 23.7)

codecs.register_error("mark_broken", lambda error: (BROKEN, error.end))


@dataclass(frozen=True)
class Layout:
    """The columns of a text file in order, those that are read, and how fields are separated."""

    columns: list[str]
    used: list[str]
    delimiter: str
    quoted: bool


@dataclass
class Parsed:
    """The records with the right number of fields as string columns, their row numbers, and all other records as rejects."""

    table: pa.Table
    rows: np.ndarray
    rejects: list[Reject] = field(default_factory=list)


def is_text(kind: pa.DataType) -> bool:
    strings = (pa.types.is_string, pa.types.is_large_string, pa.types.is_string_view)
    binaries = (pa.types.is_binary, pa.types.is_large_binary, pa.types.is_binary_view, pa.types.is_fixed_size_binary)
    return any(test(kind) for test in (*strings, *binaries))


def line_blocks(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Joins chunks to blocks of whole lines, each line with its end."""
    tail = b""
    for chunk in chunks:
        cut = chunk.rfind(b"\n") + 1
        if cut:
            yield tail + chunk[:cut]
            tail = b""
        tail += chunk[cut:]
        if len(tail) > MAX_LINE_BYTES:
            raise InputError(f"no line end within {MAX_LINE_BYTES >> 20} MiB; is this a text file?")
    if tail:
        yield tail + b"\n"


def split_line(line: bytes, delimiter: str, quoted: bool) -> list[str]:
    """The names in a header line."""
    try:
        text = line.decode().rstrip("\r\n")
    except UnicodeDecodeError:
        raise InputError("the header row is not UTF-8") from None
    if not text:
        raise InputError("the first line, which should be the header row, is empty")
    try:
        return next(reader([text], delimiter=delimiter, quoting=QUOTE_MINIMAL if quoted else QUOTE_NONE))
    except Error as error:  # a carriage return inside the line, or a name of more than 128 KiB
        raise InputError(f"the header row is no row of names: {error}") from None


def parse(block: bytes, layout: Layout, first_row: int) -> Parsed:
    """The records of a block of whole lines, the first of which is row `first_row`."""
    if not block.isascii():
        block = _mark_broken(block)
    return _parse_whole(block, layout, first_row) or _parse_rest(_lines(block), layout, first_row)


def _mark_broken(block: bytes) -> bytes:
    try:
        block.decode()
    except UnicodeDecodeError:
        return block.decode(errors="mark_broken").encode()
    return block


def _lines(block: bytes) -> list[bytes]:
    return [line + b"\n" for line in block[:-1].split(b"\n")]


def _parse_rest(lines: list[bytes], layout: Layout, first_row: int) -> Parsed:
    """Sets aside the lines that hold no record, in one pass, and parses the others together."""
    record = _record(layout)
    sound = np.fromiter((record.fullmatch(line) is not None for line in lines), bool, len(lines))
    parsed = _parse_apart([line for line, kept in zip(lines, sound, strict=True) if kept], layout, 0)
    rows = first_row + np.flatnonzero(sound)
    rejects = [replace(reject, row=int(rows[reject.row])) for reject in parsed.rejects]
    rejects += [_torn(lines[index], first_row + int(index)) for index in np.flatnonzero(~sound)]
    return Parsed(parsed.table, rows[parsed.rows], rejects)


def _record(layout: Layout) -> re.Pattern[bytes]:
    """A line that Arrow reads as a record: each quote that a field begins with is closed, and \\r stands before the \\n only.
    Other quotes mean nothing. A line matches in one way at most, so that no time goes into backtracking; possessive quantifiers, which
    would say so, are broken in Python before 3.11.5."""
    delimiter = re.escape(layout.delimiter.encode())
    value = (rb'(?:"[^"\r]*(?:""[^"\r]*)*"(?!")|(?!"))' if layout.quoted else b"") + rb"[^\r\n%b]*" % delimiter
    return re.compile(rb"%b(?:%b%b)*\r?\n" % (value, delimiter, value))


def _parse_apart(lines: list[bytes], layout: Layout, first_row: int) -> Parsed:
    """Halves the lines until each part parses as one record a line, or is one line that does not."""
    if whole := _parse_whole(b"".join(lines), layout, first_row):
        return whole
    if len(lines) == 1:
        return Parsed(_empty(layout), np.zeros(0, np.int64), [_torn(lines[0], first_row)])
    half = len(lines) // 2
    parts = [_parse_apart(lines[:half], layout, first_row), _parse_apart(lines[half:], layout, first_row + half)]
    return Parsed(
        pa.concat_tables([part.table for part in parts]),
        np.concatenate([part.rows for part in parts]),
        [reject for part in parts for reject in part.rejects],
    )


def _torn(line: bytes, row: int) -> Reject:
    text = line.decode().rstrip("\r\n")
    return Reject(row, None, f"a quote is not closed on its line, or a carriage return stands inside it: {quote(text)}")


def _empty(layout: Layout) -> pa.Table:
    return pa.schema([(name, pa.string()) for name in layout.used]).empty_table()


def _parse_whole(block: bytes, layout: Layout, first_row: int) -> Parsed | None:
    """None if the lines are not one record each.

    Arrow does not report a quote that is never closed: only the number of records shows it. A blank line is appended, which Arrow reads
    as one more record, so that the number shows an open quote in the last line too.
    """
    if block.count(b"\r") != block.count(b"\r\n"):
        return None
    wrong: list[tuple[int, int]] = []
    table = csv.read_csv(pa.py_buffer(block + b"\n"), *_options(block, layout, wrong))
    lines = block.count(b"\n")
    if table.num_rows + len(wrong) != lines + 1:
        return None
    table = table.slice(0, table.num_rows - 1)
    expected = len(layout.columns)
    rejects = [Reject(first_row + number - 1, None, f"{fields} fields, {expected} expected") for number, fields in wrong]
    rows = np.delete(np.arange(first_row, first_row + lines), np.array([number - 1 for number, _ in wrong], np.int64))
    blank = first_row + _blank_lines(block)
    if len(blank):  # Arrow reads a blank line as a row of empty values
        full = ~np.isin(rows, blank)
        table, rows = table.filter(pa.array(full)), rows[full]
        rejects += [Reject(int(row), None, "blank line") for row in blank]
    return Parsed(table, rows, rejects)


def _blank_lines(block: bytes) -> np.ndarray:
    """Indices of the lines that hold nothing."""
    if not (block.startswith((b"\n", b"\r\n")) or b"\n\n" in block or b"\n\r\n" in block):
        return np.zeros(0, np.int64)
    ends = np.flatnonzero(np.frombuffer(block, np.uint8) == ord("\n"))
    starts = np.concatenate([[0], ends[:-1] + 1])
    lengths = ends - starts
    return_ends = np.frombuffer(block, np.uint8)[starts] == ord("\r")
    return np.flatnonzero((lengths == 0) | ((lengths == 1) & return_ends))


def _options(block: bytes, layout: Layout, wrong: list[tuple[int, int]]) -> tuple[csv.ReadOptions, csv.ParseOptions, csv.ConvertOptions]:
    def note(row: csv.InvalidRow) -> str:
        wrong.append((row.number, row.actual_columns))
        return "skip"

    names = [name if name in layout.used else f"\0{index}" for index, name in enumerate(layout.columns)]
    return (
        csv.ReadOptions(use_threads=False, block_size=len(block) + 2, column_names=names),
        csv.ParseOptions(
            delimiter=layout.delimiter, quote_char='"' if layout.quoted else False, ignore_empty_lines=False, invalid_row_handler=note
        ),
        csv.ConvertOptions(
            include_columns=layout.used,
            column_types={name: pa.string() for name in layout.used},
            strings_can_be_null=False,
            check_utf8=False,
        ),
    )
