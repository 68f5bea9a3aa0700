"""What a sweep leaves for people: best.yaml, README.md with its tables, pairs.csv."""

from collections.abc import Iterable
from typing import Any

from sml_dist.config.run import dump
from sml_dist.spec import json_safe
from sml_dist.tabular import Row, markdown_table, write_csv
from sml_dist.trials import Record, Sweep, short_names
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.books import Books
from sml_dist.verdict import Contrast, about_contrasts, about_settings, contrast_rows, contrasts, verdict, way_to
from sml_dist.whole_files import WholeFiles

SHOWN = 50  # trials in the table


def write_results(blueprint: Blueprint, books: Books) -> dict[str, Any]:
    """Writes what can be said of a sweep; returns it."""
    sweep = blueprint.with_trials(books.records.values())
    folder, pairs = WholeFiles(sweep.path), contrasts(sweep)
    found: dict[str, Any] = {"folder": str(sweep.path), "trials": sweep.counts, "metric": sweep.config.metric}
    if sweep.ranked:
        best, default = sweep.ranked[0], sweep.default
        what = f"Trial {best.id} of the sweep {sweep.config.name}" + (f": {way_to(best)}" if best.exploits else "")
        folder.write("best.yaml", f"# {what}\n{dump(blueprint.best(best.params))}")
        found |= {"best": {"id": best.id, "value": best.value, "params": best.params}, "default": default and default.value}
    if pairs:
        write_csv(sweep.path / "pairs.csv", [row for contrast in pairs for row in draws(sweep.config.pair, contrast)])
        found["pairs"] = json_safe({f"{sweep.config.pair} {contrast}": vars(contrast.result) for contrast in pairs})
    folder.write("README.md", page(sweep, pairs, blueprint.epoch_rows))
    return found


def page(sweep: Sweep, pairs: list[Contrast], epoch_rows: int) -> str:
    config, trials = sweep.config, sweep.trials
    work = f"{sum(trial.rows for trial in trials):,} rows, {sum(trial.seconds for trial in trials) / 60:.1f} minutes of trials"
    told = ", ".join(f"{number} {status}" for status, number in sweep.counts.items())
    text = f"# {config.name}\n\n{len(trials)} trials of `{config.base}` ({told}); {work}.\n\n"
    if sweep.ranked:
        text += f"{verdict(sweep)}\n\n"
        text += f"{about_contrasts(sweep)}\n\n{markdown_table(contrast_rows(pairs))}\n" if pairs else ""
        lines = [line(trial, config.metric, config.space, epoch_rows) for trial in sweep.ranked[:SHOWN]]
        text += f"Best first, by {config.metric} on the validation rows.{about_settings(sweep)}\n\n{markdown_table(lines)}\n"
    return text + "".join(f"- trial {trial.id} failed: {trial.error}\n" for trial in trials if trial.error)


def line(trial: Record, metric: str, keys: Iterable[str], epoch_rows: int) -> Row:
    found = {"trial": trial.id, metric: f"{trial.value:.5f}", "status": trial.status}
    found |= {"epochs": round(trial.rows / epoch_rows, 2), "seconds": round(trial.seconds, 1)}
    return found | {name: trial.params.get(key) for key, name in short_names(keys).items()}


def draws(key: str, contrast: Contrast) -> list[Row]:
    return [
        {"draw": draw, key: contrast.value, "trial": a.id, "against": b.id, "value": a.value, "of": b.value, "difference": difference}
        for (a, b), (draw, difference) in zip(contrast.pairs, contrast.differences.items(), strict=True)
    ]
