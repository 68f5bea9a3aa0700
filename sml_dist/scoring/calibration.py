"""The calibration curve: of rows of about the same probability, how many are clicks."""

from dataclasses import dataclass

import numpy as np
from scipy import stats

from sml_dist.scoring.bootstrap import Scored
from sml_dist.statistics import CONFIDENCE, Z


@dataclass(frozen=True)
class Bin:
    """Neighbours in the order of their probability: what they weigh, its mean, the mean label and its interval at 95 % (Wilson's, over
    as many rows as weights and groups leave independent)."""

    rows: int
    weight: float
    probability: float
    rate: float
    low: float
    high: float


def curve(scored: Scored, bins: int, unit: np.ndarray | None = None) -> list[Bin]:
    """Bins of about equally many rows, from the lowest probability to the highest; rows of one score are never parted.

    Rows of weight 0 are left out, as they are of every metric. `unit` (n,): which rows are not independent, by default none.
    """
    kept = np.flatnonzero(scored.weights)
    scored, unit = scored.take(kept), None if unit is None else unit[kept]
    order = np.argsort(scored.logits, kind="stable")
    cuts = np.linspace(0, len(order), bins + 1).astype(np.int64)[1:-1]
    ends = np.unique(np.searchsorted(scored.logits[order], scored.logits[order][cuts - 1], side="right")) if len(order) >= bins else []
    return [_bin(scored, rows, unit) for rows in np.split(order, ends) if len(rows)]


def _bin(scored: Scored, rows: np.ndarray, unit: np.ndarray | None) -> Bin:
    weights = scored.weights[rows].astype(np.float64)
    probability = float(np.average(scored.terms[rows, 3], weights=weights))
    rate = float(np.average(scored.labels[rows], weights=weights))
    independent = weights.sum() ** 2 / (weights**2).sum()
    if unit is not None:
        independent /= design_effect(weights * (scored.labels[rows] - rate), unit[rows])
    return Bin(len(rows), float(weights.sum()), probability, rate, *wilson(rate, independent))


def design_effect(errors: np.ndarray, unit: np.ndarray) -> float:
    """How many rows are worth one, as whole units are independent instead: by the variance of the errors' sum, and by how well
    so many units tell it (Student's t). At least 1; where that cannot be told (one unit, or no errors), a unit's rows.
    """
    sums = np.bincount(np.unique(unit, return_inverse=True)[1], errors)
    n, apart = len(sums), (errors**2).sum()
    if n == 1 or not apart:
        return len(errors) / n
    together = (sums**2).sum() * n / (n - 1)
    return float(max(together / apart * (stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) / Z) ** 2, 1))


def wilson(rate: float, rows: float) -> tuple[float, float]:
    """The score interval of a rate over so many rows (of weighted ones: as many as they are worth).

    It holds the rate: at 0 and 1, where one end is the rate itself, rounding would put that end beyond it.
    """
    middle = (rate + Z * Z / (2 * rows)) / (1 + Z * Z / rows)
    half = Z * np.sqrt(rate * (1 - rate) / rows + Z * Z / (4 * rows * rows)) / (1 + Z * Z / rows)
    return float(min(middle - half, rate)), float(max(middle + half, rate))


def expected_error(bins: list[Bin]) -> float:
    """Mean distance between probability and rate over the weighted rows (ECE)."""
    return float(np.average([abs(one.probability - one.rate) for one in bins], weights=[one.weight for one in bins]))
