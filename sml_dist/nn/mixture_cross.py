"""The cross network of DCN-V2 as a mixture of low-rank experts."""

import torch
from torch import Tensor, nn

from sml_dist.nn.cross import cross
from sml_dist.nn.linear import Linear


class MixtureCross(nn.Module):
    """x_{l+1} = sum_e G_e(x_l) E_e(x_l) + x_l, E_e(x) = x_0 * (U_e tanh(C_e tanh(V_e x)) + b), G = softmax(gate x).

    (B, K) -> every x_l from x_1 on, (B, K) each. V_e is (rank, K), C_e (rank, rank), U_e (K, rank); V, C, U and b are each
    layer's own, the gate is one for all layers, as the paper writes it (Wang et al., arXiv:2008.13535).
    """

    def __init__(self, width: int, layers: int, experts: int, rank: int):
        super().__init__()
        self.widths = (width,) * layers
        self.gate = nn.Linear(width, experts, bias=False)
        nn.init.xavier_normal_(self.gate.weight)
        self.layers = nn.ModuleList(Experts(width, experts, rank) for _ in range(layers))

    def forward(self, x0_BK: Tensor) -> list[Tensor]:
        x_BK, outputs = x0_BK, []
        for experts in self.layers:
            x_BK, x0_BK = cross(x_BK, x0_BK, experts(x_BK, self.gate(x_BK).softmax(1)))
            outputs.append(x_BK)
        return outputs


class Experts(nn.Module):
    """sum_e g_e (U_e tanh(C_e tanh(V_e x)) + b); (B, K), gates (B, E) -> (B, K).

    As the gates add up to 1, b stands outside the sum, and the experts' U is one matrix over their gated ranks, (K, E rank).
    """

    def __init__(self, width: int, experts: int, rank: int):
        super().__init__()
        self.down = Linear(width, experts * rank, bias=False)
        self.inner = nn.Parameter(torch.empty(experts, rank, rank))
        self.up = Linear(experts * rank, width)
        with torch.no_grad():
            for part in (*self.down.weight.chunk(experts), *self.inner, *self.up.weight.chunk(experts, dim=1)):
                nn.init.xavier_normal_(part)
        nn.init.zeros_(self.up.bias)

    def forward(self, x_BK: Tensor, gates_BE: Tensor) -> Tensor:
        low_BER = torch.tanh(self.down(x_BK)).unflatten(1, self.inner.shape[:2])
        low_BER = torch.tanh(torch.einsum("ber,esr->bes", low_BER, self.inner))
        return self.up((gates_BE[:, :, None] * low_BER).flatten(1))
