"""Which of a sweep's hyper-parameters the metric hangs on: permutation importance under random forests, on trials held out.

A forest of trees takes conditional keys as they are (a key that is not in force is a value of its own), which fANOVA's
product space does not. How long a trial was trained is a consequence of its settings where a scheduler stops the worse ones:
so trials are compared by their best value within the evaluations that all of them came to.
"""

import math
from dataclasses import dataclass, replace
from typing import Any

import numpy as np
from sklearn.ensemble import RandomForestRegressor

from sml_dist.config.tune import Dimension
from sml_dist.trials import Sweep

LEAST_DRAWS = 8  # of the keys; those of a pair count as one
FOLDS, TREES, REPEATS = 5, 200, 10
ABSENT = -1.0  # of a key that is not in force; categories count from 0, numbers are ranks from 0 on


@dataclass(frozen=True)
class Importance:
    """`explained`: R^2 of predictions of each trial by a forest that has not seen it, nor another of its pair.

    `mean`, `deviation`: what that loses when a key's column is shuffled, over repeats. `rows`: within which trials are compared.
    """

    names: list[str]
    mean: list[float]
    deviation: list[float]
    explained: float
    trials: int
    rows: int


def importance(sweep: Sweep) -> Importance | None:
    """None where too few trials have ended, none differ, or a trial went on from another's checkpoint: the two are near twins."""
    if sweep.exploited:
        return None
    metric, ended = sweep.config.metric, [trial for trial in sweep.ranked if trial.ended_for_good]
    common = min((len(trial.history) for trial in ended), default=0)  # evaluations
    found = [(trial, best) for trial in ended if (best := replace(trial, history=trial.history[:common]).best(metric))]
    draws = [trial.id if trial.pair is None else trial.pair for trial, _ in found]
    if len({*draws}) < LEAST_DRAWS:
        return None
    trials, values = [trial for trial, _ in found], np.array([best[metric] for _, best in found])
    columns = {key: encode([trial.params.get(key) for trial in trials], sweep.config.space[key]) for key in sweep.config.space}
    columns = {name: column for name, column in columns.items() if np.ptp(column) > 0}
    if not columns or np.ptp(values) == 0:
        return None
    explained, shuffled = held_out(np.stack(list(columns.values()), axis=1), values, np.unique(draws, return_inverse=True)[1])
    loss, deviation, names = explained - shuffled.mean(axis=1), shuffled.std(axis=1), list(columns)
    order, rows = np.argsort(-loss), max(trial.history[common - 1]["rows"] for trial in trials)
    return Importance([names[i] for i in order], loss[order].tolist(), deviation[order].tolist(), explained, len(trials), rows)


def held_out(table: np.ndarray, values: np.ndarray, draws: np.ndarray) -> tuple[float, np.ndarray]:
    """R^2 of each fold predicted by a forest of the others, and the same with a column shuffled (column, repeat). No fold parts a draw."""
    random, keys = np.random.default_rng(0), table.shape[1]
    folds = random.permutation(draws.max() + 1)[draws] % FOLDS
    tables = np.tile(table, (1 + keys * REPEATS, 1, 1))  # the first as it is
    for i, changed in enumerate(tables[1:]):
        changed[:, i // REPEATS] = random.permutation(table[:, i // REPEATS])
    predicted = np.empty(tables.shape[:2])
    for fold in range(FOLDS):
        test = folds == fold
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=0).fit(table[~test], values[~test])
        predicted[:, test] = forest.predict(tables[:, test].reshape(-1, keys)).reshape(-1, test.sum())
    explained = 1 - ((predicted - values) ** 2).mean(axis=1) / values.var()
    return float(explained[0]), explained[1:].reshape(keys, REPEATS)


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
