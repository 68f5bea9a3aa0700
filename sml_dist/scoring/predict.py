"""`predict`: every row of raw logs or of a prepared dataset scored by a run's model, on Ray Data.

The way of a row: raw_rows.py or prepared_rows.py (features, keys) -> trained.py (logit) -> Parquet. A part is scored from beginning
to end by one worker, which holds the model and one batch; so files come whole, rows stay in order, and a kill costs parts of 64 MB.
"""

from collections import Counter
from collections.abc import Sequence
from contextlib import ExitStack
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

import fsspec
import pyarrow as pa
import pyarrow.parquet as pq
import ray
import torch
from joblib import cpu_count

from sml_dist.config.train import Precision
from sml_dist.data.dataset import DataFile
from sml_dist.data.output import own, writing
from sml_dist.data.parallel import Actors, map_tasks
from sml_dist.data.prepare import check_rate
from sml_dist.data.quarantine import Tally, largest_first, rejects_table
from sml_dist.data.spans import PART_BYTES
from sml_dist.data.write import REJECTS, Writers
from sml_dist.scoring.output import PREDICTIONS, Folder, PartDone, Predictions
from sml_dist.scoring.prepared_rows import is_prepared, prepared_rows
from sml_dist.scoring.raw_rows import raw_rows
from sml_dist.scoring.rows import RowSource, check_finite
from sml_dist.scoring.trained import Described, Trained, describe, find, load, reopened
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage, silent
from sml_dist.train.checkpoint import seal
from sml_dist.train.evaluate import by_label
from sml_dist.train.task import Products

# Of one forward. DCN-V2 with SML on one core scored 5 to 40 % fewer rows/s at 8192, 16384 and 1024; a GPU's host takes as long
# for 4096 as for these.
BATCH_ROWS = {"cpu": 4096, "cuda": 65_536}


@dataclass(frozen=True, kw_only=True)
class Job:
    """What every worker needs to know: little, for Ray keeps what is large in a node's object store, which an actor may outlive."""

    checkpoint: str
    source: RowSource
    rows: int
    output: str
    max_reject_rate: float
    contributions: bool
    precision: Precision | None
    cuda: bool
    threads: int

    def tally(self) -> Tally:
        return Tally(self.rows, self.max_reject_rate)


def predict(
    run: str,
    inputs: str,
    output: str,
    *,
    step: int | None = None,
    splits: list[str] | None = None,
    keys: list[str] | None = None,
    contributions: bool = False,
    precision: Precision | None = None,
    device: str = "auto",
    workers: int | None = None,
    max_reject_rate: float = 0.001,
    overwrite: bool = False,
    show: ShowStage = silent,
    part_bytes: int = PART_BYTES,
) -> Predictions:
    """Scores `inputs`, a prepared dataset or a glob of raw logs, into the folder `output`. Ray must be initialised.

    Stopped or killed at any moment, the same call goes on with the parts that are not written yet. Raises InputError.
    """
    check_rate(max_reject_rate)
    check_keys(keys or [])
    model = describe(find(run, step))
    source: RowSource
    if is_prepared(inputs, "--input"):
        source = prepared_rows(inputs, model, splits, keys)
    else:
        source = raw_rows(inputs, model.schema, keys, part_bytes, splits=splits)
    about = {"checkpoint": seal(model.checkpoint.manifest), "precision": precision or model.config.train.precision}
    about |= {"input": source.identity, "keys": source.keys, "contributions": contributions}
    folder = Folder(output)
    with writing(output):
        complete = None if overwrite else folder.finished(about)
    if complete:
        return complete
    with own(output):
        with writing(output):
            complete = folder.take(about, overwrite)
        if complete:
            return complete

        with folder.cleared_on_failure():
            source = source.surveyed(show)
            with writing(output):
                done = folder.done()
            pool, cuda, threads = actors(device, workers)
            job = Job(
                checkpoint=model.checkpoint.path,
                source=source.reader(),
                rows=source.rows,
                output=output,
                max_reject_rate=max_reject_rate,
                contributions=contributions,
                precision=the_one({part.precision for part in done.values()}) or precision,
                cuda=cuda,
                threads=threads,
            )
            done |= score_parts(job, source.parts, done, pool, show)
        with writing(output):
            found = summed(job, model, inputs, about, [done[number] for number in range(len(source.parts))])
            folder.complete(found)
        return found


def check_keys(keys: list[str]) -> None:
    """Of two columns of one name, the output would have the one that is its own."""
    for key in keys:
        if key in ("file", "row", "logit", "probability") or key.startswith(("logit:", "probability:", "contribution:")):
            raise InputError(f"--keys {key}: the output has a column of its own of that name; leave it out, or rename it in the logs")


def the_one(precisions: set[Products]) -> Products | None:
    """That of all parts, None where there is no part. Raises InputError of two, whose scores differ by about 1e-3."""
    if len(precisions) > 1:
        why = f"parts were scored in {' and in '.join(sorted(precisions))}, as the machines are of two kinds"
        raise InputError(f"{why}; set --precision, and give --overwrite to begin anew")
    return next(iter(precisions), None)


def actors(device: str, workers: int | None) -> tuple[Actors, bool, int]:
    """The workers, whether on GPUs, and the compute threads of each: one worker a GPU or a CPU unless told; more share the GPUs."""
    cluster = ray.cluster_resources()
    gpus = cluster.get("GPU", 0) if device in ("auto", "cuda") else 0
    if device == "cuda" and not gpus:
        raise InputError("--device cuda: the cluster has no GPU; leave the option out")
    cpus, nodes, cores = int(cluster.get("CPU", 1)), len(ray.nodes()), cpu_count()
    alone = min(cpus, cores) if nodes == 1 else cpus  # a local Ray may have more logical CPUs than the machine has cores
    count = min(workers or int(gpus or alone), cpus)
    threads = max(1, cores * nodes // count)
    return Actors(count, gpus=min(1.0, gpus / count)), gpus > 0, threads


def score_parts(job: Job, parts: Sequence[Any], done: dict[int, PartDone], pool: Actors, show: ShowStage) -> dict[int, PartDone]:
    """The parts that are not done yet. Raises InputError at too many rejects in all, and at a second precision."""
    tally = job.tally()
    for part in done.values():
        tally.add(part.rows_read, part.rejected_by)
    left = [(number, part) for number, part in enumerate(parts) if number not in done]
    found: dict[int, PartDone] = {}
    precisions = {part.precision for part in done.values()}
    show("score", tally.read, tally.total)
    for index, (written, first) in map_tasks(Scorer(job), left, replace(pool, count=max(1, min(pool.count, len(left))))):
        tally.add(written.rows_read, written.rejected_by, first)
        found[left[index][0]] = written
        precisions.add(written.precision)
        the_one(precisions)
        show("score", tally.read, tally.total)
    return found


class Scorer:
    """A worker: loads the model at its first part and scores part after part. Done twice, a part leaves the same files."""

    def __init__(self, job: Job):
        self.job = job

    @cached_property
    def model(self) -> Trained:
        torch.set_num_threads(self.job.threads)
        return load(reopened(self.job.checkpoint), "cuda" if self.job.cuda else "cpu", self.job.precision)

    def __call__(self, numbered: tuple[int, Any]) -> tuple[PartDone, str]:
        """What was written, and the first reject."""
        number, part = numbered
        tally, model = self.job.tally(), self.model
        size = BATCH_ROWS[model.device.type]
        with writing(self.job.output), ExitStack() as stack:
            writers = Writers(self.job.output, number, stack)
            for rows in self.job.source.read(part, model, tally):
                if rows.rejects:
                    writers.write(REJECTS, rejects_table(rows.file, rows.rejects))
                for start in range(0, len(rows.features), size):
                    writers.write(PREDICTIONS, self.scored(rows.features.slice(start, size), rows.keys.slice(start, size)))
        files = {name: writer.file for name, writer in writers.open.items()}
        written = PartDone(rows_read=tally.read, rejected_by=dict(tally.by_column), precision=model.task.products, files=files)
        with writing(self.job.output):
            Folder(self.job.output).book(number, written)
        return written, tally.first

    def scored(self, features: pa.Table, keys: pa.Table) -> pa.Table:
        scores = self.model.score(self.model.collate(features), contributions=self.job.contributions)
        check_finite(scores.logit.numpy(), keys)
        columns = dict(zip(keys.column_names, keys.columns, strict=True))
        for name, values in {"logit": scores.logit, "probability": scores.probability}.items():
            columns |= dict(zip(self.names(name), (column.numpy() for column in by_label(values)), strict=True))
        if scores.contributions is not None:
            terms = zip(self.model.explained.names, scores.contributions.T.contiguous().numpy(), strict=True)
            columns |= {f"contribution:{name}": column for name, column in terms}
        return pa.table(columns)

    def names(self, what: str) -> list[str]:
        """Of a column of the scores; of several labels, one for each."""
        labels = self.model.manifest.labels
        return [what] if len(labels) == 1 else [f"{what}:{label}" for label in labels]


def summed(job: Job, model: Described, inputs: str, about: dict[str, Any], parts: list[PartDone]) -> Predictions:
    files = [part.files[PREDICTIONS] for part in parts if PREDICTIONS in part.files]
    read, rejected = sum(part.rows_read for part in parts), sum((Counter(part.rejected_by) for part in parts), Counter())
    return Predictions(
        run=model.config.run.folder,
        checkpoint=model.checkpoint.path,
        model=model.config.model.name,
        precision=the_one({part.precision for part in parts}),
        input=inputs,
        columns=columns_of(job.output, files),
        rows_read=read,
        rows_scored=read - rejected.total(),
        rows_rejected=rejected.total(),
        rejected_by=largest_first(rejected),
        files=files,
        rejects=[part.files[REJECTS] for part in parts if REJECTS in part.files],
        job=about,
    )


def columns_of(root: str, files: list[DataFile]) -> list[str]:
    if not files:
        return []
    with fsspec.open(f"{root}/{files[0].path}", "rb") as file:
        return pq.read_schema(file).names
