"""The body of a request to raw rows; whatever is wrong with it is a Refusal, which has a status, a code and one line.

JSON is {"rows": [{column: value, ...}, ...], "contributions": false}: a value is a string as it stands in a log, a number (or, in a column
of numbers alone, true, which is 1, or false), null where it is missing, or for a list column a list of strings or whole numbers, whose
values may hold the log's separator. Arrow is an IPC stream with one column for each input. Every input must be there; columns that the
log has beside them are ignored, any other is refused.
"""

import json
import struct
from collections.abc import Callable, Collection, Iterator
from dataclasses import dataclass, replace
from difflib import get_close_matches
from typing import Any

import pyarrow as pa
import pyarrow.compute as pc

from sml_dist.data.quarantine import SHOWN, quote
from sml_dist.data.schema import Schema
from sml_dist.spec import one_line

JSON, ARROW = "application/json", "application/vnd.apache.arrow.stream"
ROWS, EXPLAIN = "rows", "contributions"
MAX_LIST_VALUES = 1 << 18  # at dim 64 a value takes 300 bytes while it is pooled: 80 MB


class Refusal(Exception):
    """Why a request is not answered: HTTP status, a code for programs, a line for people."""

    def __init__(self, status: int, code: str, message: str):
        super().__init__(message)
        self.status, self.code, self.message = status, code, message


def failure() -> Refusal:
    """What a request is told when the fault is not its own."""
    return Refusal(500, "internal", "the service failed at this request; its log says how")


@dataclass(frozen=True)
class Ask:
    """Raw rows to be scored, and whether their layers' contributions are wanted. `size` is theirs in a batch, which takes `max_rows`:
    the rows, or, where that is more, the share of `max_values` that their lists have."""

    rows: pa.Table
    contributions: bool
    size: int


def parse(kind: str, body: bytes, schema: Schema, max_rows: int, *, contributions: bool = False, max_values: int = MAX_LIST_VALUES) -> Ask:
    """The rows of a body of this content type. Raises Refusal."""
    media = kind.partition(";")[0].strip().lower()
    if media == JSON:
        rows, contributions = parse_json(body, schema, max_rows, contributions)
    elif media == ARROW:
        rows = parse_arrow(body, schema, max_rows)
    else:
        raise Refusal(415, "content_type", f"content type {quote(media)} is not supported; send {JSON} or {ARROW}")
    values = list_values(rows, schema)
    if values > max_values:
        raise Refusal(413, "too_many_values", f"{values} values in lists, at most {max_values} a request; send fewer rows or shorter lists")
    return Ask(rows, contributions, max(len(rows), values * max_rows // max_values))


def list_values(rows: pa.Table, schema: Schema) -> int:
    """Of lists that no `max_length` cuts: each value is looked up, and one row may hold a body full of them."""
    columns = [feature.column for feature in schema.features if feature.origin == "list" and not feature.max_length]
    return sum(values_in(rows[name], schema.list_separators[name]) for name in columns)


def values_in(column: pa.ChunkedArray, separator: str | None) -> int:
    if is_list(column.type):
        return pc.sum(pc.list_value_length(column), min_count=0).as_py()
    if separator is None:
        return 0
    return len(column) + pc.sum(pc.count_substring(column.cast(pa.string()), separator), min_count=0).as_py()


def parse_json(body: bytes, schema: Schema, max_rows: int, contributions: bool) -> tuple[pa.Table, bool]:
    """(rows, whether contributions are wanted), which the body may say too."""
    found = load_json(body)
    if not isinstance(found, dict) or not isinstance(found.get(ROWS), list):
        raise Refusal(400, "no_rows", f'the body must be an object with a list "{ROWS}": {{"{ROWS}": [{{column: value}}]}}')
    if unknown := found.keys() - {ROWS, EXPLAIN}:
        raise Refusal(422, "unknown_key", f'key {quote(min(unknown))} is unknown; the body has "{ROWS}" and "{EXPLAIN}"')
    if not isinstance(found.get(EXPLAIN, False), bool):
        raise Refusal(422, "wrong_type", f'"{EXPLAIN}" must be true or false')
    rows = found[ROWS]
    check_count(len(rows), max_rows)
    inputs, known = cells(schema), known_names(schema)  # once, for a schema lists its columns anew whenever it is asked
    for number, row in enumerate(rows, 1):
        if not isinstance(row, dict):
            raise Refusal(422, "wrong_type", f"row {number}: {quote(row)} is no object of columns")
        check_names(row.keys(), inputs, known, f"row {number}: ")
    how = {name: (cell, schema.list_separators.get(name), schema.missing) for name, cell in inputs.items()}
    columns = {name: json_column([row[name] for row in rows], name, *each) for name, each in how.items()}
    return pa.table(columns), found.get(EXPLAIN, contributions)


def cells(schema: Schema) -> dict[str, Callable[[Any], Any]]:
    """What reads a value of each input. True is 1, unless it is a value of a categorical field, too: a log may then have 1 or true."""
    tokens = {feature.column for feature in schema.features if feature.origin == "column"}
    found: dict[str, Callable[[Any], Any]] = dict.fromkeys(schema.inputs, text_cell)
    if schema.timestamp and schema.timestamp.column in found:
        found[schema.timestamp.column] = number_cell
    found |= {name: number_cell if name in tokens else flag_cell for name in schema.numbers}
    return found | {name: list_cell if separator is None else joined_cell for name, separator in schema.list_separators.items()}


def load_json(body: bytes) -> Any:
    def refuse(word: str) -> None:
        raise ValueError(f"{word} is not a JSON number; write null where a value is missing")

    try:
        return json.loads(body, parse_constant=refuse)
    except (ValueError, RecursionError) as error:  # no UTF-8, no JSON, a number too long, a nesting too deep
        raise Refusal(400, "malformed", f"the body is not JSON: {one_line(error)[:200]}") from None


def check_count(rows: int, max_rows: int) -> None:
    if not rows:
        raise Refusal(400, "no_rows", "there is no row to score")
    if rows > max_rows:
        raise Refusal(413, "too_many_rows", f"{rows} rows, at most {max_rows} a request; send them in parts")


def known_names(schema: Schema) -> set[str]:
    return {*schema.used, *(schema.columns or ())}


def check_names(names: Collection[str], inputs: Collection[str], known: set[str], where: str = "") -> None:
    """Every input is there, and nothing that the schema does not know."""
    if missing := [name for name in inputs if name not in names]:
        raise Refusal(422, "missing_field", f"{where}field {missing[0]!r} is not there; give null where its value is missing")
    if len(names) == len(inputs):
        return
    for name in names:
        if name not in known:
            near = get_close_matches(name[:SHOWN], known, 1)  # in a name of megabytes it would look for seconds
            hint = f"did you mean {near[0]!r}?" if near else f"the model takes {', '.join(inputs)}"
            raise Refusal(422, "unknown_field", f"{where}field {quote(name)} is unknown; {hint}")


def json_column(
    values: list[Any], name: str, cell: Callable[[Any], Any], separator: str | None = None, missing: Collection[str] = ()
) -> pa.Array:
    """The values as a log has them: text, or lists where one is a list. A number in a column of values is its digits, which a fraction
    has not."""
    found = []
    for number, value in enumerate(values, 1):
        try:
            found.append(cell(value))
        except TypeError:
            raise Refusal(422, "wrong_type", f"row {number}: field {name!r}: {quote(value)} is not {wanted(cell, separator)}") from None
    lists = cell is list_cell or any(isinstance(value, list) for value in found)
    if lists and separator is not None:  # of a text the list that `clean` makes of it
        found = [(None if value in missing else value.split(separator)) if isinstance(value, str) else value for value in found]
    try:
        return pa.array(found, pa.list_(pa.string()) if lists else pa.string())
    except (UnicodeEncodeError, pa.ArrowException):  # half a surrogate pair, which JSON can write
        raise Refusal(422, "bad_value", f"field {name!r} holds text that is not Unicode") from None


def wanted(cell: Callable[[Any], Any], separator: str | None) -> str:
    """What a value of an input may be, beside null."""
    if cell is joined_cell:
        return f"a list of strings or whole numbers, or one string with {separator!r} between them"
    return {list_cell: "a list of strings or whole numbers", text_cell: "a string or a whole number"}.get(cell, "a number or its text")


def text_cell(value: Any) -> str | None:
    return refuse_type() if isinstance(value, float) and not value.is_integer() else number_cell(value)


def number_cell(value: Any) -> str | None:
    """A whole number is its digits, 3.0 too: its column may be one of values as well."""
    if value is None or isinstance(value, str):
        return value
    if isinstance(value, bool) or not isinstance(value, int | float):
        refuse_type()
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    try:
        return repr(value)
    except ValueError:  # an integer of thousands of digits
        return refuse_type()


def flag_cell(value: Any) -> str | None:
    return number_cell(int(value) if isinstance(value, bool) else value)


def list_cell(value: Any) -> list[str | None] | None:
    if value is None:
        return None
    return [text_cell(part) for part in value] if isinstance(value, list) else refuse_type()


def joined_cell(value: Any) -> str | list[str | None] | None:
    return list_cell(value) if isinstance(value, list) else text_cell(value)


def refuse_type() -> Any:
    raise TypeError


def parse_arrow(body: bytes, schema: Schema, max_rows: int) -> pa.Table:
    """The input columns of an IPC stream. It comes from outside: nothing is read before its types and sizes are known to be fit."""
    try:
        if any(compressed(message) for message in messages(body)):
            raise Refusal(422, "compressed", "compressed Arrow buffers are not supported; write the stream without compression")
        with pa.ipc.open_stream(body) as stream:
            check_columns(stream.schema, schema)
            inputs, batches, count = schema.inputs, [], 0
            for batch in stream:
                count += len(batch)
                check_count(max(count, 1), max_rows)
                batch.validate(full=True)
                batches.append(batch.select(inputs))
            check_count(count, max_rows)
            return without_null_lists(pa.Table.from_batches(batches))
    except (pa.ArrowException, OSError, ValueError, TypeError, KeyError, EOFError, struct.error, MemoryError) as error:
        raise Refusal(400, "malformed", f"the body is no Arrow IPC stream: {one_line(error)[:200]}") from None


def without_null_lists(rows: pa.Table) -> pa.Table:
    """Lists of nulls alone are missing lists: such values take no bytes in the body, which may therefore claim any number of them."""
    for place, column in enumerate(rows.columns):
        if getattr(column.type, "value_type", None) == pa.null():
            rows = rows.set_column(place, rows.column_names[place], pa.nulls(len(rows)))
    return rows


def check_columns(found: pa.Schema, schema: Schema) -> None:
    inputs, numbers = cells(schema), {*schema.numbers}
    if twice := [name for name in inputs if found.names.count(name) > 1]:
        raise Refusal(422, "unknown_field", f"field {twice[0]!r} is there twice")
    check_names(found.names, inputs, known_names(schema))
    for name, cell in inputs.items():
        kind, time = found.field(name).type, schema.timestamp is not None and name == schema.timestamp.column
        plain, lists = cell is not list_cell, cell in (list_cell, joined_cell)
        if not (plain and is_plain(kind, time, truth=name in numbers)) and not (lists and is_list_of_text(kind)):
            what = wanted(cell, schema.list_separators[name]) if lists else "strings or numbers"
            raise Refusal(422, "wrong_type", f"field {name!r} is {kind}, not {what}")


def is_plain(kind: pa.DataType, time: bool, truth: bool) -> bool:
    """Types whose size in memory is their size in the body: no dictionaries, views or runs."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_float32, pa.types.is_float64, pa.types.is_null)
    return any(test(kind) for test in tests) or (time and pa.types.is_timestamp(kind)) or (truth and pa.types.is_boolean(kind))


def is_list_of_text(kind: pa.DataType) -> bool:
    """Or a type that Arrow finds where there is no text: null, or a list of nulls."""
    tests = (pa.types.is_string, pa.types.is_large_string, pa.types.is_integer, pa.types.is_null)
    return pa.types.is_null(kind) or (is_list(kind) and any(test(kind.value_type) for test in tests))


def is_list(kind: pa.DataType) -> bool:
    return pa.types.is_list(kind) or pa.types.is_large_list(kind)


def as_they_came(schema: Schema, found: pa.Schema) -> Schema:
    """The schema for `clean`, of which columns that came as lists have no separator, so that their values may hold it."""
    lists = {name for name, separator in schema.list_separators.items() if separator is not None and is_list(found.field(name).type)}
    if not lists:
        return schema

    def apart(groups: list[Any]) -> list[Any]:
        single = [replace(group, columns=[name]) for group in groups for name in group.columns]
        return [replace(group, separator=None) if lists & {*group.columns} else group for group in single]

    multivalued, sequences = apart(schema.multivalued), apart(schema.sequences)
    return replace(schema, format="parquet", columns=None, delimiter=None, multivalued=multivalued, sequences=sequences)


def messages(body: bytes) -> Iterator[bytes]:
    """The metadata (flatbuffers) of the messages of an IPC stream."""
    for message in pa.ipc.MessageReader.open_stream(body):
        yield message.metadata.to_pybytes()


def compressed(metadata: bytes) -> bool:
    """Whether a message's buffers are compressed: eight bytes could then claim any size. Walks Message.header -> [data] -> compression
    (Arrow's format/Message.fbs), for pyarrow tells it of no message."""

    def read(form: str, place: int) -> int:
        return struct.unpack_from(form, metadata, place)[0]

    def field(table: int, index: int) -> int | None:
        vtable = table - read("<i", table)
        offset = read("<H", vtable + 4 + 2 * index) if 4 + 2 * index < read("<H", vtable) else 0
        return table + offset if offset else None

    def follow(place: int) -> int:
        return place + read("<I", place)

    message = follow(0)
    kind, header = field(message, 1), field(message, 2)
    if kind is None or header is None:
        return False
    batch: int | None = follow(header)
    if metadata[kind] == 2:  # DictionaryBatch
        data = field(batch, 1)
        batch = None if data is None else follow(data)
    elif metadata[kind] != 3:  # RecordBatch
        return False
    return batch is not None and field(batch, 3) is not None
