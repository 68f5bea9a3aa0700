"""The cross network of DCN-V2."""

import torch
from torch import Tensor, nn
from torch.autograd import Function

from sml_dist.nn.linear import Linear
from sml_dist.nn.native import traced


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
            x_BK, x0_BK = cross(x_BK, x0_BK, linear(x_BK))
            outputs.append(x_BK)
        return outputs


def cross(x_BK: Tensor, x0_BK: Tensor, product_BK: Tensor) -> tuple[Tensor, Tensor]:
    """x + x_0 * product, and x_0 for the next layer; all (B, K).

    In the product's type: under autocast the mixed sum would be fp32, and all that follows a third slower.
    """
    x_BK, x0_BK = x_BK.to(product_BK.dtype), x0_BK.to(product_BK.dtype)
    if traced() or not torch.is_grad_enabled():
        return torch.addcmul(x_BK, x0_BK, product_BK), x0_BK
    return Crossed.apply(x_BK, x0_BK, product_BK)


class Crossed(Function):
    """`cross`, whose backward is two passes over memory where autograd's is five: x_0 goes through it from layer to layer, so that
    each adds its share to x_0's gradient in the pass that makes it. Differentiable to any order."""

    @staticmethod
    def forward(ctx, x_BK: Tensor, x0_BK: Tensor, product_BK: Tensor) -> tuple[Tensor, Tensor]:
        ctx.save_for_backward(x0_BK, product_BK)
        ctx.set_materialize_grads(False)  # the last layer's x_0 goes nowhere
        return torch.addcmul(x_BK, x0_BK, product_BK), x0_BK

    @staticmethod
    def backward(ctx, dy_BK: Tensor | None, dx0_BK: Tensor | None) -> tuple[Tensor | None, ...]:
        x0_BK, product_BK = ctx.saved_tensors
        if dy_BK is None:
            return None, dx0_BK, None
        dx0_BK = dy_BK * product_BK if dx0_BK is None else torch.addcmul(dx0_BK, dy_BK, product_BK)
        return dy_BK, dx0_BK, dy_BK * x0_BK
