"""Which of a sweep's hyper-parameters the metric hangs on: permutation importance under a random forest.

A forest of trees takes conditional keys as they are (a key that is not in force is a value of its own), which fANOVA's
product space does not. Trials that were stopped early have worse values for that reason alone: so `rows` trained on is a
feature beside the keys, and its bar says how much of the differences it accounts for.
"""

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor
from sklearn.inspection import permutation_importance

from sml_dist.config.tune import Dimension
from sml_dist.trials import Sweep

LEAST_TRIALS = 8
TREES, REPEATS = 200, 10
ROWS = "rows trained on"
ABSENT = -1.0  # of a key that is not in force; categories count from 0, numbers are ranks from 0 on


@dataclass(frozen=True)
class Importance:
    """`mean`, `deviation`: how much worse R^2 gets when a key's column is shuffled, over repeats; `explained`: R^2 out of bag."""

    names: list[str]
    mean: list[float]
    deviation: list[float]
    explained: float
    trials: int


def importance(sweep: Sweep) -> Importance | None:
    """None where there are too few trials, or none differ."""
    trials = sweep.ranked
    values = np.array([trial.value for trial in trials])
    if len(trials) < LEAST_TRIALS or np.ptp(values) == 0:
        return None
    columns = {key: encode([trial.params.get(key) for trial in trials], sweep.config.space[key]) for key in sweep.config.space}
    columns[ROWS] = np.array([trial.rows for trial in trials], np.float64)
    columns = {name: column for name, column in columns.items() if np.ptp(column) > 0}
    if not columns:
        return None
    table = np.stack(list(columns.values()), axis=1)
    forest = RandomForestRegressor(TREES, min_samples_leaf=2, oob_score=True, random_state=0).fit(table, values)
    found = permutation_importance(forest, table, values, n_repeats=REPEATS, random_state=0)
    order = np.argsort(-found.importances_mean)
    names = list(columns)
    mean, deviation = found.importances_mean[order].tolist(), found.importances_std[order].tolist()
    return Importance([names[i] for i in order], mean, deviation, float(forest.oob_score_), len(trials))


def encode(values: list[Any], dimension: Dimension) -> np.ndarray:
    """A key's values as numbers: the place among its choices, or the number itself, which a tree takes on any scale."""
    choices = dimension.choice or dimension.grid
    if choices is not None:
        return np.array([ABSENT if value is None and None not in choices else place(value, choices) for value in values])
    known = [value for value in values if value is not None]
    lowest = min(known, default=0.0)
    return np.array([lowest - 1.0 if value is None else float(value) for value in values])


def place(value: Any, choices: list[Any]) -> float:
    return next((float(i) for i, choice in enumerate(choices) if choice == value or str(choice) == str(value)), math.nan)
