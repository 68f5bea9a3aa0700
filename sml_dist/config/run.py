"""RunConfig: the whole configuration of a training run, read from YAML and dotted overrides, written as YAML."""

import dataclasses
import os
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf
from pydantic import ValidationError

from sml_dist.config.data import DataConfig
from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.faults import explain
from sml_dist.config.file import read_yaml
from sml_dist.config.tracking import TrackingConfig
from sml_dist.config.train import TrainConfig
from sml_dist.credentials import refuse_in
from sml_dist.models.zoo import ModelConfig
from sml_dist.spec import InputError, Mounted, Name, from_dict, spec, to_dict

# Keys that cannot change when a run is resumed: they say what the tensors mean, and which rows come next.
FIXED = (
    "model", "data.label", "data.streams", "data.shuffle", "embedding.dim", "embedding.pooling", "embedding.optimizer",
    "train.global_batch_size", "train.seed", "train.optimizer",
)  # fmt: skip


@spec
class RunSection:
    """A run lives in the folder `storage`/`name`; the same command again goes on from its last checkpoint.

    warm_start: the folder of a checkpoint, or of another run, whose best weights a new run starts from.
    """

    name: Name
    storage: Mounted = "runs"
    warm_start: Mounted | None = None

    @property
    def folder(self) -> str:
        return os.path.join(self.storage, self.name)


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
    """The same as plain data, without the defaults: what `parse` takes."""
    return read_yaml(path, overrides, {"run": {"name": Path(path).stem}})


def parse(raw: dict[str, Any], kept: str = "") -> RunConfig:
    """The configuration of plain data. Raises InputError that names each wrong key and the nearest right one, or a secret's place.

    `kept`: the file of a run or a checkpoint that `raw` was read from, if it was, for the error to name.
    """
    try:
        refuse_in(raw, "")
        return from_dict(RunConfig, raw)
    except InputError as error:
        fault = str(error)
    except ValidationError as error:
        fault = explain(RunConfig, error, raw, kept=bool(kept))
        fault += "; go on with the version that wrote it, or name another run" if kept else ""
    raise InputError(f"{kept}: {fault}" if kept else fault)


def absolute(path: str, here: str = "") -> str:
    """The path made absolute, for a process with another working directory; `here`: what it is relative to, else this process's."""
    return path if "://" in path else os.path.abspath(os.path.join(here, path))


def rooted(config: RunConfig, here: str = "") -> RunConfig:
    """The configuration with absolute paths, for a process with another working directory; `here` as in absolute."""
    run, data = config.run, config.data
    run = dataclasses.replace(run, storage=absolute(run.storage, here), warm_start=run.warm_start and absolute(run.warm_start, here))
    return dataclasses.replace(config, run=run, data=dataclasses.replace(data, path=absolute(data.path, here)))


def dump(config: RunConfig) -> str:
    """The configuration as YAML, defaults included; `parse` reads it as an equal one."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))
