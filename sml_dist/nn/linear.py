"""The linear layer, its products on a CPU taken by oneDNN."""

import torch
from torch import Tensor, nn
from torch.autograd import Function
from torch.nn import functional as F

from sml_dist.nn.native import traced

ENOUGH = 1 << 13  # elements of a weight: below, a call costs more than its product
# The types whose products oneDNN takes here: none where torch is without it.
ONEDNN = {torch.float32} if torch.backends.mkldnn.is_available() and hasattr(torch.ops.mkldnn, "_linear_pointwise") else set()
if ONEDNN and torch.ops.mkldnn._is_mkldnn_bf16_supported():
    ONEDNN.add(torch.bfloat16)


class Linear(nn.Linear):
    """y = x W^T + b; (..., inputs) -> (..., outputs): nn.Linear, equal to it but for the order of sums.

    For float32 torch calls MKL, which on AMD leaves AVX-512 alone and is slow where a width is no multiple of 16: for 4096 rows
    and 429 -> 400 in one thread of an EPYC with AVX-512, 68 GFLOP/s forward and 49 for the input's gradient, oneDNN 95 and
    102. For bfloat16, under autocast, torch calls oneDNN, but copies the bias into the output first, to add the product to it.
    torch offers these calls to its own compiler alone. (Its product with a relu makes a NaN a 0, and is 1 % of a step.)
    """

    def forward(self, x: Tensor) -> Tensor:
        kind = product_type(x)
        if not by_onednn(x, self.weight, kind):
            return F.linear(x, self.weight, self.bias)
        return Product.apply(x.to(kind), self.weight.to(kind), None if self.bias is None else self.bias.to(kind))


class Product(Function):
    """x W^T + b; differentiable to any order."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor | None) -> Tensor:
        ctx.save_for_backward(x, weight)
        return torch.ops.mkldnn._linear_pointwise(x, weight, bias, "none", [], "")

    @staticmethod
    def backward(ctx, dy: Tensor) -> tuple[Tensor | None, ...]:
        x, weight = ctx.saved_tensors
        flat, dx, dweight = dy.reshape(-1, dy.shape[-1]), None, None
        if ctx.needs_input_grad[0]:  # torch takes bfloat16 to oneDNN by itself
            dx = dy @ weight if dy.dtype is torch.bfloat16 else Product.apply(dy, weight.t(), None)
        if ctx.needs_input_grad[1]:
            dweight = flat.t() @ x.reshape(-1, x.shape[-1])  # for float32 MKL's is as fast here
        return dx, dweight, flat.sum(0) if ctx.needs_input_grad[2] else None


def by_onednn(x: Tensor, weight: Tensor, kind: torch.dtype) -> bool:
    """Whether oneDNN takes this product, whatever the number of rows."""
    plain = x.device.type == "cpu" and kind in ONEDNN and x.dtype in ONEDNN and weight.dtype == torch.float32
    return plain and weight.numel() >= ENOUGH and torch.backends.mkldnn.enabled and not traced()


def product_type(x: Tensor) -> torch.dtype:
    """The type in which x goes into a matrix product here: autocast's, or its own."""
    device = x.device.type
    return torch.get_autocast_dtype(device) if torch.is_autocast_enabled(device) else x.dtype
