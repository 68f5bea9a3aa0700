"""The product of a layer's output and a row of weights that makes a logit, on a CPU one kernel each way; see logit.cpp."""

import ctypes
from contextlib import nullcontext
from pathlib import Path

import torch
from torch import Tensor
from torch.autograd import Function
from torch.nn import functional as F

from sml_dist.nn.native import KINDS, call, has_kernel

SOURCE = Path(__file__).with_name("logit.cpp")


def logit_product(x_BK: Tensor, weight_1K: Tensor, bias: Tensor | None = None) -> Tensor:
    """weight . x + bias, (B, K) -> (B, 1), in the weight's type whatever autocast says: rounded to bfloat16, logits between 4 and 8
    lie 1/32 apart, and so the probabilities of rare clicks 3 %."""
    if has_kernel(x_BK, SOURCE) and KINDS[x_BK.dtype][1] is weight_1K.dtype:
        y_B1 = Dot.apply(x_BK, weight_1K)
        return y_B1 if bias is None else y_B1 + bias
    x_BK, device = x_BK.to(weight_1K.dtype), x_BK.device.type
    with torch.autocast(device, enabled=False) if torch.is_autocast_enabled(device) else nullcontext():  # which an export would hold
        return F.linear(x_BK, weight_1K, bias)


class Dot(Function):
    """weight . x: (B, K), (1, K) -> (B, 1); differentiable to any order."""

    @staticmethod
    def forward(ctx, x_BK: Tensor, weight_1K: Tensor) -> Tensor:
        x_BK, weight_1K = x_BK.contiguous(), weight_1K.contiguous()
        ctx.save_for_backward(x_BK, weight_1K)
        y_B1 = weight_1K.new_empty(len(x_BK), 1)
        _call("forward", x_BK, weight_1K, y_B1)
        return y_B1

    @staticmethod
    def backward(ctx, dy_B1: Tensor) -> tuple[Tensor, Tensor]:
        x_BK, weight_1K = ctx.saved_tensors
        if torch.is_grad_enabled():  # a gradient that is to be differentiated itself is made of operations
            return (dy_B1 * weight_1K).to(x_BK.dtype), dy_B1.t() @ x_BK.to(weight_1K.dtype)
        dx_BK, sums = torch.empty_like(x_BK), weight_1K.new_zeros(torch.get_num_threads(), x_BK.shape[1])
        _call("backward", x_BK, weight_1K, dy_B1.contiguous(), dx_BK, sums)
        return dx_BK, sums.sum(0, keepdim=True)


def _call(name: str, x_BK: Tensor, *others: Tensor) -> None:
    call(SOURCE, f"{name}_{KINDS[x_BK.dtype][0]}", (x_BK, *others), *map(ctypes.c_int64, x_BK.shape))
