"""Laws of the curves: their areas are the metrics, and their parts are equal."""

import numpy as np
import pytest
from sklearn.metrics import average_precision_score

from sml_dist.train.curves import PARTS, POINTS, curves
from sml_dist.train.metrics import ExactScores, HistogramScores, auc


@pytest.mark.parametrize("collector", [ExactScores, HistogramScores])
def test_curves_hold_the_areas_that_the_metrics_say(collector):
    random = np.random.default_rng(0)
    logits = random.normal(-1, 1.5, 50_000).astype(np.float32)
    labels = (random.random(50_000) < 1 / (1 + np.exp(-0.7 * logits))).astype(np.float32)
    scores = collector()
    scores.add(logits, labels)
    found = curves(scores)
    roc, pr, parts = found["roc"], found["pr"], found["calibration"]
    assert np.trapezoid(roc["true_positive_rate"], roc["false_positive_rate"]) == pytest.approx(auc(logits, labels), abs=2e-4)
    assert found["average_precision"] == pytest.approx(average_precision_score(labels, logits), abs=1e-4)
    assert np.trapezoid(pr["precision"], pr["recall"]) == pytest.approx(found["average_precision"], abs=5e-3)
    assert max(len(roc["true_positive_rate"]), len(pr["recall"])) <= POINTS + 1
    assert len(parts["rows"]) == PARTS and max(parts["rows"]) < 1.02 * min(parts["rows"]) and sum(parts["rows"]) == 50_000
    total = np.array(parts["rows"]) / 50_000
    assert total @ parts["observed"] == pytest.approx(labels.mean(), rel=1e-5)
    assert total @ parts["predicted"] == pytest.approx((1 / (1 + np.exp(-logits))).mean(), rel=1e-4)


def test_one_class_has_no_curves():
    scores = ExactScores()
    scores.add(np.zeros(3), np.ones(3))
    assert curves(scores) == {}


def test_one_score_for_all_is_the_diagonal():
    scores = ExactScores()
    scores.add(np.zeros(4), np.array([0, 1, 0, 1]))
    found = curves(scores)
    assert found["roc"] == {"false_positive_rate": [0, 1], "true_positive_rate": [0, 1]}
    assert found["calibration"] == {"predicted": [pytest.approx(0.5, abs=1e-5)], "observed": [0.5], "rows": [4]}
