"""The search space: which keys a trial sets, in which branch, to what."""

import itertools
import json
import math
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np
import optuna
from optuna.distributions import BaseDistribution, CategoricalDistribution, FloatDistribution, IntDistribution

from sml_dist.config.tune import Dimension
from sml_dist.spec import InputError

Params = dict[str, Any]  # dotted key -> value, of the keys of one branch


class Space:
    """Dimensions by key, in the order in which they are drawn. Optuna sees a choice as the JSON text of its values."""

    def __init__(self, dimensions: dict[str, Dimension]):
        self.dimensions = dimensions
        self.distributions = {key: distribution(dimension) for key, dimension in dimensions.items()}
        for number, (key, dimension) in enumerate(dimensions.items()):
            for other, wanted in dimension.when.items():
                if other not in itertools.islice(dimensions, number):
                    raise InputError(f"space.{key}: when {other}: no such key further up in the space; put it before {key}")
                for value in wanted if isinstance(wanted, list) else [wanted]:
                    if not self.own(other, value):
                        raise InputError(f"space.{key}: when {other}: {value!r} is none of its values; mend it, or add it there")

    def walk(self, choose: Callable[[str], Any], given: Params | None = None) -> Params:
        """A point: `choose(key)` for each key of the branch that the values before it lead to, but for those `given`."""
        params: Params = {}
        for key in self.dimensions:
            if self.holds(key, params):
                params[key] = given[key] if given and key in given else choose(key)
        return params

    def holds(self, key: str, params: Params) -> bool:
        """Whether a key is of the branch of the values before it."""
        wanted = self.dimensions[key].when.items()
        return all(other in params and params[other] in (value if isinstance(value, list) else [value]) for other, value in wanted)

    def suggested(self, trial: optuna.Trial, given: Params | None = None) -> Params:
        """Optuna's choice; of a key that was asked for before, the same again."""
        return self.walk(lambda key: self.decoded(key, suggest(trial, key, self.distributions[key])), given)

    def grid(self) -> Iterator[Params]:
        """Every combination of values. Raises InputError for a key that has no list of them."""
        points: list[Params] = [{}]
        for key in self.dimensions:
            points = [each | part for each in points for part in (self._values(key) if self.holds(key, each) else [{}])]
        yield from points

    def _values(self, key: str) -> list[Params]:
        if not isinstance(self.distributions[key], CategoricalDistribution):
            raise InputError(f"space.{key}: a grid needs its values; give grid: [...]")
        return [{key: json.loads(text)} for text in self.distributions[key].choices]

    def extremes(self, key: str) -> list[Any]:
        """Every value of a choice; both ends of a range."""
        distribution = self.distributions[key]
        if self.categorical(key):
            return [json.loads(text) for text in distribution.choices]
        return [distribution.low, distribution.high]

    def branch_of(self, key: str) -> Params:
        """Values that lead to a branch that has the key."""
        params: Params = {}
        for other, value in self.dimensions[key].when.items():
            params |= self.branch_of(other) | {other: value[0] if isinstance(value, list) else value}
        return params

    def own(self, key: str, value: Any) -> list[Any]:
        """[The value as the space has it], such as 0 for a configuration's 0.0; [] where it has none such."""
        distribution = self.distributions[key]
        if self.categorical(key):
            return [each for each in self.extremes(key) if each == value and isinstance(each, bool) == isinstance(value, bool)]
        return [value] if isinstance(value, int | float) and distribution.low <= value <= distribution.high else []

    def nearest(self, key: str, value: Any) -> Any:
        """The value, or of a range the nearest in it."""
        if self.categorical(key):
            return value
        distribution = self.distributions[key]
        inside = min(max(value, distribution.low), distribution.high)
        if distribution.step is None:
            return inside
        return after_steps(distribution, round((inside - distribution.low) / distribution.step))

    def at_random(self, key: str, random: np.random.Generator) -> Any:
        """A value of a range; of a stepped one each is as likely."""
        distribution = self.distributions[key]
        if distribution.log:
            return math.exp(random.uniform(math.log(distribution.low), math.log(distribution.high)))
        if distribution.step is None:
            return random.uniform(distribution.low, distribution.high)
        steps = round((distribution.high - distribution.low) / distribution.step)
        return after_steps(distribution, int(random.integers(0, steps + 1)))

    def encoded(self, params: Params) -> Params:
        return {key: json.dumps(value) if self.categorical(key) else value for key, value in params.items()}

    def decoded(self, key: str, value: Any) -> Any:
        return json.loads(value) if self.categorical(key) else value

    def categorical(self, key: str) -> bool:
        return isinstance(self.distributions[key], CategoricalDistribution)


def distribution(dimension: Dimension) -> BaseDistribution:
    if dimension.uniform:
        return FloatDistribution(*dimension.uniform)
    if dimension.loguniform:
        return FloatDistribution(*dimension.loguniform, log=True)
    if dimension.quniform:
        low, high, step = dimension.quniform
        return FloatDistribution(low, high, step=step)
    if dimension.randint:
        return IntDistribution(*dimension.randint)
    return CategoricalDistribution([json.dumps(value) for value in dimension.choice or dimension.grid])


def after_steps(distribution: FloatDistribution | IntDistribution, steps: int) -> float | int:
    """The value so many steps above the lowest, without the dust of binary fractions: 0.3, not 0.1 + 2 * 0.1."""
    return round(distribution.low + steps * distribution.step, 12)


def new_study(sampler: optuna.samplers.BaseSampler, mode: str = "max") -> optuna.Study:
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    return optuna.create_study(sampler=sampler, direction=f"{mode}imize")


def suggest(trial: optuna.Trial, key: str, distribution: BaseDistribution) -> Any:
    if isinstance(distribution, FloatDistribution):
        return trial.suggest_float(key, distribution.low, distribution.high, step=distribution.step, log=distribution.log)
    if isinstance(distribution, IntDistribution):
        return trial.suggest_int(key, distribution.low, distribution.high)
    return trial.suggest_categorical(key, distribution.choices)
