"""DNN: a tower over the concatenated embeddings."""

from dataclasses import field
from typing import Literal

from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class DNNConfig:
    name: Literal["dnn"] = "dnn"
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DNN(nn.Module):
    """logit = head(tower(x)); (B, F, D), (B, N) -> (B,)."""

    def __init__(self, config: DNNConfig, shape: FieldShape):
        super().__init__()
        self.tower = Tower(shape.width, config.tower, config.sml)
        self.head = logit_head(self.tower.widths, config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        return self.head(self.tower(concat(x_BFD, dense_BN)))
