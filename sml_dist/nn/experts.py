"""Experts that several tasks share, mixed for each task by a gate of its own."""

import torch
from torch import Tensor, nn

from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig


class GatedExperts(nn.Module):
    """f_k = sum_e g_k(x)_e f_e(x), g_k(x) = softmax(W_k x); (B, width) -> for each task k every layer's mixture, (B, hidden[i]).

    Multi-gate Mixture-of-Experts (Ma et al., KDD 2018), whose output is the mixture of the experts' last layers; the others
    are mixed by the same gate, for heads that read every layer.
    """

    def __init__(self, width: int, experts: int, tasks: int, config: TowerConfig, sml: SMLConfig):
        super().__init__()
        self.widths = config.hidden
        self.experts = nn.ModuleList(Tower(width, config, sml) for _ in range(experts))
        self.gates = nn.ModuleList(nn.Linear(width, experts, bias=False) for _ in range(tasks))

    def forward(self, x_BK: Tensor) -> list[list[Tensor]]:
        layers = [torch.stack(outputs, dim=1) for outputs in zip(*(expert(x_BK) for expert in self.experts), strict=True)]
        shares = [gate(x_BK).softmax(dim=1) for gate in self.gates]
        return [[torch.einsum("be,beh->bh", g_BE.to(h_BEH.dtype), h_BEH) for h_BEH in layers] for g_BE in shares]
