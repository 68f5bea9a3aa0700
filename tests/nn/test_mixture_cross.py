"""Laws of the mixture of low-rank crosses."""

import torch

from sml_dist.nn.mixture_cross import MixtureCross

WIDTH, EXPERTS, RANK = 5, 3, 2


def mixture(layers=2):
    cross = MixtureCross(WIDTH, layers, EXPERTS, RANK).double()
    for layer in cross.layers:
        torch.nn.init.normal_(layer.up.bias)
    return cross


def test_layers_equal_a_loop_over_experts():
    cross, x0 = mixture(), torch.randn(4, WIDTH, dtype=torch.float64)
    x = x0
    for layer, output in zip(cross.layers, cross(x0), strict=True):
        new = torch.empty_like(x)
        for b in range(4):
            gates = torch.softmax(cross.gate.weight @ x[b], dim=0)
            new[b] = x[b]
            for e in range(EXPERTS):
                ranks = slice(e * RANK, (e + 1) * RANK)
                low = torch.tanh(layer.inner[e] @ torch.tanh(layer.down.weight[ranks] @ x[b]))
                new[b] += gates[e] * x0[b] * (layer.up.weight[:, ranks] @ low + layer.up.bias)
        x = new
        torch.testing.assert_close(output, x)


def test_equal_experts_are_one_expert_whatever_the_gate_says():
    cross, x0 = mixture(1), torch.randn(4, WIDTH, dtype=torch.float64)
    layer = cross.layers[0]
    with torch.no_grad():
        layer.down.weight.copy_(layer.down.weight[:RANK].repeat(EXPERTS, 1))
        layer.up.weight.copy_(layer.up.weight[:, :RANK].repeat(1, EXPERTS))
        layer.inner.copy_(layer.inner[:1].expand_as(layer.inner))
        before = cross(x0)[0]
        cross.gate.weight.normal_()
    torch.testing.assert_close(cross(x0)[0], before)
