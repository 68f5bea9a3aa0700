"""The gated cross network of GDCN."""

import torch
from torch import Tensor, nn

from sml_dist.nn.cross import cross
from sml_dist.nn.linear import Linear


class GatedCrossNetwork(nn.Module):
    """c_{l+1} = c_0 * (W_l c_l + b_l) * sigmoid(G_l c_l) + c_l; (B, K) -> every c_l from c_1 on, (B, K) each.

    The cross layer of DCN-V2 behind an information gate (Wang et al., "Towards Deeper, Lighter and Interpretable Cross
    Network for CTR Prediction", CIKM 2023, arXiv:2311.04635). The gate has no bias; W and G are both K x K, so a layer
    costs twice what DCN-V2's does. A gate shut everywhere leaves c_l as it is: depth that does not help can be closed.
    """

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.widths = (width,) * layers
        self.layers = nn.ModuleList(Linear(width, width) for _ in range(layers))
        self.gates = nn.ModuleList(Linear(width, width, bias=False) for _ in range(layers))
        for linear, gate in zip(self.layers, self.gates, strict=True):
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)
            nn.init.xavier_normal_(gate.weight)

    def forward(self, c0_BK: Tensor) -> list[Tensor]:
        c_BK, outputs = c0_BK, []
        for linear, gate in zip(self.layers, self.gates, strict=True):
            c_BK, c0_BK = cross(c_BK, c0_BK, linear(c_BK) * torch.sigmoid(gate(c_BK)))
            outputs.append(c_BK)
        return outputs
