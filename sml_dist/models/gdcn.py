"""GDCN: a gated cross network beside a tower, or below it (Wang et al., CIKM 2023, arXiv:2311.04635)."""

from dataclasses import field
from typing import Literal

from pydantic import PositiveInt

from sml_dist.models.cross_tower import CrossTower
from sml_dist.models.fields import FieldShape
from sml_dist.nn.gated_cross import GatedCrossNetwork
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from sml_dist.spec import spec


@spec
class GDCNConfig:
    name: Literal["gdcn"] = "gdcn"
    structure: Literal["parallel", "stacked"] = "parallel"
    cross_layers: PositiveInt = 3
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class GDCN(CrossTower):
    """CrossTower with the gated cross network; its two structures are the paper's GDCN-P and GDCN-S.

    The paper's field-level choice of dimensions is a pruning of the tables after training, not part of the model.
    """

    def __init__(self, config: GDCNConfig, shape: FieldShape):
        super().__init__(GatedCrossNetwork(shape.width, config.cross_layers), config.structure, config.tower, config.sml, shape)
