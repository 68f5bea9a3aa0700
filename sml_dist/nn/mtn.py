"""Meta Tanh Normalisation: a normaliser without batch statistics, whose steepness each row sets for itself."""

from typing import Literal

import torch
from pydantic import NonNegativeFloat, PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.nn.linear import Linear
from sml_dist.nn.logit_product import logit_product
from sml_dist.nn.mtn_kernel import mtn, mtn_dot
from sml_dist.nn.tanh_norms import scaled
from sml_dist.spec import spec


@spec
class MTNConfig:
    """Options that arXiv:2210.10725 leaves open.

    placement: `hidden` normalises inside the tower, `skip` on the way from a layer to the logit alone; `none` is no MTN.
        Of another normaliser in MTN's place (`sml.norm`) it says the same, and so does `before_activation`.
    before_activation: inside the tower, normalise a layer before its activation or after it.
    learner: how s sees the row: `dense` K x K, `lowrank` K x rank x K, `elementwise` K, `scalar` K -> 1.
    offset, learn_offset: where the learner's bias starts, and whether it trains. With offset 1 and a small `init_std` the
        start is s = 1, a plain tanh; with offset 0, held, s follows from the row alone (elementwise: s * x is quadratic).
    """

    placement: Literal["hidden", "skip", "both", "none"] = "skip"
    before_activation: bool = True
    learner: Literal["dense", "lowrank", "elementwise", "scalar"] = "elementwise"
    rank: PositiveInt = 16
    offset: float = 1.0
    learn_offset: bool = True
    init_std: NonNegativeFloat = 0.01
    slope: float = 0.01
    scale_init: float = 1.0


class MetaTanhNorm(nn.Module):
    """y = scale * tanh(s(x) * x), s(x) = leaky_relu(learner(stop_grad(x))); shapes (B, K) -> (B, K).

    Uses no batch statistics, so one row trains and serves as a thousand do (arXiv:2210.10725).
    With scale 1, |y| < 1: each normalised layer adds at most 1 to the variance of a sum of layers.

    `keep`: the share of x's units that dropout has kept, and divided by it. dropout(y(h)) is meant where x = dropout(h)
    is given, under the same mask: y(keep * x) / keep, for y(0) = 0. Of y(x) itself the mean over masks is not y(h), for
    tanh bends: a model trained on it is too sure of itself once dropout is off. Where s(x) reads other units too (all learners
    but `elementwise`), it is given x, whose mean over masks is h, and dropout(y(h)) is met only nearly.
    """

    def __init__(self, width: int, config: MTNConfig):
        super().__init__()
        self.slope = config.slope
        self.learner = meta_learner(width, config)
        self.scale = nn.Parameter(torch.full((width,), config.scale_init))

    def forward(self, x_BK: Tensor, keep: float = 1.0) -> Tensor:
        if isinstance(self.learner, Elementwise):
            return mtn(x_BK, *self.learner.within(keep), scaled(self.scale, 1 / keep), self.slope)
        s = F.leaky_relu(self.learner(x_BK.detach()), self.slope)
        return scaled(self.scale, 1 / keep).to(x_BK.dtype) * torch.tanh(scaled(s, keep) * x_BK)

    def dot(self, x_BK: Tensor, weight_1K: Tensor, keep: float = 1.0) -> Tensor:
        """weight . forward(x, keep), (B, K) -> (B, 1): this path's term of a Skip Logit."""
        if isinstance(self.learner, Elementwise):
            scale = scaled(self.scale, 1 / keep) * weight_1K.squeeze(0)
            return mtn_dot(x_BK, *self.learner.within(keep), scale, self.slope).unsqueeze(1)
        return logit_product(self(x_BK, keep), weight_1K)


class Elementwise(nn.Module):
    """weight * x + bias, unit by unit, which the kernel of MTN takes (mtn_kernel.py)."""

    def __init__(self, width: int):
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(width))
        self.bias = nn.Parameter(torch.zeros(width))

    def within(self, keep: float) -> tuple[Tensor, Tensor]:
        """The weight and bias with which s(x) is keep * s(keep * x): a leaky relu lets positive factors through."""
        return scaled(self.weight, keep**2), scaled(self.bias, keep)


def meta_learner(width: int, config: MTNConfig) -> nn.Module:
    """The learner of s, (B, K) -> (B, K) or (B, 1), started so that its output is close to `offset`."""
    if config.learner == "lowrank":
        last: nn.Module = Linear(config.rank, width)
        learner: nn.Module = nn.Sequential(Linear(width, config.rank, bias=False), last)
    else:
        last = {
            "dense": lambda: Linear(width, width),
            "elementwise": lambda: Elementwise(width),
            "scalar": lambda: nn.Linear(width, 1),
        }[config.learner]()
        learner = last
    nn.init.normal_(last.weight, std=config.init_std)
    nn.init.constant_(last.bias, config.offset).requires_grad_(config.learn_offset)
    return learner
