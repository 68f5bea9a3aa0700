"""An evaluation as a folder to read: README.md, CSV of every table, the calibration curve as PNG, all of it as JSON.

`evaluation.json` is written first, and is how the folder's other files are known to be evaluate's.
"""

import io
import math
import os
from collections.abc import Collection
from contextlib import suppress
from fnmatch import fnmatch
from pathlib import Path
from typing import Any

from matplotlib.figure import Figure
from matplotlib.ticker import LogLocator, NullFormatter

from sml_dist.data.output import writing
from sml_dist.scoring.evaluation_text import OF_SLICES, about_intervals, exact
from sml_dist.spec import InputError
from sml_dist.tabular import Row, markdown_table, write_csv
from sml_dist.whole_files import WholeFiles

WHOLE = "evaluation.json"
OURS = ("README.md", "metrics.csv", "calibration.csv", "calibration.png", "slices-*.csv")


def check_free(output: str) -> None:
    """Raises InputError if the folder has files that evaluate would replace and did not write."""
    names: set[str] = set()
    with writing(output), suppress(FileNotFoundError):
        names.update(os.listdir(output))
    others = [name for name in sorted(names) if WHOLE not in names and any(fnmatch(name, ours) for ours in OURS)]
    if others:
        raise InputError(f"--output {output} holds files that evaluate did not write (such as {others[0]}); name a new or empty folder")


def write(found: dict[str, Any], output: str) -> None:
    """Raises InputError where the folder cannot be written, or not without a loss."""
    check_free(output)
    text, curve = page(found), picture(found)  # first: if they fail, no file is there
    with writing(output):
        _write(found, text, curve, Path(output))


def _write(found: dict[str, Any], text: str, curve: bytes, folder: Path) -> None:
    WholeFiles(folder).write_json(WHOLE, found)
    for ours in OURS:  # of an earlier evaluation, which may have had other slices
        for path in [*folder.glob(ours)]:
            path.unlink()
    write_csv(folder / "metrics.csv", metric_rows(found))
    write_csv(folder / "calibration.csv", found["calibration_curve"])
    for name, slices in found["slices"].items():
        write_csv(folder / f"slices-{name.replace('/', '_')}.csv", [slice_row(line, line["metrics"]) for line in slices])
    (folder / "calibration.png").write_bytes(curve)
    WholeFiles(folder).write("README.md", text)


def metric_rows(found: dict[str, Any]) -> list[Row]:
    """A row a metric: the run's value and interval, and where there is one the other run's and the difference."""
    rows = []
    for name, own in found["metrics"].items():
        row = {"metric": name} | own
        if "against" in found:
            row |= {f"against_{key}": value for key, value in found["against"]["metrics"][name].items()}
            difference = found["differences"][name]
            row |= {f"difference_{key}": difference.get(key) for key in ("value", "low", "high", *(["p"] if exact(found) else []))}
        rows.append(row)
    return rows


def slice_row(line: dict[str, Any], metrics: Collection[str]) -> Row:
    """Those metrics of a slice side by side: each one's `metric_rows` under its name."""
    row = {name: line[name] for name in ("value", "rows", "positives")}
    for of_metric in metric_rows(line):
        name = of_metric.pop("metric")
        if name in metrics:
            row |= {name if key == "value" else f"{name}_{key}": value for key, value in of_metric.items() if value is not None}
    return row


def page(found: dict[str, Any]) -> str:
    lines = [f"# {found['model']}: {found['split']} rows of {found['data']}", ""]
    lines += [f"{found['rows']:,} rows, {found['positives']:,.0f} positive; checkpoint `{found['checkpoint']}` ({found['precision']})."]
    lines += [f"Against `{found['against']['checkpoint']}` on the same rows, weights and groups."] if "against" in found else []
    lines += ["", f"{about_intervals(found)}.", ""]
    lines += [table(metric_rows(found)), "## Calibration", "", "![](calibration.png)", ""]
    lines += [f"Expected calibration error {found['expected_calibration_error']:.5f}.", "", table(found["calibration_curve"])]
    for name, slices in found["slices"].items():
        rows = [slice_row(line, OF_SLICES if "against" in found else found["metrics"]) for line in slices]
        lines += [f"## By {name}: the {len(slices)} largest", "", table(rows)]
    return "\n".join(lines)


def table(rows: list[Row]) -> str:
    """Numbers to five decimals, since good models differ from the fourth on; p values to two digits."""
    return markdown_table([{name: shown(name, value) for name, value in row.items()} for row in rows])


def shown(name: str, value: Any) -> Any:
    if not isinstance(value, float) or math.isnan(value):
        return value
    return f"{value:.2g}" if name.endswith("_p") else f"{value:.5f}"


def picture(found: dict[str, Any]) -> bytes:
    """The calibration curve as PNG: on logarithmic axes, which have no place for a bin without a positive, unless every bin is one."""
    positive = [one for one in found["calibration_curve"] if one["probability"] > 0 and one["rate"] > 0]
    bins, scale = (positive, "log") if positive else (found["calibration_curve"], "linear")
    figure = Figure(figsize=(5, 5), layout="constrained")
    axes = figure.subplots()
    x, y = ([one[key] for one in bins] for key in ("probability", "rate"))
    spread = [[one["rate"] - one["low"] for one in bins], [one["high"] - one["rate"] for one in bins]]
    axes.errorbar(x, y, spread, fmt="o-", markersize=4, linewidth=1, capsize=2, label=found["model"])
    ends = [min(*x, *y), max(*x, *y)]
    axes.plot(ends, ends, color="0.6", linewidth=1, linestyle="--", label="perfect calibration")
    axes.set(
        xscale=scale,
        yscale=scale,
        xlabel="mean probability",
        ylabel="share of positives (95 %)",
        title=f"{found['split']}, {found['rows']:,} rows",
    )
    for axis in (axes.xaxis, axes.yaxis) if positive else ():
        axis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axis.set_major_formatter("{x:g}")
        axis.set_minor_formatter(NullFormatter())
    axes.legend(frameon=False)
    drawn = io.BytesIO()
    figure.savefig(drawn, format="png", dpi=150)
    return drawn.getvalue()
