"""FiBiNET: bilinear products of the fields, as they are and as SENET weighs them, below a tower (Huang et al., arXiv:1905.09433)."""

from dataclasses import field
from typing import Literal

import torch
from pydantic import PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, WeightedFields, check_pairs
from sml_dist.nn.bilinear import Bilinear, BilinearKind
from sml_dist.nn.senet import SENet
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class FiBiNETConfig:
    """`bilinear`: see Bilinear. `reduction`: fields to a unit of SENET. The last of an id's `embedding.dim` numbers is its weight."""

    name: Literal["fibinet"] = "fibinet"
    bilinear: BilinearKind = "interaction"
    reduction: PositiveInt = 3
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class FiBiNET(nn.Module):
    """logit = sum_i w_i + head(p, q and tower([p, q]) as one chain of layers), p = bilinear(v), q = senet_bilinear(senet(v)).

    (B, F, D + 1), (B, N) -> (B,). p and q are side by side, and wide, F (F - 1) / 2 * D each: with 39 fields of 16 numbers
    11,856, so that the tower's first layer holds most of the model. The tower reads the embeddings through them alone.
    """

    def __init__(self, config: FiBiNETConfig, shape: FieldShape):
        super().__init__()
        self.fields = WeightedFields(shape)
        inner = self.fields.shape
        check_pairs("fibinet", inner.fields)
        self.senet = SENet(inner.fields, config.reduction)
        self.bilinear = Bilinear(inner.fields, inner.dim, config.bilinear)
        self.senet_bilinear = Bilinear(inner.fields, inner.dim, config.bilinear)
        products = (*self.bilinear.widths, *self.senet_bilinear.widths)
        self.tower = Tower(sum(products), config.tower, config.sml)
        self.head = logit_head((*products, *self.tower.widths), config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        v_BFD, w_BF = self.fields(x_BFD, dense_BN)
        products = [*self.bilinear(v_BFD), *self.senet_bilinear(self.senet(v_BFD))]
        return w_BF.sum(1) + self.head([*products, *self.tower(torch.cat(products, dim=1))])
