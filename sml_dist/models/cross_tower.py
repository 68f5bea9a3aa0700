"""A cross network beside a tower, or below it: what DCN, DCN-V2 and GDCN share, whatever the cross network."""

from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig


class CrossTower(nn.Module):
    """(B, F, D), (B, N) -> logit (B,).

    parallel: logit = cross_head(cross(x)) + head(tower(x)). With the last-layer heads this is the published linear layer
              over [cross(x), tower(x)], its weight split in two.
    stacked:  logit = head(cross and tower as one chain of layers).
    """

    def __init__(self, cross: nn.Module, structure: str, tower: TowerConfig, sml: SMLConfig, shape: FieldShape):
        super().__init__()
        self.stacked = structure == "stacked"
        self.cross = cross
        self.tower = Tower(shape.width, tower, sml)
        if self.stacked:
            self.head = logit_head((*self.cross.widths, *self.tower.widths), sml)
        else:
            self.head = logit_head(self.tower.widths, sml)
            self.cross_head = logit_head(self.cross.widths, sml, bias=False)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BK = concat(x_BFD, dense_BN)
        crossed = self.cross(x_BK)
        if self.stacked:
            return self.head([*crossed, *self.tower(crossed[-1])])
        return self.cross_head(crossed) + self.head(self.tower(x_BK))
