"""`prepare`: raw click logs to a prepared dataset, on Ray Data, in memory that does not grow with the rows.

The way of a row: sources.py (files, parts, raw columns) -> clean.py (typed columns, rejects) -> split.py -> encode.py (features)
-> dataset.py (Parquet). The driver sees counts, file names and small summaries alone.
"""

from collections.abc import Callable
from dataclasses import replace

from sml_dist.data.dataset import Manifest, Split
from sml_dist.data.earlier import Earlier
from sml_dist.data.encode import fields_of
from sml_dist.data.fit import fit
from sml_dist.data.job import Job
from sml_dist.data.output import check_free, claimed, complete, folder_of, writing
from sml_dist.data.quarantine import Tally, largest_first
from sml_dist.data.schema import Schema, load_schema
from sml_dist.data.spans import PART_BYTES, RawFile, group_spans, list_files
from sml_dist.data.split import Splitter, by_files, empty, parse_rule, resolve
from sml_dist.data.survey import survey
from sml_dist.data.vocab import ranges_for, vocabulary_path
from sml_dist.data.write import REJECTS, Written, write
from sml_dist.spec import InputError, to_dict
from sml_dist.stages import ShowStage, silent


def prepare(
    schema_name: str,
    output: str,
    *,
    inputs: str | None = None,
    split: str | None = None,
    train: str | None = None,
    valid: str | None = None,
    test: str | None = None,
    max_reject_rate: float = 0.001,
    min_count: int | None = None,
    extend: str | None = None,
    overwrite: bool = False,
    seed: int = 0,
    show: ShowStage = silent,
    warn: Callable[[str], None] = lambda line: None,
    part_bytes: int = PART_BYTES,
) -> Manifest:
    """Prepares a dataset in the folder `output` and returns its manifest. Ray must be initialised.

    Give `inputs` with a `split` rule (split.py), or `train` with `valid` (and `test`). `min_count` overrides the schema's.
    `extend` names an earlier dataset, or a run, whose values keep their ids and whose numbers keep their scale (earlier.py).
    Raises InputError. Stopped or killed at any moment it leaves no complete dataset, and the same call begins anew.
    """
    schema = with_min_count(load_schema(schema_name), min_count)
    rule, files = choose_files(schema, inputs, split, {"train": train, "valid": valid, "test": test}, seed)
    check_rate(max_reject_rate)
    earlier = Earlier.of(extend) if extend else None
    with writing(output):
        check_free(output, overwrite)
    if earlier and folder_of(earlier.root) == folder_of(output):
        raise InputError(f"--extend {extend} is --output itself; name another folder for the new dataset")

    spans, times = survey(files, schema, part_bytes, show, with_times=rule.kind == "time")
    parts = group_spans(spans, part_bytes)
    rows = sum(span.rows for span in spans)
    splitter = resolve(rule, rows, times)

    with claimed(output, overwrite) as folder:
        job = Job(schema, splitter, folder, rows, max_reject_rate, ranges_for(sum(file.size for file in files)), earlier=earlier)
        job = fit(job, parts, show)
        written, tally = write(job, parts, show)
        manifest = make_manifest(job, written, tally)
        with writing(output):
            complete(folder, manifest)
    for column in never_split(schema, written):
        what = f"no row has more than one value by the separator {schema.list_separators[column]!r}"
        warn(f"column {column}: {what}; if the log has another, correct the schema")
    return manifest


def never_split(schema: Schema, parts: list[Written]) -> list[str]:
    """Columns whose lists are text, none of which has more than one value though the schema would keep more."""
    split = [f for f in schema.features if f.listed and f.max_length != 1 and schema.list_separators[f.column] is not None]
    return [feature.column for feature in split if max(part.longest.get(feature.name, 0) for part in parts) == 1]


def with_min_count(schema: Schema, min_count: int | None) -> Schema:
    """The schema with this min_count in place of its own for every vocabulary."""
    if min_count is None:
        return schema
    if min_count < 1:
        raise InputError(f"--min-count {min_count} must be at least 1")
    if min_count >= 2**31:
        raise InputError(f"--min-count {min_count} must be less than 2**31")
    return replace(
        schema,
        numeric=[replace(group, min_count=min_count) for group in schema.numeric],
        categorical=[group if group.hash else replace(group, min_count=min_count) for group in schema.categorical],
        multivalued=[group if group.hash else replace(group, min_count=min_count) for group in schema.multivalued],
    )


def check_rate(rate: float) -> None:
    if not 0 <= rate <= 1:
        raise InputError(f"--max-reject-rate {rate:g} must lie between 0 and 1")


def choose_files(
    schema: Schema, inputs: str | None, split: str | None, named: dict[str, str | None], seed: int
) -> tuple[Splitter, list[RawFile]]:
    """The split rule and the files, numbered in order."""
    given = {name: pattern for name, pattern in named.items() if pattern}
    if bool(inputs) == bool(given) or bool(inputs) != bool(split) or (given and not {"train", "valid"} <= given.keys()):
        raise InputError("give --input with --split, or else --train with --valid (and --test)")
    if inputs:
        rule = parse_rule(split, seed)
        if rule.kind == "time" and not schema.timestamp:
            raise InputError(f"--split {split} needs a timestamp, but schema {schema.name} names none")
        return rule, list_files(inputs, "--input", schema)
    files = [file for name, pattern in given.items() for file in list_files(pattern, f"--{name}", schema, name)]
    paths = [file.path for file in files]
    if len(set(paths)) < len(paths):
        twice = next(path for path in paths if paths.count(path) > 1)
        raise InputError(f"{twice} is in more than one of --train, --valid and --test")
    return by_files(given), [replace(file, index=index) for index, file in enumerate(files)]


def make_manifest(job: Job, parts: list[Written], tally: Tally) -> Manifest:
    return Manifest(
        name=job.schema.name,
        fields=fields_of(job.schema, job.statistics, job.vocabularies),
        dense=[name for name, _, _ in job.schema.dense],
        labels=list(job.schema.targets),
        weight=job.schema.weight is not None,
        group=job.schema.group is not None,
        timestamp=job.schema.timestamp is not None,
        splits={name: gather(name, parts) for name in job.splitter.names},
        rejects=[part.files[REJECTS] for part in parts if REJECTS in part.files],
        rows_read=tally.read,
        rows_kept=tally.read - tally.rejected,
        rows_rejected=tally.rejected,
        rejected_by=largest_first(tally.by_column),
        split_rule=job.splitter.text,
        source={
            "schema": to_dict(job.schema),
            "statistics": to_dict(job.statistics),
            "vocabularies": {feature.name: vocabulary_path(feature.name) for feature in job.schema.features if feature.vocabulary},
            **({"extends": job.earlier.root} if job.earlier else {}),
            "split": {"kind": job.splitter.kind, "cuts": list(job.splitter.cuts), "seed": job.splitter.seed},
        },
    )


def gather(name: str, parts: list[Written]) -> Split:
    """A split of the files that the parts wrote for it."""
    files = [part.files[name] for part in parts if name in part.files]
    if not files:
        raise empty(name)
    positives = sum(part.positives[name] for part in parts if name in part.positives).tolist()
    return Split(rows=sum(file.rows for file in files), positives=positives if len(positives) > 1 else positives[0], files=files)
