"""The landscape study's page: what was claimed, what the numbers say, what neither says."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any

from sml_dist.studies.linear import HEADS
from sml_dist.studies.linear_training import DescentConfig
from sml_dist.tabular import Row, markdown_table


@dataclass(frozen=True)
class Findings:
    """Each a table, and the name of its CSV file."""

    points: list[Row]
    sharpness: list[Row]
    shrinking: list[Row]
    zero: list[Row]
    descent: list[Row]
    towers: list[Row]


def verdicts(found: Findings) -> dict[str, Any]:
    """Points of one head, violations of any inequality over all points, and for each head how training went."""
    points, starts = _by_head(found.points), _by_head(found.descent)
    return {
        "points": sum(row["points"] for row in points["direct"]),
        "violations": sum(row[f"({n}) fails"] for row in found.points for n in (2, 3, 4) if n != 3 or row["head"] == "direct"),
        "sharp": all(row["holds with mu"] and not row["holds with 1.01 mu"] for row in found.sharpness),
        "reached_the_optimum": {
            head: sum(row["reached the optimum"] for row in starts[head]) / sum(row["starts"] for row in starts[head]) for head in HEADS
        },
        "least_ratio_over_mu": {
            head: min(row["least ratio / mu"] for row in (*points[head], *_by_head(found.shrinking)[head], *starts[head])) for head in HEADS
        },
    }


def page(found: Findings, descent: DescentConfig) -> str:
    said = verdicts(found)
    reached, least = said["reached_the_optimum"], said["least_ratio_over_mu"]
    return f"""# Landscape of skip-logit networks

## The theorem

A deep *linear* network with *squared* loss whose logit reads the input and every layer (`direct`) satisfies
|grad f|^2 >= 2 mu (f - f\\*) at every point, with mu the smallest non-zero eigenvalue of the input covariance: whatever the depth,
widths, weights and rank of the inputs. Every stationary point is then a global minimum, and gradient descent with short enough
steps reaches f\\* at a linear rate. `sml_dist/studies/linear.py` derives it, the exact identity (1) behind it, the sharp constant of each
point (2) and what layers add (4).

It assumes: no activation, no normaliser, squared loss, and **the input itself in the head**. It does not speak of real towers, of logistic
loss (there stationary points of `direct` are still global minima, without a rate), of generalisation, nor of the `Tower` under
`SkipLogit` that this package trains, whose head reads the layers alone: that is `hidden`, for which (4) gives a constant near points where
W_1 has full column rank or a layer passes a gradient back, and none that is right everywhere.

## At random points

{said["points"]:,} points of each head, float64: (2) or (4), or for `direct` (3), fails at {said["violations"]} of them.
The constant mu is {"sharp: 1.01 mu is refuted at a point of every depth and conditioning" if said["sharp"] else "NOT sharp here"}.

{markdown_table(_point_summary(found.points))}
![ratios](ratios.png)

Where the weights shrink towards 0 the ratio of `hidden` falls as t^2 and that of `last` as t^2L; that of `direct` stays at or above mu.
Least |grad f|^2 / 2 mu (f - f\\*) seen anywhere: {", ".join(f"{head} {least[head]:.3g}" for head in HEADS)}.

## At zero

{markdown_table(found.zero)}
`direct` has a gradient there; `hidden` has none but a direction that leads down; `last` of two layers and more has neither.

## Training

Gradient descent, steps of at most 1 / the largest eigenvalue of the covariance, from {descent.starts} starts a row; the optimum is
the closed form (least squares), reached when f - f\\* is {descent.tolerance:g} of the start's.
Within {descent.steps:,} steps it was reached by
{", ".join(f"{reached[head]:.0%} of {head}" for head in HEADS)}. `slow steps` are those whose f - f\\* fell by less than the factor
1 - eta mu, which the theorem rules out for `direct`; `distance / bound` is how far a start moved over how far it may.

{markdown_table(found.descent)}
![descent](descent.png)

## Real towers

Models of the zoo, logistic loss, one synthetic batch, trained by Adam on the whole batch. Nothing above applies to them; these are
measurements, on one seed. Eigenvalues are the Hessian's largest in magnitude, by power iteration; `largest residual`, of |H v - a v| / |a|,
tells how far it came. `along vector 1` is the second difference of the loss itself along the first vector. It differs from the
eigenvalue where MTN stops a gradient, which the products take for constant, and where a ReLU's kinks, of which they see nothing, lie
within the step. Eigenvalues compare two networks only where their weights are on one scale and their losses alike; the planes are
filter-normalised (arXiv:1712.09913). `mean rise` is a plane's mean over its centre, `not convex` the share of its points where it curves
down.

{markdown_table(found.towers)}
![eigenvalues](eigenvalues.png)

![surfaces](surfaces.png)
"""


def _point_summary(points: list[Row]) -> list[Row]:
    rows = []
    for head, group in _by_head(points).items():
        for depth in sorted({row["depth"] for row in group}):
            part = [row for row in group if row["depth"] == depth]
            rows.append(
                {
                    "head": head,
                    "depth": depth,
                    "points": sum(row["points"] for row in part),
                    "least ratio / mu": min(row["least ratio / mu"] for row in part),
                    "least local / mu": min(row["least local / mu"] for row in part),
                    "ratio < mu": sum(row["(3) fails"] for row in part),
                    "identity (1) off by": max(row["identity (1) off by"] for row in part),
                }
            )
    return rows


def _by_head(rows: Iterable[Row]) -> dict[str, list[Row]]:
    rows = list(rows)
    return {head: [row for row in rows if row["head"] == head] for head in HEADS}
