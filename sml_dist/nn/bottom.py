"""The bottom tower: numeric values as one more embedding."""

from dataclasses import replace

from torch import Tensor, nn

from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig


class NoLayers(nn.Module):
    """A tower over no values: no layers, no outputs."""

    widths = ()

    def forward(self, dense_BN: Tensor) -> list[Tensor]:
        return []


def bottom_tower(dense: int, dim: int, config: TowerConfig, sml: SMLConfig) -> Tower | NoLayers:
    """(B, dense) -> every layer's output, of which the last, (B, dim), can stand beside the fields' embeddings.

    It is a hidden layer like the others, with their activation. Of no values it makes no embedding.
    """
    return Tower(dense, replace(config, hidden=(*config.hidden, dim)), sml) if dense else NoLayers()
