"""RunConfig: the whole configuration of a training run; from YAML and dotted overrides, to YAML."""

import copy
import dataclasses
import math
import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from sml_dist.config.data import DataConfig
from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.faults import explain
from sml_dist.config.file import read_yaml
from sml_dist.config.tracking import TrackingConfig
from sml_dist.config.train import LONGEST, TrainConfig
from sml_dist.credentials import refuse_in
from sml_dist.models.zoo import ModelConfig
from sml_dist.spec import InputError, Mounted, Name, from_dict, mounted, named, spec, to_dict

# What cannot change between a run and its resumption: the meaning of the tensors, and which rows come next.
FIXED = (
    "model", "data.streams", "data.shuffle", "embedding.dim", "embedding.pooling", "embedding.optimizer",
    "train.global_batch_size", "train.seed", "train.optimizer",
)  # fmt: skip


@spec
class RunSection:
    """A run lives in the folder `storage`/`name`; the same name again goes on from its last checkpoint.

    `warm_start`: a checkpoint's folder, or another run's, whose weights a new run starts from.
    """

    name: Name
    storage: Mounted = "runs"
    warm_start: Mounted | None = None

    @property
    def folder(self) -> str:
        return f"{self.storage.rstrip('/')}/{self.name}"


@spec
class RunConfig:
    run: RunSection
    data: DataConfig
    model: ModelConfig
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    tracking: TrackingConfig = dataclasses.field(default_factory=TrackingConfig)


def load(path: str, overrides: list[str] | None = None) -> RunConfig:
    """The configuration of a YAML file with `a.b=c` overrides; the run is named after the file unless it says otherwise."""
    return parse(read(path, overrides))


def read(path: str, overrides: list[str] | None = None) -> dict[str, Any]:
    """What a YAML file and overrides say, as plain data without the defaults: what `parse` takes."""
    return read_yaml(path, overrides, {"run": {"name": Path(path).stem}})


def parse(raw: dict[str, Any]) -> RunConfig:
    """The configuration of plain data; raises InputError that names each wrong key and the nearest right one, or a secret's place."""
    refuse_in(raw, "")
    try:
        return from_dict(RunConfig, raw)
    except ValidationError as error:
        raise InputError(explain(RunConfig, error, raw)) from None


def parse_kept(raw: dict[str, Any]) -> RunConfig:
    """The configuration that a run has kept, whose values were within the limits of its time. Raises InputError as `parse` does."""
    return parse(within_limits(copy.deepcopy(raw)))


def within_limits(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration's plain data, in place, with what limits that are newer refuse in the form that they allow: no number that is not
    finite, a wait of at most `LONGEST`, and the run's folder by a storage and a name."""
    run, train = ({} if not isinstance(raw.get(name), dict) else raw[name] for name in ("run", "train"))
    if train.get("clip_norm") == math.inf:
        train["clip_norm"] = None
    wait = train.get("step_timeout_s")
    if isinstance(wait, int | float) and wait > LONGEST:
        train["step_timeout_s"] = LONGEST
    _leave_out_nonfinite(raw)
    storage, name, start = run.get("storage", "runs"), run.get("name"), run.get("warm_start")
    if isinstance(storage, str) and isinstance(name, str) and not (_allowed(named, name) and _allowed(mounted, storage)):
        storage, name = os.path.split(os.path.normpath(f"{storage.rstrip('/')}/{name}"))
        run |= {"storage": storage or ".", "name": name.replace("\\", "_").lstrip(".") or "_"}
    if isinstance(start, str) and not _allowed(mounted, start):
        run["warm_start"] = os.path.normpath(start) if start else None  # s3://a was the folder s3:/a
    return raw


def _allowed(limit: Callable[[str], str], value: str) -> bool:
    try:
        return limit(value) == value
    except ValueError:
        return False


def _leave_out_nonfinite(section: dict[str, Any]) -> None:
    """Which leaves its default, wherever one stands."""
    for key, value in list(section.items()):
        if isinstance(value, dict):
            _leave_out_nonfinite(value)
        elif isinstance(value, float) and not math.isfinite(value):
            del section[key]


def absolute(path: str, here: str = "") -> str:
    """A path that a process in another folder can open; a relative one is below `here`, else below this process's folder."""
    return path if "://" in path else os.path.abspath(os.path.join(here, path))


def rooted(config: RunConfig, here: str = "") -> RunConfig:
    """The configuration for a process in another folder: its paths are absolute."""
    run, data = config.run, config.data
    run = dataclasses.replace(run, storage=absolute(run.storage, here), warm_start=run.warm_start and absolute(run.warm_start, here))
    return dataclasses.replace(config, run=run, data=dataclasses.replace(data, path=absolute(data.path, here)))


def as_before(raw: dict[str, Any]) -> dict[str, Any]:
    """A configuration's plain data, in place, with numbers where a default that follows the device was one once, and within today's limits:
    to be compared with what was kept of that time."""
    within_limits(raw)
    for section, key, number in (("data", "prefetch_windows", 2), ("train", "eval_batch_size", 16_384)):
        if raw.get(section, {}).get(key, number) is None:
            raw[section][key] = number
    return raw


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))
