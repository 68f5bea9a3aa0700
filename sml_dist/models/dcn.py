"""DCN: a cross network of vectors beside a tower (Wang et al., arXiv:1708.05123)."""

from dataclasses import field
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.nn.vector_cross import VectorCross
from sml_dist.spec import spec


@spec
class DCNConfig:
    name: Literal["dcn"] = "dcn"
    cross_layers: PositiveInt = 3
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DCN(nn.Module):
    """logit = cross_head(cross(x)) + head(tower(x)); (B, F, D), (B, N) -> (B,).

    With the last-layer heads this is the published linear layer over [cross(x), tower(x)], its weight split in two.
    """

    def __init__(self, config: DCNConfig, shape: FieldShape):
        super().__init__()
        self.cross = VectorCross(shape.width, config.cross_layers)
        self.tower = Tower(shape.width, config.tower, config.sml)
        self.head = logit_head(self.tower.widths, config.sml)
        self.cross_head = logit_head(self.cross.widths, config.sml, bias=False)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BK = concat(x_BFD, dense_BN)
        return self.cross_head(self.cross(x_BK)) + self.head(self.tower(x_BK))
