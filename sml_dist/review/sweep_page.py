"""The page of a sweep: what was found, how sure one can be, which keys it hangs on, what it cost."""

import math
from typing import Any

import numpy as np
import plotly.graph_objects as go

from sml_dist.config.metrics import METRICS
from sml_dist.review.figures import COLOURS, GREY, INK, Series, lines, styled
from sml_dist.review.importance import LEAST_DRAWS, importance
from sml_dist.review.lines import is_number
from sml_dist.review.page import Fact, Section, Table, render, shown
from sml_dist.review.run_page import duration
from sml_dist.trials import Record, Sweep, short_names
from sml_dist.verdict import Contrast, about_contrasts, about_settings, contrast_rows, contrasts, verdict

MOST_TRIALS = 200
STATES = {"finished": COLOURS[2], "stopped": COLOURS[0], "cut": COLOURS[7], "running": GREY, "failed": COLOURS[4]}
ABSENT = "–"


def sweep_page(sweep: Sweep) -> str:
    sections = [
        best(sweep),
        pairs(sweep),
        coordinates(sweep),
        importances(sweep),
        curves(sweep),
        budget(sweep),
        trials(sweep),
        failures(sweep),
        space(sweep),
    ]
    return render(sweep.config.name, subtitle(sweep), headline(sweep), sections)


def label(sweep: Sweep) -> str:
    return METRICS[sweep.config.metric].title


def unit(sweep: Sweep) -> str:
    return label(sweep) if "(" in label(sweep) else f"{label(sweep)} (0 to 1)"


def subtitle(sweep: Sweep) -> str:
    c = sweep.config
    scheduler = "no scheduler" if c.scheduler.name == "none" else f"{c.scheduler.name} scheduler"
    return f"sweep of {len(c.space)} keys over {c.base} · {c.search.name} search · {scheduler} · validation {label(sweep)}"


def headline(sweep: Sweep) -> list[Fact]:
    facts = [Fact("trials", str(len(sweep.trials)), ", ".join(f"{n} {status}" for status, n in sweep.counts.items()))]
    if sweep.ranked:
        top = sweep.ranked[0]
        facts.insert(0, Fact(f"best {label(sweep)}", f"{top.value:.5f}", f"trial {top.id}"))
    if default := sweep.default:
        facts.insert(1, Fact(f"default's {label(sweep)}", f"{default.value:.5f}", f"trial {default.id}"))
        facts.insert(2, Fact("better by", f"{sweep.gain:.5f}", "best against default"))
    facts.append(Fact("work", duration(sum(t.seconds for t in sweep.trials)), "over all trials and attempts"))
    facts.append(Fact("rows trained on", f"{sum(t.rows for t in sweep.trials):,}", "over all trials"))
    return facts


def best(sweep: Sweep) -> Section:
    if not sweep.ranked:
        return Section("Best against default")
    top, default = sweep.ranked[0], sweep.default
    was = default.params.get if default else sweep.base_value
    found = [[key, shown(value), shown(was(key))] for key, value in top.params.items()]
    return Section("Best against default", verdict(sweep), tables=[Table(["key", f"best (trial {top.id})", "default"], found)])


def pairs(sweep: Sweep) -> Section:
    found = contrasts(sweep)
    if not found:
        return Section("Pairs")
    figures, rows = [difference_figure(sweep, contrast) for contrast in found], contrast_rows(found)
    return Section("Pairs", about_contrasts(sweep), figures=figures, tables=[Table([*rows[0]], [[*row.values()] for row in rows])])


def difference_figure(sweep: Sweep, contrast: Contrast) -> go.Figure:
    found, mean = contrast.differences, contrast.result.mean
    better = [COLOURS[2] if sweep.config.sign * difference > 0 else COLOURS[4] for difference in found.values()]
    unit = f"difference of {label(sweep).split(' (')[0]} (the same unit)"
    figure = styled(f"{sweep.config.pair}: {contrast}", "draw (number)", unit, height=280, meta="wide")
    figure.add_bar(x=list(found), y=list(found.values()), marker={"color": better}, showlegend=False)
    return figure.add_hline(y=mean, line={"color": INK, "dash": "dot", "width": 1.5}, annotation_text=f"mean {mean:+.5f}")


def coordinates(sweep: Sweep) -> Section:
    found = sweep.ranked[:MOST_TRIALS][::-1]  # the best drawn last, on top
    if len(found) < 2:
        return Section("Parallel coordinates")
    axes = [axis(name, [t.params.get(key) for t in found]) for key, name in short_names(sweep.config.space).items()]
    values = [t.value for t in found]
    axes.append({"label": unit(sweep), "values": values})
    worst, top = np.percentile(values, [10, 100]) if sweep.config.sign > 0 else np.percentile(values, [90, 0])
    figure = styled(
        "Trials by their settings", "key (its own scale)", unit(sweep), height=430, meta="wide", margin={"l": 90, "r": 90, "t": 96, "b": 28}
    )
    figure.add_trace(
        go.Parcoords(
            dimensions=[a for a in axes if len(set(a["values"])) > 1],
            line={"color": values, "colorscale": "Viridis", "cmin": min(worst, top), "cmax": max(worst, top),
                  "reversescale": sweep.config.sign < 0},
            labelangle=-12, labelfont={"size": 11}, tickfont={"size": 10},
        )
    )  # fmt: skip
    text = f"A line is a trial, a bright one a good one. Drag along an axis to keep the trials that pass there.{about_settings(sweep)}"
    return Section("Parallel coordinates", text, figures=[figure.update_xaxes(visible=False).update_yaxes(visible=False)])


def axis(name: str, values: list[Any]) -> dict[str, Any]:
    """One axis of parallel coordinates: numbers by size (by their logarithm where they span thirtyfold), the rest by name.

    A key that is not in force in a trial stands at the foot of its axis, as a dash.
    """
    known = [v for v in values if v is not None]
    if not known or not all(is_number(v) for v in known):
        found = {str(v): tick(v) for v in known}
        names = [ABSENT] * (len(known) < len(values)) + sorted(found, key=found.get)
        places = [names.index(ABSENT if v is None else str(v)) for v in values]
        texts = [found.get(n, n) for n in names]
        texts = texts if len({*texts}) == len(names) else names
        return {"label": name, "values": places, "tickvals": list(range(len(names))), "ticktext": texts}
    log = min(known) > 0 and max(known) / min(known) >= 30
    places = [v if v is None or not log else math.log10(v) for v in values]
    low, high = min(p for p in places if p is not None), max(p for p in places if p is not None)
    ticks = np.linspace(low, high, 5).tolist() if high > low else [low]
    texts = [f"{10**t if log else t:.2g}" for t in ticks]
    if len(known) < len(values):
        foot = low - (high - low or 1) / 5
        places, ticks, texts = [foot if p is None else p for p in places], [foot, *ticks], [ABSENT, *texts]
    return {"label": f"{name} (log)" if log else name, "values": places, "tickvals": ticks, "ticktext": texts}


def tick(value: Any) -> str:
    """A value in few letters: layers of one width as 256×4, and of a long text both ends."""
    if isinstance(value, list) and value and all(each == value[0] for each in value):
        return f"{value[0]}×{len(value)}"
    text = str(value)
    return text if len(text) <= 14 else f"{text[:6]}…{text[-7:]}"


def importances(sweep: Sweep) -> Section:
    found = importance(sweep)
    if found is None:
        why = f"This takes {LEAST_DRAWS} draws of the keys that have ended, with values that differ."
        if sweep.exploited:
            why = "Trials went on from others' checkpoints: they did not come to their values under the settings that they had last."
        return Section("Which keys matter", facts=[Fact("importance", "not known", why)] if sweep.ranked else [])
    text = (
        f"{found.trials} trials that have ended are compared by their best {label(sweep)} within the first {found.rows:,} rows, which all "
        "of them were trained on. Each fifth of them is predicted from its settings by a random forest that saw only the others. "
    )
    if found.explained <= 0:
        text += "The R² of that is not above 0, no better than their mean: these trials do not show which keys matter."
        return Section("Which keys matter", text, facts=[Fact("R²", f"{found.explained:.2f}", "on trials that were held out")])
    names = [short_names(sweep.config.space)[name] for name in found.names]
    figure = styled(
        "Permutation importance", "loss of R² when shuffled (share)", "key (name)", height=110 + 26 * len(found.names), meta="wide"
    )
    spread = {"type": "data", "array": found.deviation, "color": GREY}
    figure.add_bar(x=found.mean, y=names, orientation="h", error_x=spread, marker={"color": COLOURS[0]}, width=0.7)
    figure.update_yaxes(autorange="reversed", type="category", showgrid=False)
    text += (
        f"The R² of that is {found.explained:.2f}; a bar is what it loses when one key's values are shuffled among the trials, its whisker "
        f"the spread over shuffles. {'With R² so low all of it may be chance.' if found.explained < 0.3 else ''}"
    )
    return Section("Which keys matter", text, figures=[figure])


def curves(sweep: Sweep) -> Section:
    metric, series = sweep.config.metric, []
    top, default = (sweep.ranked[0] if sweep.ranked else None), sweep.default
    for trial in [t for t in sweep.ranked[::-1][-MOST_TRIALS:] if t not in (top, default)]:
        series.append(over_rows(trial, metric, "others", GREY, 1.2, legend=not series))
    if default:
        series.append(over_rows(default, metric, f"default (trial {default.id})", COLOURS[1], 2.6))
    if top and top != default:
        series.append(over_rows(top, metric, f"best (trial {top.id})", COLOURS[0], 2.6))
    if not series:
        return Section("Learning curves")
    figure = lines(
        f"Validation {label(sweep).split(' (')[0]} of each trial", "rows trained on (rows)", unit(sweep), series, height=430, meta="wide"
    )
    return Section("Learning curves", figures=[figure])


def over_rows(trial: Record, metric: str, name: str, colour: str, width: float, *, legend: bool = True) -> Series:
    found = [at for at in trial.history if metric in at]
    return Series(name, [at["rows"] for at in found], [at[metric] for at in found], colour, width, legend=legend)


def budget(sweep: Sweep) -> Section:
    started = [t.started for t in sweep.trials if t.started]
    if not started:
        return Section("Budget")
    first, sign, metric = min(started), sweep.config.sign, sweep.config.metric
    seen = sorted((at["time"], at[metric], t.id) for t in sweep.trials for at in t.history if metric in at)
    minutes, so_far = [], []
    for when, value, _ in seen:
        if not so_far or sign * value > sign * so_far[-1]:
            minutes.append((when - first) / 60)
            so_far.append(value)
    figures = []
    if seen:
        minutes, so_far = [*minutes, (seen[-1][0] - first) / 60], [*so_far, so_far[-1]]
        figure = lines(
            "Best so far", "time since the first trial began (min)", unit(sweep), [Series("best", minutes, so_far, legend=False)]
        )
        figures.append(figure.update_traces(line_shape="hv"))
    work = styled("Work by trial", "trial (number)", "time over all attempts (s)", barmode="stack")
    for state, colour in STATES.items():
        found = [t for t in sweep.trials if t.status == state]
        if found:
            work.add_bar(x=[t.id for t in found], y=[t.seconds for t in found], name=state, marker={"color": colour})
    return Section("Budget", figures=[*figures, work])


def trials(sweep: Sweep) -> Section:
    keys = list(sweep.config.space)
    order = [*sweep.ranked, *(t for t in sweep.trials if t not in sweep.ranked)]
    metrics = [m for m in METRICS if any(m in at for t in sweep.trials for at in t.history)]
    found = []
    for trial in order[:MOST_TRIALS]:
        at = trial.best(sweep.config.metric)
        shown = [at.get(metric) for metric in metrics]
        settings = (text(trial.params.get(key)) for key in keys)
        found.append([trial.id, trial.status, *shown, trial.rows, round(trial.seconds, 1), *settings])
    names = [METRICS[m].title for m in metrics]
    note = f"the best {MOST_TRIALS} of {len(order)}" if len(order) > MOST_TRIALS else ""
    columns = ["trial", "status", *names, "rows", "time (s)", *short_names(keys).values()]
    about = f"Best first; metrics of the evaluation at which the trial was best.{about_settings(sweep)}"
    return Section("Trials", about, tables=[Table(columns, found, note)])


def text(value: Any) -> Any:
    return value if value is None or is_number(value) else str(value)


def failures(sweep: Sweep) -> Section:
    found = [[t.id, t.attempts, t.error] for t in sweep.trials if t.error]
    return Section("Failures", tables=[Table(["trial", "attempts", "error"], found)] if found else [])


def space(sweep: Sweep) -> Section:
    found = []
    for key, dimension in sweep.config.space.items():
        kind, values = next((name, value) for name, value in vars(dimension).items() if name != "when" and value is not None)
        when = ", ".join(f"{k} = {v}" for k, v in dimension.when.items())
        found.append([key, kind, str(list(values)), when, shown(sweep.base_value(key))])
    return Section("Space", tables=[Table(["key", "drawn by", "from", "only when", "default"], found)] if found else [])
