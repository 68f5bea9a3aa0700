"""Third pass: features and rejects, one Parquet file for each part and split."""

from contextlib import ExitStack
from dataclasses import dataclass, field
from functools import partial

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sml_dist.data.dataset import DataFile, SplitWriter, multi_column
from sml_dist.data.encode import Encoder, make_encoder
from sml_dist.data.job import Job, Part, cleaned, tracked
from sml_dist.data.output import writing
from sml_dist.data.parallel import map_tasks
from sml_dist.data.quarantine import Tally, rejects_table
from sml_dist.stages import ShowStage

REJECTS = "rejects"


@dataclass
class Written:
    """The files that one part became, by split and for its rejects, the sums of each label by split, and by list field the most values
    that a row has."""

    tally: Tally
    files: dict[str, DataFile] = field(default_factory=dict)
    positives: dict[str, np.ndarray] = field(default_factory=dict)
    longest: dict[str, int] = field(default_factory=dict)


def write(job: Job, parts: list[Part], show: ShowStage) -> tuple[list[Written], Tally]:
    """Every part's files in order, and the rows read and rejected in all."""
    tally = job.tally()
    found: dict[int, Written] = {}
    for index, written in tracked("encode", map_tasks(partial(write_part, job=job), list(enumerate(parts))), parts, show):
        tally.merge(written.tally)
        found[index] = written
    return [found[index] for index in range(len(parts))], tally


def write_part(numbered: tuple[int, Part], job: Job) -> Written:
    """Done twice it leaves the same files: names follow from the part, and a file gets its name when it is whole."""
    number, part = numbered
    with writing(job.output.root):
        encoder = cached_encoder(job)
    written = Written(job.tally())
    lists = [feature.name for feature in job.schema.features if feature.listed]
    with writing(job.output.root), ExitStack() as stack:
        writers = Writers(job.output.root, number, stack)
        for batch in cleaned(part, job.schema, written.tally):
            if batch.rejects:
                writers.write(REJECTS, rejects_table(batch.span.file.path, batch.rejects))
            features, splits = encoder.encode(batch.rows), job.splits_of(batch)
            for name in lists:
                most = pc.max(pc.list_value_length(features[multi_column(name)])).as_py()
                written.longest[name] = max(written.longest.get(name, 0), most or 0)
            for index, name in enumerate(job.splitter.names):
                rows = features.filter(pa.array(splits == index))
                if len(rows):
                    writers.write(name, rows)
                    written.positives[name] = written.positives.get(name, 0.0) + positives(rows["label"])
    written.files = {name: writer.file for name, writer in writers.open.items()}
    return written


def positives(labels: pa.ChunkedArray) -> np.ndarray:
    """The sum of labels, (1,), or of several labels each one's, (T,)."""
    whole = labels.combine_chunks()
    values = whole.flatten() if pa.types.is_fixed_size_list(whole.type) else whole
    return values.to_numpy().reshape(len(whole), -1).sum(axis=0, dtype=np.float64)


class Writers:
    """A part's files, opened when the first row comes."""

    def __init__(self, root: str, number: int, stack: ExitStack):
        self.root, self.number, self.stack = root, number, stack
        self.open: dict[str, SplitWriter] = {}

    def write(self, name: str, table: pa.Table) -> None:
        if name not in self.open:
            writer = SplitWriter(self.root, f"{name}/part-{self.number:05d}.parquet", table.schema)
            self.open[name] = self.stack.enter_context(writer)
        self.open[name].write(table)


_ENCODERS: dict[str, Encoder] = {}


def cached_encoder(job: Job) -> Encoder:
    """This run's encoder: a process reads the vocabularies once, and forgets those of an earlier run."""
    token = job.output.token
    if token not in _ENCODERS:
        _ENCODERS.clear()
        _ENCODERS[token] = make_encoder(job.output.root, job.schema, job.statistics)
    return _ENCODERS[token]
