"""How sure an AUC is, and the difference of two on the same rows, without resampling (DeLong, DeLong and Clarke-Pearson 1988)."""

import math
from dataclasses import dataclass

import numpy as np
from scipy.stats import norm, rankdata

from sml_dist.statistics import Z


@dataclass(frozen=True)
class Difference:
    """AUC of the first scores minus that of the second: standard error, interval at 95 %, two-sided p of no difference."""

    value: float
    error: float
    low: float
    high: float
    p: float


def auc_difference(first: np.ndarray, second: np.ndarray, labels: np.ndarray) -> Difference:
    """Of two models' scores (n,) of the same rows, labels 0 or 1. NaN where one class has fewer than two rows."""
    (a, b), covariance = delong(np.stack([first, second]), labels)
    error = math.sqrt(max(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1], 0.0)) if np.isfinite(covariance).all() else math.nan
    half = Z * error
    p = 2 * norm.sf(abs(a - b) / error) if error else float(a == b)
    return Difference(a - b, error, a - b - half, a - b + half, float(p))


def delong(scores: np.ndarray, labels: np.ndarray) -> tuple[list[float], np.ndarray]:
    """AUC of each of k models' scores (k, n), and their covariance (k, k); O(k n log n) by midranks (Sun and Xu, IEEE SPL 2014).

    A positive's midrank among all rows less that among the positives counts the negatives below it, ties half.
    """
    positive = np.asarray(labels) > 0.5
    m, n = int(positive.sum()), int((~positive).sum())
    if min(m, n) < 2:
        return [math.nan] * len(scores), np.full((len(scores), len(scores)), math.nan)
    wins, losses = [], []  # of each positive: the share of negatives below it; of each negative: that of positives above it
    for row in np.asarray(scores):
        ranks = rankdata(row)
        wins.append((ranks[positive] - rankdata(row[positive])) / n)
        losses.append(1 - (ranks[~positive] - rankdata(row[~positive])) / m)
    covariance = np.cov(wins).reshape(len(scores), -1) / m + np.cov(losses).reshape(len(scores), -1) / n
    return [float(np.mean(row)) for row in wins], covariance
