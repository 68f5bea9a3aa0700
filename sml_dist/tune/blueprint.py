"""From a trial's parameters to its run's configuration; and all that can be refused before a trial starts."""

import functools
import itertools
import math
import os
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import optuna
from omegaconf import OmegaConf
from omegaconf.errors import OmegaConfBaseException

from sml_dist.config.run import FIXED, RunConfig, absolute, parse, read, rooted
from sml_dist.config.settings import load_settings
from sml_dist.config.tune import SweepConfig
from sml_dist.data.dataset import read_manifest
from sml_dist.data.plan import Cursor
from sml_dist.spec import InputError, one_line, to_dict
from sml_dist.train.check import check, check_metric, check_splits
from sml_dist.train.rows import training_plan
from sml_dist.train.run_folder import RunFolder, objects
from sml_dist.trials import Record, Sweep, value_at
from sml_dist.tune.space import Params, Space, new_study

# What a sweep sets itself, and what its trials share out the cluster by.
OWN = ("run.name", "run.storage", "train.monitor", "train.eval_every_steps", "train.num_workers", "train.worker_resources", "train.device")
SAMPLES = 50  # whole points that are drawn and checked beforehand


@dataclass(frozen=True)
class Blueprint:
    """A sweep and what its trials vary: `raw` is the base's plain data, without defaults.

    `here`: the command's folder, below which relative paths are. Tune gives each trial's process a folder of its own.
    """

    sweep: SweepConfig
    raw: dict[str, Any]
    here: str = field(default_factory=os.getcwd)

    @classmethod
    def read(cls, path: str, overrides: list[str] | None = None) -> "Blueprint":
        """Of a sweep's YAML file with `key=value` overrides. Raises InputError."""
        sweep = load_settings(SweepConfig, path, overrides)
        return cls(sweep, read(sweep.base, sweep.set))

    @functools.cached_property
    def space(self) -> Space:
        return Space(self.sweep.space)

    @functools.cached_property
    def base(self) -> RunConfig:
        return parse(self.raw)

    @property
    def folder(self) -> Path:
        return Path(absolute(self.sweep.folder, self.here))

    @property
    def datasets(self) -> list[str]:
        """Every dataset that a trial may read, or that epochs are counted by."""
        return [self.base.data.path, *(self.space.extremes("data.path") if "data.path" in self.space.dimensions else [])]

    def with_trials(self, records: Iterable[Record]) -> Sweep:
        """The sweep as far as it has come."""
        return Sweep(self.folder, self.sweep, to_dict(self.base), list(records))

    def run_of(self, id: int) -> str:
        """A trial's run folder, relative to the sweep's."""
        return f"trials/{id:05d}"

    def trial(self, id: int, params: Params) -> RunConfig:
        """The configuration that a trial runs with. Raises InputError."""
        found = self.chosen(params)
        manifest = read_manifest(found.data.path)
        # rounded up: one step short of the scheduler's epoch would mean a whole evaluation later
        steps = max(1, math.ceil(round(training_plan(manifest, found).steps * self.sweep.evaluate_every, 6)))
        threads = found.train.threads or max(1, int(self.sweep.cpus))
        own = {
            "run.name": f"{id:05d}",
            "run.storage": str(self.folder / "trials"),
            "data.path": found.data.path,
            "run.warm_start": found.run.warm_start,
            "train.monitor": self.sweep.metric,
            "train.threads": threads,
            "train.eval_every_steps": None if self.sweep.evaluate_every == 1 else steps,
        }
        return parse(with_values(self.raw, params | own))

    def evaluations(self, id: int, params: Params) -> list[dict[str, Any]]:
        """What a trial's run has written down of its evaluations, with the rows that it had trained on."""
        config = self.chosen(params)
        plan = training_plan(read_manifest(config.data.path), config)
        whole = next(RunFolder(self.folder / self.run_of(id)).new_lines("metrics.jsonl", whole=True))  # a kill may leave half of one
        found: list[dict[str, Any]] = []
        for line in (line for line in objects(whole) if line.get("split") == "valid"):
            cursor = Cursor(line["epoch"], line["step"] - line["epoch"] * plan.steps)
            found.append(line | {"rows": plan.rows_before(cursor)})
        return found

    def best(self, params: Params) -> RunConfig:
        """The configuration for `sml-dist train` of the trial with these parameters."""
        every = self.trial(0, params).train.eval_every_steps
        own = {"run.name": f"{self.sweep.name}-best", "train.monitor": self.sweep.metric, "train.eval_every_steps": every}
        return parse(with_values(self.raw, params | own))

    def chosen(self, params: Params) -> RunConfig:
        """The base with these parameters, for any process. Raises InputError."""
        return rooted(parse(with_values(self.raw, params)), self.here)

    def point(self, number: int, given: Params | None = None) -> Params:
        """One of the points that come first: its values, the base's for the other keys. Raises InputError."""
        named = self.sweep.points[number]
        if unknown := [key for key in named if key not in self.space.dimensions]:
            raise InputError(f"points[{number}]: {unknown[0]} is not a key of the space")

        def value(key: str) -> Any:
            found = named[key] if key in named else value_at(to_dict(self.base), key)
            own = self.space.own(key, found)
            if not own:
                if self.sweep.points == [{}]:  # the default, of which the user may know nothing
                    what = f"the first trial is the base itself, and its {key} {found} is not in the space"
                    raise InputError(f"{what}; add it there, or set points=[] to leave the base out")
                what = f"the base's {key} {found}" if key not in named else f"{key} {found}"
                raise InputError(f"points[{number}]: {what} is not in the space; add it there, name another in the point, or set points=[]")
            return own[0]

        return self.space.walk(value, given)

    def variants(self) -> list[Params]:
        """What the trials of one draw differ in: with `pair` each of its values, else nothing."""
        pair = self.sweep.pair
        return [{pair: value} for value in self.space.extremes(pair)] if pair else [{}]

    def draw(self, number: int) -> list[Params]:
        """The parameters of a point's trials. Raises InputError."""
        return [self.point(number, given) for given in self.variants()]

    def check(self) -> int:
        """The metric on each dataset, every value in a branch that has it, then whole points: each must be a configuration that can run.

        Returns the most rows that a trial can train on. Raises InputError that names the key and the way out.
        """
        for given in self.datasets[1:] or self.datasets:  # the base's is among the space's, if any trial reads it
            data = self.chosen({"data.path": given}).data
            manifest = read_manifest(data.path, data.label)
            check_splits(data.path, manifest)
            check_metric("metric", self.sweep.metric, data.path, manifest, "valid")
        for key in self.space.dimensions:
            if key in OWN:
                raise InputError(f"space.{key} is the same for all trials of a sweep; take it out, and set it in the base")
            for value in self.space.extremes(key):
                self._check(f"space.{key}: {value!r}", self.space.branch_of(key) | {key: value})
        drawn = new_study(optuna.samplers.RandomSampler(seed=self.sweep.search.seed))
        most = [self._check("space", self.space.suggested(drawn.ask())) for _ in range(SAMPLES)]
        if self.sweep.search.name == "grid":
            most += [self._check("space", params) for params in self.space.grid()]
        most += [self._check(f"points[{number}]", self.point(number)) for number in range(len(self.sweep.points))]
        self._check_points()
        self._check_scheduler(max(most))
        return max(most)

    def _check(self, where: str, params: Params) -> int:
        """The rows of a whole run of this configuration."""
        try:
            config = self.trial(0, params)
            plan = check(config)
        except InputError as error:
            raise InputError(f"{where}: {error}") from None
        return min(config.train.most_steps(plan.steps) * config.train.global_batch_size, config.train.epochs * plan.rows)

    def _check_points(self) -> None:
        """As many as there may be trials, of which no two are alike; a grid has as many as it has, a population any one twice."""
        sweep, number = self.sweep, len(self.sweep.points)
        if sweep.search.name != "grid" and number > sweep.trials:
            raise InputError(f"points: {number} of them are more than trials={sweep.trials}; take some out, or set trials={number}")
        if sweep.scheduler.name == "pbt":
            return
        draws = [[self.space.encoded(params) for params in self.draw(n)] for n in range(number)]
        for one, other in itertools.combinations(range(number), 2):
            if draws[one] == draws[other]:
                keys = ", ".join(f"{key} {value}" for key, value in self.draw(one)[0].items() if key != sweep.pair)
                raise InputError(f"points[{one}] and points[{other}] come to the same parameters ({keys}); take one out")

    def _check_scheduler(self, rows: int) -> None:
        scheduler, epoch = self.sweep.scheduler, self.epoch_rows
        if scheduler.name in ("asha", "median") and scheduler.grace * epoch > rows:
            raise InputError(f"scheduler.grace {scheduler.grace:g} is longer than a trial of {rows / epoch:g} epochs")
        if scheduler.name != "pbt":
            return
        for key, dimension in self.sweep.space.items():
            if dimension.when:
                raise InputError(f"space.{key}: population based training changes settings as it goes; it knows no `when`")
            if any(key == fixed or key.startswith(f"{fixed}.") for fixed in FIXED):
                raise InputError(f"space.{key} cannot change within a run, as population based training would have it; take it out")
        if self.base.train.record_rows:
            raise InputError("train.record_rows: a run that takes another's checkpoint has no ledger of its rows; set it to false")

    @functools.cached_property
    def epoch_rows(self) -> int:
        return read_manifest(self.base.data.path).splits["train"].rows


def with_values(raw: dict[str, Any], values: Params) -> dict[str, Any]:
    """Plain data with dotted keys set. Raises InputError."""
    found = OmegaConf.create(raw)
    for key, value in values.items():
        try:
            OmegaConf.update(found, key, value, merge=False, force_add=True)
        except (OmegaConfBaseException, AttributeError, TypeError) as error:
            raise InputError(f"{key}: {one_line(error)}") from None
    return OmegaConf.to_container(found)
