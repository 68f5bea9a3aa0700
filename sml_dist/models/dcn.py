"""DCN: a cross network of vectors beside a tower (Wang et al., arXiv:1708.05123)."""

from dataclasses import field
from typing import Literal

from pydantic import PositiveInt

from sml_dist.models.cross_tower import CrossTower
from sml_dist.models.fields import FieldShape
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from sml_dist.nn.vector_cross import VectorCross
from sml_dist.spec import spec


@spec
class DCNConfig:
    name: Literal["dcn"] = "dcn"
    cross_layers: PositiveInt = 3
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DCN(CrossTower):
    """CrossTower with the cross network of vectors; the paper has the two side by side."""

    def __init__(self, config: DCNConfig, shape: FieldShape):
        super().__init__(VectorCross(shape.width, config.cross_layers), "parallel", config.tower, config.sml, shape)
