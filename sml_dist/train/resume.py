"""Going on from a run's last checkpoint, or refusing to."""

import functools
from typing import Any

from sml_dist.config.run import RunConfig
from sml_dist.spec import InputError, to_dict
from sml_dist.train import checkpoint
from sml_dist.train.loop import Progress
from sml_dist.train.optimizers import Optimizers

# What cannot change between a run and its resumption: the meaning of the tensors, and which rows come next.
FIXED = (
    "model", "data.streams", "data.shuffle", "embedding.dim", "embedding.optimizer", "embedding.sharding",
    "embedding.data_parallel_rows", "embedding.tables", "train.global_batch_size", "train.seed", "train.optimizer",
)  # fmt: skip


def resume(store: checkpoint.Checkpoints, model: Any, optimizers: Optimizers, config: RunConfig, dataset: str) -> Progress:
    """Loads the newest sound checkpoint and returns its progress; a run without one starts at zero. Collective."""
    found = store.latest()
    if found is None:
        return Progress()
    refuse_another(found.manifest, config, dataset)
    optimizers.create_state()
    checkpoint.load(found, state(model, optimizers))
    progress = Progress(**found.manifest["progress"])
    progress.restarts += 1
    return progress


def state(model: Any, optimizers: Optimizers) -> dict[str, Any]:
    """Every tensor of a run; loading fills them in place."""
    return {"model": model.state_dict(), "optim": optimizers.state()}


def refuse_another(manifest: dict[str, Any], config: RunConfig, dataset: str) -> None:
    """A checkpoint of this name that another configuration or dataset made is not gone on from."""
    was, now = manifest["config"], to_dict(config)
    for key in FIXED:
        old, new = (functools.reduce(lambda section, part: section[part], key.split("."), each) for each in (was, now))
        if old != new:
            name, before, after = _first_difference(key, old, new)
            raise InputError(f"run {config.run.name} was started with {name}={before}, now it is {after}; choose another run.name")
    if manifest["dataset"] != dataset:
        raise InputError(f"run {config.run.name} was started on another dataset than {config.data.path} now holds; choose another run.name")


def _first_difference(key: str, old: Any, new: Any) -> tuple[str, Any, Any]:
    """The innermost key at which two sections differ."""
    if isinstance(old, dict) and isinstance(new, dict):
        for part in sorted({*old, *new}):
            if old.get(part) != new.get(part):
                return _first_difference(f"{key}.{part}", old.get(part), new.get(part))
    return key, old, new
