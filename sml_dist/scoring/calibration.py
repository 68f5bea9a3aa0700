"""The calibration curve: of rows of about the same probability, how many are clicks."""

from dataclasses import dataclass

import numpy as np

from sml_dist.scoring.bootstrap import Scored
from sml_dist.statistics import Z


@dataclass(frozen=True)
class Bin:
    """Neighbours in the order of their probability: what they weigh, its mean, the mean label and its interval at 95 % (Wilson's)."""

    rows: int
    weight: float
    probability: float
    rate: float
    low: float
    high: float


def curve(scored: Scored, bins: int) -> list[Bin]:
    """Bins of about equally many rows, from the lowest probability to the highest; rows of one score are never parted.

    Rows of weight 0 are left out, as they are of every metric.
    """
    scored = scored.take(np.flatnonzero(scored.weights))
    order = np.argsort(scored.logits, kind="stable")
    cuts = np.linspace(0, len(order), bins + 1).astype(np.int64)[1:-1]
    ends = np.unique(np.searchsorted(scored.logits[order], scored.logits[order][cuts - 1], side="right")) if len(order) >= bins else []
    return [_bin(scored, rows) for rows in np.split(order, ends) if len(rows)]


def _bin(scored: Scored, rows: np.ndarray) -> Bin:
    weights = scored.weights[rows].astype(np.float64)
    probability = float(np.average(scored.terms[rows, 3], weights=weights))
    rate = float(np.average(scored.labels[rows], weights=weights))
    return Bin(len(rows), float(weights.sum()), probability, rate, *wilson(rate, weights.sum() ** 2 / (weights**2).sum()))


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
