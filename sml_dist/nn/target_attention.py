"""Attention of a candidate to a user's behaviour sequence."""

import torch
from torch import Tensor, nn

from sml_dist.nn.skip_logit import LastLogit
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig


class TargetAttention(nn.Module):
    """y = sum_i a(t, h_i) h_i over the positions i that a row has; target (B, D), history (B, L, D), mask (B, L) -> (B, D).

    DIN's local activation unit (Zhou et al., arXiv:1706.06978): a is a small tower over [t, h, t - h, t * h] with one output,
    which no softmax follows, so that the sum's length tells how strong an interest is. A row without history gets zeros.
    """

    def __init__(self, dim: int, config: TowerConfig):
        super().__init__()
        self.tower = Tower(4 * dim, config, SMLConfig(enabled=False))
        self.score = LastLogit(self.tower.widths)

    def forward(self, target_BD: Tensor, history_BLD: Tensor, mask_BL: Tensor) -> Tensor:
        t_BLD = target_BD[:, None].expand_as(history_BLD)
        pairs = torch.cat([t_BLD, history_BLD, t_BLD - history_BLD, t_BLD * history_BLD], dim=2)
        # Missing positions go along, and so count in a Dice's statistics: to leave them out, sizes would depend on the data.
        score_BL = self.score(self.tower(pairs.flatten(0, 1))).view(mask_BL.shape)
        return torch.einsum("bl,bld->bd", (score_BL * mask_BL).to(history_BLD.dtype), history_BLD)
