"""Paired comparisons over seeds: how large a difference is, how certain, and how many seeds it would take to see it."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE, POWER = 0.95, 0.80
RESAMPLES = 10_000


@dataclass(frozen=True)
class Paired:
    """Statistics of the differences treatment - control, one for each seed. Intervals are at 95 %; NaN for a single seed or a NaN.

    `t_low`, `t_high`: Student's t. `boot_low`, `boot_high`: bootstrap percentiles of the mean over seeds; too narrow for few.
    `p`: two-sided paired t test. `needed`: seeds to see `target` with 80 % power, given `sd`.
    """

    seeds: int
    mean: float
    sd: float
    t_low: float
    t_high: float
    boot_low: float
    boot_high: float
    p: float
    wins: int
    needed: float


def paired(differences: list[float] | np.ndarray, target: float, seed: int = 0) -> Paired:
    found = np.asarray(differences, np.float64)
    n, mean = len(found), float(found.mean())
    if n == 1:
        return Paired(1, mean, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, int(mean > 0), math.nan)
    sd = float(found.std(ddof=1))
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * sd / math.sqrt(n)
    means = found[np.random.default_rng(seed).integers(0, n, (RESAMPLES, n))].mean(axis=1)
    low, high = np.percentile(means, [50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE)])
    p = float(stats.ttest_1samp(found, 0).pvalue) if sd != 0 else float(mean == 0)
    return Paired(n, mean, sd, mean - half, mean + half, float(low), float(high), p, int((found > 0).sum()), seeds_needed(sd, target))


def seeds_needed(sd: float, target: float) -> float:
    """Pairs for a two-sided test at 5 % to see `target` with 80 % power, by the normal approximation; at least 2. NaN of a NaN."""
    if math.isnan(sd):
        return math.nan
    z = stats.norm.ppf(0.5 + CONFIDENCE / 2) + stats.norm.ppf(POWER)
    return max(2, math.ceil((z * sd / target) ** 2))
