"""An evaluation as tables for the terminal."""

import math
from typing import Any

from rich.table import Table
from rich.text import Text

TITLES = {"auc": "AUC", "gauc": "GAUC", "logloss": "logloss", "ne": "NE", "calibration": "calibration"}


def metrics_table(found: dict[str, Any]) -> Table:
    """A line a metric; against another run also its value, the difference (bold where it is sure), the p value where there is one."""
    table = table_of(f"{found['model']}, {found['rows']:,} {found['split']} rows", "", "value", "95 %")
    against = found.get("against")
    for name in (against["model"], "difference", "95 %", "p") if against else ():
        table.add_column(name, justify="right")
    for name, own in found["metrics"].items():
        line: list[str | Text] = [TITLES[name], number(own["value"]), interval(own)]
        if against:
            difference = found["differences"][name]
            sure = "" if difference["low"] <= 0 <= difference["high"] else "bold"
            p = f"{difference['p']:.2g}" if "p" in difference else ""
            line += [number(against["metrics"][name]["value"]), Text(f"{difference['value']:+.5f}", style=sure)]
            line += [f"{difference['low']:+.5f} to {difference['high']:+.5f}", p]
        table.add_row(*line)
    return table


def slices_table(name: str, slices: list[dict[str, Any]]) -> Table:
    metrics = [metric for metric in ("auc", "logloss", "calibration") if slices and metric in slices[0]]
    table = table_of(f"by {name}", name, "rows", "positive")
    for metric in metrics:
        table.add_column(TITLES[metric], justify="right")
        table.add_column("95 %", justify="right")
    for line in slices:
        cells = [cell for metric in metrics for cell in (number(line[metric]["value"]), interval(line[metric]))]
        table.add_row(line["value"], f"{line['rows']:,}", f"{line['positives'] / line['rows']:.2%}", *cells)
    return table


def calibration_table(found: dict[str, Any]) -> Table:
    """The curve; a bin whose interval misses its probability is marked."""
    table = table_of(
        f"calibration (expected error {found['expected_calibration_error']:.5f})", "probability", "positive", "95 %", "rows", ""
    )
    for one in found["calibration_curve"]:
        off = "" if one["low"] <= one["probability"] <= one["high"] else "too high" if one["probability"] > one["high"] else "too low"
        table.add_row(f"{one['probability']:.4f}", f"{one['rate']:.4f}", f"{one['low']:.4f} to {one['high']:.4f}", f"{one['rows']:,}", off)
    return table


def table_of(title: str, *columns: str) -> Table:
    table = Table(title=title, title_justify="left")
    for place, name in enumerate(columns):
        table.add_column(name, justify="right" if place else "left")
    return table


def interval(value: dict[str, float]) -> str:
    return "" if math.isnan(value["low"]) else f"{value['low']:.5f} to {value['high']:.5f}"


def number(value: float) -> str:
    return "" if math.isnan(value) else f"{value:.5f}"
