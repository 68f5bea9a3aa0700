"""First pass: how many rows each span has, at what times; it finds broken files and schemas that do not fit before much is done."""

from functools import partial

from sml_dist.data.clean import timestamps
from sml_dist.data.job import Part, tracked
from sml_dist.data.parallel import map_tasks
from sml_dist.data.schema import Schema
from sml_dist.data.sketch import Histogram
from sml_dist.data.sources import count_rows, first_spans, read
from sml_dist.data.spans import RawFile, Span, group_spans, number_rows
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage


def survey(
    files: list[RawFile], schema: Schema, part_bytes: int, show: ShowStage, *, with_times: bool = False, columns: list[str] | None = None
) -> tuple[list[Span], Histogram]:
    """The numbered spans of all files in order, and the histogram of times (empty unless it is asked for).

    `columns` are those that every file must have, by default all that the schema uses.
    """
    parts = group_spans(first_spans(files, schema, part_bytes), part_bytes)
    task = partial(survey_part, schema=schema, with_times=with_times, part_bytes=part_bytes, columns=columns)
    found: dict[int, list[Span]] = {}
    times = Histogram.empty()
    for index, (spans, part_times) in tracked("survey", map_tasks(task, parts), parts, show):
        found[index] = spans
        times = times.merge(part_times)
    spans = number_rows([span for index in range(len(parts)) for span in found[index]])
    if not sum(span.rows for span in spans):
        raise InputError(f"no row in {files[0].path}" + (f" and {len(files) - 1} other files" if len(files) > 1 else ""))
    return spans, times


def survey_part(part: Part, schema: Schema, with_times: bool, part_bytes: int, columns: list[str] | None) -> tuple[list[Span], Histogram]:
    spans = [counted for span in part for counted in count_rows(span, schema, part_bytes, columns)]
    times = Histogram.empty()
    # with the labels: a log without a header that is read without them may lack them, if its first line is so many values short
    labels = [label.column for label in schema.targets.values()]
    for span in spans if with_times else []:
        for batch in read(span, schema, list(dict.fromkeys([schema.timestamp.column, *labels]))):
            times = times.merge(Histogram.of(timestamps(batch.table, schema)))
    return spans, times
