"""DeLong, the bootstrap and the calibration curve against computations that share nothing with them."""

import numpy as np
import pytest
from scipy import special, stats

from sml_dist.scoring.bootstrap import Scored, affordable, differences, intervals
from sml_dist.scoring.calibration import curve, expected_error, wilson
from sml_dist.scoring.delong import auc_difference, delong
from sml_dist.train.metrics import auc, group_auc, logloss


def rows(n, seed=0, ties=False, weights=False, groups=None):
    draw = np.random.default_rng(seed)
    signal = draw.normal(size=n)
    labels = (draw.random(n) < 1 / (1 + np.exp(-signal))).astype(np.float32)
    logits = (signal + draw.normal(size=n)).astype(np.float32)
    logits = np.round(logits) if ties else logits
    weight = draw.integers(1, 4, n).astype(np.float32) if weights else np.ones(n, np.float32)
    return Scored(logits, labels, weight, None if groups is None else draw.integers(0, groups, n))


def naive(scores, labels):
    """DeLong as it was published: over all pairs."""
    positive, negative = scores[:, labels == 1], scores[:, labels == 0]
    pairs = (positive[:, :, None] > negative[:, None, :]) + 0.5 * (positive[:, :, None] == negative[:, None, :])
    m, n = positive.shape[1], negative.shape[1]
    return pairs.mean((1, 2)), np.cov(pairs.mean(2)) / m + np.cov(pairs.mean(1)) / n


@pytest.mark.parametrize("ties", [False, True])
def test_delong_by_midranks_is_delong_over_all_pairs(ties):
    first, second = rows(300, ties=ties), rows(300, seed=3, ties=ties)
    scores = np.stack([first.logits, first.logits + second.logits, second.logits])
    values, covariance = delong(scores, first.labels)
    expected, expected_covariance = naive(scores, first.labels)
    np.testing.assert_allclose(values, expected, rtol=1e-12)
    np.testing.assert_allclose(covariance, expected_covariance, rtol=1e-10)
    assert values == pytest.approx([auc(row, first.labels) for row in scores], abs=1e-12)


def test_the_interval_of_an_auc_difference_holds_the_true_one_95_times_in_100():
    """Two scores of one signal under equal noise have one AUC: p is uniform, the interval holds 0."""
    draw, found = np.random.default_rng(0), []
    for _ in range(400):
        labels = (draw.random(300) < 0.3).astype(np.float32)
        found.append(auc_difference(labels + draw.normal(size=300), labels + draw.normal(size=300), labels))
    assert 0.925 < np.mean([one.low <= 0 <= one.high for one in found]) < 0.975
    assert stats.kstest([one.p for one in found], "uniform").pvalue > 0.01


def test_a_model_differs_from_itself_by_nothing_and_one_class_has_no_auc():
    one = rows(50)
    same = auc_difference(one.logits, one.logits, one.labels)
    assert (same.value, same.low, same.high, same.p) == (0, 0, 0, 1)
    none = auc_difference(one.logits, one.logits, np.zeros(50))
    assert np.isnan(none.value) and np.isnan(none.low)


def normalised_entropy(logits, labels, weights=None):
    base = np.average(labels, weights=weights)
    return logloss(logits, labels, weights) / float(stats.entropy([base, 1 - base]))


def calibration(logits, labels, weights=None):
    return np.average(special.expit(logits.astype(float)), weights=weights) / np.average(labels, weights=weights)


METRIC = {"auc": auc, "logloss": logloss, "ne": normalised_entropy, "calibration": calibration}


@pytest.mark.parametrize("name", METRIC)
@pytest.mark.parametrize("weights", [False, True])
def test_bootstrap_intervals_are_scipy_s(name, weights):
    one, draws = rows(400, weights=weights, ties=True), 1500
    found = intervals(one, draws, seed=1)[name]
    columns = (one.logits, one.labels, one.weights)
    scipy = stats.bootstrap(columns, METRIC[name], n_resamples=draws, paired=True, vectorized=False, method="percentile", random_state=2)
    interval = scipy.confidence_interval
    # an end of 1500 draws is off by about sqrt(.025 * .975 / 1500) / density(1.96) = .07 standard deviations
    assert found.value == pytest.approx(METRIC[name](*columns), rel=1e-6)
    assert (found.low, found.high) == pytest.approx((interval.low, interval.high), abs=0.3 * scipy.standard_error)


@pytest.mark.parametrize("name", METRIC)
def test_paired_bootstrap_intervals_of_a_difference_are_scipy_s(name):
    one, draws = rows(400), 1500
    other = Scored(one.logits + rows(400, seed=5).logits / 2, one.labels, one.weights)
    found = differences(one, other, draws, seed=1)[2][name]

    def difference(first, second, labels):
        return METRIC[name](first, labels) - METRIC[name](second, labels)

    columns = (one.logits, other.logits, one.labels)
    scipy = stats.bootstrap(columns, difference, n_resamples=draws, paired=True, vectorized=False, method="percentile", random_state=2)
    assert found.value == pytest.approx(difference(*columns), abs=1e-6)
    ends = (scipy.confidence_interval.low, scipy.confidence_interval.high)
    assert (found.low, found.high) == pytest.approx(ends, abs=0.3 * scipy.standard_error)


def test_delong_and_the_paired_bootstrap_agree():
    one = rows(1000)
    other = Scored(one.logits + rows(1000, seed=5).logits / 2, one.labels, one.weights)
    exact, drawn = auc_difference(one.logits, other.logits, one.labels), differences(one, other, 1000)[2]["auc"]
    assert drawn.value == pytest.approx(exact.value, abs=1e-9)
    assert (drawn.low, drawn.high) == pytest.approx((exact.low, exact.high), abs=0.3 * exact.error)


def test_whole_groups_are_drawn_where_a_group_is_the_unit():
    """Rows that are copies of each other within a group tell nothing new: so the interval must not shrink with their number."""
    one = rows(200)
    copies = Scored(*(np.repeat(column, 9) for column in (one.logits, one.labels, one.weights)), np.repeat(np.arange(200), 9))
    wide, narrow = intervals(copies, 400, unit=copies.groups)["logloss"], intervals(copies, 400)["logloss"]
    single = intervals(one, 400)["logloss"]
    assert wide.high - wide.low == pytest.approx(single.high - single.low, rel=0.2)
    assert narrow.high - narrow.low == pytest.approx((wide.high - wide.low) / 3, rel=0.2)


def test_a_single_unit_has_metrics_and_no_interval():
    """Its draws are all alike: they would say that the metric is sure."""
    one, same = rows(1), np.zeros(50)
    for found in (intervals(one, 20), intervals(rows(50), 20, unit=same), differences(rows(50), rows(50, seed=5), 20, unit=same)[2]):
        assert np.isfinite(found["logloss"].value) and np.isnan([found["logloss"].low, found["logloss"].high]).all()


def test_gauc_is_that_of_the_rows_and_its_interval_holds_it():
    one = rows(500, groups=20)
    found = intervals(one, 200)["gauc"]
    assert found.value == group_auc(one.logits, one.labels, one.groups).gauc
    assert found.low < found.value < found.high


def test_millions_of_rows_are_drawn_less_often_and_never_too_seldom():
    assert (affordable(10_000, 1000), affordable(1_000_000, 1000), affordable(10**8, 1000), affordable(10**8, 50)) == (1000, 400, 100, 50)


def test_the_calibration_curve_has_every_row_once_and_never_parts_a_tie():
    one = rows(1003)
    bins = curve(one, 20)
    assert sum(each.rows for each in bins) == 1003 and {each.rows for each in bins} <= {50, 51}
    assert [each.probability for each in bins] == sorted(each.probability for each in bins)
    assert sum(each.rows * each.rate for each in bins) == pytest.approx(one.labels.sum())
    tied = curve(rows(1003, ties=True), 20)
    assert len({each.probability for each in tied}) == len(tied) < 20 and sum(each.rows for each in tied) == 1003
    assert curve(rows(1), 20)[0].rows == 1


def test_the_curve_s_intervals_are_of_as_many_rows_as_the_weights_are_worth():
    one, [plain] = rows(100), curve(rows(100), 1)
    ends = lambda weights: [(each.low, each.high) for each in curve(Scored(one.logits, one.labels, weights), 1)]  # noqa: E731
    assert ends(np.full(100, 7)) == [pytest.approx((plain.low, plain.high))]  # their scale is no worth
    heavy = np.where(np.arange(100) < 10, 1e6, 1e-6)
    assert ends(heavy) == [pytest.approx(wilson(one.labels[:10].mean(), 10))]


def test_bins_of_whole_groups_miss_a_calibrated_model_no_more_often_than_promised():
    """Each group has a rate of its own, of which the model knows the mean: rows taken for independent miss a third of it."""
    random, missed = np.random.default_rng(0), {False: [], True: []}
    for _ in range(20):
        p = random.uniform(0.02, 0.3, 500)
        groups = np.repeat(np.arange(500), 40)
        labels = random.random(len(groups)) < random.beta(p * 8, (1 - p) * 8)[groups]
        logits = np.log(p / (1 - p))[groups] + random.normal(0, 1e-4, len(groups))
        one = Scored(logits.astype(np.float32), labels.astype(np.float32), np.ones(len(groups), np.float32), groups)
        for whole, unit in ((True, groups), (False, None)):
            missed[whole] += [not each.low <= each.probability <= each.high for each in curve(one, 20, unit)]
    assert np.mean(missed[False]) > 0.3 and np.mean(missed[True]) < 0.07


def test_a_bin_s_rows_are_worth_no_more_for_being_of_groups_and_those_of_a_single_group_are_worth_one():
    one = Scored(np.zeros(100, np.float32), np.tile(np.float32([0, 1]), 50), np.ones(100, np.float32))
    ends = lambda unit: [(each.low, each.high) for each in curve(one, 1, unit)]  # noqa: E731
    assert ends(np.arange(100) // 2) == ends(None) == [wilson(0.5, 100)]  # each group half clicks, as if it could not be otherwise
    assert ends(np.zeros(100)) == [wilson(0.5, 1)]
    one.labels[:] = 0
    assert ends(np.arange(100) // 20) == [wilson(0, 5)]  # whose groups may all be alike: nothing tells


def test_a_bin_counts_by_its_weight_and_rows_of_weight_0_nowhere():
    one = rows(600, ties=True, weights=True)
    p, labels, weights = 1 / (1 + np.exp(-one.logits.astype(np.float64))), one.labels, one.weights
    tied = [one.logits == value for value in np.unique(one.logits)]
    gaps = [abs(np.average(p[here], weights=weights[here]) - np.average(labels[here], weights=weights[here])) for here in tied]
    bins = curve(one, 600)  # a bin for each value: rows of one score are never parted
    assert [each.weight for each in bins] == [weights[here].sum() for here in tied]
    assert expected_error(bins) == pytest.approx(np.average(gaps, weights=[weights[here].sum() for here in tied]), rel=1e-6)
    assert expected_error(bins) != pytest.approx(np.average(gaps, weights=[here.sum() for here in tied]), rel=1e-3)

    wrong = rows(300, seed=1)  # as wrong as can be
    zeros = Scored(np.append(one.logits, 9 - 18 * wrong.labels), np.append(labels, wrong.labels), np.append(weights, np.zeros(300)))
    assert curve(zeros, 20) == curve(one, 20)


def test_wilson_s_interval_is_scipy_s():
    for positives, n in ((0, 10), (3, 10), (250, 1000)):
        expected = stats.binomtest(positives, n).proportion_ci(0.95, "wilson")
        assert wilson(positives / n, n) == pytest.approx((expected.low, expected.high), abs=1e-12)


def test_wilson_s_interval_holds_the_rate_at_its_ends_too():
    for n in range(1, 100):
        assert wilson(0.0, n)[0] <= 0 and wilson(1.0, n)[1] >= 1  # a picture's error bars must not be negative
