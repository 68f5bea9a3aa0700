"""Normalisers and activations by name."""

from typing import Literal

from torch import nn

NormName = Literal["none", "batch", "layer"]
ActivationName = Literal["relu", "leaky_relu", "prelu", "gelu", "silu", "tanh", "identity"]

NORMS = {"none": nn.Identity, "batch": nn.BatchNorm1d, "layer": nn.LayerNorm}
ACTIVATIONS = {
    "relu": nn.ReLU,
    "leaky_relu": nn.LeakyReLU,
    "prelu": nn.PReLU,
    "gelu": nn.GELU,
    "silu": nn.SiLU,
    "tanh": nn.Tanh,
    "identity": nn.Identity,
}
