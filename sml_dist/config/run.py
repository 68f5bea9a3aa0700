"""RunConfig: the whole configuration of a training run; from YAML and dotted overrides, to YAML."""

import dataclasses
import difflib
from collections.abc import Iterator
from pathlib import Path
from typing import Any, get_args

from omegaconf import OmegaConf
from pydantic import ValidationError

from sml_dist.config.data import DataConfig
from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.settings import read_yaml, short
from sml_dist.config.tracking import TrackingConfig
from sml_dist.config.train import TrainConfig
from sml_dist.credentials import refuse_in
from sml_dist.models.zoo import ZOO, ModelConfig
from sml_dist.spec import InputError, Mounted, from_dict, spec, to_dict

# What cannot change between a run and its resumption: the meaning of the tensors, and which rows come next.
FIXED = (
    "model", "data.streams", "data.shuffle", "embedding.dim", "embedding.optimizer",
    "train.global_batch_size", "train.seed", "train.optimizer",
)  # fmt: skip


@spec
class RunSection:
    """A run lives in the folder `storage`/`name`; the same name again goes on from its last checkpoint.

    `warm_start`: a checkpoint's folder, or another run's, whose weights a new run starts from.
    """

    name: str
    storage: Mounted = "runs"
    warm_start: str | None = None

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
        raise InputError("; ".join(_explain(fault, raw) for fault in error.errors())) from None


def dump(config: RunConfig) -> str:
    """The resolved configuration as YAML."""
    return OmegaConf.to_yaml(OmegaConf.create(to_dict(config)))


def keys(cls: type, prefix: str = "", model: str | None = None) -> Iterator[str]:
    """Every dotted key below a section; of the models' keys those of `model` alone."""
    for field in dataclasses.fields(cls):
        kind, name = field.type, prefix + field.name
        if field.name == "model" and not prefix:
            kind = ZOO[model].config if model in ZOO else None
        yield name
        for part in (kind, *get_args(kind)):
            if dataclasses.is_dataclass(part):
                yield from keys(part, name + ".")


def _explain(fault: Any, raw: dict[str, Any]) -> str:
    model = raw["model"].get("name") if isinstance(raw.get("model"), dict) else None
    path = [str(part) for part in fault["loc"]]
    if path[:1] == ["model"] and path[1:2] == [model]:
        del path[1]  # the union's tag is no key
    key = ".".join(path)
    if fault["type"] == "unexpected_keyword_argument":
        return f"{short(key)} is not a key; {_nearest(key, list(keys(RunConfig, model=model)))}"
    if fault["type"] in ("missing", "missing_argument", "missing_keyword_only_argument"):
        return f"{key} is missing; add it to the file or give --set {key}=..."
    if path == ["model"] and isinstance(raw["model"], str):
        return f"model: {short(raw['model'])!r} is no section; say model.name={short(raw['model'])}"
    if fault["type"].startswith("union_tag"):
        return f"model.name {short(model)!r} is not in the zoo; it has {', '.join(ZOO)}"
    if fault["type"] == "value_error":  # a check of ours: its line says what was given
        return f"{short(key)}: {short(fault['ctx']['error'], 240)}"
    return f"{short(key)}: {fault['msg'][0].lower()}{fault['msg'][1:]} (got {short(repr(fault['input']))})"


def _nearest(key: str, known: list[str]) -> str:
    """The likest key: first among those of the same section, then by last part anywhere; else what the section has."""
    section, _, last = key.rpartition(".")
    siblings = [k for k in known if k.rpartition(".")[0] == section]
    by_last = {k.rpartition(".")[2]: k for k in reversed(known)}
    likest = difflib.get_close_matches(key, siblings, 1, 0.8) or [by_last[m] for m in difflib.get_close_matches(last, by_last, 1, 0.8)]
    if likest:
        return f"did you mean {likest[0]}?"
    return f"{short(section) or 'the configuration'} has {', '.join(k.rpartition('.')[2] for k in siblings)}"
