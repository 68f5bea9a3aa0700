"""Second pass: vocabularies and statistics of the training rows; rows of other splits are never looked at."""

from dataclasses import dataclass, field, replace
from functools import partial

import pyarrow as pa

from sml_dist.data.earlier import Earlier
from sml_dist.data.encode import tokens_of
from sml_dist.data.job import Job, Part, cleaned, tracked
from sml_dist.data.numeric import Statistics, quantile_edges, values_histogram, values_moments
from sml_dist.data.output import Output, writing
from sml_dist.data.parallel import map_tasks
from sml_dist.data.quarantine import Tally
from sml_dist.data.schema import Feature, Schema
from sml_dist.data.sketch import Histogram, Moments
from sml_dist.data.split import empty
from sml_dist.data.vocab import TokenCounter, finish_field, merge_range
from sml_dist.stages import ShowStage


@dataclass(frozen=True)
class Wanted:
    """What a schema asks to be fitted: fields with a vocabulary, columns to standardise, columns to cut into buckets."""

    fields: list[Feature]
    standard: list[str]
    buckets: dict[str, int]

    @staticmethod
    def by(schema: Schema) -> "Wanted":
        return Wanted(
            fields=[feature for feature in schema.features if feature.vocabulary],
            standard=[column for _, column, transform in schema.dense if transform == "standard"],
            buckets={feature.column: feature.buckets for feature in schema.features if feature.buckets},
        )


@dataclass
class Fitted:
    """What the training rows of one part say; `counts` are files of token counts."""

    tally: Tally
    moments: dict[str, Moments]
    histograms: dict[str, Histogram]
    counts: list[str] = field(default_factory=list)

    @staticmethod
    def start(job: Job, wanted: Wanted) -> "Fitted":
        return Fitted(job.tally(), {c: Moments() for c in wanted.standard}, {c: Histogram.empty() for c in wanted.buckets})


def fit(job: Job, parts: list[Part], show: ShowStage) -> Job:
    """The job with its statistics and the sizes of its vocabularies, which are in the output folder.

    Raises InputError where no row can be a training row.
    """
    training = [part for part in ([span for span in part if job.splitter.may_train(span)] for part in parts) if part]
    if not any(span.rows for part in training for span in part):
        raise empty("train")
    wanted = Wanted.by(job.schema)
    if not (wanted.fields or wanted.standard or wanted.buckets):
        return job
    results = map_tasks(partial(fit_part, job=job, wanted=wanted), list(enumerate(training)))
    total, moments, counts = Fitted.start(job, wanted), {}, []
    for index, fitted in tracked("fit", results, training, show):
        total.tally.merge(fitted.tally)
        total.histograms = {column: histogram.merge(fitted.histograms[column]) for column, histogram in total.histograms.items()}
        moments[index] = fitted.moments
        counts += fitted.counts
    for index in sorted(moments):  # in the order of the rows: a sum of floats depends on it
        total.moments = {column: sums.merge(moments[index][column]) for column, sums in total.moments.items()}
    vocabularies = write_vocabularies(job, wanted.fields, sorted(counts), show)
    statistics = statistics_of(total, wanted)
    if job.earlier:
        kept = job.earlier.kept(wanted.standard, wanted.buckets)
        statistics = Statistics(moments=statistics.moments | kept.moments, edges=statistics.edges | kept.edges)
    return replace(job, statistics=statistics, vocabularies=vocabularies)


def statistics_of(total: Fitted, wanted: Wanted) -> Statistics:
    return Statistics(
        moments={column: mean_and_std(moments) for column, moments in total.moments.items()},
        edges={column: quantile_edges(histogram, wanted.buckets[column]) for column, histogram in total.histograms.items()},
    )


def mean_and_std(moments: Moments) -> tuple[float, float]:
    """Rounded to 10 digits, which do not depend on how the rows were cut into parts.

    The computed mean of n times 0.3 is not 0.3, so a constant has a std of 1e-17, and a rounding error divided by that is millions.
    A std below the last digit kept of the mean (1e-9 of it) counts as 0; where that digit is more than 1, the digit is the std.
    """
    digit = 1e-9 * abs(moments.mean)
    std = moments.std if moments.std > digit else digit if digit > 1 else 0.0
    return float(f"{moments.mean:.10g}"), float(f"{std:.10g}")


def fit_part(numbered: tuple[int, Part], job: Job, wanted: Wanted) -> Fitted:
    with writing(job.output.root):
        return _fit_part(*numbered, job, wanted)


def _fit_part(number: int, part: Part, job: Job, wanted: Wanted) -> Fitted:
    fitted = Fitted.start(job, wanted)
    counter = TokenCounter(f"{job.output.work}/counts/part-{number:05d}", [feature.name for feature in wanted.fields], job.ranges)
    for batch in cleaned(part, job.schema, fitted.tally):
        rows = batch.rows.filter(pa.array(job.splits_of(batch) == 0))
        for feature in wanted.fields:
            tokens = tokens_of(feature, rows)
            counter.add(feature.name, tokens.flatten() if feature.listed else tokens)
        for column, moments in fitted.moments.items():
            fitted.moments[column] = moments.merge(values_moments(rows[f"number:{column}"].combine_chunks()))
        for column, histogram in fitted.histograms.items():
            fitted.histograms[column] = histogram.merge(values_histogram(rows[f"number:{column}"].combine_chunks()))
        counter.spill_if_full()
    counter.spill()
    fitted.counts = counter.files
    return fitted


def write_vocabularies(job: Job, fields: list[Feature], counts: list[str], show: ShowStage) -> dict[str, int]:
    """Adds up the counts of all parts, one range of hashes at a time; then orders each field's tokens. Returns the rows of their tables."""
    if not fields:
        return {}
    steps, done, merged, rows = job.ranges + len(fields), 0, [], {}
    merge = partial(merge_one, counts=counts, min_counts=[feature.min_count for feature in fields], output=job.output)
    for _, path in map_tasks(merge, range(job.ranges)):
        merged.append(path)
        show("vocabularies", done := done + 1, steps)
    finish = partial(finish_one, merged=sorted(merged), root=job.output.root, earlier=job.earlier)
    for index, size in map_tasks(finish, list(enumerate(feature.name for feature in fields))):
        rows[fields[index].name] = size
        show("vocabularies", done := done + 1, steps)
    return rows


def merge_one(number: int, counts: list[str], min_counts: list[int], output: Output) -> str:
    with writing(output.root):
        return merge_range(counts, number, min_counts, f"{output.work}/merged/range-{number:05d}.parquet")


def finish_one(field: tuple[int, str], merged: list[str], root: str, earlier: Earlier | None) -> int:
    index, name = field
    with writing(root):
        return finish_field(merged, index, name, root, earlier)
