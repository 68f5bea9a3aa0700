"""A grid of runs: a base configuration, and axes whose settings override it."""

import hashlib
import itertools
import json
import math
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal

from pydantic import Field, PositiveFloat

from sml_dist.config.data import DataConfig
from sml_dist.config.metrics import Comparable
from sml_dist.config.run import RunConfig, load, rooted
from sml_dist.config.settings import load_settings
from sml_dist.data.dataset import read_manifest
from sml_dist.spec import InputError, Name, spec, to_dict
from sml_dist.train.check import check, check_metric

Settings = dict[Name, list[str]]  # label, of which a run is named -> overrides of the base, `key=value`


@spec
class GridConfig:
    """Every combination of one setting an axis, with each seed.

    base: the run's configuration; an axis' setting may name another with `base=FILE` as its first override.
    compare: the axis whose settings are compared, and the setting that the others are compared with.
    metric, split: what is compared. target: the difference in it that one wants to be able to see.
    """

    name: str
    base: str
    axes: dict[str, Settings]
    seeds: Annotated[list[int], Field(min_length=1)]
    compare: tuple[str, str]
    metric: Comparable = "auc"
    split: Literal["valid", "test"] = "valid"
    target: PositiveFloat = 1e-4
    cpus: PositiveFloat = 1.0  # of Ray's, for each run; as many run at once as the machine has room for
    set: list[str] = field(default_factory=list)

    def __post_init__(self) -> None:
        if len({*self.seeds}) < len(self.seeds):
            raise ValueError(f"seeds {self.seeds}: one that counts twice makes intervals too narrow")


@dataclass(frozen=True)
class Cell:
    """One run: its setting of each axis, its seed, its configuration."""

    labels: dict[str, str]
    seed: int
    config: RunConfig


def read_grid(path: str, overrides: list[str] | None = None) -> GridConfig:
    """The grid of a YAML file with `key=value` overrides. Raises InputError."""
    grid = load_settings(GridConfig, path, overrides)
    axis, setting = grid.compare
    if setting not in grid.axes.get(axis, {}):
        raise InputError(f"{path}: compare: [{axis}, {setting}] is no axis and one of its settings")
    return grid


def cells(grid: GridConfig, folder: str) -> list[Cell]:
    """Every cell, its configuration checked, its run below `folder`. Raises InputError that names the wrong key."""
    found = []
    for seed, labels in itertools.product(grid.seeds, itertools.product(*grid.axes.values())):
        named = dict(zip(grid.axes, labels, strict=True))
        overrides = [text for axis, label in named.items() for text in grid.axes[axis][label]]
        bases = [text.partition("=")[2] for text in overrides if text.startswith("base=")]
        rest = [text for text in overrides if not text.startswith("base=")]
        threads = f"train.threads={max(1, int(grid.cpus))}"
        config = load(bases[-1] if bases else grid.base, [threads, *grid.set, *rest, f"train.seed={seed}"])
        check(config)
        check_untracked(config)
        check_compared(grid, config.data)
        found.append(Cell(named, seed, placed(config, folder, named, seed)))
    return found


def check_untracked(config: RunConfig) -> None:
    """Raises InputError for a key of `tracking`: nothing follows a cell."""
    for key, off in (("wandb", "null"), ("tensorboard", "false")):
        if getattr(config.tracking, key):
            way_out = f"take it out, or add tracking.{key}={off} to the study's set"
            raise InputError(f"tracking.{key}: the runs of an ablation go to no W&B or TensorBoard; {way_out}")


def check_compared(grid: GridConfig, data: DataConfig) -> None:
    """Whether the runs on a dataset will have what is compared. Raises InputError."""
    path, manifest = data.path, read_manifest(data.path, data.label)
    split = manifest.splits.get(grid.split)
    if split is None or not split.rows:
        raise InputError(f"split: {path} has no {grid.split} rows")
    check_metric("metric", grid.metric, path, manifest, grid.split)


def placed(config: RunConfig, folder: str, labels: dict[str, str], seed: int) -> RunConfig:
    """The run's name says what it is, and by a hash of its configuration that nothing else is taken for it."""
    raw = to_dict(config)
    raw.pop("tracking")  # which changes no result
    start = raw.pop("run")["warm_start"]  # nor does where a run lies, but what it starts from does
    raw |= {"run": {"warm_start": start}} if start else {}
    code = hashlib.sha256(json.dumps(raw, sort_keys=True).encode()).hexdigest()[:8]
    name = "-".join([*labels.values(), f"seed{seed}", code])
    return rooted(replace(config, run=replace(config.run, name=name, storage=folder)))


def value_of(summary: dict[str, Any], grid: GridConfig) -> float:
    """What is compared; NaN where it is not known, which JSON has no number for."""
    value = summary[grid.split][grid.metric]
    return math.nan if value is None else float(value)
