"""Modules whose every number is random, so that nothing is tested at its start alone."""

from torch import nn


def randomized(module: nn.Module) -> nn.Module:
    """In float64, every parameter normal."""
    for parameter in module.double().parameters():
        nn.init.normal_(parameter)
    return module
