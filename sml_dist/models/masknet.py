"""MaskNet: layers masked by the whole row, one upon another or side by side (Wang, She, Zhang, arXiv:2102.07619)."""

from dataclasses import field
from typing import Annotated, Literal

import torch
from pydantic import Field, PositiveFloat, PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields
from sml_dist.nn.mask import FieldNorm, ParallelMaskBlocks, SerialMaskBlocks
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class MaskNetConfig:
    """`blocks`: the width of each mask block. `ratio`: aggregates of the mask for each unit that it masks, r of the paper.

    `tower` stands over the parallel blocks alone; serial blocks are themselves the layers.
    """

    name: Literal["masknet"] = "masknet"
    structure: Literal["serial", "parallel"] = "parallel"
    blocks: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (64, 64, 64)
    ratio: PositiveFloat = 2.0
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class MaskNet(nn.Module):
    """(B, F, D), (B, N) -> logit (B,). The guide is x, all fields side by side; what is masked first is field_norm(x).

    serial:   logit = head(blocks as one chain of layers).
    parallel: logit = head(blocks, then tower([blocks])).
    Of a numeric field field_norm leaves nothing but the sign; its size still speaks through the guide.
    """

    def __init__(self, config: MaskNetConfig, shape: FieldShape):
        super().__init__()
        self.parallel = config.structure == "parallel"
        self.fields = NumericFields(shape)
        width = self.fields.shape.width
        self.norm = FieldNorm(self.fields.shape.fields, shape.dim)
        blocks = ParallelMaskBlocks if self.parallel else SerialMaskBlocks
        self.blocks = blocks(width, width, config.blocks, config.ratio, config.dropout, config.sml)
        widths = self.blocks.widths
        if self.parallel:
            self.tower = Tower(sum(widths), config.tower, config.sml)
            widths = (*widths, *self.tower.widths)
        self.head = logit_head(widths, config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BFD = self.fields(x_BFD, dense_BN)
        outputs = self.blocks(x_BFD.flatten(1), self.norm(x_BFD).flatten(1))
        if self.parallel:
            outputs = [*outputs, *self.tower(torch.cat(outputs, dim=1))]
        return self.head(outputs)
