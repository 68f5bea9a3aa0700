"""Plotly figures in one style. Every figure has a title, and axes that are named with their unit in brackets."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import plotly.graph_objects as go
from plotly.colors import sample_colorscale

POINTS = 500  # of a line; longer ones are thinned
COLOURS = ("#3b6fb6", "#d1793b", "#4c9a6a", "#a05195", "#c44e52", "#7a6f5d", "#2f9db0", "#b5a031")
GREY = "#c4c8ce"
INK, FAINT = "#23272e", "#e9ebee"


@dataclass(frozen=True)
class Series:
    name: str
    x: Sequence[Any]
    y: Sequence[float | None]
    colour: str | None = None
    width: float = 2.0
    markers: bool = False
    dash: str | None = None
    legend: bool = True


def shades(count: int) -> list[str]:
    """Colours from dark to light for what has an order, such as layers."""
    return sample_colorscale("Viridis", [0.9 * i / max(count - 1, 1) for i in range(count)])


def lines(title: str, x: str, y: str, series: Sequence[Series], **layout: Any) -> go.Figure:
    figure = styled(title, x, y, **layout)
    for i, one in enumerate(series):
        step = -(-len(one.x) // POINTS)
        figure.add_scatter(
            x=list(one.x[::step]) if step else [], y=list(one.y[::step]) if step else [], name=one.name, showlegend=one.legend,
            mode="lines+markers" if one.markers or len(one.x) == 1 else "lines", marker={"size": 6},
            line={"color": one.colour or COLOURS[i % len(COLOURS)], "width": one.width, "dash": one.dash},
        )  # fmt: skip
    return figure


def bars(title: str, x: str, y: str, labels: Sequence[str], values: Sequence[float]) -> go.Figure:
    """Lying bars, the first at the top."""
    figure = styled(title, x, y, height=max(220, 22 * len(labels) + 110))
    figure.add_bar(x=list(values), y=list(labels), orientation="h", marker={"color": COLOURS[0]}, width=0.7)
    return figure.update_yaxes(autorange="reversed", automargin=True, type="category", showgrid=False)


def styled(title: str, x: str, y: str, **layout: Any) -> go.Figure:
    axis = {"gridcolor": FAINT, "linecolor": GREY, "zeroline": False, "title": {"font": {"size": 12}, "standoff": 10}, "automargin": True}
    return go.Figure(
        layout={
            "title": {"text": title, "x": 0.01, "xanchor": "left", "xref": "container", "font": {"size": 15}, "y": 0.97, "yanchor": "top"},
            "font": {"family": "system-ui, sans-serif", "size": 12, "color": INK},
            "xaxis": axis | {"title": axis["title"] | {"text": x}},
            "yaxis": axis | {"title": axis["title"] | {"text": y}},
            "paper_bgcolor": "white",
            "plot_bgcolor": "white",
            "margin": {"l": 60, "r": 16, "t": 48, "b": 48},
            "height": 310,
            "legend": {"orientation": "h", "y": -0.24, "x": 0, "font": {"size": 11}},
            "hovermode": "closest",
            **layout,
        }
    )
