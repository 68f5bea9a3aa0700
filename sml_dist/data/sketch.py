"""Summaries of the values of a column that take bounded memory, merge in any order, and do not depend on how the rows were cut."""

from dataclasses import dataclass

import numpy as np

MAX_BINS = 1 << 14


@dataclass(frozen=True)
class Histogram:
    """Counts of int64 keys in bins 2**shift wide; the shift is the least that leaves at most MAX_BINS bins.

    Exact (shift 0) up to MAX_BINS distinct keys. Beyond, a cut is off by at most the rows of one bin: for seconds of a month
    a bin is 256 s, for floats (float_keys) about 1 part in 400 of the value per octave of range in use (16,384 / 40 octaves).
    The bins of a union are the same whatever the parts and their order, since the shift grows only as the union needs.
    """

    bins: np.ndarray  # int64, increasing; bin b holds keys in [b << shift, (b + 1) << shift)
    counts: np.ndarray
    shift: int = 0

    @staticmethod
    def of(keys: np.ndarray) -> "Histogram":
        bins, counts = np.unique(keys.astype(np.int64), return_counts=True)
        return Histogram(bins, counts)._shrunk(0)

    @staticmethod
    def empty() -> "Histogram":
        return Histogram.of(np.zeros(0, np.int64))

    def _shrunk(self, shift: int) -> "Histogram":
        """With bins at least 2**shift wide and at most MAX_BINS of them."""
        bins, counts, at = self.bins, self.counts, self.shift
        while at < shift or len(bins) > MAX_BINS:
            step = max(shift - at, 1)
            bins, where = np.unique(bins >> step, return_inverse=True)
            counts, at = np.bincount(where, weights=counts, minlength=len(bins)).astype(np.int64), at + step
        return Histogram(bins, counts, at)

    def merge(self, other: "Histogram") -> "Histogram":
        shift = max(self.shift, other.shift)
        a, b = self._shrunk(shift), other._shrunk(shift)
        if a.shift != b.shift:
            return a.merge(b)
        bins, where = np.unique(np.concatenate([a.bins, b.bins]), return_inverse=True)
        counts = np.bincount(where, weights=np.concatenate([a.counts, b.counts]), minlength=len(bins)).astype(np.int64)
        return Histogram(bins, counts, a.shift)._shrunk(a.shift)

    def cuts(self, fractions: list[float]) -> list[int]:
        """For each fraction the key with the share of keys below it nearest to the fraction; only keys where a bin begins."""
        if not len(self.bins):
            return []
        below = np.concatenate([[0], np.cumsum(self.counts)])
        starts = np.append(self.bins, self.bins[-1] + 1)
        nearest = [int(np.abs(below - fraction * below[-1]).argmin()) for fraction in fractions]
        return [int(starts[i]) << self.shift for i in nearest]


@dataclass(frozen=True)
class Moments:
    """Count, mean and sum of squared deviations; merged by Chan's rule, which does not cancel."""

    count: int = 0
    mean: float = 0.0
    squares: float = 0.0

    @staticmethod
    def of(values: np.ndarray) -> "Moments":
        if not len(values):
            return Moments()
        mean = float(values.mean())
        return Moments(len(values), mean, float(((values - mean) ** 2).sum()))

    def merge(self, other: "Moments") -> "Moments":
        count = self.count + other.count
        if not count:
            return self
        gap = other.mean - self.mean
        mean = self.mean + gap * other.count / count
        return Moments(count, mean, self.squares + other.squares + gap * gap * self.count * other.count / count)

    @property
    def std(self) -> float:
        return (self.squares / self.count) ** 0.5 if self.count else 0.0


def float_keys(values: np.ndarray) -> np.ndarray:
    """int64 keys in the order of the float64 values; keys 2**k apart differ by a fixed relative step."""
    bits = (values.astype(np.float64) + 0.0).view(np.int64)  # + 0.0 makes -0.0 into 0.0
    return np.where(bits >= 0, bits, bits ^ np.int64(0x7FFFFFFFFFFFFFFF))


def key_floats(keys: np.ndarray) -> np.ndarray:
    """The float64 values of keys."""
    keys = np.asarray(keys, np.int64)
    return np.where(keys >= 0, keys, keys ^ np.int64(0x7FFFFFFFFFFFFFFF)).view(np.float64)
