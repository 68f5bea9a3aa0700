"""Going on from a run's last checkpoint, or refusing to."""

import functools
import os
from collections.abc import Iterator
from typing import Any

from torch import nn

from sml_dist.config.run import FIXED, RunConfig, absolute
from sml_dist.spec import InputError, to_dict
from sml_dist.train.checkpoint import MANIFEST, Checkpoint
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.loop import Progress, monitored
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.shards import Incomplete
from sml_dist.train.state import COUNTER, drop_cached_rows, pieces, set_steps, weights


def restore(
    store: Checkpoints, model: Any, optimizers: Optimizers, config: RunConfig, dataset: str
) -> tuple[Progress | None, list[dict[str, str]], str]:
    """Loads the newest sound checkpoint, made under any sharding plan on any number of workers; None where there is none.

    Also returns the events that there are to tell of: which newer ones are damaged, and the tables whose rowwise state did not
    carry over exactly (see state.py); and the settings that have changed since. Collective. Raises InputError.
    """
    found = store.latest()
    if found is None:
        return None, [], ""
    refuse_another(found, config, dataset)
    progress = progress_of(found, config)
    events = [{"event": "damaged", "why": fault} for fault in found.passed_over]
    if inexact := load(found, model, optimizers):
        events.append({"event": "resharded", "tables": ", ".join(inexact)})
    return progress, events, changed(found, config)


def progress_of(checkpoint: Checkpoint, config: RunConfig) -> Progress:
    """Where a checkpoint's run goes on under a configuration.

    If that monitors another metric, the best weights so far are worth what it says of them, and count as just found: other
    weights of before are not there to be compared. Raises InputError where their evaluation left it undefined.
    """
    try:
        progress = Progress(**checkpoint.manifest["progress"])
    except TypeError as error:
        what = f"{checkpoint.path}/{MANIFEST}: progress is not of this version ({str(error).removeprefix('Progress.__init__() ')})"
        raise InputError(f"{what}; go on with the version that wrote it, or name another run") from None
    if progress.best_step is not None and config.train.monitor != checkpoint.config.train.monitor:
        progress.best, progress.since_best = monitored(progress.best_metrics, config.train), 0
    return progress


def load(checkpoint: Checkpoint, model: Any, optimizers: Optimizers) -> list[str]:
    """Fills weights and optimiser state; the tables whose rowwise state did not carry over exactly."""
    optimizers.create_state()
    wanted = pieces(model, optimizers)
    for piece in [p for p in wanted if p.name.endswith(f".{COUNTER}") and not checkpoint.reader.holds(p.name)]:
        piece.tensor.fill_(checkpoint.table_steps)  # FBGEMM's Adagrads, which the table was under, count no steps
        wanted.remove(piece)
    try:
        inexact = checkpoint.reader.fill(wanted)
    except Incomplete as error:
        raise InputError(f"checkpoint {checkpoint.path} does not fit this model: {error}; choose another run.name") from None
    drop_cached_rows(model)
    set_steps(model, checkpoint.table_steps)
    return sorted(name.partition(".")[0] for name in inexact)


def load_weights(checkpoint: Checkpoint, model: nn.Module) -> None:
    """Fills the weights alone, of a sharded task or a plain one."""
    checkpoint.reader.fill(list(weights(model)))
    drop_cached_rows(model)


def refuse_another(checkpoint: Checkpoint, config: RunConfig, dataset: str) -> None:
    """A checkpoint of this name that another configuration or dataset made is not gone on from."""
    was, now = to_dict(checkpoint.config), to_dict(config)
    for key in FIXED:
        old, new = (functools.reduce(lambda section, part: section[part], key.split("."), each) for each in (was, now))
        if old != new:
            name, before, after = next(_differences(key, old, new))
            raise InputError(f"run {config.run.name} was started with {name}={before}, now it is {after}; choose another run.name")
    asked, first = (run["warm_start"] and place(run["warm_start"]) for run in (now["run"], was["run"]))
    if asked and asked != first:
        why = f"run {config.run.name} was started from {first or 'no other run'}, now run.warm_start is {asked}"
        raise InputError(f"{why}; leave that out, or choose another run.name")
    if checkpoint.manifest["dataset"] != dataset:
        raise InputError(f"run {config.run.name} was started on another dataset than {config.data.path} now holds; choose another run.name")


def changed(checkpoint: Checkpoint, config: RunConfig) -> str:
    """The settings that are not the checkpoint's, as in train.lr 0.001 -> 0.002; without the folders' places and what follows the run."""
    found = _differences("", to_dict(checkpoint.config), to_dict(config))
    return ", ".join(f"{key} {old} -> {new}" for key, old, new in found if not key.startswith(("run.", "tracking.", "data.path")))


def place(path: str) -> str:
    """A folder's canonical path, so that two spellings compare equal."""
    path = absolute(path)
    return path.rstrip("/") if "://" in path else os.path.realpath(path)


def _differences(key: str, old: Any, new: Any) -> Iterator[tuple[str, Any, Any]]:
    """The innermost keys at which two sections differ, each with its values."""
    if isinstance(old, dict) and isinstance(new, dict):
        for part in sorted({*old, *new}):
            yield from _differences(f"{key}.{part}" if key else part, old.get(part), new.get(part))
    elif old != new:
        yield key, old, new
