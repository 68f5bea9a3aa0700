"""DeepFM: a factorisation machine and a tower over the same embeddings (Guo et al., arXiv:1703.04247)."""

from dataclasses import field
from typing import Literal

from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, WeightedFields
from sml_dist.nn.fm import pairwise_sum
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class DeepFMConfig:
    """The last of an id's `embedding.dim` numbers is its first-order weight."""

    name: Literal["deepfm"] = "deepfm"
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class DeepFM(nn.Module):
    """logit = sum_i w_i + sum_{i<j} <v_i, v_j> + head(tower(v)); (B, F, D + 1), (B, N) -> (B,).

    SML is the tower's alone: the machine's two terms are logits already, with no weight to learn between them and the sum.
    """

    def __init__(self, config: DeepFMConfig, shape: FieldShape):
        super().__init__()
        self.fields = WeightedFields(shape)
        self.tower = Tower(self.fields.shape.width, config.tower, config.sml)
        self.head = logit_head(self.tower.widths, config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        v_BFD, w_BF = self.fields(x_BFD, dense_BN)
        return w_BF.sum(1) + pairwise_sum(v_BFD) + self.head(self.tower(v_BFD.flatten(1)))
