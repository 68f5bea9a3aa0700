"""Which row belongs to which split.

    order:0.8,0.1,0.1     by place: the first 80 % of the rows read, files in the order of their names; also order:64000,8000
    random:0.8,0.1,0.1    by a hash of (seed, number of the file, row): the same on every run, at any number of parts
    time:0.8,0.1,0.1      by time: thresholds in the timestamp column, so rows of one second never straddle two splits

Two numbers make train and valid, three also test. Files named by --train, --valid and --test belong where they are named.
"""

from collections.abc import Iterable
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

from sml_dist.data.dataset import SPLITS
from sml_dist.data.hashing import row_uniform
from sml_dist.data.sketch import Histogram
from sml_dist.data.spans import Span
from sml_dist.spec import InputError

KINDS = ("order", "random", "time")


@dataclass(frozen=True)
class Splitter:
    """`cuts` lie between the splits, in rows (order), in [0, 1] (random) or in seconds (time): a row at a cut goes to the next."""

    kind: Literal["order", "random", "time", "files"]
    text: str
    parts: tuple[float, ...] = ()
    seed: int = 0
    names: tuple[str, ...] = SPLITS
    cuts: tuple[float, ...] = ()

    def assign(self, span: Span, rows: np.ndarray, timestamps: np.ndarray | None) -> np.ndarray:
        """int[n]: the split of each row, as an index into `names`."""
        if self.kind == "files":
            return np.full(len(rows), self.names.index(span.file.split))
        if self.kind == "order":
            key = span.first_index + (rows - span.first_row)
        else:
            key = row_uniform(self.seed, span.file.index, rows) if self.kind == "random" else timestamps
        return np.searchsorted(np.asarray(self.cuts), key, side="right")

    def may_train(self, span: Span) -> bool:
        """Whether a span can hold rows of the training split; False spares reading it when statistics are fitted."""
        if self.kind == "files":
            return span.file.split == "train"
        return self.kind != "order" or span.first_index < self.cuts[0]


def parse_rule(text: str, seed: int) -> Splitter:
    """The rule as the user writes it; raises InputError."""
    kind, _, numbers = text.partition(":")
    example = "write it like order:0.8,0.1,0.1, random:0.9,0.1 or time:0.8,0.1,0.1"
    try:
        parts = tuple(float(number) for number in numbers.split(","))
    except ValueError:
        raise InputError(f"--split {text} is no rule; {example}") from None
    if kind not in KINDS or len(parts) not in (2, 3) or not all(part > 0 for part in parts):
        raise InputError(f"--split {text} is no rule; {example}")
    counts = all(part.is_integer() for part in parts)
    if counts and kind != "order":
        raise InputError(f"--split {text}: numbers of rows go with order: alone; {example}")
    if not counts and abs(sum(parts) - 1) > 1e-6:
        raise InputError(f"--split {text}: the fractions add up to {sum(parts):g}, not 1")
    return Splitter(kind, text, parts, seed, SPLITS[: len(parts)])


def by_files(names: Iterable[str]) -> Splitter:
    return Splitter("files", "files", names=tuple(names))


def resolve(rule: Splitter, rows: int, times: Histogram) -> Splitter:
    """The rule with its cuts, now that the rows are counted and their times known."""
    fractions = [float(cut) for cut in np.cumsum(rule.parts)[:-1]]
    if rule.kind == "order":
        return replace(rule, cuts=_order_cuts(rule, rows, fractions))
    if rule.kind == "random":
        return replace(rule, cuts=tuple(fractions))
    if rule.kind == "time":
        return replace(rule, cuts=_time_cuts(rule, times, fractions))
    return rule


def empty(split: str) -> InputError:
    return InputError(f"split {split!r} has no usable row; give it more rows with --split, or other input files")


def _order_cuts(rule: Splitter, rows: int, fractions: list[float]) -> tuple[float, ...]:
    if not rule.parts[0].is_integer():
        return tuple(round(fraction * rows) for fraction in fractions)
    wanted = int(sum(rule.parts))
    if wanted != rows:
        way = f"add {rows - wanted} as a third number" if wanted < rows and len(rule.parts) == 2 else "give numbers that add up to it"
        raise InputError(f"--split {rule.text} is for {wanted} rows, but the input has {rows}; {way}")
    return tuple(int(fraction) for fraction in fractions)


def _time_cuts(rule: Splitter, times: Histogram, fractions: list[float]) -> tuple[float, ...]:
    cuts = times.cuts(fractions)
    ends = [int(times.bins[0]) << times.shift, *cuts, (int(times.bins[-1]) + 1) << times.shift] if cuts else [0, 0]
    if any(a >= b for a, b in zip(ends[:-1], ends[1:], strict=True)):
        raise InputError(f"--split {rule.text}: too few different times in the input to fill every split; use order: or random:")
    return tuple(cuts)
