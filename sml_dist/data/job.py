"""What the stages of `prepare` share: the job, and usable rows read from a part within the limit of rejects."""

from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa

from sml_dist.data.clean import clean
from sml_dist.data.earlier import Earlier
from sml_dist.data.numeric import Statistics
from sml_dist.data.output import Output
from sml_dist.data.quarantine import Reject, Tally, by_column
from sml_dist.data.schema import Schema
from sml_dist.data.sources import read
from sml_dist.data.spans import RawBatch, Span
from sml_dist.data.split import Splitter
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage

Part = list[Span]


@dataclass(frozen=True)
class Cleaned:
    """The usable rows of a raw batch, their row numbers, and the rejects among the rows they were read with."""

    span: Span
    raw: RawBatch
    rows: pa.Table
    numbers: np.ndarray
    rejects: list[Reject]


@dataclass(frozen=True)
class Job:
    """What every task of a prepare needs to know.

    `rows` are all rows of the input, `ranges` how finely tokens are partitioned; `vocabularies` are the rows of the table of each
    field that has a vocabulary; `earlier` is what the dataset goes on from.
    """

    schema: Schema
    splitter: Splitter
    output: Output
    rows: int
    max_reject_rate: float
    ranges: int = 1
    statistics: Statistics = field(default_factory=lambda: Statistics(moments={}, edges={}))
    vocabularies: dict[str, int] = field(default_factory=dict)
    earlier: Earlier | None = None

    def tally(self) -> Tally:
        return Tally(self.rows, self.max_reject_rate)

    def splits_of(self, batch: Cleaned) -> np.ndarray:
        """Each row's split, as an index into the splitter's names."""
        times = batch.rows["timestamp"].to_numpy() if self.schema.timestamp else None
        return self.splitter.assign(batch.span, batch.numbers, times)


def cleaned(part: Part, schema: Schema, tally: Tally, columns: list[str] | None = None, *, labelled: bool = True) -> Iterator[Cleaned]:
    """The batches of a part; raises InputError as soon as the tally has too many rejects, or if rows were lost or came since the survey."""
    for span in part:
        found = 0
        for raw in read(span, schema, columns):
            found += raw.read
            rows, numbers, faults = clean(raw.table, raw.rows, schema, labelled=labelled)
            rejects = sorted([*raw.rejects, *faults], key=lambda reject: reject.row)
            tally.add(raw.read, by_column(rejects), f"{span.file.path} {rejects[0]}" if rejects else "")
            yield Cleaned(span, raw, rows, numbers, rejects)
        if found != span.rows:
            raise InputError(f"{span.file.path}: {span.rows} rows were counted, but {found} read; is it being written to, or damaged?")


def tracked(stage: str, results: Iterator[tuple[int, Any]], parts: list[Part], show: ShowStage) -> Iterator[tuple[int, Any]]:
    """Passes the results of parts on and reports how many bytes of raw input are done."""
    sizes = [sum(span.bytes for span in part) for part in parts]
    done, total = 0, sum(sizes)
    show(stage, 0, total)
    for index, result in results:
        done += sizes[index]
        show(stage, done, total)
        yield index, result
