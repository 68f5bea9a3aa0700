"""The product layer of inner-product networks."""

import torch
from torch import Tensor, nn


class InnerProducts(nn.Module):
    """p_ij = <x_i, x_j> for every pair of fields i < j; (B, F, D) -> its one layer, [(B, F (F - 1) / 2)].

    The inner form of the product layer of PNN (Qu et al., arXiv:1611.00144). All F^2 products come from one batched matrix
    product, half of them twice: with tens of fields that is cheaper than picking the pairs first.
    """

    def __init__(self, fields: int):
        super().__init__()
        self.widths = (fields * (fields - 1) // 2,)
        first, second = torch.triu_indices(fields, fields, offset=1)
        self.register_buffer("pairs", fields * first + second, persistent=False)

    def forward(self, x_BFD: Tensor) -> list[Tensor]:
        return [(x_BFD @ x_BFD.transpose(1, 2)).flatten(1).index_select(1, self.pairs)]
