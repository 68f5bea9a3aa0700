"""`sml-dist verify RUN`: are the checkpoints sound, and was each row of each epoch used once on the way to the last of them?

Reads files alone: the run's manifests, and where it kept a ledger, that and the dataset's plan. See ledger.py for which lines count.
Steps of attempts that kept none are left out and named.
"""

import json
from collections import Counter, defaultdict
from pathlib import Path
from typing import Any

import numpy as np

from sml_dist.data.dataset import Manifest, fingerprint, read_manifest, read_rows, row_groups
from sml_dist.spec import InputError
from sml_dist.train.checkpoint import Checkpoint, Damaged, OtherFormat, steps, verify
from sml_dist.train.ledger import digest
from sml_dist.train.rows import training_plan
from sml_dist.train.storage import Storage


def verify_run(folder: str, data: str | None = None) -> dict[str, Any]:
    """What was found, with `ok`; `rows` and what follows where there is a ledger, with the first and last steps of the stretches
    that are `unrecorded`. `data` says where the dataset lies now, if it was moved. Raises InputError."""
    storage = Storage(Path(folder) / "checkpoints")
    names = steps(storage)[::-1]
    if not names:
        raise InputError(f"{folder} holds no checkpoint; name the folder of a run (run.storage/run.name)")
    faults, newest = [], None
    for name in names:
        try:
            newest = verify(storage, name)
        except Damaged as error:
            faults.append(str(error))
        except OtherFormat as error:
            faults.append(f"{error}: take that version to check it")
    found: dict[str, Any] = {"run": str(folder), "checkpoints": len(names), "damaged": faults}
    if newest is not None:
        found |= {"step": newest.manifest["step"]} | _rows(Path(folder), newest, data)
    amiss = any(found.get(name) for name in ("wrong", "missing", "doubled"))
    return found | {"ok": not faults and newest is not None and not amiss}


def _rows(folder: Path, checkpoint: Checkpoint, data: str | None) -> dict[str, Any]:
    """The ledger of a checkpoint's history compared with the plan: rows missing, doubled, or in a batch that is not the plan's.
    {} where none was kept."""
    config, progress = checkpoint.config, checkpoint.manifest["progress"]
    left_out = not_recorded(progress)
    if sum(last - first for first, last in left_out) == progress["step"]:
        return {}
    root = config.data.path if data is None else data
    dataset = read_manifest(root)
    if fingerprint(root) != checkpoint.manifest["dataset"]:
        raise InputError(f"{root} is not the dataset that {folder} was trained on; name it with --data")
    plan = training_plan(dataset, config)
    used = history(folder / "ledger", progress["history"], progress["step"])
    times = Counter((line["epoch"], line["batch"]) for line in used)
    lines = {(line["epoch"], line["batch"]): line for line in used}

    def recorded(start: int, end: int) -> bool:
        return not any(first < end and start < last for first, last in left_out)

    rows = missing = doubled = wrong = 0
    weights: dict[int, float] = defaultdict(float)
    for epoch in range(progress["epoch"] + (progress["batch"] > 0)):
        due = progress["batch"] if epoch == progress["epoch"] else plan.steps
        for batch, ids in zip(range(due), plan.batches(epoch), strict=False):
            step = epoch * plan.steps + batch
            if not recorded(step, step + 1):
                continue
            line, count = lines.get((epoch, batch)), times.pop((epoch, batch), 0)
            missing, doubled, rows = missing + len(ids) * (not count), doubled + len(ids) * max(count - 1, 0), rows + len(ids) * bool(count)
            if line is not None:
                weights[epoch] += line["weight"]
                wrong += len(ids) * (line["rows"] != len(ids) or line["digest"] != f"{digest(ids):016x}")
    doubled += sum(lines[place]["rows"] * count for place, count in times.items())
    whole = _weight(root, dataset)
    known = [epoch for epoch in range(progress["epoch"]) if recorded(epoch * plan.steps, (epoch + 1) * plan.steps)]
    heavy = [epoch for epoch in known if not np.isclose(weights[epoch], whole, rtol=1e-5)]
    skipped = [[line["epoch"], line["batch"]] for line in used if line["skipped"]]
    return {
        "epochs": progress["epoch"] + progress["batch"] / plan.steps,
        "attempts": len(progress["history"]),
        "workers": [workers for _, _, workers in progress["history"]],
        "rows": rows,
        "missing": missing,
        "doubled": doubled,
        "wrong": wrong + plan.rows * len(heavy),
        "skipped": skipped,
        "unrecorded": [[first + 1, last] for first, last in left_out],
    }


def not_recorded(progress: dict[str, Any]) -> list[tuple[int, int]]:
    """The steps [first, last) of each attempt of a checkpoint's history that kept no ledger."""
    attempts = _attempts(progress["history"], progress["step"])
    return [(first, last) for attempt, first, last, _ in attempts if attempt is None and first < last]


def _attempts(attempts: list[list[Any]], end: int) -> list[tuple[str | None, int, int, int]]:
    """(attempt, first step, the step after its last, workers) of each."""
    ends = [first for _, first, _ in attempts[1:]] + [end]
    return [(attempt, first, last, workers) for (attempt, first, workers), last in zip(attempts, ends, strict=True)]


def history(folder: Path, attempts: list[list[Any]], end: int) -> list[dict[str, Any]]:
    """The steps that lead to step `end` and are in the ledger, one line each, added up over the workers that did them."""
    steps = []
    for attempt, first, last, workers in _attempts(attempts, end):
        if attempt is None:
            continue
        parts: dict[int, list[dict[str, Any]]] = defaultdict(list)
        for rank in range(workers):
            for line in _lines(folder / f"{attempt}-rank-{rank}.jsonl"):
                if first <= line["step"] < last:
                    parts[line["step"]].append(line)
        steps += [_added(lines) for _, lines in sorted(parts.items()) if len(lines) == workers]
    return steps


def _added(lines: list[dict[str, Any]]) -> dict[str, Any]:
    digests = sum(int(line["digest"], 16) for line in lines) % (1 << 64)
    return {
        "step": lines[0]["step"],
        "epoch": lines[0]["epoch"],
        "batch": lines[0]["batch"],
        "rows": sum(line["rows"] for line in lines),
        "digest": f"{digests:016x}",
        "weight": sum(line["weight"] for line in lines),
        "skipped": any(line.get("skipped") for line in lines),
    }


def _lines(path: Path) -> list[dict[str, Any]]:
    """A ledger file's lines; a last one that a crash cut is left out."""
    if not path.is_file():
        return []
    return [json.loads(line) for line in path.read_text().split("\n")[:-1]]


def _weight(root: str, dataset: Manifest) -> float:
    """The weights of all training rows, added up."""
    if not dataset.weight:
        return float(dataset.splits["train"].rows)
    groups = row_groups(dataset.splits["train"])
    return sum(float(read_rows(root, path, group, ["weight"])["weight"].to_numpy().sum(dtype=np.float64)) for path, group, _ in groups)
