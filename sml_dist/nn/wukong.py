"""Wukong's interaction stack: factorization machines over their own outputs, beside a linear path."""

from dataclasses import replace

import torch
from torch import Tensor, nn

from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig


class Mix(nn.Module):
    """Y = W X: new embeddings as sums of old ones, no bias; (B, N, D) -> (B, M, D). Wukong's linear compression block."""

    def __init__(self, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(nn.init.xavier_normal_(torch.empty(outputs, inputs)))

    def forward(self, x_BND: Tensor) -> Tensor:
        return torch.matmul(self.weight, x_BND)


class FactorizationMachineBlock(nn.Module):
    """Y = reshape(tower(layer_norm(flatten(X (X^T P))))), P (N, rank); (B, N, D) -> (B, M, D).

    X X^T are all dot products of embeddings; P keeps `rank` mixtures of each row of it, and multiplied from the right first
    the N x N matrix never exists: N D rank steps instead of N^2 D. The tower has one layer more than `tower` names, M D
    wide and activated as the others are.
    """

    def __init__(self, inputs: int, outputs: int, dim: int, rank: int, tower: TowerConfig, sml: SMLConfig):
        super().__init__()
        self.project = nn.Parameter(nn.init.xavier_normal_(torch.empty(inputs, rank)))
        self.norm = nn.LayerNorm(inputs * rank)
        self.tower = Tower(inputs * rank, replace(tower, hidden=(*tower.hidden, outputs * dim)), sml)
        self.outputs = outputs

    def forward(self, x_BND: Tensor) -> Tensor:
        dots_BNR = torch.matmul(x_BND, torch.matmul(x_BND.transpose(1, 2), self.project))
        return self.tower(self.norm(dots_BNR.flatten(1)))[-1].unflatten(1, (self.outputs, -1))


class WukongLayer(nn.Module):
    """Y = layer_norm([FMB(X), LCB(X)] + R X); (B, N, D) -> (B, fmb + lcb, D).

    R is the identity where N = fmb + lcb, a Mix otherwise, in the first layer. The norm is each embedding's own.
    """

    def __init__(self, inputs: int, dim: int, fmb: int, lcb: int, rank: int, tower: TowerConfig, sml: SMLConfig):
        super().__init__()
        self.fmb = FactorizationMachineBlock(inputs, fmb, dim, rank, tower, sml)
        self.lcb = Mix(inputs, lcb)
        self.residual = nn.Identity() if inputs == fmb + lcb else Mix(inputs, fmb + lcb)
        self.norm = nn.LayerNorm(dim)

    def forward(self, x_BND: Tensor) -> Tensor:
        return self.norm(torch.cat([self.fmb(x_BND), self.lcb(x_BND)], dim=1) + self.residual(x_BND))


class WukongStack(nn.Module):
    """X_l = layer_l(X_{l-1}); (B, N, D) -> every X_l from X_1 on, flattened, (B, (fmb + lcb) D) each.

    Layer l reaches interactions of order 2^l (Zhang et al., arXiv:2403.02545): a machine over machines squares.
    """

    def __init__(self, inputs: int, dim: int, layers: int, fmb: int, lcb: int, rank: int, tower: TowerConfig, sml: SMLConfig):
        super().__init__()
        self.widths = ((fmb + lcb) * dim,) * layers
        sizes = (inputs, *(fmb + lcb,) * (layers - 1))
        self.layers = nn.ModuleList(WukongLayer(n, dim, fmb, lcb, rank, tower, sml) for n in sizes)

    def forward(self, x_BND: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x_BND = layer(x_BND)
            outputs.append(x_BND.flatten(1))
        return outputs
