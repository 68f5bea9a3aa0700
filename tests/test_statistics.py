"""Paired statistics against SciPy's own and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from sml_dist.statistics import paired, seeds_needed


def test_the_interval_and_p_are_those_of_a_paired_t_test():
    draw = np.random.default_rng(0)
    control, treated = draw.normal(size=9), draw.normal(0.3, size=9)
    found, test = paired(treated - control, 0.1), stats.ttest_rel(treated, control)
    low, high = test.confidence_interval(0.95)
    assert (found.p, found.t_low, found.t_high) == pytest.approx((test.pvalue, low, high))
    assert found.wins == (treated > control).sum() and found.seeds == 9


def test_the_t_interval_holds_the_true_mean_95_times_in_100_and_the_bootstrap_of_few_seeds_less():
    draw = np.random.default_rng(1)
    results = [paired(draw.normal(0.2, 1, 5), 0.1) for _ in range(600)]
    t = np.mean([r.t_low <= 0.2 <= r.t_high for r in results])
    boot = np.mean([r.boot_low <= 0.2 <= r.boot_high for r in results])
    assert 0.92 < t < 0.98 and 0.75 < boot < 0.92


def test_so_many_seeds_see_the_target_80_times_in_100():
    n = int(seeds_needed(1.0, 0.5))
    assert n == 32
    draw = np.random.default_rng(2)
    seen = np.mean([paired(draw.normal(0.5, 1, n), 0.5).p < 0.05 for _ in range(400)])
    assert 0.73 < seen < 0.85


def test_a_difference_that_is_not_known_leaves_nothing_known_of_them_all():
    found = paired([0.25, math.nan, 0.5], 0.1)
    assert found.wins == 2 and math.isnan(seeds_needed(math.nan, 0.1))
    assert all(math.isnan(v) for v in (found.mean, found.sd, found.t_low, found.boot_high, found.p, found.needed))


def test_one_seed_has_a_difference_and_no_interval():
    found = paired([0.25], 0.1)
    assert found.mean == 0.25 and all(math.isnan(v) for v in (found.t_low, found.boot_high, found.p, found.needed))
