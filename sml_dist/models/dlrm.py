"""DLRM: numeric values through a bottom tower, dot products of all embeddings, a top tower (Naumov et al., arXiv:1906.00091)."""

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, check_pairs
from sml_dist.nn.bottom import bottom_tower
from sml_dist.nn.inner_product import InnerProducts
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class DLRMConfig:
    """`bottom`: the layers before the one of the embeddings' width, which is always there. `tower`: the top."""

    name: Literal["dlrm"] = "dlrm"
    bottom: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(512, 256)))
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DLRM(nn.Module):
    """z = bottom(dense), p = products([x, z]), logit = head(bottom, p and tower([z, p]) as one chain of layers); -> (B,).

    The embeddings reach the top through their products alone; of z itself the top sees every number. Without numeric
    values there is no z.
    """

    def __init__(self, config: DLRMConfig, shape: FieldShape):
        super().__init__()
        self.bottom = bottom_tower(shape.dense, shape.dim, config.bottom, config.sml)
        z_widths = self.bottom.widths[-1:]  # one embedding, or none
        check_pairs("dlrm", shape.fields + len(z_widths))
        self.products = InnerProducts(shape.fields + len(z_widths))
        self.tower = Tower(sum((*z_widths, *self.products.widths)), config.tower, config.sml)
        self.head = logit_head((*self.bottom.widths, *self.products.widths, *self.tower.widths), config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        layers = self.bottom(dense_BN)
        z = layers[-1:]
        products = self.products(torch.cat([x_BFD, *(z_BD[:, None] for z_BD in z)], dim=1))
        return self.head([*layers, *products, *self.tower(torch.cat([*z, *products], dim=1))])
