"""The cross network of DCN, the first version."""

import torch
from torch import Tensor, nn
from torch.nn import functional as F


class VectorCross(nn.Module):
    """x_{l+1} = x_0 (w_l . x_l) + b_l + x_l, w_l and b_l (K,); (B, K) -> every x_l from x_1 on, (B, K) each.

    The cross network of DCN (Wang et al., arXiv:1708.05123): all degrees up to l + 1 for 2 K parameters a layer. The price:
    without the biases every x_l is x_0 times one number of the row (shown in arXiv:1803.05170). DCN-V2 mends that.
    """

    def __init__(self, width: int, layers: int):
        super().__init__()
        self.widths = (width,) * layers
        self.weight = nn.Parameter(torch.randn(layers, width) * (2 / (width + 1)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(layers, width))

    def forward(self, x0_BK: Tensor) -> list[Tensor]:
        x_BK, outputs = x0_BK, []
        for weight, bias in zip(self.weight, self.bias, strict=True):
            x_BK = x0_BK * F.linear(x_BK, weight[None]) + bias + x_BK
            outputs.append(x_BK)
        return outputs
