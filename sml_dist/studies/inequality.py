"""The inequalities of `linear.py`, measured in float64 at random points."""

import itertools
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor

from sml_dist.spec import spec
from sml_dist.studies.linear import (
    HEADS,
    Head,
    Nets,
    Problem,
    backward_weights,
    excess,
    gradient,
    hardest,
    hessian_at_zero,
    layer_bound,
    local_constant,
    make_problem,
    metric,
    random_nets,
    squared_norm,
    tightest,
)
from sml_dist.tabular import Row

ROUNDING = 1e-8  # of a ratio; the identity (1) holds to 1e-12 and better where the weights are not huge


@spec
class PointsConfig:
    """`count` points for every combination; `ranks` are of the input covariance, `dim` or less; `scales` are of the weights."""

    dim: PositiveInt = 8
    depths: tuple[PositiveInt, ...] = (1, 2, 5, 10)
    widths: tuple[PositiveInt, ...] = (4, 8, 16)
    conditions: tuple[Annotated[float, Field(ge=1)], ...] = (1.0, 100.0, 10_000.0)
    ranks: tuple[PositiveInt, ...] = (8, 5)
    scales: tuple[PositiveFloat, ...] = (0.3, 1.0, 2.0)
    count: PositiveInt = 50
    shrink: tuple[PositiveFloat, ...] = (1.0, 0.5, 0.2, 0.1, 0.05, 0.02, 0.01)  # factors on a point's weights, towards 0


def ratio(nets: Nets, problem: Problem) -> Tensor:
    """|grad f|^2 / 2 (f - f*), (S,): what (3) says is at least mu."""
    return squared_norm(gradient(nets, problem)) / (2 * excess(nets, problem))


def measure_points(config: PointsConfig, seed: int) -> list[Row]:
    """One row for each head, depth, width, conditioning, rank and scale of weights, over `count` points."""
    rows = []
    generator, torch_generator = np.random.default_rng(seed), torch.Generator().manual_seed(seed)
    for condition, rank in itertools.product(config.conditions, config.ranks):
        problem = make_problem(config.dim, condition, generator, rank=rank)
        for head, depth, width, scale in itertools.product(HEADS, config.depths, config.widths, config.scales):
            nets = random_nets(head, config.dim, width, depth, scale, config.count, torch_generator)
            point = {"head": head, "depth": depth, "width": width, "condition": condition, "rank": rank, "scale": scale}
            rows.append(point | measured(head, nets, problem))
    return rows


def measured(head: Head, nets: Nets, problem: Problem) -> Row:
    """Ratios over mu, and how often each inequality fails by more than rounding; (3) is claimed of `direct` alone."""
    found, local = ratio(nets, problem), local_constant(nets, problem)
    g = (backward_weights(nets)[0] - problem.best) @ problem.covariance
    identity = torch.einsum("si,sij,sj->s", g, metric(nets), g) / squared_norm(gradient(nets, problem))
    row: Row = {
        "points": len(found),
        "least ratio / mu": (found.min() / problem.mu).item(),
        "median ratio / mu": (found.median() / problem.mu).item(),
        "least local / mu": (local.min() / problem.mu).item(),
        "identity (1) off by": (identity - 1).abs().max().item(),
        "(2) fails": _below(found, local),
        "(3) fails": _below(found, torch.full_like(found, problem.mu)),
        "(4) fails": _below(local, layer_bound(nets, problem)),
        "hardest: ratio / local - 1": 0.0,
    }
    if head == "direct":
        hard = hardest(nets, problem)
        row["(3) fails"] += _below(ratio(hard, problem), torch.full_like(found, problem.mu))
        row["hardest: ratio / local - 1"] = (ratio(hard, problem) / local_constant(hard, problem) - 1).abs().max().item()
    return row


def _below(value: Tensor, bound: Tensor) -> int:
    return int((value < bound * (1 - ROUNDING)).sum())


def measure_sharpness(config: PointsConfig, seed: int) -> list[Row]:
    """At `tightest` the ratio is mu, so (3) with a constant larger by any factor is false there."""
    generator, rows = np.random.default_rng(seed), []
    for condition, depth in itertools.product(config.conditions, config.depths):
        problem = make_problem(config.dim, condition, generator)
        found = ratio(tightest(problem, max(config.widths), depth), problem)
        rows.append(
            {
                "depth": depth,
                "condition": condition,
                "ratio / mu": (found / problem.mu).item(),
                "holds with mu": _below(found, torch.full_like(found, problem.mu)) == 0,
                "holds with 1.01 mu": _below(found, torch.full_like(found, 1.01 * problem.mu)) == 0,
            }
        )
    return rows


def measure_shrinking(config: PointsConfig, seed: int) -> list[Row]:
    """The least ratio / mu over points whose weights shrink towards 0: of `hidden` and `last` it goes to 0, as t^2 and t^2L."""
    problem, rows = make_problem(config.dim, 10.0, np.random.default_rng(seed)), []
    for head, depth in itertools.product(HEADS, config.depths):
        nets = random_nets(head, config.dim, config.dim, depth, 1.0, config.count, torch.Generator().manual_seed(seed))
        for factor in config.shrink:
            least = (ratio(nets.scaled(factor), problem).min() / problem.mu).item()
            rows.append({"head": head, "depth": depth, "factor": factor, "least ratio / mu": least})
    return rows


def measure_zero(seed: int) -> list[Row]:
    """Where every weight is 0: the gradient, and the lowest and highest curvature."""
    rows = []
    problem = make_problem(4, 10.0, np.random.default_rng(seed))
    for head, depth in itertools.product(HEADS, (1, 2, 4)):
        zero = random_nets(head, 4, 3, depth, 0.0, 1, torch.Generator())
        curvature = hessian_at_zero(head, problem, 3, depth)
        rows.append(
            {
                "head": head,
                "depth": depth,
                "f - f*": excess(zero, problem).item(),
                "gradient norm": squared_norm(gradient(zero, problem)).sqrt().item(),
                "lowest curvature": float(curvature[0]),
                "highest curvature": float(curvature[-1]),
            }
        )
    return rows
