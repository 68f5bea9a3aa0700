"""The loss on a plane through the weights, along two filter-normalised random directions (Li et al., arXiv:1712.09913)."""

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn


@torch.no_grad()
def filter_normalised(parameters: Sequence[nn.Parameter], generator: torch.Generator) -> list[Tensor]:
    """A random direction whose every filter (row of a weight matrix) is as long as the weights' own; 0 for biases and norms.

    A network with ReLU computes the same from layers scaled by a and 1/a, so without this a surface would look flat or sharp
    by the scale of its weights alone.
    """
    return [_direction(p, generator) for p in parameters]


def _direction(p: Tensor, generator: torch.Generator) -> Tensor:
    if p.dim() < 2:
        return torch.zeros_like(p)
    d = torch.randn(p.shape, generator=generator, dtype=p.dtype).flatten(1)
    length = p.flatten(1).norm(dim=1, keepdim=True)
    return (d * length / d.norm(dim=1, keepdim=True)).reshape(p.shape)


@torch.no_grad()
def loss_surface(
    loss: Callable[[], Tensor], parameters: Sequence[nn.Parameter], directions: tuple[list[Tensor], list[Tensor]], steps: np.ndarray
) -> np.ndarray:
    """loss(theta + a d_1 + b d_2) for a (rows) and b (columns) in `steps`; the weights are as before afterwards."""
    centre = [p.clone() for p in parameters]
    surface = np.empty((len(steps), len(steps)))
    for i, a in enumerate(steps):
        for j, b in enumerate(steps):
            for p, c, d, e in zip(parameters, centre, *directions, strict=True):
                p.copy_(c + a * d + b * e)
            surface[i, j] = float(loss())
    for p, c in zip(parameters, centre, strict=True):
        p.copy_(c)
    return surface
