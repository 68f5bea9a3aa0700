"""What an ablation shows: a page with the table of differences, and their plot."""

from pathlib import Path
from typing import Any

from matplotlib.figure import Figure

from sml_dist.config.metrics import METRICS
from sml_dist.statistics import Paired, holm
from sml_dist.studies.grid import GridConfig
from sml_dist.tabular import Row, markdown_table

Pairs = list[tuple[dict[str, str], Paired]]


def flat(summary: dict[str, Any]) -> Row:
    """A summary's numbers under one level of names."""
    found = {}
    for name, value in summary.items():
        if isinstance(value, dict):
            found |= {f"{name}.{key}": part for key, part in value.items() if isinstance(part, int | float)}
        else:
            found[name] = value
    return found


def page(grid: GridConfig, values: list[tuple[dict[str, str], float]], pairs: Pairs) -> str:
    axis, control = grid.compare
    means: dict[tuple[tuple[str, str], ...], list[float]] = {}
    for labels, value in values:
        means.setdefault(tuple(labels.items()), []).append(value)
    settings = [
        {**dict(labels), "mean": f"{sum(v) / len(v):.5f}", "each seed": " ".join(f"{x:.5f}" for x in v)} for labels, v in means.items()
    ]
    text = f"# {grid.name}\n\n{grid.split} {grid.metric}, seeds {', '.join(map(str, grid.seeds))}.\n\n{markdown_table(settings)}\n"
    if pairs:
        text += (
            f"Differences from {axis} = {control}, paired by seed; intervals are 95 %, each by itself. p (Holm) allows for all\n"
            f"{len(pairs)} comparisons: of those with at most 0.05 there, the risk of even one false finding is 5 %. The last column is\n"
            f"the number of paired seeds that would show a difference of {grid.target:g} with 80 % power at the noise seen here.\n\n"
        )
        adjusted = holm([result.p for _, result in pairs])
        text += markdown_table([line(labels, result, p) for (labels, result), p in zip(pairs, adjusted, strict=True)])
    return text


def line(labels: dict[str, str], result: Paired, adjusted: float) -> Row:
    return {
        **labels,
        "difference": f"{result.mean:+.5f}",
        "t interval": f"[{result.t_low:+.5f}, {result.t_high:+.5f}]",
        "bootstrap": f"[{result.boot_low:+.5f}, {result.boot_high:+.5f}]",
        "higher on": f"{result.wins} of {result.seeds}",
        "p": f"{result.p:.3f}",
        "p (Holm)": f"{adjusted:.3f}",
        "seeds needed": f"{result.needed:g}",
    }


def plot(path: Path, grid: GridConfig, pairs: Pairs) -> None:
    """Each comparison's mean difference with its t interval: green where all of it is better, red where worse, else grey."""
    figure = Figure(figsize=(8, 1.2 + 0.35 * len(pairs)), layout="constrained")
    axes = figure.subplots()
    for y, (_, result) in enumerate(reversed(pairs)):
        above, below = result.t_low > 0, result.t_high < 0
        better, worse = (above, below) if METRICS[grid.metric].sign > 0 else (below, above)
        colour = "tab:green" if better else "tab:red" if worse else "tab:gray"
        reach = [[result.mean - result.t_low], [result.t_high - result.mean]]
        axes.errorbar(result.mean, y, xerr=reach, fmt="o", color=colour, capsize=3)
    axes.axvline(0, color="black", linewidth=0.8)
    axes.set_yticks(range(len(pairs)), [" ".join(labels.values()) for labels, _ in reversed(pairs)])
    axes.set_title(f"{grid.name}: {grid.split} {grid.metric}, {len(grid.seeds)} paired seeds")
    axes.set_xlabel(f"difference from {' '.join(grid.compare)} (the metric's unit; mean and 95 % t interval)")
    axes.set_ylabel("setting")
    figure.savefig(path, dpi=150)
