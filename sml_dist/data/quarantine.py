"""Rejected rows: which row, which column, why; and the limit past which prepare stops."""

from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import numpy as np
import pyarrow as pa

from sml_dist.spec import InputError

REJECTS_SCHEMA = pa.schema([("file", pa.string()), ("row", pa.int64()), ("column", pa.string()), ("reason", pa.string())])
SHOWN = 60  # characters of a bad value that a reason quotes
WHOLE_ROW = "whole row"  # in place of a column, where rejects are counted by it


@dataclass(frozen=True)
class Reject:
    """A row (1-based, the header not counted) that cannot be used; `column` is None where the whole row is at fault."""

    row: int
    column: str | None
    reason: str

    def __str__(self) -> str:
        return f"row {self.row}: " + (f"column {self.column}: {self.reason}" if self.column else self.reason)


@dataclass
class Faults:
    """The bad rows of one table: each is rejected once, for its first fault."""

    rows: np.ndarray
    bad: np.ndarray = field(init=False)
    rejects: list[Reject] = field(default_factory=list)

    def __post_init__(self) -> None:
        self.bad = np.zeros(len(self.rows), bool)

    def add(self, mask: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        """Rejects the rows of a mask; `reason` tells why for a position in the table."""
        new = np.flatnonzero(mask & ~self.bad)
        self.bad[new] = True
        self.rejects += [Reject(int(self.rows[i]), column, reason(int(i))) for i in new]


class Unexplained(Faults):
    """Bad rows without rejects, where a bad value becomes null and its row is kept."""

    def add(self, mask: np.ndarray, column: str, reason: Callable[[int], str]) -> None:
        self.bad |= mask


def quote(value: object) -> str:
    text = repr(value)
    return text if len(text) <= SHOWN else text[:SHOWN] + "..."


def rejects_table(file: str, rejects: list[Reject]) -> pa.Table:
    rows = [{"file": file, "row": reject.row, "column": reject.column, "reason": reject.reason} for reject in rejects]
    return pa.Table.from_pylist(rows, schema=REJECTS_SCHEMA)


def by_column(rejects: list[Reject]) -> Counter[str]:
    return Counter(reject.column or WHOLE_ROW for reject in rejects)


def largest_first(counts: Mapping[str, int]) -> dict[str, int]:
    return dict(sorted(counts.items(), key=lambda item: (-item[1], item[0])))


def in_words(counts: Mapping[str, int]) -> str:
    """price 52, click 39, whole row 31."""
    return ", ".join(f"{column} {count:,}" for column, count in largest_first(counts).items())


@dataclass
class Tally:
    """Rows read so far and those rejected, by column, held against the share of all rows that may be rejected."""

    total: int
    max_rate: float
    read: int = 0
    by_column: Counter[str] = field(default_factory=Counter)
    first: str = ""

    @property
    def rejected(self) -> int:
        return self.by_column.total()

    def add(self, read: int, by_column: Mapping[str, int], first: str = "") -> None:
        self.read, self.first = self.read + read, self.first or first
        self.by_column.update(by_column)
        if self.rejected > self.max_rate * self.total:
            raise InputError(
                f"{self.rejected} of {self.read} rows read so far ({self.total} in all) cannot be used ({in_words(self.by_column)}), "
                f"more than --max-reject-rate {self.max_rate:g} allows; the first: {self.first}. Mend the input or the schema, or raise "
                "--max-reject-rate"
            )

    def merge(self, other: "Tally") -> None:
        self.add(other.read, other.by_column, other.first)
