"""The page of one run: what came out, how it went, what to look at."""

import dataclasses
import time
from collections import defaultdict
from typing import Any

import plotly.graph_objects as go

from sml_dist.config.metrics import METRICS
from sml_dist.config.run import dump, parse
from sml_dist.credentials import scrub
from sml_dist.review.figures import GREY, Series, bars, lines, shades
from sml_dist.review.lines import happened
from sml_dist.review.page import Fact, Section, Table, render
from sml_dist.review.read import SPLITS, Run, positives
from sml_dist.spec import InputError, many

STEP = "step (batches)"
MOST_LINES = 12  # in a figure; of more the largest are drawn
MOST_ROWS = 200  # of a table
WORST_FIELDS = 30


def run_page(run: Run) -> str:
    sections = [result(run), progress(run), quality(run), layers(run), time_spent(run), tables(run), fields(run), events(run), about(run)]
    return render(run.name, subtitle(run), headline(run), sections)


def model_name(run: Run) -> str:
    model = run.config["model"]
    sml = (run.summary or {}).get("sml", "sml" in model and model["sml"]["enabled"])
    return f"{model['name']}{' with SML' if sml else ''}"


def state(run: Run) -> str:
    """In words; a run without a summary goes on, or was cut off."""
    return "finished" if run.summary else "not finished"


def subtitle(run: Run) -> str:
    began = time.strftime("%Y-%m-%d %H:%M", time.localtime(run.lines[0]["time"])) if run.lines else "no step yet"
    dataset = run.about.get("dataset", {})
    parts = [model_name(run), state(run), began, f"data {dataset.get('name', run.config['data']['path'])}"]
    if commit := run.code.get("commit"):
        parts.append(f"commit {commit[:10]}{' with changes' if run.code['changed'] else ''}")
    return " · ".join(parts)


def headline(run: Run) -> list[Fact]:
    found = run.summary or {}
    valid = found.get("valid") or (run.evaluations[-1] if run.evaluations else {})
    best = (found.get("best") or {}).get("valid") or {}
    facts = [
        Fact(metric.title, f"{valid[name]:.5f}", f"best reachable {best[name]:.5f}" if name in best else "validation")
        for name, metric in METRICS.items()
        if valid.get(name) is not None
    ]
    if found:
        facts += [
            Fact("samples/s", f"{found['samples_per_second']:,.0f}", f"{found['data_wait_fraction']:.1%} waiting for data"),
            Fact("rows seen", f"{found['rows_seen']:,}", f"{many(found['epochs'], 'epoch')}, {many(found['steps'], 'step')}"),
            Fact("time", duration(found["seconds"]), f"{many(found['workers'], 'worker')}, {found['device']}, {found['precision']}"),
            Fact(
                "restarts",
                str(found["restarts"]),
                f"{many(found['skipped_steps'], 'step')} skipped, {many(found['rollbacks'], 'rollback')}",
            ),
        ]
    return facts


def duration(seconds: float) -> str:
    if seconds < 120:
        return f"{seconds:.1f} s"
    return f"{seconds / 60:.1f} min" if seconds < 7200 else f"{seconds / 3600:.1f} h"


def result(run: Run) -> Section:
    found = run.summary or {}
    names = [name for name in (*METRICS, "rows") if any(name in (found.get(split) or {}) for split in SPLITS)]
    rows: list[list[Any]] = []
    for split in SPLITS:
        for title, values in ((split, found.get(split)), (f"{split}, best reachable", (found.get("best") or {}).get(split))):
            if values:
                rows.append([title, *(values.get(name) for name in names)])
        for label, values in ((found.get(split) or {}).get("labels") or {}).items():
            rows.append([f"{split}, label {label}", *(values.get(name) for name in names)])
    text = "Metrics of the best weights over whole splits. Calibration is mean prediction over mean label."
    columns = ["split", *(METRICS[name].title if name in METRICS else name for name in names)]
    return Section("Result", text, tables=[Table(columns, rows)] if rows else [])


def progress(run: Run) -> Section:
    valid = [line for line in run.evaluations if line["split"] == "valid"]
    figures = []
    if run.steps:
        figures.append(lines("Training loss", STEP, "mean logistic loss (nats)", [over_steps("train", run.steps, "loss")]))
    for name in ("auc", "logloss", "calibration", "gauc"):
        if any(line.get(name) is not None for line in valid):
            unit = {"logloss": "logloss (nats)", "calibration": "predicted / observed clicks (ratio)"}.get(
                name, f"{METRICS[name].title} (0 to 1)"
            )
            figures.append(
                lines(f"Validation {METRICS[name].title.split(' (')[0]}", STEP, unit, [over_steps("valid", valid, name, markers=True)])
            )
    if run.steps:
        rate = lines("Learning rate of the dense part", STEP, "rate (per step)", [over_steps("rate", run.steps, "lr")])
        figures.append(rate.update_yaxes(rangemode="tozero"))
    return Section("Learning curves", figures=figures)


def over_steps(name: str, found: list[dict[str, Any]], key: str, **style: Any) -> Series:
    return Series(name, [line["step"] for line in found], [line.get(key) for line in found], legend=False, **style)


def quality(run: Run) -> Section:
    curves = {split: found for split, found in run.curves.items() if found}
    if not curves:
        return Section("Scores")
    pieces = []
    calibration = [Series(split, c["calibration"]["predicted"], c["calibration"]["observed"], markers=True) for split, c in curves.items()]
    most = max(max(s.x) for s in calibration)
    calibration.append(Series("perfect", [0, most], [0, most], GREY, 1.5, dash="dash"))
    pieces.append(lines("Calibration", "predicted click rate (share of rows)", "observed click rate (share of rows)", calibration))
    roc = [Series(split, c["roc"]["false_positive_rate"], c["roc"]["true_positive_rate"]) for split, c in curves.items()]
    roc.append(Series("chance", [0, 1], [0, 1], GREY, 1.5, dash="dash"))
    pieces.append(lines("ROC", "false positive rate (share of negatives)", "true positive rate (share of positives)", roc))
    pr = [Series(f"{s}, mean {c['average_precision']:.4f}", c["pr"]["recall"], c["pr"]["precision"]) for s, c in curves.items()]
    pieces.append(lines("Precision over recall", "recall (share of positives)", "precision (share of rows)", pr))
    text = "Of the last evaluation. Calibration: twenty parts of equal weight by prediction; on the dashed line clicks come as predicted."
    return Section("Scores", text, figures=pieces)


def layers(run: Run) -> Section:
    """The health signals."""
    if not run.health:
        return Section("Layers and tables")
    made = [
        health_figure(run, "term_variance", "Variance of each layer's logit term", "variance over rows (squared logits)", log=True),
        health_figure(run, "cosine", "Likeness of rows at each layer", "mean cosine of two rows (-1 to 1)"),
        health_figure(run, "gradient_norm", "Gradient norm by layer", "norm (nats per unit of weight)", log=True),
        health_figure(run, "row_norm", "Embedding rows looked up", "mean norm of a row (no unit)"),
    ]
    text = (
        "Where the mean cosine nears 1 a layer no longer tells rows apart, and where its term's variance nears 0 it adds nothing "
        "to the logit. Dark lines are early layers."
    )
    return Section("Layers and tables", text, figures=[figure for figure in made if figure])


def health_figure(run: Run, section: str, title: str, y: str, *, log: bool = False) -> go.Figure | None:
    found: dict[str, list[tuple[int, float]]] = defaultdict(list)
    for line in run.health:
        for key, value in line.items():
            if key.startswith(f"{section}/") and value is not None and (value > 0 or not log):
                found[key.partition("/")[2]].append((line["step"], value))
    if not found:
        return None
    names = list(found)
    if len(names) > MOST_LINES:
        largest = sorted(names, key=lambda name: -found[name][-1][1])[:MOST_LINES]
        names, title = [name for name in names if name in largest], f"{title}: {MOST_LINES} largest of {len(names)}"
    series = [Series(n, *zip(*found[n], strict=True), colour) for n, colour in zip(names, shades(len(names)), strict=True)]
    figure = lines(title, STEP, y, series, height=360)
    return figure.update_yaxes(type="log", exponentformat="power") if log else figure


def time_spent(run: Run) -> Section:
    figures = []
    if phases := (run.summary or {}).get("seconds_by_phase"):
        names = sorted(phases, key=lambda name: -phases[name])
        labels = [f"{name.replace('_', ' ')}  {phases[name] / sum(phases.values()):.0%}" for name in names]
        figures.append(bars("Worker 0's time by phase", "time (s)", "phase (share of all)", labels, [phases[name] for name in names]))
    if run.steps:
        figures.append(lines("Throughput", STEP, "rows a second (all workers)", [over_steps("rows/s", run.steps, "samples_per_second")]))
        waited = over_steps("waiting", run.steps, "data_wait_fraction")
        figures.append(lines("Waiting for data", STEP, "share of time (0 to 1)", [waited]))
    memory = [Series(name, *known(run, key)) for name, key in (("host", "memory_mb"), ("GPU", "gpu_memory_mb")) if known(run, key)[0]]
    if memory:
        memory = memory if len(memory) > 1 else [dataclasses.replace(memory[0], legend=False)]
        busy = Series("cores", *known(run, "cpu_cores"), legend=False)
        figures.append(lines("Memory of worker 0", STEP, "memory (MB)", memory))
        figures.append(lines("Processor use of worker 0", STEP, "cores kept busy (cores)", [busy]))
    for figure in figures[1:] if phases else figures:
        figure.update_yaxes(rangemode="tozero")
    return Section("Time and machine", figures=figures)


def known(run: Run, key: str) -> tuple[list[int], list[float]]:
    found = [line for line in run.health if line.get(key) is not None]
    return [line["step"] for line in found], [line[key] for line in found]


def tables(run: Run) -> Section:
    plan = run.about.get("plan") or []
    if not plan:
        return Section("Sharding plan")
    rows = [
        [t["table"], t["rows"], t["dim"], t["kind"], t["kernel"], ", ".join(map(str, t["ranks"])), t["weights"] / 1e6]
        for t in plan[:MOST_ROWS]
    ]
    columns = ["table", "rows", "dim", "sharding", "kernel", "workers", "weights (MB)"]
    kinds: dict[str, float] = defaultdict(float)
    for t in plan:
        kinds[t["kind"]] += t["weights"] / 1e6
    facts = [Fact("tables", str(len(plan)), f"{sum(t['rows'] for t in plan):,} rows")]
    facts += [Fact(kind.replace("_", " "), f"{mb:,.1f} MB", "of weights, once") for kind, mb in kinds.items()]
    note = f"the {MOST_ROWS} largest of {len(plan)}" if len(plan) > MOST_ROWS else ""
    return Section("Sharding plan", facts=facts, tables=[Table(columns, rows, note)])


def fields(run: Run) -> Section:
    found = run.about.get("fields") or []
    if not found:
        return Section("Fields")
    rows = [[f["field"], f["rows"], f["ids"], f["distinct"], f["distinct"] / f["rows"], f["unknown_share"]] for f in found]
    rows.sort(key=lambda row: (-(row[5] or 0), -row[1]))
    columns = ["field", "table rows", "ids in sample", "distinct", "share of table seen", "share outside vocabulary"]
    worst = [row for row in rows if row[5]][:WORST_FIELDS]
    title = "Fields with the largest share of ids outside the vocabulary"
    figures = (
        [bars(title, "ids outside the vocabulary (share)", "field (name)", [r[0] for r in worst], [r[5] for r in worst])] if worst else []
    )
    text = "Of a sample of the validation rows. Values outside the vocabulary share row 0; hashed fields have no such row."
    return Section("Fields", text, figures=figures, tables=[Table(columns, rows[:MOST_ROWS])])


def events(run: Run) -> Section:
    rows = [
        [time.strftime("%H:%M:%S", time.localtime(e["time"])), e["step"], happened(e)] for e in run.events if e["event"] != "checkpoint"
    ]
    checkpoints = [e for e in run.events if e["event"] == "checkpoint"]
    text = f"{many(len(checkpoints), 'checkpoint')} written." if checkpoints else ""
    if not rows:
        return Section(
            "Events", facts=[Fact("checkpoints", str(len(checkpoints)), "no restart, rollback or skipped step")] if checkpoints else []
        )
    return Section("Events", text, tables=[Table(["time", "step", "what"], rows[-MOST_ROWS:])])


def about(run: Run) -> Section:
    dataset = run.about.get("dataset") or {}
    rows = [["dataset", dataset.get("path")], ["its manifest's SHA-256", dataset.get("sha256")], ["split rule", dataset.get("split_rule")]]
    for split, n in dataset.get("rows", {}).items():
        rates = ", ".join(f"{count / max(n, 1):.2%}" for count in positives(dataset, split))
        rows.append([f"{split} rows", f"{n:,} ({rates} clicks)"])
    for part in ("machine", "versions"):
        rows += [[name.replace("_gb", " (GB)"), str(value)] for name, value in run.about.get(part, {}).items()]
    rows += [["run folder", str(run.path)], ["checkpoint of the best weights", (run.summary or {}).get("checkpoint")]]
    return Section("Origin and configuration", tables=[Table(["what", "value"], [row for row in rows if row[1]])], code=configuration(run))


def configuration(run: Run) -> str:
    try:
        return dump(parse(run.config))
    except InputError:  # of another version, or with a secret in it
        return scrub(str(run.config))
