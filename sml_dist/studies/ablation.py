"""`sml-dist study ablation CONFIG`: a grid of runs as Ray tasks, paired by seed; tables and a plot of what differs.

A run that is done is not done again: its summary lies in cells/. Runs on several workers, on a GPU, or with `train.worker_resources` go to
Ray Train one after another.
"""

import math
from dataclasses import asdict
from pathlib import Path
from typing import Any

from sml_dist.data.dataset import fingerprint
from sml_dist.held import held
from sml_dist.spec import InputError
from sml_dist.stages import ShowStage, silent
from sml_dist.statistics import Paired, paired
from sml_dist.studies.ablation_page import flat, page, plot
from sml_dist.studies.grid import Cell, GridConfig, cells, read_grid, value_of
from sml_dist.studies.tasks import as_they_end
from sml_dist.tabular import write_csv
from sml_dist.train.run_folder import RunFolder


def check(config_path: str, overrides: list[str] | None) -> None:
    """Raises InputError for what is wrong in the grid or in a cell's configuration."""
    cells(read_grid(config_path, overrides), "cells")


def run(config_path: str, overrides: list[str] | None, output: str, show: ShowStage = silent) -> dict[str, Any]:
    """Runs the cells that are missing, then writes `output`/: cells.csv, pairs.csv, README.md, pairs.png. Ray must be running."""
    grid, folder = read_grid(config_path, overrides), Path(output).absolute()
    wanted = cells(grid, str(folder / "cells"))
    summaries = finished(wanted, grid, show)
    rows = [cell.labels | {"seed": cell.seed} | flat(summary) | cell.labels for cell, summary in zip(wanted, summaries, strict=True)]
    pairs = compare(grid, wanted, [value_of(summary, grid) for summary in summaries])
    results = [{**labels, **asdict(result)} for labels, result in pairs]
    write_csv(folder / "cells.csv", rows)
    if results:
        write_csv(folder / "pairs.csv", results)
        plot(folder / "pairs.png", grid, pairs)
    text = page(grid, [(cell.labels, value_of(summary, grid)) for cell, summary in zip(wanted, summaries, strict=True)], pairs)
    (folder / "README.md").write_text(text)
    return {"folder": str(folder), "cells": len(wanted), "pairs": results}


def finished(wanted: list[Cell], grid: GridConfig, show: ShowStage) -> list[dict[str, Any]]:
    """The summary of every cell, in order. The first cell that fails stops all."""
    from sml_dist.train.launch import check_place, in_own_process, launch

    summaries: list[Any] = [done(cell) for cell in wanted]
    todo = [i for i, summary in enumerate(summaries) if summary is None]
    show("runs", len(wanted) - len(todo), len(wanted))
    small = [i for i in todo if in_own_process(wanted[i].config)]
    groups = [i for i in todo if i not in small]
    for i in groups:  # not after hours of small ones
        check_place(wanted[i].config)
    for i, summary in as_they_end(one, {i: (wanted[i],) for i in small}, grid.cpus, lambda i: f"run {wanted[i].config.run.name}"):
        summaries[i] = summary
        show("runs", sum(summary is not None for summary in summaries), len(wanted))
    for i in groups:
        summaries[i] = launch(wanted[i].config)
        show("runs", sum(summary is not None for summary in summaries), len(wanted))
    return summaries


def one(cell: Cell) -> dict[str, Any]:
    """A cell in a Ray task."""
    from sml_dist.train.alone import train_alone

    with held(cell.config.run.folder, math.inf):  # what a killed study has left running there ends by itself
        return train_alone(cell.config)


def done(cell: Cell) -> dict[str, Any] | None:
    """The summary of a cell that has been run. Raises InputError where that was on other data than now lies there."""
    folder, data = RunFolder(cell.config.run.folder), cell.config.data.path
    summary = folder.read_json("summary.json")
    if summary and folder.read_json("about.json")["dataset"]["sha256"] != fingerprint(data):
        raise InputError(f"{folder.path} was run on another dataset than {data} now holds; choose another --output")
    return summary


def compare(grid: GridConfig, wanted: list[Cell], values: list[float]) -> list[tuple[dict[str, str], Paired]]:
    """For each combination of the other axes and each other setting of the compared one: its paired differences."""
    axis, control = grid.compare
    by_place = {(tuple(cell.labels.items()), cell.seed): value for cell, value in zip(wanted, values, strict=True)}
    found = []
    for labels in dict.fromkeys(tuple(cell.labels.items()) for cell in wanted):
        named = dict(labels)
        if named[axis] != control:
            base = tuple((named | {axis: control}).items())
            found.append((named, paired([by_place[labels, seed] - by_place[base, seed] for seed in grid.seeds], grid.target)))
    return found
