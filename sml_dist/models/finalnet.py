"""FinalNet: one or two towers of factorized interaction layers (Zhu et al., "FINAL: Factorized Interaction Layer for CTR
Prediction", SIGIR 2023)."""

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields
from sml_dist.nn.factorized import FactorizedTower, Residual
from sml_dist.nn.field_gate import FieldGate
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import TowerConfig
from sml_dist.spec import spec


@spec
class FinalNetConfig:
    """`first`: the block that reads gated fields. `second`: the block that reads plain ones; without it this is FinalNet-1B."""

    name: Literal["finalnet"] = "finalnet"
    first: TowerConfig = field(default_factory=TowerConfig)
    second: TowerConfig | None = field(default_factory=TowerConfig)
    residual: Residual = "concat"
    field_gate: bool = True
    sml: SMLConfig = field(default_factory=SMLConfig)

    def __post_init__(self) -> None:
        odd = [width for tower in (self.first, self.second) if tower for width in tower.hidden if width % 2]
        if odd and self.residual == "concat":
            raise ValueError(f"`residual: concat` halves each width, and {odd[0]} is odd")


class FinalNet(nn.Module):
    """logit = head_1(first(gate(x))), or with a second block its mean with head_2(second(x)); (B, F, D), (B, N) -> (B,).

    In the mean the two heads' biases are one. The two-block form is published with a distillation loss, in which the mean,
    taken as a constant, teaches either block; it is no part of the forward and is not trained here.
    """

    def __init__(self, config: FinalNetConfig, shape: FieldShape):
        super().__init__()
        self.fields = NumericFields(shape)
        self.gate = FieldGate(self.fields.shape.fields) if config.field_gate else nn.Identity()
        width = self.fields.shape.width
        inputs = zip((2 * width if config.field_gate else width, width), (config.first, config.second), strict=True)
        towers = [FactorizedTower(width, tower, config.residual, config.sml) for width, tower in inputs if tower]
        self.blocks = nn.ModuleList(towers)
        self.heads = nn.ModuleList(logit_head(tower.widths, config.sml, bias=tower is towers[0]) for tower in towers)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BFD = self.fields(x_BFD, dense_BN)
        inputs = (self.gate(x_BFD).flatten(1), x_BFD.flatten(1))
        logits = [head(block(x_BK)) for head, block, x_BK in zip(self.heads, self.blocks, inputs, strict=False)]
        return torch.stack(logits).mean(dim=0)
