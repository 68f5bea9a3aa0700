"""Several runs side by side: what came out of each, where their configurations differ, their curves in one picture."""

from collections.abc import Callable
from typing import Any

import plotly.graph_objects as go

from sml_dist.config.metrics import METRICS
from sml_dist.review.figures import COLOURS, GREY, Series, lines, styled
from sml_dist.review.page import Fact, Section, Table, render
from sml_dist.review.read import Run
from sml_dist.review.run_page import STEP, duration, model_name, state

OWN = ("run.name", "run.storage")  # keys that differ between any two runs
DATASET, CODE = "dataset (SHA-256)", "code (commit)"


def compare_page(runs: list[Run]) -> str:
    names = labels(runs)
    sections = [results(runs, names), differences(runs, names), curves(runs, names), quality(runs, names), time_spent(runs, names)]
    return render(f"{len(runs)} runs side by side", " · ".join(names), headline(runs, names), sections)


def labels(runs: list[Run]) -> list[str]:
    """Their names, or where two share one their folders."""
    names = [run.name for run in runs]
    return names if len(set(names)) == len(names) else [str(run.path) for run in runs]


def headline(runs: list[Run], names: list[str]) -> list[Fact]:
    values = [run.summary and run.summary["valid"]["auc"] for run in runs]
    found = [(value, name) for value, name in zip(values, names, strict=True) if value is not None]
    if not found:
        return []
    (best, name), (worst, _) = max(found), min(found)
    datasets = {made_of(run)[DATASET] for run in runs if run.summary and run.about}
    note = "best minus worst" if len(datasets) < 2 else "best minus worst; of other rows, for the datasets differ"
    return [Fact("best validation AUC", f"{best:.5f}", name), Fact("spread", f"{best - worst:.5f}", note)]


def made_of(run: Run) -> dict[str, str]:
    """What a run was made of beside its configuration, in short."""
    return {DATASET: str(run.about.get("dataset", {}).get("sha256", ""))[:12], CODE: str(run.code.get("commit", ""))[:12]}


def results(runs: list[Run], names: list[str]) -> Section:
    rows = []
    for run, name in zip(runs, names, strict=True):
        found = run.summary or {}
        valid, test = found.get("valid") or {}, found.get("test") or {}
        row = [name, model_name(run), state(run), *(valid.get(metric) for metric in METRICS), test.get("auc")]
        rows.append([*row, found.get("rows_seen"), found.get("samples_per_second"), duration(found["seconds"]) if found else None])
    columns = ["run", "model", "state", *(metric.title for metric in METRICS.values()), "test AUC", "rows seen", "samples/s", "time"]
    kept = [i for i in range(len(columns)) if any(row[i] is not None for row in rows)]
    return Section("Results", "Of the validation rows, with the best weights.", tables=[_columns(columns, rows, kept)])


def _columns(columns: list[str], rows: list[list[Any]], kept: list[int]) -> Table:
    return Table([columns[i] for i in kept], [[row[i] for i in kept] for row in rows])


def differences(runs: list[Run], names: list[str]) -> Section:
    flat = [run.flat_config() | made_of(run) for run in runs]
    keys = [key for key in dict.fromkeys(key for one in flat for key in one) if key not in OWN]
    rows = [[key, *(str(one.get(key, "")) for one in flat)] for key in keys if len({str(one.get(key)) for one in flat}) > 1]
    if not rows:
        return Section("Where the configurations differ", facts=[Fact("keys that differ", "0", "the runs differ in name alone")])
    return Section("Where the configurations differ", tables=[Table(["key", *names], rows)])


def curves(runs: list[Run], names: list[str]) -> Section:
    def over(title: str, y: str, key: str, lines_of: Callable[[Run], list[dict[str, Any]]]) -> go.Figure:
        found = [(name, [line for line in lines_of(run) if line.get(key) is not None]) for run, name in zip(runs, names, strict=True)]
        return lines(title, STEP, y, [Series(name, [at["step"] for at in of], [at[key] for at in of]) for name, of in found if of])

    def valid(run: Run) -> list[dict[str, Any]]:
        return [line for line in run.evaluations if line["split"] == "valid"]

    figures = [
        over("Validation AUC", "AUC (0 to 1)", "auc", valid),
        over("Validation logloss", "logloss (nats)", "logloss", valid),
        over("Training loss", "mean logistic loss (nats)", "loss", lambda run: run.steps),
        over("Gradient norm of the dense part", "norm (nats per unit of weight)", "gradient_norm", lambda run: run.health),
        over("Variance of the logit", "variance over rows (squared logits)", "logit_variance", lambda run: run.health),
    ]
    return Section("Curves", figures=[figure for figure in figures if figure.data])


def quality(runs: list[Run], names: list[str]) -> Section:
    found = [(name, run.curves["valid"]["calibration"]) for run, name in zip(runs, names, strict=True) if run.curves["valid"]]
    if not found:
        return Section("Scores")
    most = max(max(c["predicted"]) for _, c in found)
    series = [Series(name, c["predicted"], c["observed"], markers=True) for name, c in found]
    series.append(Series("perfect", [0, most], [0, most], GREY, 1.5, dash="dash"))
    figure = lines("Calibration (validation)", "predicted click rate (share of rows)", "observed click rate (share of rows)", series)
    return Section("Scores", figures=[figure])


def time_spent(runs: list[Run], names: list[str]) -> Section:
    found = {name: run.summary["seconds_by_phase"] for run, name in zip(runs, names, strict=True) if run.summary}
    phases = list(dict.fromkeys(phase for spent in found.values() for phase in spent))
    if not phases:
        return Section("Time")
    figure = styled("Worker 0's time by phase", "time (s)", "run (name)", barmode="stack", height=130 + 60 * len(found))
    for i, phase in enumerate(phases):
        figure.add_bar(
            x=[spent.get(phase, 0) for spent in found.values()], y=list(found), name=phase.replace("_", " "), orientation="h",
            marker={"color": COLOURS[i % len(COLOURS)], "opacity": 1 if i < len(COLOURS) else 0.55},
        )  # fmt: skip
    figure.update_yaxes(autorange="reversed", type="category").update_layout(meta="wide")
    return Section("Time", figures=[figure])
