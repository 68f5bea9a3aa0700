"""MMoE: several labels from shared experts, each label with a gate and a tower of its own (Ma et al., KDD 2018)."""

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.experts import GatedExperts
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class MMoEConfig:
    """`expert`: the layers of each of the `experts`. `tower`: those of each label."""

    name: Literal["mmoe"] = "mmoe"
    experts: Annotated[int, Field(gt=1)] = 8
    expert: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(256, 128)))
    tower: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(64,)))
    sml: SMLConfig = field(default_factory=SMLConfig)


class MMoE(nn.Module):
    """logit_k = head_k(experts mixed by gate k, then tower_k, as one chain of layers); (B, F, D), (B, N) -> (B, labels)."""

    def __init__(self, config: MMoEConfig, shape: FieldShape):
        super().__init__()
        self.experts = GatedExperts(shape.width, config.experts, shape.labels, config.expert, config.sml)
        width = self.experts.widths[-1]
        self.towers = nn.ModuleList(Tower(width, config.tower, config.sml) for _ in range(shape.labels))
        self.heads = nn.ModuleList(logit_head((*self.experts.widths, *tower.widths), config.sml) for tower in self.towers)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        mixtures = self.experts(concat(x_BFD, dense_BN))
        parts = zip(mixtures, self.towers, self.heads, strict=True)
        return torch.stack([head([*mixture, *tower(mixture[-1])]) for mixture, tower, head in parts], dim=1)
