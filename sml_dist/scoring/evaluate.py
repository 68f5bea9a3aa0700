"""`evaluate`: how right a run's model is on a split, how sure that is, for whom, and against another run on the same rows."""

from collections.abc import Sequence
from dataclasses import asdict, dataclass, replace
from typing import Any

import numpy as np
import torch

from sml_dist.data.job import Progress
from sml_dist.data.quarantine import Tally
from sml_dist.scoring.bootstrap import Scored, affordable, differences, intervals
from sml_dist.scoring.calibration import curve, expected_error
from sml_dist.scoring.delong import auc_difference
from sml_dist.scoring.prepared_rows import PreparedRows, prepared_rows
from sml_dist.scoring.slices import check_field, largest, namer, values_of
from sml_dist.scoring.trained import Precision, Trained, find, load
from sml_dist.spec import InputError
from sml_dist.train.evaluate import by_label

BATCH_ROWS = 16_384
SLICE_RESAMPLES = 200


@dataclass(frozen=True)
class Options:
    """`unit`: what is drawn when resampling, `row` or `group`. `label`: of several, by default the first. `top`: the most
    frequent values of each field of `by`."""

    by: Sequence[str] = ()
    resamples: int = 1000
    unit: str = "row"
    label: str | None = None
    top: int = 10
    bins: int = 20
    seed: int = 0
    precision: Precision | None = None
    device: str = "auto"


Values = dict[str, tuple[np.ndarray, np.ndarray]]


def evaluate(
    run: str,
    *,
    data: str | None = None,
    split: str | None = None,
    step: int | None = None,
    against: str | None = None,
    options: Options = Options(),  # noqa: B008
    progress: Progress = lambda stage, done, of: None,
) -> dict[str, Any]:
    """Metrics with intervals, slices, a calibration curve, and differences from the run `against`; by default on the run's own dataset
    and its test split, or valid where there is none. Raises InputError."""
    model = loaded(run, step, options)
    root = data or model.config.data.path
    source = rows_of(model, root, split)
    check(options, source)
    scored, values = score(model, source, options, progress)
    unit = scored.groups if options.unit == "group" else None
    resamples = affordable(len(scored.logits), options.resamples)
    found = about(model, source) | {"rows": len(scored.logits), "positives": float(scored.labels.sum()), "resamples": resamples}
    found |= {"unit": options.unit, "label": options.label or source.manifest.labels[0]}
    if against is None:
        found["metrics"] = as_dicts(intervals(scored, resamples, unit=unit, seed=options.seed))
    else:
        found |= compared(scored, against, source, resamples, unit, options, progress)
    bins = curve(scored, options.bins)
    found["calibration_curve"], found["expected_calibration_error"] = [asdict(one) for one in bins], expected_error(bins)
    found["slices"] = {name: sliced(name, scored, *values[name], model, options) for name in options.by}
    return found


def loaded(run: str, step: int | None, options: Options) -> Trained:
    cuda = options.device == "cuda" or (options.device == "auto" and torch.cuda.is_available())
    return load(find(run, step), "cuda" if cuda else "cpu", options.precision)


def rows_of(model: Trained, root: str, split: str | None) -> PreparedRows:
    """The rows of a split, of which the label and what goes with it are the keys."""
    rows = prepared_rows(root, model, [split] if split else None, None)
    splits = [split] if split else [[name for name in ("valid", "test") if name in rows.manifest.splits][-1]]
    keys = ["label", *(name for name in ("weight", "group") if getattr(rows.manifest, name))]
    return PreparedRows(root, rows.manifest, splits, keys)


def check(options: Options, source: PreparedRows) -> None:
    for name in options.by:
        check_field(name, source.manifest)
    if options.label and options.label not in source.manifest.labels:
        raise InputError(f"--label {options.label}: the dataset has {', '.join(source.manifest.labels)}")
    if options.unit not in ("row", "group"):
        raise InputError(f"--unit {options.unit}: row or group")
    if options.unit == "group" and not source.manifest.group:
        raise InputError(f"--unit group: {source.root} has no group; leave the option out")
    if not source.rows:
        raise InputError(f"{source.root} has no {source.splits[0]} rows; name another --split")


def score(model: Trained, source: PreparedRows, options: Options, progress: Progress) -> tuple[Scored, Values]:
    """Every row's score, and which rows hold which value of each field."""
    parts: list[list[np.ndarray]] = []
    values: dict[str, list[tuple[np.ndarray, np.ndarray]]] = {name: [] for name in options.by}
    place = source.manifest.labels.index(options.label) if options.label else 0
    done, tally = 0, Tally(source.rows, 0.0)
    for part in source.parts:
        for rows in source.read(part, model, tally):
            for start in range(0, len(rows.features), BATCH_ROWS):
                table = rows.features.slice(start, BATCH_ROWS)
                batch = model.collate(table)
                columns = [by_label(model.score(batch).logit)[place], by_label(batch.label)[place], batch.weight]
                columns += [] if batch.group is None else [batch.group]
                parts.append([column.numpy() for column in columns])
                for name in options.by:
                    held, ids = values_of(name, table, source.manifest)
                    values[name].append((held + done, ids))
                done += len(table)
                progress("score", done, source.rows)
    scored = Scored(*(np.concatenate(column) for column in zip(*parts, strict=True)))
    return scored, {name: tuple(np.concatenate(column) for column in zip(*found, strict=True)) for name, found in values.items()}


def about(model: Trained, source: PreparedRows) -> dict[str, Any]:
    return {
        "run": model.config.run.folder,
        "checkpoint": model.checkpoint.path,
        "model": model.config.model.name,
        "precision": "bf16" if model.task.bf16 else "fp32",
        "data": source.root,
        "split": source.splits[0],
    }


def compared(
    first: Scored, run: str, source: PreparedRows, resamples: int, unit: np.ndarray | None, options: Options, progress: Progress
) -> dict[str, Any]:
    """The metrics of both runs and their differences, the AUC's by DeLong where that holds: single rows of equal weight, labels 0 or 1."""
    other = loaded(run, None, options)
    second, _ = score(other, rows_of(other, source.root, source.splits[0]), replace(options, by=()), progress)
    own, its, difference = differences(first, second, resamples, unit=unit, seed=options.seed)
    found = as_dicts(difference)
    if unit is None and len(np.unique(first.weights)) == 1 and np.isin(first.labels, (0, 1)).all():
        found["auc"] = asdict(auc_difference(first.logits, second.logits, first.labels))
    return {"metrics": as_dicts(own), "against": about(other, source) | {"metrics": as_dicts(its)}, "differences": found}


def sliced(name: str, scored: Scored, rows: np.ndarray, ids: np.ndarray, model: Trained, options: Options) -> list[dict[str, Any]]:
    """The most frequent values: rows, positives, and every metric with its interval."""
    shown, found = namer(name, model), []
    for value in largest(ids, options.top):
        part = scored.take(rows[ids == value])
        resamples = affordable(len(part.logits), min(options.resamples, SLICE_RESAMPLES))
        line = {"value": shown(int(value)), "rows": len(part.logits), "positives": float(part.labels.sum())}
        unit = part.groups if options.unit == "group" else None
        found.append(line | as_dicts(intervals(part, resamples, unit=unit, seed=options.seed)))
    return found


def as_dicts(found: dict[str, Any]) -> dict[str, Any]:
    return {name: asdict(value) for name, value in found.items()}
