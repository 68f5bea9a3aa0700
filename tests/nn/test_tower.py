"""Laws of the tower and its dropout."""

import pytest
import torch

from sml_dist.nn.dropout import Dropout
from sml_dist.nn.norms import ACTIVATIONS, NORMS
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig

OFF = SMLConfig(enabled=False)


def test_a_tower_hands_out_every_layer():
    tower = Tower(6, TowerConfig(hidden=(5, 4, 3)), OFF)
    x = torch.randn(2, 6)
    outputs = tower(x)
    assert [tuple(h.shape) for h in outputs] == [(2, 5), (2, 4), (2, 3)]
    for layer, output in zip(tower.layers, outputs, strict=True):
        x = torch.relu(layer[0](x))
        torch.testing.assert_close(output, x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_normaliser_stands_between_product_and_activation(norm):
    tower = Tower(6, TowerConfig(hidden=(5,), norm=norm), OFF)
    x = torch.randn(32, 6)
    product = tower.layers[0][0](x)
    centred = {
        "none": product,
        "batch": (product - product.mean(0)) / (product.var(0, unbiased=False) + 1e-5).sqrt(),
        "layer": (product - product.mean(1, keepdim=True)) / (product.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
    }[norm]
    torch.testing.assert_close(tower(x)[0], torch.relu(centred), atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_reachable(activation):
    tower = Tower(6, TowerConfig(hidden=(5,), activation=activation), OFF)
    x = torch.randn(4, 6)
    torch.testing.assert_close(tower(x)[0], ACTIVATIONS[activation]()(tower.layers[0][0](x)))


@pytest.mark.parametrize("p", [0.1, 0.4, 0.75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_dropout_drops_a_share_p_and_keeps_the_mean(p, dtype):
    torch.manual_seed(0)
    n = 400_003  # no multiple of the four masks that one random word makes
    y = Dropout(p)(torch.ones(n, dtype=dtype)).float()
    error = 4 * (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).float().mean().item() - p) < error
    assert abs(y.mean().item() - 1) < error / (1 - p) + (0.005 if dtype is torch.bfloat16 else 0)  # bf16 rounds the scale


def test_dropouts_masks_are_independent_of_each_other_and_of_their_neighbours():
    torch.manual_seed(0)
    dropout, n = Dropout(0.5), 200_000
    first, second = (dropout(torch.ones(n)) - 1 for _ in range(2))
    for lag in (1, 2, 3, 4, 8):
        assert abs((first[:-lag] * first[lag:]).mean().item()) < 4 / n**0.5
    assert abs((first * second).mean().item()) < 4 / n**0.5


def test_dropouts_gradient_is_its_mask():
    x = torch.randn(1000, requires_grad=True)
    y = Dropout(0.3)(x)
    y.sum().backward()
    torch.testing.assert_close(x.grad * x, y)


def test_dropout_repeats_with_the_seed_and_does_nothing_in_evaluation():
    dropout, x = Dropout(0.5), torch.randn(1000)
    torch.manual_seed(7)
    first = dropout(x)
    torch.manual_seed(7)
    assert dropout(x).equal(first)
    assert dropout.eval()(x) is x
