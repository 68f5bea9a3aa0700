"""DCN-V2: a cross network beside a tower, or below it; of matrices, or of low-rank experts (Wang et al., arXiv:2008.13535)."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.cross import CrossNetwork
from sml_dist.nn.mixture_cross import MixtureCross
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class DCNv2Config:
    """`cross`: `matrix`, a K x K matrix a layer, or `mixture`, low-rank experts; `experts` and `rank` are the mixture's alone."""

    name: Literal["dcn_v2"] = "dcn_v2"
    structure: Literal["parallel", "stacked"] = "parallel"
    cross: Literal["matrix", "mixture"] = "matrix"
    cross_layers: Annotated[int, Field(gt=0)] = 3
    experts: Annotated[int, Field(gt=1)] = 4
    rank: Annotated[int, Field(gt=0)] = 32
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DCNv2(nn.Module):
    """(B, F, D), (B, N) -> logit (B,).

    parallel: logit = cross_head(cross(x)) + head(tower(x)). With the last-layer heads this is the published linear layer
              over [cross(x), tower(x)], its weight split in two.
    stacked:  logit = head(cross and tower as one chain of layers).
    """

    def __init__(self, config: DCNv2Config, shape: FieldShape):
        super().__init__()
        self.stacked = config.structure == "stacked"
        self.cross = cross_network(config, shape.width)
        self.tower = Tower(shape.width, config.tower, config.sml)
        if self.stacked:
            self.head = logit_head((*self.cross.widths, *self.tower.widths), config.sml)
        else:
            self.head = logit_head(self.tower.widths, config.sml)
            self.cross_head = logit_head(self.cross.widths, config.sml, bias=False)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BK = concat(x_BFD, dense_BN)
        crossed = self.cross(x_BK)
        if self.stacked:
            return self.head([*crossed, *self.tower(crossed[-1])])
        return self.cross_head(crossed) + self.head(self.tower(x_BK))


def cross_network(config: DCNv2Config, width: int) -> nn.Module:
    if config.cross == "mixture":
        return MixtureCross(width, config.cross_layers, config.experts, config.rank)
    return CrossNetwork(width, config.cross_layers)
