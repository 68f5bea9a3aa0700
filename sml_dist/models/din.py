"""DIN: each behaviour sequence summed by its attention to the candidate, then a tower (Zhou et al., arXiv:1706.06978)."""

from dataclasses import field
from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat, present
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.target_attention import TargetAttention
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import InputError, spec


@spec
class DINConfig:
    """`attention`: the hidden layers of the units that weigh behaviours, without SML. `dice` in place of `relu` is the paper's too."""

    name: Literal["din"] = "din"
    attention: TowerConfig = field(default_factory=lambda: TowerConfig(hidden=(64,), activation="dice"))
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DIN(nn.Module):
    """s_k = attention_k(target_k, history_k), logit = head(s, then tower([x, s]) as one chain of layers); (B, F, D), (B, N) -> (B,).

    x are the fields that are no positions of a sequence. With SML the interests s have a skip path of their own.
    """

    def __init__(self, config: DINConfig, shape: FieldShape):
        super().__init__()
        if not shape.sequences:
            raise InputError("model din reads behaviour sequences, and the dataset has none; name one under `sequences` in its schema")
        self.targets = [sequence.target for sequence in shape.sequences]
        lengths = [sequence.length for sequence in shape.sequences]
        self.parts = [shape.fields - sum(lengths), *lengths]
        self.attention = nn.ModuleList(TargetAttention(shape.dim, config.attention) for _ in lengths)
        interests = len(lengths) * shape.dim
        self.tower = Tower(self.parts[0] * shape.dim + interests + shape.dense, config.tower, config.sml)
        self.head = logit_head((interests, *self.tower.widths), config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BFD, *histories = x_BFD.split(self.parts, dim=1)
        sums = [
            attend(x_BFD[:, target], history_BLD, present(history_BLD))
            for attend, target, history_BLD in zip(self.attention, self.targets, histories, strict=True)
        ]
        s_BSD = torch.stack(sums, dim=1)
        return self.head([s_BSD.flatten(1), *self.tower(concat(torch.cat([x_BFD, s_BSD], dim=1), dense_BN))])
