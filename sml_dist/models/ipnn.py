"""IPNN: a tower over embeddings and their inner products (Qu et al., arXiv:1611.00144; with the products as here, arXiv:1807.00311)."""

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields
from sml_dist.nn.inner_product import InnerProducts
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class IPNNConfig:
    name: Literal["ipnn"] = "ipnn"
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class IPNN(nn.Module):
    """logit = head(p and tower([x, p]) as one chain of layers), p the inner products of all pairs; (B, F, D), (B, N) -> (B,).

    The first paper weighs the products by theta theta^T, to save parameters; the second gives each pair its own, as here.
    """

    def __init__(self, config: IPNNConfig, shape: FieldShape):
        super().__init__()
        self.fields = NumericFields(shape)
        self.products = InnerProducts(self.fields.shape.fields)
        self.tower = Tower(self.fields.shape.width + sum(self.products.widths), config.tower, config.sml)
        self.head = logit_head((*self.products.widths, *self.tower.widths), config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BFD = self.fields(x_BFD, dense_BN)
        products = self.products(x_BFD)
        return self.head([*products, *self.tower(torch.cat([x_BFD.flatten(1), *products], dim=1))])
