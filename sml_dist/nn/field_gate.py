"""FinalNet's field gate: every field beside itself times a mixture of all fields."""

import torch
from torch import Tensor, nn


class FieldGate(nn.Module):
    """y = [x, x * g], g_id = sum_j W_ij x_jd + b_i; (B, F, D) -> (B, 2 F, D).

    The gate mixes fields and leaves embedding dimensions apart. W = 0 and b = 1 at the start: each field twice. From the
    code that the authors of FINAL (Zhu et al., SIGIR 2023) published with it.
    """

    def __init__(self, fields: int):
        super().__init__()
        self.linear = nn.Linear(fields, fields)
        nn.init.zeros_(self.linear.weight)
        nn.init.ones_(self.linear.bias)

    def forward(self, x_BFD: Tensor) -> Tensor:
        gate_BFD = self.linear(x_BFD.transpose(1, 2)).transpose(1, 2)
        return torch.cat([x_BFD, x_BFD * gate_BFD], dim=1)
