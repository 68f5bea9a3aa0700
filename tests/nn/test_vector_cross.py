"""Laws of the first cross network."""

import torch

from sml_dist.nn.vector_cross import VectorCross


def test_layers_equal_a_naive_loop():
    cross = VectorCross(4, 3).double()
    torch.nn.init.normal_(cross.bias)
    x0 = torch.randn(5, 4, dtype=torch.float64)
    x = x0.clone()
    for layer, output in enumerate(cross(x0)):
        new = torch.empty_like(x)
        for b in range(5):
            inner = sum(cross.weight[layer, j] * x[b, j] for j in range(4))
            for i in range(4):
                new[b, i] = x0[b, i] * inner + cross.bias[layer, i] + x[b, i]
        x = new
        torch.testing.assert_close(output, x)


def test_without_biases_every_layer_is_a_multiple_of_the_input():
    x0 = torch.randn(5, 4, dtype=torch.float64)
    for output in VectorCross(4, 3).double()(x0):
        ratio = output / x0
        torch.testing.assert_close(ratio, ratio[:, :1].expand(5, 4))
