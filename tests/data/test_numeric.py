"""Transforms of numbers, and the summaries that the training rows are boiled down to."""

import json
import math

import numpy as np
import pyarrow as pa
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from sml_dist.data import sketch
from sml_dist.data.fit import mean_and_std
from sml_dist.data.numeric import FLOAT32_MAX, Statistics, bucket_ids, dense_feature, log_square_tokens, quantile_edges, values_histogram
from sml_dist.data.sketch import Histogram, Moments, float_keys, key_floats
from sml_dist.spec import from_dict, to_dict

floats = st.floats(allow_nan=False, allow_infinity=False)


def test_log1p_is_odd_and_missing_is_zero():
    values = dense_feature(pa.array([0.0, 1.0, -1.0, None, 1e30]), "log1p", None)
    assert values.dtype == np.float32
    assert values == pytest.approx([0, math.log(2), -math.log(2), 0, 69.07755], rel=1e-6)


def test_standard_gives_the_mean_to_a_missing_number():
    assert dense_feature(pa.array([1.0, 3.0, None]), "standard", (2.0, 0.5)).tolist() == [-2, 2, 0]
    assert dense_feature(pa.array([2.0]), "standard", (2.0, 0.0)).tolist() == [0]


@pytest.mark.parametrize("transform", ["log1p", "none", "standard"])
def test_a_dense_feature_is_finite_whatever_the_number(transform):
    values = dense_feature(pa.array([FLOAT32_MAX, -FLOAT32_MAX]), transform, (1e-3, 1e-9))
    assert np.isfinite(values).all() and values[0] == -values[1] > 80


@pytest.mark.parametrize("value", [0.1234567890123, 1 / 3, -99.99, 123456.789, 5.0, 0.0, 12345678901234.0, 1.7e18 + 256])
@pytest.mark.parametrize("noise", [0, 1e-15])
def test_a_constant_of_the_training_rows_tells_nothing_after_standard(value, noise):
    values = value * (1 + noise * (np.arange(1000) % 2))
    moments = mean_and_std(Moments.of(values[:371]).merge(Moments.of(values[371:])))
    dense = dense_feature(pa.array([*values[:2], value + 1]), "standard", moments)
    assert np.abs(dense[:2]).max() < 0.5 and np.abs(dense[2]) < 1.5


def test_a_spread_in_the_digits_kept_is_no_constant():
    values = 1000 + 1e-5 * np.random.default_rng(0).normal(size=1000)
    dense = dense_feature(pa.array(values), "standard", mean_and_std(Moments.of(values)))
    assert dense.std() == pytest.approx(1, rel=1e-3) and abs(dense.mean()) < 0.1


def test_log_square_tokens_are_those_of_a_naive_loop():
    def naive(x):
        return "" if x is None else str(int(math.log(x) ** 2)) if x > 2 else f"SP{math.floor(x)}"

    values = [None, -3.0, -0.5, 0.0, 1.0, 2.0, 2.5, 3.0, 100.0, 1382.0, 1e9]
    assert log_square_tokens(pa.array(values)).to_pylist() == [naive(x) for x in values]


def test_bucket_ids_keep_zero_for_missing_and_fit_their_rows():
    assert bucket_ids(pa.array([None, -5.0, 1.0, 1.5, 99.0]), [1.0, 2.0]).tolist() == [0, 1, 2, 2, 3]


def test_quantile_buckets_hold_equal_shares_and_ties_stay_together():
    values = pa.array(np.random.default_rng(0).permutation(1000).astype(float))
    edges = quantile_edges(values_histogram(values), 4)
    assert edges == [250, 500, 750]
    assert quantile_edges(values_histogram(pa.array([1.0] * 90 + [2.0] * 10)), 4) == [2.0]
    assert quantile_edges(values_histogram(pa.array([7.0] * 5)), 4) == []
    assert quantile_edges(values_histogram(pa.array([None], pa.float64())), 4) == []


@settings(deadline=None)
@given(st.lists(floats, min_size=1))
def test_float_keys_keep_the_order_and_come_back(values):
    values = np.array(values) + 0.0
    keys = float_keys(values)
    assert np.array_equal(np.argsort(keys, kind="stable"), np.argsort(values, kind="stable"))
    assert np.array_equal(key_floats(keys), values)


@settings(deadline=None, max_examples=60)
@given(st.lists(st.lists(st.integers(-(2**62), 2**62), max_size=40), min_size=1, max_size=6), st.randoms())
def test_a_histogram_does_not_depend_on_the_cuts_nor_on_their_order(parts, random):
    whole_of = lambda lists: Histogram.of(np.array([key for keys in lists for key in keys], np.int64))  # noqa: E731
    old, sketch.MAX_BINS = sketch.MAX_BINS, 8
    try:
        whole, merged = whole_of(parts), Histogram.empty()
        for keys in random.sample(parts, len(parts)):
            merged = merged.merge(whole_of([keys]))
    finally:
        sketch.MAX_BINS = old
    assert merged.shift == whole.shift and len(whole.bins) <= 8
    assert merged.bins.tolist() == whole.bins.tolist() and merged.counts.tolist() == whole.counts.tolist()


def test_a_cut_beyond_the_bins_is_off_by_less_than_one_bin(monkeypatch):
    monkeypatch.setattr(sketch, "MAX_BINS", 64)
    times = np.random.default_rng(0).integers(1_600_000_000, 1_600_000_000 + 86_400, 100_000)
    histogram = Histogram.of(times)
    for fraction in (0.1, 0.5, 0.9):
        [cut] = histogram.cuts([fraction])
        assert abs((times < cut).mean() - fraction) < histogram.counts.max() / 100_000


def test_cuts_lie_where_the_share_below_is_nearest():
    histogram = Histogram.of(np.array([5, 5, 5, 8]))
    assert histogram.cuts([0.0, 0.3, 0.7, 0.9, 1.0]) == [5, 5, 8, 9, 9]


@settings(deadline=None)
@given(st.lists(st.lists(st.floats(-1e6, 1e6)), min_size=1))
def test_moments_of_parts_are_those_of_the_whole(parts):
    merged = Moments()
    for values in parts:
        merged = merged.merge(Moments.of(np.array(values)))
    whole = np.array([value for values in parts for value in values])
    assert merged.count == len(whole)
    if len(whole):
        assert merged.mean == pytest.approx(whole.mean(), abs=1e-6) and merged.std == pytest.approx(whole.std(), rel=1e-6, abs=1e-4)


def test_numbers_whose_variance_is_beyond_float64_are_still_a_datasets_statistics():
    found = Statistics(moments={"x": (1e200, math.inf)}, edges={})
    assert from_dict(Statistics, json.loads(json.dumps(to_dict(found)))) == found
