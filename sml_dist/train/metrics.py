"""Metrics of click models over all rows of a split: AUC, logloss, normalised entropy, calibration, AUC per group.

Two collectors share one interface (add, state, merge, result): `ExactScores` keeps 12 bytes a row (20 with groups),
`HistogramScores` keeps 16 MB whatever the number of rows and states how far its AUC can be off. NumPy alone.

Labels may be any value in [0, 1]: a row of label y and weight w counts as w·y positive and w·(1 − y) negative mass.
"""

from dataclasses import dataclass

import numpy as np

BINS = 2**20
EXACT_ROWS = 20_000_000


def auc(scores: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """P(score of a positive > score of a negative), ties counted half; O(n log n). nan where one class is missing.

    Raises ValueError where a score is NaN.
    """
    return Ranking(scores, labels).auc(weights)


class Ranking:
    """Rows in the order of their scores: one sort, after which the AUC under any weights takes O(n). Raises ValueError at a NaN."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray):
        scores, labels = np.asarray(scores), np.asarray(labels, np.float64)
        _refuse(np.isnan(scores), "score", "NaN")
        self.order = np.argsort(scores)
        self.labels, self.starts = labels[self.order], _run_starts(scores[self.order])

    def auc(self, weights: np.ndarray | None = None) -> float:
        weights = _or_ones(weights, len(self.order))[self.order]
        positives, negatives = (_sum_runs(weights * mass, self.starts) for mass in (self.labels, 1 - self.labels))
        return _auc_of_masses(positives, negatives)


def logloss(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None) -> float:
    """Mean of −y·log σ(z) − (1 − y)·log σ(−z) = softplus(z) − y·z, in nats; stable for any finite logit."""
    return rates(_totals(*_checked(logits, labels, weights)))["logloss"]


@dataclass(frozen=True)
class GroupTable:
    """AUC of each group, one array entry a group in ascending order; `rows` and `positives` are sums of weights."""

    group: np.ndarray
    rows: np.ndarray
    positives: np.ndarray
    auc: np.ndarray  # nan where a group has one class only

    @property
    def gauc(self) -> float:
        """Mean AUC over the groups with both classes, weighted by their rows (Zhu et al., KDD 2017)."""
        both = ~np.isnan(self.auc)
        return float(np.average(self.auc[both], weights=self.rows[both])) if both.any() else float("nan")

    def largest(self, count: int) -> list[dict[str, float]]:
        """The groups of both classes with the most rows: group, rows, positives, auc."""
        both = np.flatnonzero(~np.isnan(self.auc))
        top = both[np.argsort(-self.rows[both], kind="stable")[:count]]
        columns = zip(self.group[top], self.rows[top], self.positives[top], self.auc[top], strict=True)
        return [{"group": int(g), "rows": float(r), "positives": float(p), "auc": float(a)} for g, r, p, a in columns]


def group_auc(scores: np.ndarray, labels: np.ndarray, groups: np.ndarray, weights: np.ndarray | None = None) -> GroupTable:
    """AUC within every group by one sort of (group, score). Raises ValueError where a score is NaN."""
    return GroupRanking(scores, labels, groups).table(weights)


class GroupRanking:
    """Rows in the order of (group, score): one sort, after which the table under any weights takes O(n)."""

    def __init__(self, scores: np.ndarray, labels: np.ndarray, groups: np.ndarray):
        scores, labels, groups = np.asarray(scores), np.asarray(labels, np.float64), np.asarray(groups)
        _refuse(np.isnan(scores), "score", "NaN")
        self.order = np.lexsort((scores, groups))
        self.labels, groups = labels[self.order], groups[self.order]
        self.starts = _run_starts(groups, scores[self.order])  # runs of one group and one score
        self.firsts = _run_starts(groups[self.starts])  # the first run of each group
        self.groups = groups[self.starts][self.firsts]

    def table(self, weights: np.ndarray | None = None) -> GroupTable:
        weights, firsts = _or_ones(weights, len(self.order))[self.order], self.firsts
        positives, negatives = (_sum_runs(weights * mass, self.starts) for mass in (self.labels, 1 - self.labels))
        runs, mass = np.diff(firsts, append=len(self.starts)), _sum_runs(negatives, firsts)
        # The sum below runs on from group to group, and a light one after heavy ones would be lost in its last digits: so each
        # group's negatives are first brought below 1, by a power of two, which rounds nothing.
        scale = np.ldexp(1.0, -np.frexp(mass)[1])
        negatives = negatives * np.repeat(scale, runs)
        below = np.cumsum(negatives) - negatives
        below -= np.repeat(below[firsts], runs)
        won = _sum_runs(positives * (below + negatives / 2), firsts)
        positives = _sum_runs(positives, firsts)
        with np.errstate(invalid="ignore", divide="ignore"):
            value = np.where((positives > 0) & (mass > 0), (won / (positives * (mass * scale))).clip(0, 1), np.nan)
        return GroupTable(self.groups, positives + mass, positives, value)


class ExactScores:
    """Keeps every row's score; the AUC, and where rows have groups the AUC per group, are exact."""

    def __init__(self):
        self.totals = np.zeros(5)
        self.rows: list[tuple[np.ndarray, ...]] = []  # logits, labels, weights[, groups]

    def add(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, groups: np.ndarray | None = None) -> None:
        """Rows of one batch, arrays of shape (B,). Rows of weight 0 (padding) do not count, whatever they hold.

        Raises ValueError where a counted score is not finite, a label lies outside [0, 1] or a weight is negative.
        """
        rows = _checked(logits, labels, weights, groups)
        self.totals += _totals(*rows[:3])
        self._keep(rows)

    def state(self) -> dict[str, np.ndarray]:
        """Everything collected so far, as arrays that can be gathered from ranks; `groups` only where rows have them."""
        columns = (np.concatenate(column) for column in zip(*self.rows, strict=True)) if self.rows else _checked([], [], [])
        return {"totals": self.totals} | dict(zip(("logits", "labels", "weights", "groups"), columns, strict=False))

    def merge(self, state: dict[str, np.ndarray]) -> None:
        """Takes in another rank's `state()`."""
        self.totals = self.totals + state["totals"]
        self._keep(tuple(state[name] for name in ("logits", "labels", "weights", "groups") if name in state))

    def _keep(self, rows: tuple[np.ndarray, ...]) -> None:
        if self.rows and len(rows[0]) and len(rows) != len(self.rows[0]):
            raise ValueError("some batches have groups and some have none; give groups with all or with none")
        if len(rows[0]):
            self.rows.append(rows)

    def result(self) -> dict[str, float]:
        """auc, logloss, ne, calibration, rows; with groups also gauc and groups (the number with both classes)."""
        state = self.state()
        metrics = {"auc": auc(state["logits"], state["labels"], state["weights"])} | rates(self.totals)
        if "groups" in state:
            table = self.groups()
            metrics |= {"gauc": table.gauc, "groups": int((~np.isnan(table.auc)).sum())}
        return metrics

    def groups(self) -> GroupTable:
        """The table of AUC per group; KeyError where rows have no groups."""
        state = self.state()
        return group_auc(state["logits"], state["labels"], state["groups"], state["weights"])


class HistogramScores:
    """Counts the positive and negative mass of 2^20 bins of the logit, in 16 MB for any number of rows.

    Bins are even steps of z / (|z| + 4): monotone in z, 8e-6 wide at z = 0 and 2e-5 at |z| = 2, and no score falls
    off the end. Rows of one bin count as ties, so the AUC is off by at most Σ_bins p·n / 2 / (P·N), which `result`
    gives as `auc_error_bound`: 1.0e-6 (error 1.2e-9) on 2 M logits of mean −1.4 and deviation 1.4, where as many
    bins in the order of float32, most of them spent on |z| < 0.1, give 3.1e-5.
    """

    def __init__(self):
        self.totals = np.zeros(5)
        self.masses = np.zeros((2, BINS))  # of positives, of negatives

    def add(self, logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None = None, groups: np.ndarray | None = None) -> None:
        """As ExactScores.add; groups are left aside, since an AUC per group needs the rows."""
        logits, labels, weights = _checked(logits, labels, weights)
        self.totals += _totals(logits, labels, weights)
        bins = _bins(logits)
        for mass, share in zip(self.masses, (labels, 1 - labels), strict=True):
            mass += np.bincount(bins, weights * share, BINS)

    def state(self) -> dict[str, np.ndarray]:
        return {"totals": self.totals, "masses": self.masses}

    def merge(self, state: dict[str, np.ndarray]) -> None:
        self.totals = self.totals + state["totals"]
        self.masses = self.masses + state["masses"]

    def result(self) -> dict[str, float]:
        """auc, auc_error_bound, logloss, ne, calibration, rows; all but the first exact."""
        positives, negatives = self.masses
        pairs = positives.sum() * negatives.sum()
        bound = float(positives @ negatives / 2 / pairs) if pairs else float("nan")
        return {"auc": _auc_of_masses(positives, negatives), "auc_error_bound": bound} | rates(self.totals)


def scores_for(rows: int) -> ExactScores | HistogramScores:
    """The collector for a split of so many rows: exact up to 20 million, where the sort takes seconds and 240 MB."""
    return ExactScores() if rows <= EXACT_ROWS else HistogramScores()


def _bins(logits: np.ndarray) -> np.ndarray:
    z = logits.astype(np.float64)
    return np.minimum(((z / (np.abs(z) + 4) + 1) * (BINS / 2)).astype(np.int64), BINS - 1)


def _auc_of_masses(positives: np.ndarray, negatives: np.ndarray) -> float:
    """AUC of the positive and negative mass at each distinct score, in ascending order."""
    pairs = positives.sum() * negatives.sum()
    below = np.cumsum(negatives) - negatives
    return float(positives @ (below + negatives / 2) / pairs) if pairs else float("nan")


def _run_starts(*columns: np.ndarray) -> np.ndarray:
    """Index of the first element of every run of equal elements in all columns."""
    new = np.zeros(max(len(columns[0]) - 1, 0), bool)
    for column in columns:
        new |= column[1:] != column[:-1]
    return np.concatenate([np.zeros(min(len(columns[0]), 1), np.int64), np.flatnonzero(new) + 1])


def _sum_runs(values: np.ndarray, starts: np.ndarray) -> np.ndarray:
    return np.add.reduceat(values, starts) if len(starts) else np.zeros(0)


def _totals(logits: np.ndarray, labels: np.ndarray, weights: np.ndarray, *_: np.ndarray) -> np.ndarray:
    """Sums that the additive metrics are made of: rows, and of weight, label, loss and prediction, each times weight."""
    return np.concatenate([[len(logits)], weights.astype(np.float64) @ row_terms(logits, labels)])


def row_terms(logits: np.ndarray, labels: np.ndarray) -> np.ndarray:
    """What each row adds to the additive metrics, (B, 4): 1, label, loss and prediction."""
    z, y = logits.astype(np.float64), labels.astype(np.float64)
    softplus = np.maximum(z, 0) + np.log1p(np.exp(-np.abs(z)))  # in a tenth of logaddexp's time
    return np.stack([np.ones_like(z), y, softplus - y * z, sigmoid(z)], axis=1)


def sigmoid(z: np.ndarray) -> np.ndarray:
    small = np.exp(-np.abs(z))  # which does not overflow
    return np.where(z < 0, small, 1) / (1 + small)


def rates(totals: np.ndarray) -> dict[str, float]:
    """logloss, ne, calibration and rows of (rows, weight, label, loss, prediction).

    ne: logloss over the entropy of the base rate, 1 for a model that predicts the mean label (He et al., ADKDD 2014).
    calibration: mean prediction over mean label, above 1 where the model promises too many clicks, nan without a positive.
    """
    rows, weight, label, loss, prediction = (float(total) for total in totals)
    nan = float("nan")
    mean_loss, base = (loss / weight, label / weight) if weight else (nan, nan)
    entropy = -base * np.log(base) - (1 - base) * np.log1p(-base) if 0 < base < 1 else nan
    return {
        "logloss": mean_loss,
        "ne": float(mean_loss / entropy),
        "calibration": prediction / label if label else nan,
        "rows": int(rows),
    }


def _checked(
    logits: np.ndarray, labels: np.ndarray, weights: np.ndarray | None, groups: np.ndarray | None = None
) -> tuple[np.ndarray, ...]:
    """The rows of non-zero weight as float32 (groups int64), checked."""
    logits, labels = np.asarray(logits, np.float32), np.asarray(labels, np.float32)
    weights = _or_ones(weights, len(logits)).astype(np.float32)
    columns = (logits, labels, weights) if groups is None else (logits, labels, weights, np.asarray(groups, np.int64))
    if len({column.shape for column in columns}) > 1 or logits.ndim != 1:
        raise ValueError(f"logits, labels, weights and groups differ in shape: {[column.shape for column in columns]}")
    _refuse(~(weights >= 0) | np.isinf(weights), "weight", "not a finite number >= 0")
    columns = tuple(column[weights > 0] for column in columns)
    _refuse(~np.isfinite(columns[0]), "score", "not finite")
    _refuse(~((columns[1] >= 0) & (columns[1] <= 1)), "label", "not in [0, 1]")
    return columns


def _refuse(bad: np.ndarray, what: str, why: str) -> None:
    if bad.any():
        raise ValueError(f"{int(bad.sum())} of {len(bad)} {what}s are {why} (the first at row {int(bad.argmax())})")


def _or_ones(weights: np.ndarray | None, rows: int) -> np.ndarray:
    return np.ones(rows) if weights is None else np.asarray(weights, np.float64)
