"""Laws of the tower and its dropout."""

from typing import get_args, get_type_hints

import pytest
import torch
from torch import nn

from sml_dist.nn.mtn import MTNConfig
from sml_dist.nn.norms import ACTIVATIONS, NORMS
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig

OFF = SMLConfig(enabled=False)
CONNECTIONS = get_args(get_type_hints(TowerConfig)["connect"])


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
        "layer_variance": product / (product.var(1, unbiased=False, keepdim=True) + 1e-5).sqrt(),
        "fixed_tanh": product.tanh(),
        "dyt": (product / 2).tanh(),
    }[norm]
    torch.testing.assert_close(tower(x)[0], torch.relu(centred), atol=1e-5, rtol=1e-4)


def test_a_residual_tower_adds_each_layer_to_the_one_before_and_projects_where_widths_differ():
    tower = Tower(6, TowerConfig(hidden=(5, 5, 3), connect="residual"), OFF)
    x = torch.randn(2, 6)
    for layer, output in zip(tower.layers, tower(x), strict=True):
        same = x.shape[1] == output.shape[1]
        assert isinstance(layer.project, nn.Identity) == same
        x = (x if same else x @ layer.project.weight.T) + torch.relu(layer.f[0](x))
        torch.testing.assert_close(output, x)


@pytest.mark.parametrize("norm", NORMS)
def test_a_residual_tower_of_zero_weights_is_the_identity_where_widths_agree(norm):
    sml = SMLConfig(mtn=MTNConfig(placement="both"))
    tower = Tower(6, TowerConfig(hidden=(6, 6, 6), connect="residual", norm=norm), sml)
    for layer in tower.layers:
        nn.init.zeros_(layer.f[0].weight)
    x = torch.randn(4, 6)
    assert all(output.equal(x) for output in tower(x))


def test_in_a_residual_relu_tower_of_one_width_no_unit_falls():
    x = torch.randn(50, 6)
    outputs = Tower(6, TowerConfig(hidden=(6,) * 4, connect="residual"), OFF)(x)
    assert all((after >= before).all() for before, after in zip([x, *outputs[:-1]], outputs, strict=True))


def test_a_dense_towers_layers_read_the_input_and_all_layers_before():
    tower = Tower(6, TowerConfig(hidden=(5, 4, 3), connect="dense"), OFF)
    assert [layer[0].in_features for layer in tower.layers] == [6, 6 + 5, 6 + 5 + 4]
    x = torch.randn(2, 6)
    outputs = tower(x)
    for i, (layer, output) in enumerate(zip(tower.layers, outputs, strict=True)):
        torch.testing.assert_close(output, torch.relu(layer[0](torch.cat([x, *outputs[:i]], dim=1))))


@pytest.mark.parametrize("connect", CONNECTIONS)
@pytest.mark.parametrize("width", [6, 5])
def test_under_bf16_every_layer_is_bf16_and_close(connect, width):
    tower, x = Tower(width, TowerConfig(hidden=(5, 5, 3), connect=connect), OFF), torch.randn(9, width)
    with torch.autocast("cpu", torch.bfloat16):
        low = tower(x)
    assert {h.dtype for h in low} == {torch.bfloat16}
    torch.testing.assert_close([h.float() for h in low], tower(x), atol=0.05, rtol=0.05)


@pytest.mark.parametrize("connect", CONNECTIONS)
def test_an_exported_tower_takes_any_batch(connect):
    tower = Tower(5, TowerConfig(hidden=(5, 4, 4), connect=connect), OFF).eval()
    exported = torch.export.export(tower, (torch.randn(4, 5),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for n in (1, 2, 9):
        x = torch.randn(n, 5)
        torch.testing.assert_close(exported(x), tower(x))


@pytest.mark.parametrize("connect", CONNECTIONS)
def test_a_row_alone_passes_the_tower_as_in_a_batch_and_every_parameter_learns_from_a_batch(connect):
    tower, x = Tower(5, TowerConfig(hidden=(5, 4, 4), connect=connect, activation="tanh"), OFF), torch.randn(9, 5)
    outputs = tower(x)
    alone = [torch.cat(rows) for rows in zip(*(tower(row) for row in x.split(1)), strict=True)]
    torch.testing.assert_close(alone, outputs)
    outputs[-1].square().sum().backward()
    assert all(p.grad is not None and p.grad.any() for p in tower.parameters())


@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_every_activation_is_reachable(activation):
    tower = Tower(6, TowerConfig(hidden=(5,), activation=activation), OFF)
    x = torch.randn(4, 6)
    torch.testing.assert_close(tower(x)[0], ACTIVATIONS[activation]()(tower.layers[0][0](x)))


def test_dice_is_made_of_a_layers_own_width():
    tower = Tower(6, TowerConfig(hidden=(5, 3), activation="dice"), OFF)
    x = torch.randn(4, 6)
    torch.testing.assert_close(tower(x)[0], tower.layers[0][1](tower.layers[0][0](x)))
    assert [layer[1].alpha.shape for layer in tower.layers] == [(5,), (3,)]
