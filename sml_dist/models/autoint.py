"""AutoInt: self-attention between fields, alone or beside a tower (Song et al., arXiv:1810.11921)."""

from dataclasses import field
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields
from sml_dist.nn.attention import FieldAttention
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class AutoIntConfig:
    """`tower: null` is the paper's AutoInt, whose attention reaches the logit alone; with a tower it is AutoInt+.

    MTN on hidden layers (`sml.mtn.placement`) is the tower's.
    """

    name: Literal["autoint"] = "autoint"
    attention_layers: PositiveInt = 3
    heads: PositiveInt = 2
    head_dim: PositiveInt = 32
    tower: TowerConfig | None = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class AutoInt(nn.Module):
    """logit = attention_head(attention(x)) [+ head(tower(x))]; (B, F, D), (B, N) -> (B,)."""

    def __init__(self, config: AutoIntConfig, shape: FieldShape):
        super().__init__()
        self.fields = NumericFields(shape)
        inner = self.fields.shape
        self.attention = FieldAttention(inner.fields, inner.dim, config.attention_layers, config.heads, config.head_dim)
        self.attention_head = logit_head(self.attention.widths, config.sml)
        self.tower = Tower(inner.width, config.tower, config.sml) if config.tower else None
        self.head = logit_head(self.tower.widths, config.sml, bias=False) if self.tower else None

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BFD = self.fields(x_BFD, dense_BN)
        logit = self.attention_head(self.attention(x_BFD))
        return logit + self.head(self.tower(x_BFD.flatten(1))) if self.tower else logit
