"""FinalMLP's fusion: the products of two streams' units, head by head."""

import torch
from torch import Tensor, nn


class BilinearFusion(nn.Module):
    """y = sum_k a_k^T W_k b_k over the heads' slices of a and b; (B, P), (B, Q) -> (B,) float32.

    The second-order part of FinalMLP's fusion (Mao et al., arXiv:2304.00902). With h heads the weight has P Q / h numbers:
    the heads save work, they add no freedom. W starts so that y has the variance of one product of units, at any width.
    """

    def __init__(self, first: int, second: int, heads: int):
        super().__init__()
        self.heads = heads
        self.weight = nn.Parameter(torch.empty(heads, first // heads, second // heads))
        nn.init.normal_(self.weight, std=self.weight.numel() ** -0.5)

    def forward(self, a_BP: Tensor, b_BQ: Tensor) -> Tensor:
        a_BHP, b_BHQ = a_BP.unflatten(1, (self.heads, -1)), b_BQ.unflatten(1, (self.heads, -1))
        return (torch.einsum("bhp,hpq->bhq", a_BHP, self.weight).float() * b_BHQ.float()).sum((1, 2))
