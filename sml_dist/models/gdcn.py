"""GDCN: a gated cross network beside a tower, or below it (Wang et al., CIKM 2023, arXiv:2311.04635)."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.gated_cross import GatedCrossNetwork
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class GDCNConfig:
    name: Literal["gdcn"] = "gdcn"
    structure: Literal["parallel", "stacked"] = "parallel"
    cross_layers: Annotated[int, Field(gt=0)] = 3
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class GDCN(nn.Module):
    """(B, F, D), (B, N) -> logit (B,). DCN-V2 with another cross network; its two structures are the paper's GDCN-P and GDCN-S.

    parallel: logit = cross_head(cross(x)) + head(tower(x)).
    stacked:  logit = head(cross and tower as one chain of layers).
    The paper's field-level choice of dimensions is a pruning of the tables after training, not part of the model.
    """

    def __init__(self, config: GDCNConfig, shape: FieldShape):
        super().__init__()
        self.stacked = config.structure == "stacked"
        self.cross = GatedCrossNetwork(shape.width, config.cross_layers)
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
