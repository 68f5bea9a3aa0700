"""Laws of the bottom tower."""

import torch

from sml_dist.nn.bottom import bottom_tower
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig

OFF = SMLConfig(enabled=False)


def test_numeric_values_become_one_embedding_after_the_layers_that_the_config_names():
    bottom = bottom_tower(3, 4, TowerConfig(hidden=(6, 5)), OFF)
    assert bottom.widths == (6, 5, 4)
    assert [tuple(h.shape) for h in bottom(torch.randn(2, 3))] == [(2, 6), (2, 5), (2, 4)]


def test_no_values_make_no_embedding_and_hold_no_parameters():
    bottom = bottom_tower(0, 4, TowerConfig(), OFF)
    assert bottom(torch.zeros(2, 0)) == [] and bottom.widths == ()
    assert list(bottom.parameters()) == []
