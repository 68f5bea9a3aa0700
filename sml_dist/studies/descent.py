"""Gradient descent on many linear networks at once, each with a step length of its own."""

from dataclasses import dataclass

import torch
from torch import Tensor

from sml_dist.studies.linear import Nets, Problem, excess, gradient, squared_norm

SHORTEST = 1e-12


@dataclass(frozen=True)
class Descent:
    """`curve` (T + 1, S): f - f* after each step. The rest is (S,): steps until the excess fell to `tolerance` of its start and
    to half of it (-1: never), the smallest |grad f|^2 / 2 (f - f*) on the way, steps whose excess fell by less than the factor
    1 - eta mu, and the distance from the start over the bound 2 sqrt(2 (f - f*) / mu)."""

    curve: Tensor
    done: Tensor
    halved: Tensor
    least_ratio: Tensor
    broken: Tensor
    distance: Tensor
    nets: Nets


def descend(nets: Nets, problem: Problem, steps: int, tolerance: float) -> Descent:
    """Steps of eta along -grad f with f(new) <= f - eta/2 |grad f|^2: eta doubles before each step and is halved until that holds.

    eta is at most 1 / the largest eigenvalue of C, the step of least squares itself: longer ones would jump off a plateau.
    """
    start, now = nets, excess(nets, problem)
    longest = 1 / torch.linalg.eigvalsh(problem.covariance)[-1].item()
    first, eta = now, torch.full_like(now, longest)
    curve, least, broken = [now], torch.full_like(now, torch.inf), torch.zeros_like(now)
    for _ in range(steps):
        active = now > tolerance * first
        if not active.any():
            break
        step = gradient(nets, problem)
        norm = squared_norm(step)
        least = torch.where(active, least.minimum(norm / (2 * now)), least)
        nets, eta, new = _armijo(nets, problem, step, norm, (2 * eta).clamp(max=longest), now, active)
        broken += active & (new > (1 - eta * problem.mu) * now * (1 + 1e-12))
        now = new
        curve.append(now)
    table = torch.stack(curve)
    moved = squared_norm([a - b for a, b in zip(nets.tensors(), start.tensors(), strict=True)]).sqrt()
    bound = 2 * (2 * first / problem.mu).sqrt()
    return Descent(table, _first(table, tolerance * first), _first(table, first / 2), least, broken, moved / bound, nets)


def _armijo(
    nets: Nets, problem: Problem, step: list[Tensor], norm: Tensor, eta: Tensor, now: Tensor, active: Tensor
) -> tuple[Nets, Tensor, Tensor]:
    """The networks after one step, the lengths taken and the excess there; networks that are done stay where they are."""
    while True:
        trial = nets.moved(step, torch.where(active, -eta, 0.0))
        new = torch.where(active, excess(trial, problem), now)
        long = active & ~(new <= now - eta / 2 * norm) & (eta > SHORTEST)
        if not long.any():
            return trial, eta, new
        eta = torch.where(long, eta / 2, eta)


def _first(table: Tensor, level: Tensor) -> Tensor:
    """The first step (row) at or below `level` (S,), -1 where there is none."""
    hit = table <= level
    return torch.where(hit.any(0), hit.int().argmax(0), -1)
