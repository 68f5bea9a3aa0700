"""MaskNet's blocks: layers whose input is multiplied by a mask that the whole row makes."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.nn.dropout import Dropout
from sml_dist.nn.linear import Linear
from sml_dist.nn.sml import SMLConfig, hidden_norms
from sml_dist.nn.width import Width


class FieldNorm(nn.Module):
    """y_f = weight_f * (x_f - mean(x_f)) / std(x_f) + bias_f, each field by itself; (B, F, D) -> (B, F, D)."""

    def __init__(self, fields: int, dim: int):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(fields, dim))
        self.bias = nn.Parameter(torch.zeros(fields, dim))

    def forward(self, x_BFD: Tensor) -> Tensor:
        return F.layer_norm(x_BFD, x_BFD.shape[-1:]) * self.weight + self.bias


class MaskBlock(nn.Module):
    """h = dropout(relu(layer_norm(W (mask * x)))), mask = U relu(V guide + a) + b; guide (B, G), x (B, K) -> (B, H).

    V makes `ratio` * K aggregates of the guide. The mask is not squashed: it may flip a unit's sign or blow it up. W has no
    bias, as in the formula of the paper (Wang, She, Zhang, arXiv:2102.07619); layer norm brings its own. With SML an MTN
    stands before or after the relu, where `sml.mtn` says so.
    """

    def __init__(self, guide: int, inputs: int, outputs: int, ratio: float, dropout: float, sml: SMLConfig):
        super().__init__()
        aggregates = max(1, round(ratio * inputs))
        self.mask = nn.Sequential(Linear(guide, aggregates), nn.ReLU(), Linear(aggregates, inputs))
        linear = Linear(inputs, outputs, bias=False)
        before, after = hidden_norms(outputs, sml)
        self.hidden = nn.Sequential(linear, nn.LayerNorm(outputs), before, nn.ReLU(), after, Dropout(dropout))
        for part in (self.mask[0], self.mask[2]):
            nn.init.xavier_normal_(part.weight)
            nn.init.zeros_(part.bias)
        nn.init.xavier_normal_(linear.weight)

    def forward(self, guide_BG: Tensor, x_BK: Tensor) -> Tensor:
        mask_BK = self.mask(guide_BG)
        return self.hidden(mask_BK * x_BK.to(mask_BK.dtype))


class SerialMaskBlocks(nn.Module):
    """h_i = block_i(guide, h_{i-1}), h_0 = x; guide (B, G), x (B, K) -> every h_i, (B, widths[i])."""

    def __init__(self, guide: int, inputs: int, widths: Sequence[int], ratio: float, dropout: float, sml: SMLConfig):
        super().__init__()
        self.widths = tuple(Width(width, dropout) for width in widths)
        sizes = zip((inputs, *widths[:-1]), widths, strict=True)
        self.blocks = nn.ModuleList(MaskBlock(guide, i, o, ratio, dropout, sml) for i, o in sizes)

    def forward(self, guide_BG: Tensor, x_BK: Tensor) -> list[Tensor]:
        outputs = []
        for block in self.blocks:
            x_BK = block(guide_BG, x_BK)
            outputs.append(x_BK)
        return outputs


class ParallelMaskBlocks(nn.Module):
    """h_i = block_i(guide, x); guide (B, G), x (B, K) -> every h_i, (B, widths[i])."""

    def __init__(self, guide: int, inputs: int, widths: Sequence[int], ratio: float, dropout: float, sml: SMLConfig):
        super().__init__()
        self.widths = tuple(Width(width, dropout) for width in widths)
        self.blocks = nn.ModuleList(MaskBlock(guide, inputs, width, ratio, dropout, sml) for width in widths)

    def forward(self, guide_BG: Tensor, x_BK: Tensor) -> list[Tensor]:
        return [block(guide_BG, x_BK) for block in self.blocks]
