"""An evaluation as tables for the terminal."""

import math
from collections.abc import Iterable
from pathlib import Path
from typing import Any

from rich.table import Table
from rich.text import Text

from sml_dist.config.metrics import METRICS
from sml_dist.tabular import rich_table

OF_SLICES = ("auc", "logloss")  # of two runs' slices only these are shown; JSON and CSV hold every metric


def metrics_table(found: dict[str, Any]) -> Table:
    """A line a metric with its interval; against another run both values, the difference (bold where it is sure) and its interval."""
    title = f"{found['model']}, {found['rows']:,} {found['split']} rows"
    table = rich_table(title, ["", *columns(found, found["metrics"])], "lr")
    for name in found["metrics"]:
        table.add_row(METRICS[name].short, *cells(found, name))
    return table


def columns(found: dict[str, Any], metrics: Iterable[str]) -> list[str]:
    own = Path(found["run"]).name
    if "against" not in found:
        return [own, "95 %"]
    p = ["p"] if any("p" in found["differences"][name] for name in metrics) else []
    return [own, Path(found["against"]["run"]).name, "difference", "95 %", *p]


def cells(found: dict[str, Any], name: str) -> list[str | Text]:
    """What `columns` names, of a metric on all rows or on those of a slice."""
    own = found["metrics"][name]
    return [number(own["value"]), *(against(found, name) if "against" in found else [interval(own)])]


def against(found: dict[str, Any], name: str) -> list[str | Text]:
    difference = found["differences"][name]
    sure = "bold" if difference["low"] > 0 or difference["high"] < 0 else ""
    shown = Text(number(difference["value"], "+.5f"), style=sure)
    p = [number(difference["p"], ".2g")] if "p" in difference else []
    return [number(found["against"]["metrics"][name]["value"]), shown, interval(difference, "+.5f"), *p]


def exact(found: dict[str, Any]) -> bool:
    """Whether the AUC difference is DeLong's, the only one that has a p value."""
    return "p" in found["differences"]["auc"]


def slices_tables(name: str, found: dict[str, Any]) -> list[Table]:
    """One table; against another run one for each metric shown, with the columns of the table of all rows."""
    slices = found["slices"][name]
    if "against" not in found:
        return [slices_table(name, slices)]
    tables = []
    for metric in OF_SLICES:
        table = rich_table(f"{METRICS[metric].short} by {name}: the {len(slices)} largest", [name, "rows", *columns(found, [metric])], "lr")
        for line in slices:
            table.add_row(line["value"], f"{line['rows']:,}", *cells(line, metric))
        tables.append(table)
    return tables


def slices_table(name: str, slices: list[dict[str, Any]]) -> Table:
    table = rich_table(f"by {name}: the {len(slices)} largest", (name, "rows", "positive", "AUC", "95 %", "logloss", "calibration"), "lr")
    for line in slices:
        auc, logloss, calibration = (line["metrics"][metric] for metric in ("auc", "logloss", "calibration"))
        shown = [number(auc["value"]), interval(auc), number(logloss["value"]), number(calibration["value"])]
        table.add_row(line["value"], f"{line['rows']:,}", f"{line['positives'] / line['rows']:.2%}", *shown)
    return table


def calibration_table(found: dict[str, Any]) -> Table:
    """The curve; a bin whose interval misses its probability is marked."""
    title = f"calibration (expected error {found['expected_calibration_error']:.5f})"
    table = rich_table(title, ("probability", "positive", "95 %", "rows", ""), "lr")
    for one in found["calibration_curve"]:
        off = "" if one["low"] <= one["probability"] <= one["high"] else "too high" if one["probability"] > one["high"] else "too low"
        table.add_row(f"{one['probability']:.4f}", f"{one['rate']:.4f}", interval(one), f"{one['rows']:,}", off)
    return table


def about_intervals(found: dict[str, Any]) -> str:
    slices = f" (of slices at most {found['slice_resamples']:,})" if found["slices"] else ""
    paired = delong = no_p = ""
    if "differences" in found:
        paired = " and of paired differences"
        if exact(found):
            delong = ", of the AUC difference DeLong's"
        else:
            no_p = "; no p value, as DeLong's test takes single rows of equal weight, labelled 0 or 1"
    rows = "rows, taken as independent" if found["unit"] == "row" else "as many rows as the groups are worth"
    drawn = f"of metrics{paired} from {found['resamples']:,} resamples of {found['unit']}s{slices}"
    return f"Intervals at 95 %: {drawn}{delong}, of the calibration curve Wilson's, over {rows}{no_p}"


def interval(value: dict[str, float], form: str = ".4f") -> str:
    return "" if math.isnan(value["low"]) else f"{value['low']:{form}}, {value['high']:{form}}"


def number(value: float, form: str = ".5f") -> str:
    return "" if math.isnan(value) else f"{value:{form}}"
