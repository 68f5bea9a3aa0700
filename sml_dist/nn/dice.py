"""Dice: a PReLU whose bend lies where a unit's values are, not at 0."""

import torch
from torch import Tensor, nn


class Dice(nn.Module):
    """y = p(x) x + (1 - p(x)) alpha x, p(x) = sigmoid((x - E[x]) / sqrt(Var[x] + eps)), (B, K) -> (B, K).

    Data adaptive activation function of DIN (Zhou et al., arXiv:1706.06978). Mean and variance are a unit's over the batch in
    training, and running ones in evaluation: so it has the faults of batch norm, and SML has no part in it.
    """

    def __init__(self, width: int):
        super().__init__()
        self.standardize = nn.BatchNorm1d(width, eps=1e-8, affine=False)
        self.alpha = nn.Parameter(torch.zeros(width))

    def forward(self, x_BK: Tensor) -> Tensor:
        p_BK = torch.sigmoid(self.standardize(x_BK))
        return x_BK * (p_BK + (1 - p_BK) * self.alpha.to(x_BK.dtype))
