"""The rows that are to be scored, whatever they come from: in parts, each read as batches of features and key columns.

A key column tells what a row is. `file` and `row` (its number there, from 1, a header not counted) are always there; `split`,
`label`, `weight`, `group` and `timestamp` are what prepare makes of those columns; any other name is a raw column of a log.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
import pyarrow as pa

from sml_dist.data.quarantine import Reject, Tally
from sml_dist.scoring.trained import Described
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage

ROLES = ("label", "weight", "group", "timestamp")


@dataclass(frozen=True)
class Rows:
    """A batch: features as a prepared dataset has them, the key columns beside them, and the rejects it was read with."""

    features: pa.Table
    keys: pa.Table
    file: str
    rejects: list[Reject] = field(default_factory=list)


class RowSource(Protocol):
    """Sent to every worker. `identity` is what must be the same where unfinished work is gone on with; parts and rows are known
    once it is `surveyed`."""

    keys: list[str]

    @property
    def identity(self) -> dict[str, Any]: ...

    @property
    def rows(self) -> int: ...

    @property
    def split(self) -> str: ...

    @property
    def parts(self) -> Sequence[Any]: ...

    def surveyed(self, show: ShowStage) -> "RowSource": ...

    def reader(self) -> "RowSource":
        """What a worker needs to `read` a part, without the lists of all files and parts."""
        ...

    def read(self, part: Any, model: Described, tally: Tally) -> Iterator[Rows]: ...


def check_finite(logits: np.ndarray, keys: pa.Table) -> None:
    """Logits (B,), of T labels (B, T). Raises InputError that names the first row of which one is not finite."""
    finite = np.isfinite(logits).reshape(len(keys), -1).all(axis=1)
    if not finite.all():
        file, row = (keys[name][int(finite.argmin())] for name in ("file", "row"))
        why = "its logit is not finite; a number in it is too large for this model"
        raise InputError(f"{file} row {row}: {why}: mend it, or leave the row out")


def label_keys(labels: Sequence[str]) -> list[str]:
    """The names of the key columns of the label: of several labels each one's as label:NAME."""
    return ["label"] if len(labels) == 1 else [f"label:{name}" for name in labels]
