"""Gradient descent from many starts on linear networks of each head and depth."""

import itertools
from typing import Annotated

import numpy as np
import torch
from pydantic import Field, PositiveFloat, PositiveInt

from sml_dist.spec import spec
from sml_dist.studies.descent import Descent, descend
from sml_dist.studies.linear import HEADS, Problem, loss, make_problem, random_nets
from sml_dist.tabular import Row

Curves = dict[tuple[str, int, float], np.ndarray]  # (head, depth, scale) -> (T + 1, starts), excess over that of the start


@spec
class DescentConfig:
    """`starts` networks for each head, depth and scale; a start is done when f - f* is `tolerance` of what it was."""

    dim: PositiveInt = 8
    width: PositiveInt = 8
    depths: tuple[PositiveInt, ...] = (2, 5, 10)
    condition: Annotated[float, Field(ge=1)] = 10.0
    scales: tuple[PositiveFloat, ...] = (0.1, 1.0)
    starts: PositiveInt = 32
    steps: PositiveInt = 3000
    tolerance: PositiveFloat = 1e-10


def train_linear(config: DescentConfig, seed: int) -> tuple[list[Row], Curves]:
    problem = make_problem(config.dim, config.condition, np.random.default_rng(seed))
    generator, rows, curves = torch.Generator().manual_seed(seed), [], {}
    for head, depth, scale in itertools.product(HEADS, config.depths, config.scales):
        nets = random_nets(head, config.dim, config.width, depth, scale, config.starts, generator)
        found = descend(nets, problem, config.steps, config.tolerance)
        rows.append({"head": head, "depth": depth, "scale": scale} | summary(found, problem))
        curves[head, depth, scale] = (found.curve / found.curve[0]).numpy()
    return rows, curves


def summary(found: Descent, problem: Problem) -> Row:
    """`slow steps`: (1 - eta mu) was promised of `direct`. `loss - f*`: the last loss, computed row by row, over least squares'."""
    return {
        "starts": len(found.done),
        "reached the optimum": int((found.done >= 0).sum()),
        "median steps": _median(found.done),
        "median steps to half": _median(found.halved),
        "least ratio / mu": (found.least_ratio.min() / problem.mu).item(),
        "slow steps": int(found.broken.sum()),
        "distance / bound": found.distance.max().item(),
        "largest loss - f*": (loss(found.nets, problem) - problem.floor).max().item(),
    }


def _median(steps: torch.Tensor) -> int | None:
    """None where most never came there."""
    ordered = torch.where(steps < 0, torch.iinfo(torch.int64).max, steps).sort().values
    middle = int(ordered[(len(ordered) - 1) // 2])
    return None if middle == torch.iinfo(torch.int64).max else middle
