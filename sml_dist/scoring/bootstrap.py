"""How sure the metrics of a model on some rows are, and their differences from another model's on the same rows: by resampling.

Rows are drawn with replacement, or with `unit` whole groups: the rows of one user are not independent, so intervals from single rows
are then too narrow. A draw is a weight for each row, the number of times it was drawn; rows are sorted once for all draws.
"""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np

from sml_dist.config.metrics import METRICS
from sml_dist.statistics import ENDS
from sml_dist.train.metrics import GroupRanking, Ranking, rates, row_terms

MOST_WORK = 400_000_000  # rows times resamples; beyond it there are fewer of these
FEWEST = 100


@dataclass(frozen=True)
class Interval:
    """A metric, and its percentile interval at 95 %."""

    value: float
    low: float
    high: float


@dataclass(frozen=True)
class Scored:
    """Rows (n,) that one model scored: logit, label in [0, 1], weight, and where they have one a group."""

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray
    groups: np.ndarray | None = None

    def take(self, rows: np.ndarray) -> "Scored":
        return Scored(self.logits[rows], self.labels[rows], self.weights[rows], None if self.groups is None else self.groups[rows])

    @cached_property
    def ranking(self) -> Ranking:
        return Ranking(self.logits, self.labels)

    @cached_property
    def group_ranking(self) -> GroupRanking:
        return GroupRanking(self.logits, self.labels, self.groups)

    @cached_property
    def terms(self) -> np.ndarray:
        return row_terms(self.logits, self.labels)

    def metrics(self, counts: np.ndarray | None = None) -> dict[str, float]:
        """Every metric with each row counted so many times."""
        weights = self.weights.astype(np.float64) if counts is None else self.weights * counts
        found = {"auc": self.ranking.auc(weights)}
        if self.groups is not None:
            found["gauc"] = self.group_ranking.table(weights).gauc
        found |= rates(np.concatenate([[len(weights)], weights @ self.terms]))
        return {name: found[name] for name in METRICS if name in found}


def intervals(scored: Scored, resamples: int, *, unit: np.ndarray | None = None, seed: int = 0) -> dict[str, Interval]:
    """Every metric with its interval. `unit` (n,): what is drawn together, by default each row alone."""
    values = scored.metrics()
    drawn = [scored.metrics(counts) for counts in draws(len(scored.logits), resamples, unit, seed)]
    return {name: percentiles(value, [draw[name] for draw in drawn]) for name, value in values.items()}


def differences(
    first: Scored, second: Scored, resamples: int, *, unit: np.ndarray | None = None, seed: int = 0
) -> tuple[dict[str, Interval], dict[str, Interval], dict[str, Interval]]:
    """The intervals of two models on the same rows, and those of first - second: each draw is both models'."""
    own = first.metrics(), second.metrics()
    drawn = [(first.metrics(counts), second.metrics(counts)) for counts in draws(len(first.logits), resamples, unit, seed)]
    a, b = ({name: percentiles(own[i][name], [draw[i][name] for draw in drawn]) for name in own[i]} for i in (0, 1))
    return a, b, {name: percentiles(own[0][name] - own[1][name], [x[name] - y[name] for x, y in drawn]) for name in own[0]}


def draws(rows: int, resamples: int, unit: np.ndarray | None, seed: int) -> Iterator[np.ndarray]:
    """How many times each row was drawn, `resamples` times; never of a single unit, whose draws are all alike and tell nothing."""
    random = np.random.default_rng(seed)
    place = None if unit is None else np.unique(unit, return_inverse=True)[1]
    count = rows if place is None else int(place.max()) + 1
    for _ in range(resamples if count > 1 else 0):
        times = np.bincount(random.integers(0, count, count), minlength=count)
        yield times if place is None else times[place]


def percentiles(value: float, drawn: Sequence[float]) -> Interval:
    """Of the draws in which the metric is defined: one without a positive, say, has no AUC."""
    defined = np.asarray(drawn)[~np.isnan(drawn)]
    if np.isnan(value) or not len(defined):
        return Interval(value, float("nan"), float("nan"))
    low, high = np.percentile(defined, ENDS)
    return Interval(value, float(low), float(high))


def affordable(rows: int, resamples: int) -> int:
    """So many resamples that millions of rows take no hours: the interval's ends move by some percent of its width."""
    return max(min(resamples, FEWEST), min(resamples, MOST_WORK // max(rows, 1)))
