"""A sweep: which keys of a run's configuration are searched, how, and how long."""

import math
from collections.abc import Sequence
from dataclasses import field
from typing import Annotated, Any, Literal

from pydantic import Field, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.spec import Mounted, Name, spec

LARGER_IS_BETTER = {"auc": True, "gauc": True, "logloss": False, "ne": False}


@spec
class Dimension:
    """What a key of the configuration may be: exactly one of the first six.

    choice, grid: one of these values, of any type. grid is for `search.name: grid`, which takes all of them.
    uniform, loguniform: [low, high]; quniform: [low, high, step]; randint: [low, high], both ends included.
    when: {key: value or list of values} of keys further up in the space: in other branches this one is left out.
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

    startup: trials that optuna draws at random first.
    """

    name: Literal["random", "grid", "optuna"] = "optuna"
    seed: NonNegativeInt = 0
    startup: PositiveInt = 10


@spec
class SchedulerConfig:
    """none; asha: at `grace`, `grace` x `reduction`, ... epochs a trial goes on that is in the best 1/`reduction` of those
    that came there; median: from `grace` epochs on a trial stops whose best is below the median of the others' means;
    pbt: every `interval` epochs the worst `quantile` of the population take the checkpoint of one of the best, tables and
    optimiser state included, and go on with its settings, changed.
    """

    name: Literal["none", "asha", "median", "pbt"] = "asha"
    grace: PositiveFloat = 1.0
    reduction: Annotated[float, Field(gt=1)] = 3.0
    interval: PositiveFloat = 1.0
    quantile: Annotated[float, Field(gt=0, le=0.5)] = 0.25


@spec
class SweepConfig:
    """A sweep lives in the folder `storage`/`name`; the same command again goes on from there.

    base, set: the configuration of every trial, a YAML file and overrides `key=value`.
    space: dotted keys of that configuration, in the order in which they are drawn.
    points: trials that come first: values of some keys, the base's own for the others; {} is the base itself.
    metric, mode: of the validation rows; the trials' train.monitor is set to it.
    evaluate_every: share of the training rows between evaluations (1: at each epoch's end): what schedulers see.
    pair: a key of the space; each draw of all others is a pair of trials (or more), one for each of its values.
    trials: in all, points included; with `pair`, draws. No two are alike (but under pbt): a grid, or a space with fewer
        points, has as many as it has.
    cpus: of Ray's, for each worker; as many trials run at once as the cluster has room for, at most `concurrent`.
    minutes: of this command; rows: trained on by all trials together. Then trials are cut off, and go on from their last
        checkpoints when the command comes again, with more rows.
    retries: of a trial whose process died. keep: trials, the best, whose checkpoints are kept.
    """

    name: Name
    base: str
    space: dict[str, Dimension]
    storage: Mounted = "sweeps"
    set: list[str] = field(default_factory=list)
    points: list[dict[str, Any]] = field(default_factory=lambda: [{}])
    metric: Literal["auc", "logloss", "ne", "gauc"] = "auc"
    mode: Literal["max", "min"] | None = None
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
        own = "max" if LARGER_IS_BETTER[self.metric] else "min"
        if self.mode not in (None, own):
            raise ValueError(f"the mode of {self.metric} is {own}")
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
        return f"{self.storage.rstrip('/')}/{self.name}"

    def control(self, values: Sequence[Any], base: Any) -> Any:
        """Of the values of `pair` that which the others are held against: off, else the base's own, else the first."""
        return next((value for wanted in (False, base) for value in values if value == wanted), values[0])

    @property
    def sign(self) -> int:
        """1 where a larger metric is better, else -1."""
        return 1 if LARGER_IS_BETTER[self.metric] else -1
