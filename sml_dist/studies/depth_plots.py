"""The depth study's figures, after the paper's property analysis (arXiv:2210.10725): a number by layer, for every depth of tower."""

import math
from collections.abc import Sequence
from pathlib import Path

from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import MaxNLocator

from sml_dist.tabular import Row

BY_LAYER = {  # column -> (file, axis)
    "fresh term variance": ("variance", "log"),
    "term variance": ("terms", "log"),
    "cosine": ("cosine", "linear"),
    "effective rank": ("rank", "linear"),
    "dead units": ("dead", "linear"),
    "gradient norm": ("gradient", "log"),
}
BY_DEPTH = {"logit variance": "log", "cosine of the head's input": "linear", "auc": "linear"}


def plot_all(folder: Path, layers: Sequence[Row], models: Sequence[Row]) -> None:
    for column, (name, scale) in BY_LAYER.items():
        by_layer(layers, column, scale).savefig(folder / f"{name}.png", dpi=110)
    by_depth(models).savefig(folder / "models.png", dpi=110)


def by_layer(layers: Sequence[Row], column: str, scale: str) -> Figure:
    """A panel a depth; upper row at the start, lower row trained."""
    depths, moments = sorted({row["depth"] for row in layers}), list(dict.fromkeys(row["moment"] for row in layers))
    figure = Figure(figsize=(2.9 * len(depths), 2.8 * len(moments)), layout="constrained")
    panels = figure.subplots(len(moments), len(depths), squeeze=False)
    for i, moment in enumerate(moments):
        for j, depth in enumerate(depths):
            part = [row for row in layers if (row["moment"], row["depth"]) == (moment, depth)]
            if not part:
                panels[i, j].set_axis_off()
                continue
            panels[i, j].set_title(f"{depth} layers, {moment}", fontsize=9)
            panels[i, j].set_xlabel("layer", fontsize=8)
            panels[i, j].xaxis.set_major_locator(MaxNLocator(integer=True))
            lines(panels[i, j], part, "layer", column, scale)
        panels[i, 0].set_ylabel(column)
    figure.legend(*panels[0, 0].get_legend_handles_labels(), loc="outside lower center", ncols=10, fontsize=8)
    return figure


def by_depth(models: Sequence[Row]) -> Figure:
    """A panel a number of the whole model: dashed at the start, full when trained."""
    depths = sorted({row["depth"] for row in models})
    figure = Figure(figsize=(4.2 * len(BY_DEPTH), 4), layout="constrained")
    panels = figure.subplots(1, len(BY_DEPTH))
    for axes, (column, scale) in zip(panels, BY_DEPTH.items(), strict=True):
        for moment, style in (("start", "--"), ("trained", "-")):
            lines(axes, [row for row in models if row["moment"] == moment], "depth", column, scale, style)
        axes.set(title=column, xlabel="layers of the tower", xscale="log")
        axes.set_xticks(depths, depths)
        axes.minorticks_off()
    handles, labels = panels[0].get_legend_handles_labels()
    unique = dict(zip(labels, handles, strict=True))
    figure.legend(unique.values(), unique.keys(), loc="outside lower center", ncols=10, fontsize=8)
    return figure


def lines(axes: Axes, rows: Sequence[Row], x: str, column: str, scale: str, style: str = "-") -> None:
    """A line a variant, in the order and colour of its first row; points without a number (or, on a logarithm, at 0) are left out."""
    for index, variant in enumerate(dict.fromkeys(row["variant"] for row in rows)):
        points = [(row[x], row[column]) for row in rows if row["variant"] == variant and drawable(row[column], scale)]
        xs, ys = zip(*points, strict=True) if points else ((), ())
        mark = "." if len(points) < 20 else None
        axes.plot(xs, ys, style, marker=mark, color=colormaps["tab10"](index % 10), label=variant)
    axes.set_yscale(scale)


def drawable(value: float | None, scale: str) -> bool:
    return value is not None and not math.isnan(value) and (scale == "linear" or value > 0)
