"""The linear layer, its float32 products on a CPU taken by oneDNN, and the product that makes a logit."""

from contextlib import nullcontext

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from sml_dist.nn.native import traced

ENOUGH = 1 << 13  # elements of a weight: below, a call costs more than its product
HAS_ONEDNN = torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise")


class Linear(nn.Linear):
    """y = x W^T + b, (..., inputs) -> (..., outputs): nn.Linear, equal to it but for the order of float32 sums.

    For float32 torch calls MKL, which on AMD leaves AVX-512 alone and is slow where a width is no multiple of 16: for 4096 rows
    and 429 -> 400 in one thread of an EPYC with AVX-512, 68 GFLOP/s forward and 49 for the input's gradient, oneDNN 95 and
    102. In bfloat16, under autocast, torch calls oneDNN by itself. torch offers it for float32 to its own compiler alone.
    """

    def forward(self, x: Tensor) -> Tensor:
        if by_onednn(x, self.weight):
            return Product.apply(x, self.weight, self.bias)
        return F.linear(x, self.weight, self.bias)


class Product(Function):
    """x W^T + b; differentiable to any order."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        dx = Product.apply(dy, weight.t(), None) if ctx.needs_input_grad[0] else None
        flat = dy.reshape(-1, dy.shape[-1])
        dweight = flat.t() @ x.reshape(-1, x.shape[-1]) if ctx.needs_input_grad[1] else None  # MKL's is as fast here
        return dx, dweight, flat.sum(0) if ctx.needs_input_grad[2] else None


def by_onednn(x: Tensor, weight: Tensor) -> bool:
    """Whether oneDNN takes this product, whatever the number of rows."""
    plain = x.device.type == "cpu" and x.dtype == weight.dtype == torch.float32 and not torch.is_autocast_enabled("cpu")
    return plain and weight.numel() >= ENOUGH and HAS_ONEDNN and torch.backends.mkldnn.enabled and not traced()


def logit_product(x_BK: Tensor, weight_1K: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight . x + bias, (B, K) -> (B, 1), in the weight's type whatever autocast says: rounded to bfloat16, logits between 4 and 8
    lie 1/32 apart, and so the probabilities of rare clicks 3 %."""
    x_BK, device = x_BK.to(weight_1K.dtype), x_BK.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():  # which an export would hold
        return F.linear(x_BK, weight_1K, bias)


def product_type(x: Tensor) -> torch.dtype:
    """The type in which x goes into a matrix product here: autocast's, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
