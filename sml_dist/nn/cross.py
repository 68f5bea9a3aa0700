"""The cross network of DCN-V2."""

import torch
from torch import Tensor, nn

from sml_dist.nn.linear import Linear


class CrossNetwork(nn.Module):
    """x_{l+1} = x_0 * (W_l x_l + b_l) + x_l, W_l (K, K); (B, K) -> every x_l from x_1 on, (B, K) each.

    The full-matrix form of DCN-V2 (Wang et al., arXiv:2008.13535): layer l adds the feature crosses of degree l + 1.
    """

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.widths = (width,) * layers
        self.layers = nn.ModuleList(Linear(width, width) for _ in range(layers))
        for linear in self.layers:
            nn.init.xavier_normal_(linear.weight)
            nn.init.zeros_(linear.bias)

    def forward(self, x0_BK: Tensor) -> list[Tensor]:
        x_BK, outputs = x0_BK, []
        for linear in self.layers:
            product = linear(x_BK)
            # In the product's type: under autocast bf16 the mixed sum would be fp32, and all that follows a third slower.
            x_BK = torch.addcmul(x_BK.to(product.dtype), x0_BK.to(product.dtype), product)
            outputs.append(x_BK)
        return outputs
