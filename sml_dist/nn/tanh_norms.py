"""Normalisers that squash each unit by itself: what Meta Tanh Normalisation is without its learner.

`keep`, as for MTN (mtn.py), is the share of x's units that dropout has kept: the norm is taken of x before dropout.
"""

import torch
from torch import Tensor, nn


class FixedTanh(nn.Module):
    """y = scale * tanh(x), (B, K) -> (B, K): MTN whose steepness is 1 for every row and unit, |y| <= |scale|."""

    def __init__(self, width: int):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(width))

    def forward(self, x_BK: Tensor, keep: float = 1.0) -> Tensor:
        return scaled(self.scale, 1 / keep).to(x_BK.dtype) * torch.tanh(scaled(x_BK, keep))


class DynamicTanh(nn.Module):
    """y = scale * tanh(alpha * x) + bias, (B, K) -> (B, K): one learned steepness for all units and rows, |y - bias| <= |scale|.

    Made to take layer norm's place in transformers (Zhu et al., arXiv:2503.10622), whose rows it maps along much such a
    curve; so it starts flatter than a plain tanh, at alpha = .5. MTN's steepness is the row's own.
    """

    def __init__(self, width: int):
        super().__init__()
        self.alpha = nn.Parameter(torch.full((1,), 0.5))
        self.scale = nn.Parameter(torch.ones(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def forward(self, x_BK: Tensor, keep: float = 1.0) -> Tensor:
        squashed = torch.tanh(scaled(self.alpha, keep).to(x_BK.dtype) * x_BK)
        return torch.addcmul(self.bias.to(x_BK.dtype), squashed, scaled(self.scale, 1 / keep).to(x_BK.dtype))


def scaled(x: Tensor, factor: float) -> Tensor:
    """factor * x, at no cost where the factor is 1."""
    return x if factor == 1 else factor * x
