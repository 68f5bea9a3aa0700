"""Paired statistics against SciPy's own and against simulation."""

import math

import numpy as np
import pytest
from scipy import stats

from sml_dist.statistics import holm, paired, seeds_needed


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


@pytest.mark.parametrize(("sd", "n"), [(0.25, 5), (0.5, 10), (1.0, 34)])
def test_so_many_seeds_see_the_target_80_times_in_100_and_one_fewer_does_not(sd, n):
    """The normal approximation says 2, 8 and 32, which see it 18, 68 and 78 times in 100."""
    assert seeds_needed(sd, 0.5) == n
    draw = np.random.default_rng(2).normal(0.5, sd, (40_000, n))
    seen, of_fewer = (np.mean(stats.ttest_1samp(part, 0, axis=1).pvalue < 0.05) for part in (draw, draw[:, 1:]))
    assert of_fewer < 0.8 < seen


def test_differences_without_any_spread_need_two_seeds():
    assert seeds_needed(0.0, 1e-4) == seeds_needed(1e-9, 1e-4) == 2


def test_many_p_values_are_adjusted_as_holm_does_and_an_unknown_one_counts_as_a_comparison():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([0.7, 0.6, math.nan]) == pytest.approx([1, 1, math.nan], nan_ok=True)
    assert holm([0.3]) == [0.3] and holm([]) == []


def test_a_difference_that_is_not_known_leaves_nothing_known_of_them_all():
    found = paired([0.25, math.nan, 0.5], 0.1)
    assert found.wins == 2 and math.isnan(seeds_needed(math.nan, 0.1))
    assert all(math.isnan(v) for v in (found.mean, found.sd, found.t_low, found.boot_high, found.p, found.needed))


def test_one_seed_has_a_difference_and_no_interval():
    found = paired([0.25], 0.1)
    assert found.mean == 0.25 and all(math.isnan(v) for v in (found.t_low, found.boot_high, found.p, found.needed))
