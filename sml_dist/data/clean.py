"""Raw columns to typed ones; a row with a value that cannot be used is rejected with column and reason.

A clean table has, by role and not by name, since one column may play several parts:

    label      float32, 0 or 1 (*)          number:<column>  float64, null = missing
    weight     float32, finite, >= 0        token:<column>   string, "" = missing
    group      int64                        list:<column>    list<string>
    timestamp  int64, seconds since 1970 (UTC)

(*) of several labels fixed_size_list<float32>, one number each in the schema's order
"""

from collections.abc import Callable

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sml_dist.data.hashing import hash64
from sml_dist.data.quarantine import Faults, Reject, Unexplained, quote
from sml_dist.data.schema import Label, Schema, Timestamp
from sml_dist.data.text import BROKEN, is_text

NUMBER = r"^[+-]?([0-9]+\.?[0-9]*|\.[0-9]+)([eE][+-]?[0-9]+)?$"
DIGITS = r"^-?[0-9]+$"
INTEGER = r"^(0|-?[1-9][0-9]{0,17})$"
PER_SECOND = {"s": 1, "ms": 1_000, "us": 1_000_000, "ns": 1_000_000_000}
MAX_SECONDS = 1 << 38  # the year 10,680: a time since 1979 in ms, us or ns, read as seconds, lies beyond
DAY = pa.scalar(86_400, pa.duration("s"))


def clean(raw: pa.Table, rows: np.ndarray, schema: Schema, *, labelled: bool = True) -> tuple[pa.Table, np.ndarray, list[Reject]]:
    """(clean table, the row numbers it kept, rejects). `labelled=False` leaves out label and weight: rows to be scored.

    All text must be UTF-8, also that of columns without a role, which predict passes on as keys.
    """
    faults = Faults(rows)
    column = _Columns(raw, schema, faults)
    roles: dict[str, pa.Array] = {}
    if labelled:
        roles["label"] = _labels([_label(column, label) for label in schema.targets.values()])
        if schema.weight:
            roles["weight"] = _weight(column, schema.weight)
    if schema.timestamp and schema.timestamp.column in raw.column_names:
        roles["timestamp"] = _timestamp(column, schema.timestamp)
    if schema.group and schema.group in raw.column_names:
        roles["group"] = group_ids(column.text(schema.group))
    roles |= {f"number:{name}": column.number(name) for name in schema.numbers}
    roles |= {f"token:{f.column}": column.text(f.column) for f in schema.features if f.origin == "column"}
    roles |= {f"list:{name}": column.list(name, separator) for name, separator in schema.list_separators.items()}
    for name in raw.column_names:
        if pa.types.is_string(raw.schema.field(name).type):
            column.text(name)
    table = pa.table(roles)
    if faults.bad.any():
        good = ~faults.bad
        return table.filter(pa.array(good)), rows[good], faults.rejects
    return table, rows, []


def timestamps(raw: pa.Table, schema: Schema) -> np.ndarray:
    """int64 seconds of the rows whose timestamp can be read."""
    faults = Faults(np.arange(len(raw)))
    seconds = _timestamp(_Columns(raw, schema, faults), schema.timestamp)
    return seconds.to_numpy(zero_copy_only=False)[~faults.bad]


def label_or_null(raw: pa.Table, schema: Schema, label: Label) -> pa.Array:
    """The label of rows that need none: null where it is missing or cannot be used."""
    return _or_null(raw, schema, lambda column: _label(column, label))


def weight_or_null(raw: pa.Table, schema: Schema) -> pa.Array:
    return _or_null(raw, schema, lambda column: _weight(column, schema.weight))


def _or_null(raw: pa.Table, schema: Schema, role: Callable[["_Columns"], pa.Array]) -> pa.Array:
    faults = Unexplained(np.arange(len(raw)))
    values = role(_Columns(raw, schema, faults))
    return pc.if_else(pa.array(faults.bad), None, values)


class _Columns:
    """The raw columns as text, numbers or lists; what cannot be read as such is noted in `faults` and null in the result."""

    def __init__(self, raw: pa.Table, schema: Schema, faults: Faults):
        self.raw, self.faults, self.compared = raw, faults, schema.compared
        self.missing = pa.array(schema.missing, pa.string()) if schema.missing else None
        self.texts: dict[str, pa.Array] = {}
        self.numbers: dict[str, pa.Array] = {}

    def __getitem__(self, name: str) -> pa.Array:
        return plain(self.raw.column(name).combine_chunks())

    def value(self, name: str) -> pa.Array:
        """The column in its own type, null where its text spells a missing value: a -1 of Parquet counts as one of CSV."""
        array = self[name]
        if self.missing is None or is_text(array.type):
            return array
        return pc.if_else(pc.equal(self.text(name), ""), None, array)

    def text(self, name: str) -> pa.Array:
        """string without nulls: "" is missing. Integers become their decimal digits, so that CSV and Parquet agree."""
        if name not in self.texts:
            self.texts[name] = self._text(name)
        return self.texts[name]

    def _text(self, name: str) -> pa.Array:
        array = self._valid(as_text(self[name]), name)
        return self._empty_if_missing(pc.fill_null(array, "") if array.null_count else array)

    def _empty_if_missing(self, text: pa.Array) -> pa.Array:
        return pc.if_else(pc.is_in(text, self.missing), "", text) if self.missing is not None else text

    def _valid(self, array: pa.Array, name: str) -> pa.Array:
        """Rejects rows that hold bytes which are not UTF-8 (marked so by as_text and by text.parse)."""
        broken = pc.match_substring(array, BROKEN)
        if pc.any(broken).as_py():
            self.faults.add(_mask(broken), name, lambda i: f"not UTF-8: {quote(array[i].as_py().replace(BROKEN, '?'))}")
        return array

    def number(self, name: str, wanted: str = "a finite number") -> pa.Array:
        """float64 that rounds to a finite float32; null is missing. What is no number is told what was `wanted`.

        A float32 0.7 is 0.699999988: where a threshold or an edge is compared, it is the 0.7 that CSV and JSON write for it.
        """
        if name not in self.numbers:
            self.numbers[name] = self._number(name, wanted)
        return self.numbers[name]

    def _number(self, name: str, wanted: str) -> pa.Array:
        array = self.value(name)
        short = pa.types.is_float32(array.type) and name in self.compared
        if is_text(array.type) or short or pa.types.is_decimal(array.type):  # Arrow casts decimal 0.35 to 0.35000000000000003
            text = self.text(name)
            values, bad = parse_numbers(text)
        else:
            values, bad = array.cast(pa.float64(), safe=False), None  # safe refuses integers past 2**53; text rounds them
            if pa.types.is_floating(array.type):  # NaN is how pandas writes a missing number
                values = pc.if_else(pc.is_nan(values), None, values)
            text = array
        numbers = pc.fill_null(values, 0.0).to_numpy()
        with np.errstate(over="ignore"):
            outside = ~np.isfinite(numbers.astype(np.float32))
        if bad is not None or outside.any():
            bad = outside if bad is None else bad | outside
            self.faults.add(bad, name, lambda i: f"{quote(text[i].as_py())} is not {wanted}")
            values = pc.if_else(pa.array(bad), None, values)
        return values

    def present(self, name: str, wanted: str = "a finite number") -> pa.Array:
        """A number that must not be missing; 0 where the row is rejected."""
        values = self.number(name, wanted)
        if values.null_count:
            self.faults.add(_mask(values.is_null()), name, lambda i: "is missing")
            values = pc.fill_null(values, 0.0)
        return values

    def list(self, name: str, separator: str | None) -> pa.Array:
        """list<string> without missing tokens; a missing list is empty."""
        if separator is not None:
            values, offsets = flat(pc.split_pattern(self.text(name), separator))
            return self._present_values(values, offsets)
        array = self[name]
        array = array.cast(pa.list_(array.type.value_type)) if not pa.types.is_null(array.type) else array.cast(pa.list_(pa.string()))
        lengths = pc.fill_null(pc.list_value_length(array), 0).to_numpy()
        values = pc.fill_null(as_text(array.flatten()), "")
        offsets = np.concatenate([[0], np.cumsum(lengths)]).astype(np.int32)
        broken = pc.match_substring(values, BROKEN)
        if pc.any(broken).as_py():
            counts = np.concatenate([[0], np.cumsum(_mask(broken))])
            self.faults.add(counts[offsets[1:]] > counts[offsets[:-1]], name, lambda i: "not UTF-8")
        return self._present_values(values, offsets)

    def _present_values(self, values: pa.Array, offsets: np.ndarray) -> pa.ListArray:
        return kept_values(values, offsets, _mask(pc.not_equal(self._empty_if_missing(values), "")))


def plain(array: pa.Array) -> pa.Array:
    """The values without dictionary, extension type, view, fixed size or half precision, which few functions of Arrow take."""
    if pa.types.is_dictionary(array.type):
        return plain(array.dictionary_decode())
    if isinstance(array.type, pa.UuidType):
        return pa.array([cell and str(cell) for cell in array.to_pylist()], pa.string())
    if isinstance(array.type, pa.BaseExtensionType):
        return plain(array.storage)
    if pa.types.is_string_view(array.type):
        return array.cast(pa.string())
    if pa.types.is_binary_view(array.type) or pa.types.is_fixed_size_binary(array.type):
        return array.cast(pa.binary())
    return array.cast(pa.float32()) if pa.types.is_float16(array.type) else array


def as_text(array: pa.Array) -> pa.Array:
    """Any scalar column as strings; bytes that are not UTF-8 become BROKEN, whole floats become integers first."""
    array = plain(array)
    if pa.types.is_binary(array.type) or pa.types.is_large_binary(array.type):
        try:
            return array.cast(pa.string())
        except pa.ArrowInvalid:
            cells = array.to_pylist()
            return pa.array([cell if cell is None else cell.decode(errors="mark_broken") for cell in cells], pa.string())
    if pa.types.is_floating(array.type):
        array = pc.if_else(pc.is_nan(array), None, array)
        # value by value: 1e17 must not be another token beside 1.5 than alone
        whole = pc.and_(pc.equal(pc.floor(array), array), pc.less(pc.abs(array), 2.0**63))
        return pc.coalesce(pc.if_else(whole, array, None).cast(pa.int64()).cast(pa.string()), array.cast(pa.string()))
    return array if pa.types.is_string(array.type) else array.cast(pa.string())


def parse_numbers(text: pa.Array) -> tuple[pa.Array, np.ndarray | None]:
    """(float64 with null for "", mask of what is no number or None if there is none). Spaces around a number are no fault."""
    values = pc.if_else(pc.equal(text, ""), None, text)
    try:
        return values.cast(pa.float64()), None
    except pa.ArrowInvalid:
        trimmed = pc.utf8_trim_whitespace(values)
        trimmed = pc.if_else(pc.equal(trimmed, ""), None, trimmed)
        good = pc.match_substring_regex(trimmed, NUMBER)
        return pc.if_else(good, trimmed, None).cast(pa.float64()), _mask(pc.invert(good))


def newest(lists: pa.ListArray, count: int) -> pa.ListArray:
    """The last `count` values of each list."""
    values, offsets = flat(lists)
    to_the_end = np.repeat(offsets[1:], np.diff(offsets)) - np.arange(len(values))
    return kept_values(values, offsets, to_the_end <= count)


def flat(lists: pa.ListArray) -> tuple[pa.Array, np.ndarray]:
    """All values, and where each list begins among them, the end included; also of a slice."""
    return lists.flatten(), lists.offsets.to_numpy() - lists.offsets[0].as_py()


def kept_values(values: pa.Array, offsets: np.ndarray, kept: np.ndarray) -> pa.ListArray:
    if kept.all():
        return pa.ListArray.from_arrays(pa.array(offsets), values)
    counts = np.concatenate([[0], np.cumsum(kept)]).astype(np.int32)
    return pa.ListArray.from_arrays(pa.array(counts[offsets]), values.filter(pa.array(kept)))


def _mask(booleans: pa.Array) -> np.ndarray:
    return pc.fill_null(booleans, False).to_numpy(zero_copy_only=False)


def _label(column: _Columns, label: Label) -> pa.Array:
    if label.positive is not None:
        text = pc.utf8_trim_whitespace(column.text(label.column))  # as spaces around a number are no fault
        column.faults.add(_mask(pc.equal(text, "")), label.column, lambda i: "is missing")
        return pc.is_in(text, pa.array(label.positive)).cast(pa.float32())
    if label.at_least is not None:
        return pa.array(column.present(label.column).to_numpy() >= label.at_least).cast(pa.float32())
    spelled = f"{{column: {label.column}, "
    others = f'0 or 1; for other values give the label as {spelled}positive: ["yes"]}} or {spelled}at_least: N}}'
    values = column.present(label.column, others).to_numpy()
    column.faults.add((values != 0) & (values != 1), label.column, lambda i: f"label {values[i]:g} is not {others}")
    return pa.array(values.astype(np.float32))


def _labels(columns: list[pa.Array]) -> pa.Array:
    if len(columns) == 1:
        return columns[0]
    return pa.FixedSizeListArray.from_arrays(pa.array(np.stack(columns, axis=1).ravel()), len(columns))


def _weight(column: _Columns, name: str) -> pa.Array:
    values = column.present(name).to_numpy()
    column.faults.add(values < 0, name, lambda i: f"weight {values[i]:g} is negative")
    return pa.array(values.astype(np.float32))


def _timestamp(column: _Columns, timestamp: Timestamp) -> pa.Array:
    """int64 seconds; 0 where the row is rejected."""
    name = timestamp.column
    array = column.value(name)
    if pa.types.is_date(array.type):
        array = array.cast(pa.timestamp("s"))
    if timestamp.format and not pa.types.is_timestamp(array.type):
        seconds = read_times(column.text(name), timestamp.format).cast(pa.int64())
        good = seconds.is_valid()
    else:
        seconds, good = _seconds(column, name, array, timestamp.unit)
    wanted = f"a time of the form {timestamp.format}" if timestamp.format else f"a time in {timestamp.unit} since 1970"

    def reason(i: int) -> str:
        value = column.text(name)[i].as_py() if array[i].is_valid else ""
        return f"{quote(value)} is not {wanted}{hint(seconds[i].as_py() or 0)}" if value else "is missing"

    def hint(second: int) -> str:
        """Which unit a number too large for its own looks like; a column of times has its own."""
        if abs(second) < MAX_SECONDS or pa.types.is_timestamp(array.type):
            return ""
        number = abs(second) * PER_SECOND[timestamp.unit]
        return f"; it looks like `unit: {next(unit for unit, per in PER_SECOND.items() if number < MAX_SECONDS * per)}`"

    column.faults.add(~_mask(good), name, reason)
    return pc.fill_null(pc.if_else(good, seconds, 0), 0)


def read_times(text: pa.Array, form: str) -> pa.Array:
    """timestamp[s], null where the text is not of the form or names a day that does not exist in its month.

    strptime reads 31 April as 1 May. Of a field that is given twice it keeps the last, so the text is read twice more with a 1 appended:
    as the month, which puts any day into January, which has all 31; and as the second, which leaves the day alone. Where the two days
    differ, the month has no such day. Hour and offset are appended as 0, for they move days, too. Only days near a month's first are
    read again.
    """
    times = pc.strptime(text, format=form, unit="s", error_is_null=True)
    near = np.flatnonzero(_mask(pc.less(pc.day(pc.add(times, DAY)), 6)))
    again = pc.binary_join_element_wise(text.take(pa.array(near)), "1 0 +0000", " |")
    day, in_january = (pc.day(pc.strptime(again, format=f"{form} |%{one} %H %z", unit="s", error_is_null=True)) for one in "Sm")
    moved = np.zeros(len(text), bool)
    moved[near] = _mask(pc.not_equal(day, in_january))
    return pc.if_else(pa.array(moved), None, times) if moved.any() else times


def _seconds(column: _Columns, name: str, array: pa.Array, unit: str) -> tuple[pa.Array, pa.Array]:
    """(seconds, which are good). Integers are read as such: nanoseconds do not fit a float64."""
    unit = array.type.unit if pa.types.is_timestamp(array.type) else unit
    try:
        whole = _whole(column.text(name)) if is_text(array.type) else array.cast(pa.int64())
    except pa.ArrowInvalid:  # value by value: what one row holds must not make floats of the others
        text = pc.utf8_trim_whitespace(column.text(name))
        numbers = parse_numbers(text)[0]
        near = pc.less(pc.abs(numbers), 2.0**63)
        digits = pc.and_(near, pc.match_substring_regex(text, DIGITS))
        rest = pc.floor(pc.if_else(near, numbers, None)).cast(pa.int64())
        whole = pc.coalesce(pc.if_else(digits, text, None).cast(pa.int64()), rest)
    seconds = np.floor_divide(pc.fill_null(whole, 0).to_numpy(), PER_SECOND[unit])
    good = pc.and_(whole.is_valid(), pa.array((seconds > -MAX_SECONDS) & (seconds < MAX_SECONDS)))  # abs(-2**63) is -2**63
    return pa.array(seconds), good


def _whole(text: pa.Array) -> pa.Array:
    """int64; raises ArrowInvalid unless all are digits: Arrow's cast takes hexadecimal, too."""
    if not pc.all(pc.ascii_is_decimal(text)).as_py():
        raise pa.ArrowInvalid("not digits alone")
    return text.cast(pa.int64())


def group_ids(text: pa.Array) -> pa.Array:
    """int64: an integer in canonical digits is itself, every other value (also a missing one) its hash64 >> 1, so non-negative."""
    try:
        numbers = text.cast(pa.int64())
        if pc.all(pc.match_substring_regex(text, INTEGER)).as_py():
            return numbers
    except pa.ArrowInvalid:
        pass
    integer = pc.match_substring_regex(text, INTEGER)
    numbers = pc.fill_null(pc.if_else(integer, text, None).cast(pa.int64()), 0).to_numpy()
    hashes = (hash64(text) >> np.uint64(1)).astype(np.int64)
    return pa.array(np.where(_mask(integer), numbers, hashes))
