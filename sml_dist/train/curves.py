"""Curves of an evaluation: ROC, precision over recall, and calibration, at a few hundred points whatever the number of rows."""

from typing import Any

import numpy as np

from sml_dist.train.metrics import BINS, ExactScores, HistogramScores, sigmoid

POINTS = 200  # of the ROC and of precision over recall
PARTS = 20  # of calibration, of equal weight


def curves(scores: ExactScores | HistogramScores) -> dict[str, Any]:
    """{"roc": {false_positive_rate, true_positive_rate}, "pr": {recall, precision}, "calibration": {predicted, observed, rows},
    "average_precision"}; {} where one class is missing.

    Made of the 2^20 bins of HistogramScores, whose rows count as ties: so no sort, and 1e-5 off at most in a logit near 0.
    """
    masses = histogram(scores).masses
    bins = np.flatnonzero(masses.sum(axis=0))[::-1]  # the highest score first
    positives, negatives = masses[:, bins]
    if not (positives.sum() and negatives.sum()):
        return {}
    hit, missed = (np.concatenate([[0.0], mass.cumsum() / mass.sum()]) for mass in (positives, negatives))
    precision = positives.cumsum() / (positives + negatives).cumsum()
    even = np.unique(np.searchsorted(hit + missed, np.linspace(0, 2, POINTS)).clip(max=len(bins)))
    some = np.unique(np.searchsorted(hit[1:], np.linspace(0, 1, POINTS)).clip(max=len(bins) - 1))
    return {
        "roc": {"false_positive_rate": _round(missed[even]), "true_positive_rate": _round(hit[even])},
        "pr": {"recall": _round(hit[1:][some]), "precision": _round(precision[some])},
        "average_precision": float(np.diff(hit) @ precision),
        "calibration": calibration(positives, negatives, sigmoid(logits_of(bins))),
    }


def histogram(scores: ExactScores | HistogramScores) -> HistogramScores:
    if isinstance(scores, HistogramScores):
        return scores
    made, state = HistogramScores(), scores.state()
    made.add(state["logits"], state["labels"], state["weights"])
    return made


def logits_of(bins: np.ndarray) -> np.ndarray:
    """The middle of each bin: the inverse of z / (|z| + 4)."""
    t = (bins + 0.5) / (BINS / 2) - 1
    return 4 * t / (1 - np.abs(t))


def calibration(positives: np.ndarray, negatives: np.ndarray, predicted: np.ndarray) -> dict[str, list[float]]:
    """Mean prediction and mean label of parts of equal weight by prediction, the lowest first; a bin is never split."""
    mass = positives + negatives
    part = np.minimum((mass.cumsum() - mass / 2) / mass.sum() * PARTS, PARTS - 1).astype(np.int64)
    sums = [np.bincount(part, values, PARTS)[::-1] for values in (mass, mass * predicted, positives)]
    rows, predicted_sum, label_sum = (total[sums[0] > 0] for total in sums)
    return {"predicted": _round(predicted_sum / rows), "observed": _round(label_sum / rows), "rows": rows.tolist()}


def _round(values: np.ndarray) -> list[float]:
    return [float(f"{value:.6g}") for value in values]
