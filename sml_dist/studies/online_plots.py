"""The online study's figures: curves over the log, and SML's final differences with their intervals."""

from collections.abc import Sequence
from pathlib import Path

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from sml_dist.config.metrics import METRICS
from sml_dist.studies.online_verdicts import JUDGED, Arm, Curves, Pair, Setting, Sides

COLOURS = {"wins": "tab:green", "loses": "tab:red", "ties": "tab:gray"}
PANELS = ("logloss", "window logloss", "auc", "window auc")
LINEAR = 0.01  # differences to here are drawn to scale, larger ones by their logarithm: some arms are worse by a hundred times more


def plot_all(folder: Path, sides: Sides, curves: Curves, pairs: Sequence[Pair]) -> None:
    for log in dict.fromkeys(setting.log for setting, _ in curves):
        over_time(log, sides, curves).savefig(folder / f"curves-{log}.png", dpi=110)
    differences(sides, pairs).savefig(folder / "differences.png", dpi=110)


def over_time(log: str, sides: Sides, curves: Curves) -> Figure:
    """A column a batch size, a row a metric: mean over seeds of the difference from the plain model, up is better."""
    settings = list(dict.fromkeys(setting for setting, _ in curves if setting.log == log))
    arms = list(dict.fromkeys(arm for _, arm in curves))
    figure = Figure(figsize=(3.6 * len(settings), 2.5 * len(PANELS) + 0.8), layout="constrained")
    panels = figure.subplots(len(PANELS), len(settings), squeeze=False, sharex="col")
    for column, setting in enumerate(settings):
        for row, metric in enumerate(PANELS):
            axes, base = panels[row, column], mean_curve(curves, setting, sides.plain, metric)
            for arm in arms:
                if arm != sides.plain and (found := mean_curve(curves, setting, arm, metric)) is not None and base is not None:
                    advantage = (found - base)[:, 1] * METRICS[metric.removeprefix("window ")].sign
                    axes.plot(base[1:, 0], advantage[1:], **style(arm, arms, sides))
            axes.axhline(0, color="black", linewidth=0.8)
            axes.set_yscale("symlog", linthresh=LINEAR, linscale=2)
            axes.tick_params(labelsize=7)
            axes.set_title(str(setting) if row == 0 else "", fontsize=9)
        panels[-1, column].set_xlabel("rows seen (rows)", fontsize=8)
    for row, metric in enumerate(PANELS):
        panels[row, 0].set_ylabel(f"{metric}, advantage over {sides.plain}", fontsize=7)
    figure.suptitle(f"{log}: advantage over {sides.plain}, by batch size (logloss in nats, AUC from 0 to 1)", fontsize=9)
    handles = {text: line for axes in panels.flat for line, text in zip(*axes.get_legend_handles_labels(), strict=True)}
    figure.legend(handles.values(), handles.keys(), loc="outside lower center", ncols=5, fontsize=8)
    return figure


def mean_curve(curves: Curves, setting: Setting, arm: Arm, metric: str) -> np.ndarray | None:
    """(windows, 2): rows, and the mean over the seeds that got through the log."""
    found = [[(row["rows"], row[metric]) for row in result["curve"]] for result in curves[setting, arm] if "curve" in result]
    return np.mean(found, axis=0) if found else None


def style(arm: Arm, arms: Sequence[Arm], sides: Sides) -> dict:
    """A colour a normaliser; dashed under the last layer's head; SML thick and black."""
    names = list(dict.fromkeys(arm.normaliser for arm in arms))
    colour = "black" if arm.normaliser == sides.sml.normaliser else colormaps["tab10"](names.index(arm.normaliser) % 10)
    wide = 2.4 if arm == sides.sml else 1.1
    return {"color": colour, "linestyle": "-" if arm.head == "skip" else "--", "linewidth": wide, "label": str(arm)}


def differences(sides: Sides, pairs: Sequence[Pair]) -> Figure:
    """A panel a setting and metric: SML's advantage over each other arm with its 95 % interval; right of zero SML is better."""
    mine = [pair for pair in pairs if pair.treatment == sides.sml]
    settings, rivals = list(dict.fromkeys(p.setting for p in mine)), list(dict.fromkeys(p.control for p in mine))
    figure = Figure(figsize=(2.6 * len(settings) + 1, 2 * (0.24 * len(rivals) + 0.9)), layout="constrained")
    panels = figure.subplots(len(JUDGED), len(settings), squeeze=False, sharey=True)
    for pair in mine:
        axes, y = panels[JUDGED.index(pair.metric), settings.index(pair.setting)], -rivals.index(pair.control)
        if pair.difference is None:
            axes.text(0, y, " cannot", fontsize=7, va="center")
        else:
            found = pair.difference
            half = 0 if np.isnan(found.t_low) else found.mean - found.t_low
            axes.errorbar(found.mean, y, xerr=half, fmt="o", markersize=4, color=COLOURS[pair.verdict], capsize=2)
    for (row, column), axes in np.ndenumerate(panels):
        axes.axvline(0, color="black", linewidth=0.8)
        axes.set_xscale("symlog", linthresh=LINEAR, linscale=2)
        axes.set_yticks([-i for i in range(len(rivals))], [str(arm) for arm in rivals], fontsize=8)
        axes.tick_params(axis="x", labelsize=7)
        axes.set_title(f"{settings[column]}: {JUDGED[row]}", fontsize=8)
    figure.suptitle(f"{sides.sml} against each other arm (log, batch size: cumulative metric)", fontsize=9)
    figure.supxlabel("advantage of SML (logloss in nats, AUC from 0 to 1), 95 % t interval; right of 0 SML is better", fontsize=8)
    figure.supylabel("other arm (normaliser, head)", fontsize=8)
    return figure
