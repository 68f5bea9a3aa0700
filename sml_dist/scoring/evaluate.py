"""`evaluate`: how right a run's model is on some rows, how sure that is, for whom, and against another run on the same rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any, Literal

import numpy as np
import torch

from sml_dist.config.train import Precision
from sml_dist.data.quarantine import Tally
from sml_dist.scoring.bootstrap import Scored, affordable, differences, intervals
from sml_dist.scoring.calibration import curve, expected_error
from sml_dist.scoring.delong import auc_difference
from sml_dist.scoring.prepared_rows import is_prepared, prepared_rows
from sml_dist.scoring.raw_rows import raw_rows
from sml_dist.scoring.rows import RowSource, check_finite
from sml_dist.scoring.slices import check_field, largest, namer, values_of
from sml_dist.scoring.trained import Described, Trained, find, load
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage, silent
from sml_dist.train.evaluate import by_label

BATCH_ROWS = 16_384
SLICE_RESAMPLES = 200


@dataclass(frozen=True)
class Options:
    """`label`: of several, by default the first; of a run `against` the same one, if it predicts that. `by`: fields whose `top` most
    frequent values are slices. `unit`: what is drawn when resampling, `row` or `group`. `max_reject_rate`: of raw logs."""

    label: str | None = None
    by: Sequence[str] = ()
    top: int = 10
    resamples: int = 1000
    unit: Literal["row", "group"] = "row"
    bins: int = 20
    seed: int = 0
    precision: Precision | None = None
    device: str = "auto"
    max_reject_rate: float = 0.001


Values = dict[str, tuple[np.ndarray, np.ndarray]]


def evaluate(
    run: str,
    *,
    data: str | None = None,
    split: str | None = None,
    step: int | None = None,
    against: str | None = None,
    options: Options = Options(),  # noqa: B008
    show: ShowStage = silent,
) -> dict[str, Any]:
    """Metrics with intervals, slices, a calibration curve, and differences from the run `against`, of each slice too, both under this
    run's weights and groups.

    `data` is a prepared dataset, by default the run's own, of which test is taken, or valid where there is none, unless `split`
    says so; or a glob of raw logs with labels, for which Ray must be initialised. Raises InputError.
    """
    model = loaded(run, step, options)
    if against is not None:
        other = loaded(against, None, options)
        options, its_options = alike(options, model, other)
        check(its_options, other)
    check(options, model)
    data = model.config.data.path if data is None else data
    source = rows_of(model, data, split, show)
    scored, rows, values = score(model, source, data, options, show)
    if not scored.weights.any():
        raise InputError(f"{data}: all {len(rows):,} rows have weight 0, so no metric is defined; give others with --data or --split")
    found = about(model) | {"data": data, "split": source.split, "label": options.label or model.manifest.labels[0]}
    found |= {"rows": len(scored.logits), "positives": float(scored.labels.sum()), "unit": options.unit}
    found["resamples"] = affordable(len(scored.logits), options.resamples)
    found["slice_resamples"] = min(options.resamples, SLICE_RESAMPLES)  # at most: fewer for millions of rows
    both = [scored]
    if against is not None:
        second, its_rows, _ = score(other, rows_of(other, data, split, show), data, its_options, show)
        if not (np.array_equal(rows, its_rows) and np.array_equal(scored.labels, second.labels)):
            why = "the two runs do not keep the same rows and labels of this data, as their schemas differ"
            raise InputError(f"{why}; give rows that both can use")
        both.append(second)
    by_delong = delong_holds(scored, options)
    found |= measured(both, options.resamples, by_delong, options)
    if against is not None:
        found["against"] |= about(other)
    bins = curve(scored, options.bins, unit_of(scored, options))
    found["calibration_curve"], found["expected_calibration_error"] = [asdict(one) for one in bins], expected_error(bins)
    found["slices"] = {name: sliced(name, both, *held, model, by_delong, options) for name, held in values.items() if len(held[1])}
    return found


def alike(options: Options, model: Trained, other: Trained) -> tuple[Options, Options]:
    """The options for either of two runs, which are compared on the first label that both predict; the one label of a dataset has no name.

    What is drawn are the first run's groups. Raises InputError.
    """
    own, its = model.manifest.labels, other.manifest.labels
    if options.label is None and "label" not in own + its:
        both = [label for label in own if label in its]
        if not both:
            raise InputError(f"the runs predict {', '.join(own)} and {', '.join(its)}, no label of the same name; name another run")
        options = replace(options, label=both[0])
    return options, replace(options, by=(), unit="row")


def loaded(run: str, step: int | None, options: Options) -> Trained:
    there = torch.cuda.is_available()
    if options.device == "cuda" and not there:
        raise InputError("--device cuda: there is no GPU here that torch can use; leave the option out")
    return load(find(run, step), "cuda" if there and options.device != "cpu" else "cpu", options.precision)


def check(options: Options, model: Described) -> None:
    for name in options.by:
        check_field(name, model.manifest)
    if options.label and options.label not in model.manifest.labels:
        raise InputError(f"--label {options.label}: the run predicts {', '.join(model.manifest.labels)}")
    if options.unit == "group" and not model.manifest.group:
        raise InputError("--unit group: the run's rows have no group; leave the option out")


def rows_of(model: Described, data: str, split: str | None, show: ShowStage) -> RowSource:
    """With the label, and what goes with it: weight and group."""
    keys = ["label", *(name for name in ("weight", "group") if getattr(model.manifest, name))]
    splits = [split] if split else None
    if not is_prepared(data, "--data"):
        if data == model.config.data.path:
            raise InputError(f"the run's dataset is not at {data} any more; name rows with --data, a prepared dataset or raw logs")
        return raw_rows(data, model.schema, keys, labelled=True, splits=splits, option="--data").surveyed(show)
    source = prepared_rows(data, model, splits, keys)
    if split is None:
        source = replace(source, splits=[name for name in source.splits if name in ("valid", "test")][-1:] or source.splits)
    if not source.rows:
        raise InputError(f"{data} has no {source.split} rows; name another --split")
    return source


def score(model: Trained, source: RowSource, data: str, options: Options, show: ShowStage) -> tuple[Scored, np.ndarray, Values]:
    """Every row's score, its file's place and its number there as one, and which rows hold which value of each field.

    Raises InputError where no row of the data can be used.
    """
    columns: list[list[np.ndarray]] = []
    numbers: list[np.ndarray] = []
    files: dict[str, int] = {}
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in options.by}
    place = model.manifest.labels.index(options.label) if options.label else 0
    done, tally = 0, Tally(source.rows, options.max_reject_rate)
    for part in source.parts:
        for rows in source.read(part, model, tally):
            numbers.append(rows.keys["row"].to_numpy() + (files.setdefault(rows.file, len(files)) << 40))
            for start in range(0, len(rows.features), BATCH_ROWS):
                table = rows.features.slice(start, BATCH_ROWS)
                batch = model.collate(table)
                logit = model.score(batch).logit
                check_finite(logit.numpy(), rows.keys.slice(start, BATCH_ROWS))
                of_batch = [by_label(logit)[place], by_label(batch.label)[place], batch.weight, batch.group]
                columns.append([column.numpy() for column in of_batch if column is not None])
                for name, parts in values.items():  # a field that --by names twice is one
                    places, ids = values_of(name, table, model.manifest)
                    parts.append((places + done, ids))
                done += len(table)
                show("score", tally.read, tally.total)
    if not columns:
        none = f"none of {tally.read:,} rows can be used by {model.config.run.folder}"
        raise InputError(f"--data {data}: {none}; the first: {tally.first}. Mend them, or give others")
    scored = Scored(*(np.concatenate(column) for column in zip(*columns, strict=True)))
    held = {name: tuple(np.concatenate(column) for column in zip(*parts, strict=True)) for name, parts in values.items()}
    return scored, np.concatenate(numbers), held


def unit_of(scored: Scored, options: Options) -> np.ndarray | None:
    return scored.groups if options.unit == "group" else None


def about(model: Trained) -> dict[str, Any]:
    return {
        "run": model.config.run.folder,
        "checkpoint": model.checkpoint.path,
        "model": model.config.model.name,
        "precision": model.task.products,
    }


def delong_holds(scored: Scored, options: Options) -> bool:
    """Of all rows, and so of every slice: they are drawn singly, of equal weight, and labelled 0 or 1."""
    return options.unit == "row" and len(np.unique(scored.weights)) == 1 and bool(np.isin(scored.labels, (0, 1)).all())


def measured(runs: Sequence[Scored], most: int, by_delong: bool, options: Options) -> dict[str, Any]:
    """A run's metrics from at most so many resamples; of two runs on the same rows both ones', and their differences, under the first's
    weights and groups, for schemas may differ in these."""
    first, *others = runs
    drawing = {"resamples": affordable(len(first.logits), most), "unit": unit_of(first, options), "seed": options.seed}
    if not others:
        return {"metrics": as_dicts(intervals(first, **drawing))}
    second = replace(others[0], weights=first.weights, groups=first.groups)
    own, its, difference = map(as_dicts, differences(first, second, **drawing))
    if by_delong:
        difference["auc"] = asdict(auc_difference(first.logits, second.logits, first.labels))
    return {"metrics": own, "against": {"metrics": its}, "differences": difference}


def sliced(
    name: str, runs: Sequence[Scored], rows: np.ndarray, ids: np.ndarray, model: Described, by_delong: bool, options: Options
) -> list[dict[str, Any]]:
    """The most frequent values: rows, positives, and what is `measured` of the whole."""
    shown, found = namer(name, model), []
    for value in largest(ids, options.top):
        parts = [run.take(rows[ids == value]) for run in runs]
        line = {"value": shown(int(value)), "rows": len(parts[0].logits), "positives": float(parts[0].labels.sum())}
        found.append(line | measured(parts, min(options.resamples, SLICE_RESAMPLES), by_delong, options))
    return found


def as_dicts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in found.items()}
