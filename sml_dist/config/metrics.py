"""What an evaluation measures: the one list of its metrics."""

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Metric:
    """`sign`: 1 where a larger value is better, -1 where a smaller one is, 0 where neither (calibration is best at 1).

    `short`: its name in text and on the terminal; `title`: on pages, with its unit where it has one.
    """

    sign: int
    short: str
    title: str


METRICS = {
    "auc": Metric(1, "AUC", "AUC"),
    "gauc": Metric(1, "GAUC", "AUC per group"),
    "logloss": Metric(-1, "logloss", "logloss (nats)"),
    "ne": Metric(-1, "NE", "normalised entropy"),
    "calibration": Metric(0, "calibration", "calibration"),
}
COMPARABLE = tuple(name for name, metric in METRICS.items() if metric.sign)  # that can say which of two models is better
Comparable = Literal[*COMPARABLE]
