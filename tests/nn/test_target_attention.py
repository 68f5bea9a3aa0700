"""DIN's local activation unit against a loop over rows and positions."""

import pytest
import torch

from sml_dist.nn.target_attention import TargetAttention
from sml_dist.nn.tower import TowerConfig

B, L, D = 5, 4, 3


@pytest.fixture
def case():
    torch.manual_seed(0)
    attention = TargetAttention(D, TowerConfig(hidden=(6, 5))).double()
    for parameter in attention.parameters():
        torch.nn.init.normal_(parameter)
    target, history = torch.randn(B, D, dtype=torch.float64), torch.randn(B, L, D, dtype=torch.float64)
    return attention, target, history, torch.tensor([[1, 1, 1, 1], [1, 1, 0, 0], [0, 0, 0, 0], [1, 0, 0, 0], [0, 1, 0, 1]]).bool()


def test_attention_equals_a_loop_over_what_each_row_has(case):
    attention, target, history, mask = case
    first, second, last = (dict(attention.named_parameters())[f"{name}.weight"] for name in LAYERS)
    biases = [dict(attention.named_parameters())[f"{name}.bias"] for name in LAYERS]
    expected = torch.zeros(B, D, dtype=torch.float64)
    for b in range(B):
        for i in range(L):
            if mask[b, i]:
                t, h = target[b], history[b, i]
                hidden = (first @ torch.cat([t, h, t - h, t * h]) + biases[0]).clamp(min=0)
                hidden = (second @ hidden + biases[1]).clamp(min=0)
                expected[b] += (last @ hidden + biases[2]) * h
    torch.testing.assert_close(attention(target, history, mask), expected, atol=1e-5, rtol=1e-5)  # a score is handed out in float32


LAYERS = ("tower.layers.0.0", "tower.layers.1.0", "score.linear")


def test_what_stands_in_a_missing_position_changes_nothing(case):
    attention, target, history, mask = case
    other = torch.where(mask[..., None], history, 9.0)
    assert attention(target, other, mask).equal(attention(target, history, mask))
    assert not attention(target, history, mask)[2].any()


def test_the_order_of_a_history_does_not_matter(case):
    attention, target, history, mask = case
    turned = attention(target, history.flip(1), mask.flip(1))
    torch.testing.assert_close(turned, attention(target, history, mask))
