"""Laws of Wukong's layers."""

import pytest
import torch
from torch.nn import functional as F

from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from sml_dist.nn.wukong import FactorizationMachineBlock, Mix, WukongLayer, WukongStack
from tests.nn.random_weights import randomized

OFF = SMLConfig(enabled=False)
TOWER = TowerConfig(hidden=(7,))


def draw(inputs=4) -> torch.Tensor:
    return torch.randn(5, inputs, 3, dtype=torch.float64)


def test_a_mix_equals_a_naive_loop():
    mix, x = randomized(Mix(4, 2)), draw()
    y = mix(x)
    assert y.shape == (5, 2, 3)
    for b in range(5):
        for m in range(2):
            torch.testing.assert_close(y[b, m], sum(mix.weight[m, n] * x[b, n] for n in range(4)))


def test_a_factorization_machine_block_equals_a_naive_loop_over_all_dot_products():
    block, x = randomized(FactorizationMachineBlock(4, 2, 3, 5, TOWER, OFF)), draw()
    y = block(x)
    assert y.shape == (5, 2, 3)
    for b in range(5):
        dots = [[sum(x[b, i, d] * x[b, j, d] for d in range(3)) for j in range(4)] for i in range(4)]
        kept = torch.stack([sum(dots[i][j] * block.project[j, r] for j in range(4)) for i in range(4) for r in range(5)])
        mean, std = kept.mean(), (kept.var(unbiased=False) + 1e-5).sqrt()
        normed = block.norm.weight * (kept - mean) / std + block.norm.bias
        for layer in block.tower.layers:
            normed = torch.clamp(layer[0](normed), min=0)
        torch.testing.assert_close(y[b].flatten(), normed)


@pytest.mark.parametrize("inputs", [4, 5])
def test_a_layer_norms_each_embedding_of_machines_and_mixes_and_a_residual(inputs):
    layer, x = randomized(WukongLayer(inputs, 3, 2, 3, 5, TOWER, OFF)), draw(inputs)
    residual = x if inputs == 5 else torch.einsum("mn,bnd->bmd", layer.residual.weight, x)
    total = torch.cat([layer.fmb(x), layer.lcb(x)], dim=1) + residual
    assert list(layer.residual.parameters()) == ([] if inputs == 5 else [layer.residual.weight])
    torch.testing.assert_close(layer(x), F.layer_norm(total, (3,), layer.norm.weight, layer.norm.bias))


def test_a_stack_hands_out_every_layer_flat():
    stack, x = randomized(WukongStack(4, 3, 2, 2, 3, 5, TOWER, OFF)), draw()
    first = stack.layers[0](x)
    outputs = stack(x)
    assert stack.widths == (15, 15)
    torch.testing.assert_close(outputs[0], first.flatten(1))
    torch.testing.assert_close(outputs[1], stack.layers[1](first).flatten(1))
