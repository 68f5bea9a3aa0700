"""Bilinear products of pairs of fields."""

from typing import Literal

import torch
from torch import Tensor, nn

BilinearKind = Literal["all", "each", "interaction"]


class Bilinear(nn.Module):
    """p_ij = (x_i W) * x_j for every pair of fields i < j; (B, F, D) -> its one layer, [(B, F (F - 1) / 2 * D)].

    kind: `all`, one W; `each`, W_i of the pair's first field (the last field is never first, so F - 1 of them);
    `interaction`, W_ij of the pair (Huang et al., arXiv:1905.09433).
    """

    def __init__(self, fields: int, dim: int, kind: BilinearKind):
        super().__init__()
        self.widths = (fields * (fields - 1) // 2 * dim,)
        self.parts = list(range(fields - 1, 0, -1)) if kind == "interaction" else [1] * (fields - 1)  # matrices of each first field
        matrices = 1 if kind == "all" else sum(self.parts)
        self.weight = nn.Parameter(torch.randn(matrices, dim, dim) * dim**-0.5)  # Glorot's spread for a (D, D) matrix

    def forward(self, x_BFD: Tensor) -> list[Tensor]:
        # By first field: picking the fields of all pairs beforehand copies each F - 1 times, and takes four times as long.
        weights = self.weight.expand(sum(self.parts), -1, -1).split(self.parts)
        lefts = [torch.einsum("bd,nde->bne", x_BFD[:, i], weight) for i, weight in enumerate(weights)]
        products = [left * x_BFD[:, i + 1 :].to(left.dtype) for i, left in enumerate(lefts)]
        return [torch.cat(products, dim=1).flatten(1)]
