"""The factorized interaction layer of FINAL, and the tower made of it."""

from functools import partial
from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.nn.linear import Linear
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig

Residual = Literal["sum", "concat"]


class FactorizedLinear(nn.Module):
    """u = U x + a, v = V x + b; sum: u + u * v, concat: [u, u * v]; (B, K) -> (B, H).

    A linear layer and its products with another (Zhu et al., "FINAL: Factorized Interaction Layer for CTR Prediction",
    SIGIR 2023): each layer doubles the degree. `concat` makes u and v half as wide and so costs exactly the linear layer
    that it replaces, `sum` twice that. This is the form of the code published with the paper; a summary of its text has a
    sum over any number of factors, with an activation on v.
    """

    def __init__(self, inputs: int, outputs: int, residual: Residual):
        super().__init__()
        self.residual = residual
        self.linear = Linear(inputs, 2 * outputs if residual == "sum" else outputs)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BK: Tensor) -> Tensor:
        u, v = self.linear(x_BK).chunk(2, dim=1)
        return torch.addcmul(u, u, v) if self.residual == "sum" else torch.cat([u, u * v], dim=1)


class FactorizedTower(Tower):
    """A tower whose products are factorized."""

    def __init__(self, width: int, config: TowerConfig, residual: Residual, sml: SMLConfig):
        super().__init__(width, config, sml, product=partial(FactorizedLinear, residual=residual))
