"""The landscape study's figures."""

from pathlib import Path

import numpy as np
from matplotlib.figure import Figure

from sml_dist.studies.landscape_page import Findings
from sml_dist.studies.linear import HEADS
from sml_dist.studies.linear_training import Curves
from sml_dist.studies.real_towers import MOMENTS, Surfaces

COLOURS = {"direct": "tab:blue", "hidden": "tab:green", "last": "tab:red"}


def plot_all(folder: Path, found: Findings, curves: Curves, surfaces: Surfaces, radius: float) -> None:
    figures = {
        "ratios": ratios(found),
        "descent": descent(curves),
        "eigenvalues": eigenvalues(found),
        "surfaces": plot_surfaces(surfaces, radius),
    }
    for name, figure in figures.items():
        figure.savefig(folder / f"{name}.png", dpi=120)


def ratios(found: Findings) -> Figure:
    """Left: the least ratio at random points by depth. Right: along weights that shrink to 0."""
    figure = Figure(figsize=(11, 4), layout="constrained")
    left, right = figure.subplots(1, 2)
    for head in HEADS:
        points = [row for row in found.points if row["head"] == head]
        depths = sorted({row["depth"] for row in points})
        for name, style in (("least ratio / mu", "-o"), ("least local / mu", ":")):
            least = [min(row[name] for row in points if row["depth"] == depth) for depth in depths]
            left.plot(depths, least, style, color=COLOURS[head], label=f"{head}: {name}")
        for depth in sorted({row["depth"] for row in found.shrinking}):
            part = [row for row in found.shrinking if (row["head"], row["depth"]) == (head, depth)]
            label = head if depth == part[0]["depth"] == min(row["depth"] for row in found.shrinking) else None
            right.plot([r["factor"] for r in part], [r["least ratio / mu"] for r in part], color=COLOURS[head], alpha=0.8, label=label)
    for axes, title, x in ((left, "random points", "depth"), (right, "weights times t, a line a depth", "t")):
        axes.set(title=title, xlabel=x, ylabel="|grad f|$^2$ / 2 $\\mu$ (f - f*)", yscale="log")
        axes.axhline(1, color="black", linewidth=0.8)
        axes.legend(fontsize=7)
    right.set_xscale("log")
    right.set_ylim(bottom=1e-14)
    return figure


def descent(curves: Curves) -> Figure:
    """The median excess over the starts, step by step; a panel for each depth and scale of the start."""
    depths, scales = (sorted({key[i] for key in curves}) for i in (1, 2))
    figure = Figure(figsize=(4 * len(depths), 3.2 * len(scales)), layout="constrained")
    panels = figure.subplots(len(scales), len(depths), squeeze=False, sharey=True)
    for (head, depth, scale), curve in curves.items():
        axes = panels[scales.index(scale), depths.index(depth)]
        axes.plot(1 + np.arange(len(curve)), np.median(curve, axis=1), color=COLOURS[head], label=head)
        axes.set(title=f"depth {depth}, weights times {scale:g}", xscale="log", yscale="log", xlabel="step + 1")
    for axes in panels[:, 0]:
        axes.set_ylabel("(f - f*) / start's")
    panels[0, 0].legend()
    return figure


def eigenvalues(found: Findings) -> Figure:
    """The top eigenvalues of each real tower, at the start and trained."""
    models = list(dict.fromkeys(row["model"] for row in found.towers))
    names = [name for name in found.towers[0] if name.startswith("eigenvalue")]
    figure = Figure(figsize=(1.5 + 1.3 * len(models), 4), layout="constrained")
    axes = figure.subplots()
    for offset, moment in zip((-0.2, 0.2), MOMENTS, strict=True):
        rows = [row for row in found.towers if row["moment"] == moment]
        for rank, name in enumerate(names):
            x = [models.index(row["model"]) + offset for row in rows]
            colour, label = "tab:gray" if moment == "start" else "tab:orange", moment if rank == 0 else None
            axes.plot(x, [abs(row[name]) for row in rows], "o", color=colour, markersize=max(9 - 2 * rank, 2), label=label)
    axes.set(yscale="log", ylabel="|eigenvalue| of the Hessian")
    axes.set_xticks(range(len(models)), models, rotation=20)
    axes.legend()
    return figure


def plot_surfaces(surfaces: Surfaces, radius: float) -> Figure:
    """A column a model, a row a moment; colours are the loss, one scale for all."""
    models = list(dict.fromkeys(model for model, _ in surfaces))
    figure = Figure(figsize=(2.7 * len(models), 5.4), layout="constrained")
    panels = figure.subplots(2, len(models), squeeze=False)
    low, high = (function(values) for function, values in ((np.min, list(surfaces.values())), (np.median, list(surfaces.values()))))
    levels = np.linspace(low, max(2 * high - low, low + 1e-6), 25)
    for (model, moment), surface in surfaces.items():
        axes = panels[MOMENTS.index(moment), models.index(model)]
        ticks = np.linspace(-radius, radius, len(surface))
        drawn = axes.contourf(ticks, ticks, surface.T, levels=levels, extend="max")
        axes.plot(0, 0, "r+")
        axes.set_title(f"{model}, {moment}", fontsize=9)
    figure.colorbar(drawn, ax=panels, label="loss")
    return figure
