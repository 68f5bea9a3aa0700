"""Wide & Deep: a linear model beside a tower (Cheng et al., arXiv:1606.07792)."""

from dataclasses import field
from typing import Literal

from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields, concat, split_weight
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class WideDeepConfig:
    """The last of an id's `embedding.dim` numbers is its first-order weight."""

    name: Literal["wide_deep"] = "wide_deep"
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class WideDeep(nn.Module):
    """logit = sum_i w_i + head(tower(v)); (B, F, D + 1), (B, N) -> (B,).

    The wide part is first-order: the paper's hand-made crosses of fields are fields of the data set, made before training.
    """

    def __init__(self, config: WideDeepConfig, shape: FieldShape):
        super().__init__()
        self.wide = NumericFields(FieldShape(fields=shape.fields, dim=1, dense=shape.dense))
        self.tower = Tower(shape.without_weight().width, config.tower, config.sml)
        self.head = logit_head(self.tower.widths, config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        v_BFD, w_BF = split_weight(x_BFD)
        wide = self.wide(w_BF.unsqueeze(2), dense_BN).sum((1, 2))
        return wide + self.head(self.tower(concat(v_BFD, dense_BN)))
