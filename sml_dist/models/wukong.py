"""Wukong: stacked factorization machines that scale with their depth and width (Zhang et al., arXiv:2403.02545)."""

from dataclasses import field
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape
from sml_dist.nn.bottom import bottom_tower
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.nn.wukong import WukongStack
from sml_dist.spec import spec


@spec
class WukongConfig:
    """`layers`, `fmb`, `lcb`, `rank`: l, n_F, n_L and k of the paper. `fmb_tower`: the hidden layers in each factorization
    machine block. `bottom`: the layers before numeric values are an embedding. `tower`: the top.
    """

    name: Literal["wukong"] = "wukong"
    layers: PositiveInt = 3
    fmb: PositiveInt = 16
    lcb: PositiveInt = 16
    rank: PositiveInt = 16
    fmb_tower: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(256,)))
    bottom: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(64,)))
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class Wukong(nn.Module):
    """X = [x, bottom(dense)], logit = head(bottom, stack(X) and tower(stack's last) as one chain of layers); -> (B,).

    Where the paper leaves a choice: the norm of a layer is over each embedding, its machines' projection P is learned and
    the same for all rows (the paper also has one made from the row), numeric values together are one embedding, and the
    last layer in a machine block is activated like the others.
    """

    def __init__(self, config: WukongConfig, shape: FieldShape):
        super().__init__()
        self.bottom = bottom_tower(shape.dense, shape.dim, config.bottom, config.sml)
        embeddings = shape.fields + len(self.bottom.widths[-1:])
        sizes = (config.layers, config.fmb, config.lcb, config.rank)
        self.stack = WukongStack(embeddings, shape.dim, *sizes, config.fmb_tower, config.sml)
        self.tower = Tower(self.stack.widths[-1], config.tower, config.sml)
        self.head = logit_head((*self.bottom.widths, *self.stack.widths, *self.tower.widths), config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        layers = self.bottom(dense_BN)
        stacked = self.stack(torch.cat([x_BFD, *(z_BD[:, None] for z_BD in layers[-1:])], dim=1))
        return self.head([*layers, *stacked, *self.tower(stacked[-1])])
