"""What becomes of numbers: dense features, and categorical fields made of numbers."""

from collections.abc import Sequence

import numpy as np
import pyarrow as pa
import pyarrow.compute as pc

from sml_dist.data.sketch import Histogram, Moments, float_keys, key_floats
from sml_dist.spec import Measured, spec

FLOAT32_MAX = float(np.finfo(np.float32).max)


@spec
class Statistics:
    """What the training rows say of the numeric columns: mean and std to standardise, edges of the quantile buckets."""

    moments: dict[str, tuple[Measured, Measured]]
    edges: dict[str, list[Measured]]


def dense_feature(numbers: pa.Array, transform: str, moments: tuple[float, float] | None) -> np.ndarray:
    """float32[n], finite: a number far outside the training rows stops at float32's ends; a missing one is 0 after the transform
    (for `standard`: the mean)."""
    values = pc.fill_null(numbers, 0.0).to_numpy()
    if transform == "log1p":
        values = np.sign(values) * np.log1p(np.abs(values))
    elif transform == "standard":
        mean, std = moments
        values = np.where(numbers.is_valid().to_numpy(zero_copy_only=False), (values - mean) / (std or 1.0), 0.0)
    return values.clip(-FLOAT32_MAX, FLOAT32_MAX).astype(np.float32)


def log_square_tokens(numbers: pa.Array) -> pa.Array:
    """string[n]: floor(log(x)^2) for x > 2, SP<floor(x)> for smaller x, "" for missing.

    As the winners of the Criteo challenge did it (github.com/ycjuan/kaggle-2014-criteo): the prefix keeps x = 1 apart from
    x = e, which both would be "1".
    """
    values = pc.fill_null(numbers, 0.0).to_numpy()
    large = values > 2
    squares = np.floor(np.log(np.where(large, values, 1.0)) ** 2)
    whole = pa.array(np.where(large, squares, np.floor(np.clip(values, -1e15, 2)))).cast(pa.int64()).cast(pa.string())
    tokens = pc.if_else(pa.array(large), whole, pc.binary_join_element_wise("SP", whole, ""))
    return pc.if_else(numbers.is_valid(), tokens, "")


def bucket_ids(numbers: pa.Array, edges: Sequence[float]) -> np.ndarray:
    """0 for missing, else 1 + the number of edges <= x; so in [0, len(edges) + 2)."""
    ids = 1 + np.searchsorted(np.asarray(edges, np.float64), pc.fill_null(numbers, 0.0).to_numpy(), side="right")
    return np.where(numbers.is_valid().to_numpy(zero_copy_only=False), ids, 0)


def quantile_edges(histogram: Histogram, buckets: int) -> list[float]:
    """Edges between buckets of about equal shares of the values; fewer than buckets - 1 where values repeat."""
    keys = histogram.cuts([i / buckets for i in range(1, buckets)])
    inside = {key for key in keys if histogram.bins[0] << histogram.shift < key < (int(histogram.bins[-1]) + 1) << histogram.shift}
    return key_floats(sorted(inside)).tolist()


def values_histogram(numbers: pa.Array) -> Histogram:
    return Histogram.of(float_keys(numbers.drop_null().to_numpy()))


def values_moments(numbers: pa.Array) -> Moments:
    return Moments.of(numbers.drop_null().to_numpy())
