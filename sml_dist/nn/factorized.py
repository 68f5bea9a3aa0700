"""The factorized interaction layer of FINAL, and the tower made of it."""

from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.nn.dropout import Dropout
from sml_dist.nn.norms import ACTIVATIONS, NORMS
from sml_dist.nn.sml import SMLConfig, hidden_norms
from sml_dist.nn.tower import TowerConfig

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
        self.linear = nn.Linear(inputs, 2 * outputs if residual == "sum" else outputs)
        nn.init.xavier_normal_(self.linear.weight)
        nn.init.zeros_(self.linear.bias)

    def forward(self, x_BK: Tensor) -> Tensor:
        u, v = self.linear(x_BK).chunk(2, dim=1)
        return torch.addcmul(u, u, v) if self.residual == "sum" else torch.cat([u, u * v], dim=1)


class FactorizedTower(nn.Module):
    """h_i = dropout(activation(norm(factorized_i(h_{i-1})))); (B, width) -> every h_i, (B, hidden[i]).

    With SML an MTN stands before or after the activation, where `sml.mtn` says so.
    """

    def __init__(self, width: int, config: TowerConfig, residual: Residual, sml: SMLConfig):
        super().__init__()
        self.widths = config.hidden
        sizes = zip((width, *config.hidden[:-1]), config.hidden, strict=True)
        self.layers = nn.ModuleList(layer(i, o, config, residual, sml) for i, o in sizes)

    def forward(self, x_BK: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x_BK = layer(x_BK)
            outputs.append(x_BK)
        return outputs


def layer(inputs: int, outputs: int, config: TowerConfig, residual: Residual, sml: SMLConfig) -> nn.Sequential:
    """One layer of the tower, (B, inputs) -> (B, outputs)."""
    product, norm = FactorizedLinear(inputs, outputs, residual), NORMS[config.norm](outputs)
    before, after = hidden_norms(outputs, sml)
    return nn.Sequential(product, norm, before, ACTIVATIONS[config.activation](), after, Dropout(config.dropout))
