"""What a sweep found, and how sure one can be of it: the best against the default, and paired differences."""

import math
from typing import Any

import plotly.graph_objects as go
from scipy import stats

from sml_dist.config.metrics import METRICS
from sml_dist.review.figures import COLOURS, INK, styled
from sml_dist.review.page import Section, Table, shown
from sml_dist.review.read import Sweep, positives
from sml_dist.statistics import CONFIDENCE, paired
from sml_dist.train.report import RunFolder

Trial = dict[str, Any]


def label(sweep: Sweep) -> str:
    return METRICS[sweep.config.metric].title


def best(sweep: Sweep) -> Section:
    if not sweep.ranked:
        return Section("Best against default")
    top, default = sweep.ranked[0], sweep.default
    was = default["params"].get if default else sweep.base_value
    found = [[key, shown(value), shown(was(key))] for key, value in top["params"].items()]
    return Section(
        "Best against default", verdict(sweep, top, default), tables=[Table(["key", f"best (trial {top['id']})", "default"], found)]
    )


def verdict(sweep: Sweep, top: Trial, default: Trial | None) -> str:
    if default is None:
        return "The base configuration itself was not among the trials (points: [{}] adds it), so nothing can be held against the best."
    if top["id"] == default["id"]:
        return "No trial was better than the default."
    gain = sweep.config.sign * (top["value"] - default["value"])
    early = "" if default["status"] == "finished" else f", which is {default['status']},"
    luck = (
        f"The best of {len(sweep.ranked)} is chosen for its luck too. Where both have checkpoints, `sml-dist evaluate {top['run']} "
        f"--against {default['run']}` in the sweep's folder holds the two against each other on the same test rows."
    )
    half = auc_interval(sweep, top, default)
    if half is None:
        return f"The best trial's {label(sweep)} is better than the default's{early} by {gain:.5f}. {luck}"
    sure = "The interval does not hold 0" if gain > half else "The interval holds 0: these rows do not tell the two apart"
    how = "by Hanley and McNeil, as if the two AUCs were of different rows, so wider than it need be"
    return (
        f"The best trial's {label(sweep)} is better than the default's{early} by {gain:.5f} ± {half:.5f} ({CONFIDENCE:.0%}, {how}). "
        f"{sure}. {luck}"
    )


def auc_interval(sweep: Sweep, top: Trial, default: Trial) -> float | None:
    """Half the interval of the difference of two AUCs; None for other metrics, or where the rows' labels were not counted."""
    if sweep.config.metric != "auc":
        return None
    found = (RunFolder(sweep.path / trial["run"]).read_json("about.json") for trial in sweep.trials)
    dataset = next((about["dataset"] for about in found if about), None)
    if dataset is None:
        return None
    clicks = positives(dataset, "valid")[0]  # the first label's, whose AUC the metric is
    errors = [auc_error(t["value"], clicks, dataset["rows"]["valid"] - clicks) for t in (top, default)]
    return float(stats.norm.ppf(0.5 + CONFIDENCE / 2)) * math.hypot(*errors)


def auc_error(auc: float, positives: float, negatives: float) -> float:
    """Standard error of an AUC over so many rows (Hanley and McNeil, Radiology 1982)."""
    q1, q2 = auc / (2 - auc), 2 * auc**2 / (1 + auc)
    return math.sqrt((auc * (1 - auc) + (positives - 1) * (q1 - auc**2) + (negatives - 1) * (q2 - auc**2)) / (positives * negatives))


def pairs(sweep: Sweep) -> Section:
    """Differences between the values of the paired key, draw by draw, at the same settings of everything else."""
    key, finished = sweep.config.pair, [t for t in sweep.trials if t["status"] == "finished"]
    values = {str(t["params"][key]): t["params"][key] for t in finished} if key else {}
    if len(values) < 2:
        return Section("Pairs")
    dimension = sweep.config.space[key]  # whose order counts, as in the sweep's own table, not that of which trial came first
    whole = dimension.choice or dimension.grid or sorted(values.values())
    control = str(sweep.config.control(whole, sweep.base_value(key)))
    by_draw = {(t["pair"], str(t["params"][key])): t["value"] for t in finished}
    rows, figures = [], []
    for value in (v for v in values if v != control):
        draws = sorted(draw for draw, v in by_draw if v == value and (draw, control) in by_draw)
        found = {draw: by_draw[draw, value] - by_draw[draw, control] for draw in draws}
        if found:
            p = paired(list(found.values()), target=1e-4)
            rows.append([f"{value} - {control}", p.seeds, p.mean, p.t_low, p.t_high, p.wins, p.p])
            figures.append(difference_figure(sweep, f"{short(key)}: {value} minus {control}", found, p.mean))
    columns = ["difference", "pairs", "mean", f"low ({CONFIDENCE:.0%})", f"high ({CONFIDENCE:.0%})", "pairs above 0", "p"]
    text = (
        f"{key}: the same draw of everything else, trained to the end with each value; differences of validation {label(sweep)}, "
        "Student's intervals."
    )
    return Section("Pairs", text, figures=figures, tables=[Table(columns, rows)] if rows else [])


def difference_figure(sweep: Sweep, title: str, found: dict[int, float], mean: float) -> go.Figure:
    better = [COLOURS[2] if sweep.config.sign * difference > 0 else COLOURS[4] for difference in found.values()]
    figure = styled(title, "draw (number)", f"difference of {label(sweep).split(' (')[0]} (the same unit)", height=280, meta="wide")
    figure.add_bar(x=list(found), y=list(found.values()), marker={"color": better}, showlegend=False)
    return figure.add_hline(y=mean, line={"color": INK, "dash": "dot", "width": 1.5}, annotation_text=f"mean {mean:+.5f}")


def short(key: str) -> str:
    """The last two parts of a dotted key."""
    return ".".join(key.split(".")[-2:])
