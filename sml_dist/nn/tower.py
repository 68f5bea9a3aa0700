"""The tower: fully connected layers that hand out every layer's output."""

from collections.abc import Callable
from itertools import accumulate
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sml_dist.nn.dropout import Dropout
from sml_dist.nn.linear import Linear
from sml_dist.nn.norms import NORMS, ActivationName, NormName, activation
from sml_dist.nn.sml import SMLConfig, hidden_norms
from sml_dist.nn.width import Width
from sml_dist.spec import spec


@spec
class TowerConfig:
    """`connect`: how layers are chained, see Tower. `norm`: none, batch or layer norm, or one of the others in norms.py."""

    hidden: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (400, 400, 400)
    connect: Literal["plain", "residual", "dense"] = "plain"
    activation: ActivationName = "relu"
    norm: NormName = "none"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


Product = Callable[[int, int], nn.Module]


def linear(inputs: int, outputs: int) -> Linear:
    """Glorot start, as the published CTR benchmarks have it."""
    product = Linear(inputs, outputs)
    nn.init.xavier_normal_(product.weight)
    nn.init.zeros_(product.bias)
    return product


class Tower(nn.Module):
    """f_i(x) = dropout(activation(norm(product_i(x)))); (B, width) -> every h_i, (B, hidden[i]), with h_0 the input and

    plain:    h_i = f_i(h_{i-1});
    residual: h_i = h_{i-1} + f_i(h_{i-1}), its first term P_i h_{i-1} where widths differ (He et al., arXiv:1512.03385);
              f_i ends in the activation, so with relu and equal widths a unit never falls from layer to layer;
    dense:    h_i = f_i([h_0, ..., h_{i-1}]) (Huang et al., arXiv:1608.06993). DenseNet's own classifier reads all layers
              too, so that it is a Skip Logit; under the last layer's head h_L alone reaches the logit.

    product_i(x) is W_i x + b_i unless another is given. With SML an MTN stands before or after the activation, where
    `sml.mtn` says so.
    """

    def __init__(self, width: int, config: TowerConfig, sml: SMLConfig, product: Product = linear):
        super().__init__()
        # in a residual layer dropout stands before the sum, which it leaves whole
        self.widths = tuple(Width(width, 0.0 if config.connect == "residual" else config.dropout) for width in config.hidden)
        dense, make = config.connect == "dense", residual if config.connect == "residual" else layer
        inputs = list(accumulate((width, *config.hidden[:-1]))) if dense else (width, *config.hidden[:-1])
        self.layers = nn.ModuleList(make(i, o, config, sml, product) for i, o in zip(inputs, config.hidden, strict=True))
        self.join = beside if dense else alone

    def forward(self, x_BK: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            outputs.append(layer(x_BK))
            x_BK = self.join(x_BK, outputs[-1])
        return outputs


class Residual(nn.Module):
    """y = P x + f(x), P the identity where f keeps the width; (B, inputs) -> (B, outputs), in f's type."""

    def __init__(self, inputs: int, outputs: int, f: nn.Module):
        super().__init__()
        self.f = f
        self.project: nn.Module = nn.Identity()
        if inputs != outputs:
            self.project = Linear(inputs, outputs, bias=False)
            nn.init.xavier_normal_(self.project.weight)

    def forward(self, x_BK: Tensor) -> Tensor:
        y_BK = self.f(x_BK)
        return self.project(x_BK).to(y_BK.dtype) + y_BK


def layer(inputs: int, outputs: int, config: TowerConfig, sml: SMLConfig, product: Product) -> nn.Sequential:
    """One layer of the tower, (B, inputs) -> (B, outputs)."""
    first, norm, bend = product(inputs, outputs), NORMS[config.norm](outputs), activation(config.activation, outputs)
    before, after = hidden_norms(outputs, sml)
    parts = [first, norm, before, bend, after, Dropout(config.dropout)]
    return nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))


def residual(inputs: int, outputs: int, config: TowerConfig, sml: SMLConfig, product: Product) -> Residual:
    return Residual(inputs, outputs, layer(inputs, outputs, config, sml, product))


# What the next layer reads, of this layer's input and its output.
def alone(x_BK: Tensor, h_BH: Tensor) -> Tensor:
    return h_BH


def beside(x_BK: Tensor, h_BH: Tensor) -> Tensor:
    return torch.cat([x_BK.to(h_BH.dtype), h_BH], dim=1)
