"""DCN-V2: a cross network beside a tower, or below it; of matrices, or of low-rank experts (Wang et al., arXiv:2008.13535)."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import nn

from sml_dist.models.cross_tower import CrossTower
from sml_dist.models.fields import FieldShape
from sml_dist.nn.cross import CrossNetwork
from sml_dist.nn.mixture_cross import MixtureCross
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from sml_dist.spec import spec


@spec
class DCNv2Config:
    """`cross`: `matrix`, a K x K matrix a layer, or `mixture`, low-rank experts; `experts` and `rank` are the mixture's alone."""

    name: Literal["dcn_v2"] = "dcn_v2"
    structure: Literal["parallel", "stacked"] = "parallel"
    cross: Literal["matrix", "mixture"] = "matrix"
    cross_layers: PositiveInt = 3
    experts: Annotated[int, Field(gt=1)] = 4
    rank: PositiveInt = 32
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DCNv2(CrossTower):
    """CrossTower with DCN-V2's cross network."""

    def __init__(self, config: DCNv2Config, shape: FieldShape):
        super().__init__(cross_network(config, shape.width), config.structure, config.tower, config.sml, shape)


def cross_network(config: DCNv2Config, width: int) -> nn.Module:
    if config.cross == "mixture":
        return MixtureCross(width, config.cross_layers, config.experts, config.rank)
    return CrossNetwork(width, config.cross_layers)
