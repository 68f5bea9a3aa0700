"""Comparisons, paired over seeds: how large a difference is, how certain, and how many seeds it would take to see it."""

import math
from dataclasses import dataclass

import numpy as np
from scipy import stats

CONFIDENCE, POWER = 0.95, 0.80
Z = float(stats.norm.ppf(0.5 + CONFIDENCE / 2))  # half the interval of a normal variable, in standard deviations
ENDS = (50 * (1 - CONFIDENCE), 50 * (1 + CONFIDENCE))  # the interval of draws, in percentiles
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


def paired(differences: list[float] | np.ndarray, target: float) -> Paired:
    found = np.asarray(differences, np.float64)
    n, mean = len(found), float(found.mean())
    if n == 1:
        return Paired(1, mean, math.nan, math.nan, math.nan, math.nan, math.nan, math.nan, int(mean > 0), math.nan)
    sd = float(found.std(ddof=1))
    half = stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1) * sd / math.sqrt(n)
    means = found[np.random.default_rng(0).integers(0, n, (RESAMPLES, n))].mean(axis=1)
    low, high = np.percentile(means, ENDS)
    p = float(stats.ttest_1samp(found, 0).pvalue) if sd != 0 else float(mean == 0)
    return Paired(n, mean, sd, mean - half, mean + half, float(low), float(high), p, int((found > 0).sum()), seeds_needed(sd, target))


def seeds_needed(sd: float, target: float) -> float:
    """Pairs for a two-sided paired t test at 5 % to see `target` with 80 % power; at least 2. NaN of a NaN."""
    if math.isnan(sd) or sd == 0:
        return 2 if sd == 0 else math.nan
    z = Z + stats.norm.ppf(POWER)
    n = max(2, math.ceil((z * sd / target) ** 2))  # by the normal approximation, about two too few
    while stats.nct.sf(stats.t.ppf(0.5 + CONFIDENCE / 2, n - 1), n - 1, target / sd * math.sqrt(n)) < POWER:
        n += 1
    return n


def holm(p: list[float]) -> list[float]:
    """p values adjusted for their number: if those up to 0.05 are taken for real, the risk of even one false one is at most 5 % (Holm)."""
    found, order = np.array(p, np.float64), np.argsort(p)
    found[order] = np.minimum(1, np.maximum.accumulate(found[order] * np.arange(len(p), 0, -1)))
    return found.tolist()
