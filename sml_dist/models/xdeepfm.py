"""xDeepFM: a linear model, a compressed interaction network and a tower (Lian et al., arXiv:1803.05170)."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import Field, PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, WeightedFields
from sml_dist.nn.cin import CIN
from sml_dist.nn.skip_logit import SkipLogit
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import spec


@spec
class XDeepFMConfig:
    """`cin`: feature maps of each layer. The last of an id's `embedding.dim` numbers is its first-order weight."""

    name: Literal["xdeepfm"] = "xdeepfm"
    cin: Annotated[tuple[PositiveInt, ...], Field(min_length=1)] = (16, 16, 16)
    tower: TowerConfig = field(default_factory=TowerConfig)
    sml: SMLConfig = field(default_factory=SMLConfig)


class XDeepFM(nn.Module):
    """logit = sum_i w_i + cin_head(cin(v)) + head(tower(v)); (B, F, D + 1), (B, N) -> (B,).

    The published model is a Skip Logit over the CIN already, four years before SML: one linear layer reads all its layers.
    So SML has only MTN to add on those paths, and without its skip the CIN's head stays the published one.
    """

    def __init__(self, config: XDeepFMConfig, shape: FieldShape):
        super().__init__()
        self.fields = WeightedFields(shape)
        inner = self.fields.shape
        self.cin = CIN(inner.fields, config.cin)
        self.tower = Tower(inner.width, config.tower, config.sml)
        self.head = logit_head(self.tower.widths, config.sml)
        skips = config.sml.enabled and config.sml.skip
        self.cin_head = logit_head(self.cin.widths, config.sml, bias=False) if skips else SkipLogit(self.cin.widths, bias=False)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        v_BFD, w_BF = self.fields(x_BFD, dense_BN)
        return w_BF.sum(1) + self.cin_head(self.cin(v_BFD)) + self.head(self.tower(v_BFD.flatten(1)))
