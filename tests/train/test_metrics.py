"""Laws of the metrics; scikit-learn is the reference."""

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from sklearn.metrics import log_loss, roc_auc_score

from sml_dist.config.metrics import METRICS
from sml_dist.train.metrics import (
    EXACT_ROWS,
    ExactScores,
    HistogramScores,
    auc,
    group_auc,
    logloss,
    scores_for,
)

COLLECTORS = [ExactScores, HistogramScores]


@st.composite
def rows_with_ties(draw) -> tuple[np.ndarray, np.ndarray, np.ndarray, np.ndarray]:
    """Logits with many ties, labels, weights of which some are 0, groups."""
    n = draw(st.integers(1, 60))
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    logits = rng.choice(rng.normal(0, draw(st.sampled_from([0.01, 1, 30])), draw(st.integers(1, 20))), n).astype(np.float32)
    labels = rng.integers(0, 2, n).astype(np.float32)
    weights = rng.choice([0, 0.5, 1, 3.25], n).astype(np.float32)
    return logits, labels, weights, rng.integers(-3, 4, n)


def click_rows(n: int, seed: int = 0) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng(seed)
    logits = rng.normal(-1.4, 1.4, n).astype(np.float32)
    return logits, (rng.random(n) < 1 / (1 + np.exp(-logits))).astype(np.float32)


def collected(kind: type, *columns: np.ndarray) -> dict[str, float]:
    scores = kind()
    scores.add(*columns)
    return scores.result()


def reference_auc(logits, labels, weights) -> float:
    logits, labels, weights = logits[weights > 0], labels[weights > 0], weights[weights > 0]
    return roc_auc_score(labels, logits, sample_weight=weights) if len(set(labels)) == 2 else float("nan")


@given(rows_with_ties())
def test_auc_equals_scikit_learn_with_ties_and_weights(rows):
    logits, labels, weights, _ = rows
    assert auc(logits, labels, weights) == pytest.approx(reference_auc(logits, labels, weights), abs=1e-12, nan_ok=True)


def test_auc_equals_scikit_learn_on_many_rows():
    logits, labels = click_rows(100_000)
    assert auc(logits, labels) == pytest.approx(roc_auc_score(labels, logits), abs=1e-13)


def test_auc_of_one_class_is_nan_and_of_all_ties_one_half():
    assert np.isnan(auc(np.array([0.1, 0.2]), np.array([1, 1])))
    assert np.isnan(auc(np.array([]), np.array([])))
    assert auc(np.zeros(5), np.array([0, 1, 1, 0, 1])) == 0.5


def test_a_soft_label_counts_as_a_weighted_positive_and_a_weighted_negative():
    scores, soft, weights = np.array([0.2, 1.5, -3.0]), np.array([0.25, 0.75, 0.5]), np.array([1.0, 2.0, 3.0])
    split = roc_auc_score([1, 1, 1, 0, 0, 0], np.tile(scores, 2), sample_weight=np.concatenate([weights * soft, weights * (1 - soft)]))
    assert auc(scores, soft, weights) == pytest.approx(split)


@given(rows_with_ties())
def test_the_histogram_auc_lies_within_its_error_bound(rows):
    metrics = collected(HistogramScores, *rows)
    exact = auc(*rows[:3])
    assert np.isnan(exact) == np.isnan(metrics["auc"])
    assert np.isnan(exact) or abs(metrics["auc"] - exact) <= metrics["auc_error_bound"] + 1e-12


@pytest.mark.parametrize("scale", [0.2, 1, 10])
def test_the_histograms_error_bound_stays_below_one_in_a_hundred_thousand_on_click_scores(scale):
    logits, labels = click_rows(200_000)
    metrics = collected(HistogramScores, logits * np.float32(scale), labels)
    assert abs(metrics["auc"] - auc(logits * np.float32(scale), labels)) <= metrics["auc_error_bound"] < 1e-5


def test_the_histogram_orders_all_finite_logits():
    logits = np.array([-3e38, -1e6, -100, -1, -1e-5, 0, 1e-5, 1, 100, 1e5, 3e38], np.float32)
    above = [
        collected(HistogramScores, np.array([low, high]), np.array([0, 1]))["auc"] for low, high in zip(logits, logits[1:], strict=False)
    ]
    assert min(above) >= 0.5
    assert above[1:-1] == [1.0] * 8


@pytest.mark.parametrize("kind", COLLECTORS)
@settings(max_examples=20)
@given(rows=rows_with_ties(), ranks=st.integers(1, 4), seed=st.integers(0, 99))
def test_merging_any_partition_equals_the_whole(kind, rows, ranks, seed):
    owner = np.random.default_rng(seed).integers(0, ranks, len(rows[0]))
    total = kind()
    for rank in range(ranks):
        part = kind()
        for batch in np.array_split(np.flatnonzero(owner == rank), 2):
            part.add(*(column[batch] for column in rows))
        total.merge(part.state())
    assert total.result() == pytest.approx(collected(kind, *rows), abs=1e-9, nan_ok=True)


@pytest.mark.parametrize("kind", COLLECTORS)
@given(rows=rows_with_ties())
def test_rows_of_weight_zero_do_not_count_whatever_they_hold(kind, rows):
    padded = [np.concatenate([column, column]) for column in rows]
    n = len(rows[0])
    padded[0][n:], padded[1][n:], padded[2][n:] = np.nan, 7, 0
    assert collected(kind, *padded) == pytest.approx(collected(kind, *rows), nan_ok=True)
    assert collected(kind, *padded)["rows"] == (rows[2] > 0).sum()


@given(rows_with_ties())
def test_auc_per_group_equals_a_loop_over_the_groups(rows):
    logits, labels, weights, groups = (column[rows[2] > 0] for column in rows)
    table = group_auc(logits, labels, groups, weights)
    np.testing.assert_array_equal(table.group, np.unique(groups))
    for group, mass, positives, value in zip(table.group, table.rows, table.positives, table.auc, strict=True):
        mine = groups == group
        assert (mass, positives) == (weights[mine].sum(), (weights * labels)[mine].sum())
        assert value == pytest.approx(reference_auc(logits[mine], labels[mine], weights[mine]), abs=1e-12, nan_ok=True)

    both = ~np.isnan(table.auc)
    mean = (table.rows * table.auc)[both].sum() / table.rows[both].sum() if both.any() else np.nan
    assert table.gauc == pytest.approx(mean, nan_ok=True)
    if len(groups):
        found = collected(ExactScores, *rows)
        assert (found["gauc"], found["groups"]) == (pytest.approx(mean, nan_ok=True), both.sum())


@pytest.mark.parametrize("seed", range(5))
def test_a_group_s_auc_does_not_depend_on_the_weights_of_other_groups(seed):
    rng = np.random.default_rng(seed)
    logits, labels = click_rows(2_000, seed)
    groups = rng.integers(0, 200, 2_000)
    weights = rng.choice([1e-6, 1, 1e6], 200)[groups] * rng.choice([0.5, 1], 2_000)
    table = group_auc(logits, labels, groups, weights)
    alone = [reference_auc(*(column[groups == group] for column in (logits, labels, weights))) for group in table.group]
    np.testing.assert_allclose(table.auc, alone, rtol=0, atol=1e-12)
    assert np.nanmin(table.auc) >= 0 and np.nanmax(table.auc) <= 1


def test_one_group_has_the_auc_of_all_rows():
    logits, labels = click_rows(10_000)
    assert group_auc(logits, labels, np.full(10_000, 7)).gauc == pytest.approx(auc(logits, labels), abs=1e-14)


@pytest.mark.parametrize("kind", COLLECTORS)
def test_logloss_entropy_and_calibration_are_their_formulae(kind):
    logits, labels = click_rows(5_000)
    weights = np.random.default_rng(1).uniform(0.1, 2, 5_000).astype(np.float32)
    probability = 1 / (1 + np.exp(-logits.astype(float)))
    loss = log_loss(labels, probability, sample_weight=weights)
    base = np.average(labels, weights=weights)
    metrics = collected(kind, logits, labels, weights)
    assert metrics["logloss"] == pytest.approx(loss) == logloss(logits, labels, weights)
    assert metrics["ne"] == pytest.approx(loss / -(base * np.log(base) + (1 - base) * np.log(1 - base)))
    assert metrics["calibration"] == pytest.approx(np.average(probability, weights=weights) / base)


def test_predicting_the_base_rate_has_a_normalised_entropy_and_a_calibration_of_one():
    labels = np.array([1, 0, 0, 0])
    constant = np.full(4, np.log(1 / 3))
    metrics = collected(ExactScores, constant, labels)
    assert metrics["ne"] == pytest.approx(1) == metrics["calibration"]


def test_logloss_of_huge_logits_is_finite():
    assert logloss(np.array([1e4, -1e4, 1e4]), np.array([1, 0, 0])) == pytest.approx(1e4 / 3)


@pytest.mark.parametrize("kind", COLLECTORS)
def test_no_rows_give_nan_and_a_count_of_zero(kind):
    metrics = collected(kind, np.array([]), np.array([]))
    assert metrics["rows"] == 0
    assert all(np.isnan(metrics[name]) for name in ("auc", "logloss", "ne", "calibration"))


@pytest.mark.parametrize("kind", COLLECTORS)
@pytest.mark.parametrize(
    ("logits", "labels", "weights", "words"),
    [
        ([0, np.nan, 1], [0, 1, 0], None, "1 of 3 scores are not finite .*row 1"),
        ([0, np.inf, 1], [0, 1, 0], None, "scores are not finite"),
        ([0, 0.5, 1], [0, 1, 2], None, "labels are not in"),
        ([0, 0.5, 1], [0, 1, np.nan], None, "labels are not in"),
        ([0, 0.5, 1], [0, 1, 0], [1, -1, 1], "weights are not"),
        ([0, 0.5, 1], [0, 1, 0], [1, np.nan, 1], "weights are not"),
        ([0, 0.5, 1], [0, 1], None, "differ in shape"),
        ([[0, 0.5]], [[0, 1]], [[1, 1]], "differ in shape"),
    ],
)
def test_unusable_rows_are_refused_in_plain_words(kind, logits, labels, weights, words):
    with pytest.raises(ValueError, match=words):
        kind().add(logits, labels, weights)


def test_nan_scores_are_refused_by_the_functions_too():
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        auc(np.array([np.nan, 1]), np.array([0, 1]))
    with pytest.raises(ValueError, match="1 of 2 scores are NaN"):
        group_auc(np.array([np.nan, 1]), np.array([0, 1]), np.array([0, 0]))


def test_groups_come_with_all_batches_or_with_none():
    scores = ExactScores()
    scores.add([0.5], [1])
    with pytest.raises(ValueError, match="with all or with none"):
        scores.add([0.5], [1], groups=[3])


def test_an_evaluation_has_every_metric_that_the_list_names():
    scores = ExactScores()
    scores.add([0.5, -0.5], [1, 0], groups=[3, 3])
    assert scores.result().keys() >= METRICS.keys()


def test_splits_above_the_limit_are_counted_in_bins():
    assert isinstance(scores_for(EXACT_ROWS), ExactScores)
    assert isinstance(scores_for(EXACT_ROWS + 1), HistogramScores)
