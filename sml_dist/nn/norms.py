"""Normalisers and activations by name."""

from typing import Literal

from torch import nn

from sml_dist.nn.dice import Dice
from sml_dist.nn.layer_variance import VarianceOnlyLayerNorm
from sml_dist.nn.tanh_norms import DynamicTanh, FixedTanh

NormName = Literal["none", "batch", "layer", "layer_variance", "fixed_tanh", "dyt"]
ActivationName = Literal["relu", "leaky_relu", "prelu", "gelu", "silu", "tanh", "identity", "dice"]

# Each is made of a width K and maps (B, K) to (B, K); all but batch norm treat a row by itself.
NORMS = {
    "none": nn.Identity,
    "batch": nn.BatchNorm1d,
    "layer": nn.LayerNorm,
    "layer_variance": VarianceOnlyLayerNorm,
    "fixed_tanh": FixedTanh,
    "dyt": DynamicTanh,
}
# One module for any width; Dice, which is of one, is made in `activation`.
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}


def activation(name: ActivationName, width: int) -> nn.Module:
    return Dice(width) if name == "dice" else ACTIVATIONS[name]()
