"""A sweep: which keys of a run's configuration are searched, how, and how long."""

import math
import os
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.config.metrics import METRICS, Comparable
from sml_dist.spec import Mounted, Name, spec


@spec
class Dimension:
    """The values that a key of the configuration may take: give exactly one of the first six.

    choice, grid: one of these values, of any type. grid is for `search.name: grid`, which tries all of them.
    uniform, loguniform: [low, high]; quniform: [low, high, step]; randint: [low, high], both ends included.
    when: {key: value or list of values}, keys that come earlier in the space: this key is searched only if they have such values.
    """

    choice: list[Any] | None = None
    grid: list[Any] | None = None
    uniform: tuple[float, float] | None = None
    loguniform: tuple[PositiveFloat, PositiveFloat] | None = None
    quniform: tuple[float, float, PositiveFloat] | None = None
    randint: tuple[int, int] | None = None
    when: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        given = [name for name, value in vars(self).items() if name != "when" and value is not None]
        if len(given) != 1:
            raise ValueError(f"give one of choice, grid, uniform, loguniform, quniform, randint (got {', '.join(given) or 'none'})")
        value = getattr(self, given[0])
        if not value or (given[0] not in ("choice", "grid") and value[0] >= value[1]):
            raise ValueError(f"{given[0]} {value} is empty")
        if any(isinstance(each, float) and not math.isfinite(each) for each in value):  # which the books, in JSON, cannot hold
            raise ValueError(f"{given[0]} {value} has a number that is not finite; give a large one")


@spec
class SearchConfig:
    """random; grid: every combination of the space's `grid` and `choice` values; optuna: TPE over all keys together.

    startup: how many trials optuna draws at random first.
    """

    name: Literal["random", "grid", "optuna"] = "optuna"
    seed: NonNegativeInt = 0
    startup: PositiveInt = 10


@spec
class SchedulerConfig:
    """none: every trial runs to its end.
    asha: after `grace`, `grace` x `reduction`, ... epochs only the best 1/`reduction` of the trials that got there go on.
    median: after `grace` epochs a trial stops if its best value is worse than the median of the other trials' means.
    pbt: every `interval` epochs the worst `quantile` of the trials take over the checkpoint of one of the best, with tables
    and optimiser state, and go on with a variation of its settings.
    """

    name: Literal["none", "asha", "median", "pbt"] = "asha"
    grace: PositiveFloat = 1.0
    reduction: Annotated[float, Field(gt=1)] = 3.0
    interval: PositiveFloat = 1.0
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25


@spec
class SweepConfig:
    """A sweep lives in the folder `storage`/`name`; the same command again goes on from there.

    base, set: the configuration of every trial: a YAML file, and overrides `key=value` of it.
    space: the keys that are searched, dotted, in the order in which they are drawn.
    points: settings to try first: values of some keys of the space; the others keep the base's. {} is the base itself.
    metric: what is optimised, on the validation rows; the trials' train.monitor is set to it.
    evaluate_every: epochs between evaluations (0.5: two in each), rounded up to whole steps, and so between a scheduler's decisions.
    pair: a key of the space: each draw of the other keys is tried with every value of this one.
    trials: how many in all, points included; with `pair`, how many draws. No two are alike, except under pbt, so that a
        smaller space, or a grid, has only as many as it has points.
    cpus: Ray's CPUs for each worker. As many trials run at once as the cluster has room for, but at most `concurrent`.
    minutes, rows: the budget: time of this command, rows trained on by all trials together. When it is spent, trials are cut
        off; the command given again, with more rows if those were spent, goes on from their last checkpoints.
    retries: for each trial whose process died. keep: how many of the best trials keep their checkpoints; the default does besides.
    """

    name: Name
    base: str
    space: dict[str, Dimension]
    storage: Mounted = "sweeps"
    set: list[str] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    metric: Comparable = "auc"
    evaluate_every: PositiveFloat = 1.0
    pair: str | None = None
    trials: PositiveInt = 20
    search: SearchConfig = field(default_factory=SearchConfig)
    scheduler: SchedulerConfig = field(default_factory=SchedulerConfig)
    cpus: PositiveFloat = 1.0
    concurrent: PositiveInt | None = None
    minutes: PositiveFloat | None = None
    rows: PositiveInt | None = None
    retries: NonNegativeInt = 2
    keep: PositiveInt = 3

    def __post_init__(self) -> None:
        if self.pair and self.pair not in self.space:
            raise ValueError(f"pair {self.pair} is not in the space")
        if self.pair and self.space[self.pair].when:
            raise ValueError(f"pair {self.pair} has a `when`; a pair is of every branch")
        if self.pair and self.search.name == "grid":
            raise ValueError("a grid has every pair as it is; take the pair out, or set search.name to random or optuna")
        if self.pair and self.scheduler.name != "none":
            raise ValueError("a pair is compared at the same rows; with pair, set scheduler.name to none")

    @property
    def folder(self) -> str:
        return os.path.join(self.storage, self.name)

    def control(self, values: Sequence[Any], base: Any) -> Any:
        """The value of `pair` that the others are compared with: False if it is one, else the base's, else the first."""
        return next((value for wanted in (False, base) for value in values if value == wanted), values[0])

    @property
    def sign(self) -> int:
        """1 where a larger metric is better, else -1."""
        return METRICS[self.metric].sign
