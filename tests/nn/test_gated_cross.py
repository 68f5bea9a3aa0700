"""Laws of the gated cross network."""

import torch

from sml_dist.nn.gated_cross import GatedCrossNetwork
from tests.nn.random_weights import randomized


def test_gated_cross_layers_equal_a_naive_loop():
    cross, c0 = randomized(GatedCrossNetwork(4, 3)), torch.randn(5, 4, dtype=torch.float64)
    c = c0.clone()
    for linear, gate, output in zip(cross.layers, cross.gates, cross(c0), strict=True):
        new = torch.empty_like(c)
        for b in range(5):
            for i in range(4):
                crossed = linear.bias[i] + sum(linear.weight[i, j] * c[b, j] for j in range(4))
                opened = 1 / (1 + torch.exp(-sum(gate.weight[i, j] * c[b, j] for j in range(4))))
                new[b, i] = c0[b, i] * crossed * opened + c[b, i]
        c = new
        torch.testing.assert_close(output, c)


def test_a_shut_gate_leaves_its_layer_out():
    cross, c0 = randomized(GatedCrossNetwork(4, 3)), torch.rand(5, 4, dtype=torch.float64) + 0.1
    torch.nn.init.constant_(cross.gates[0].weight, -1e4)
    torch.testing.assert_close(cross(c0)[0], c0)
