"""Laws of the cross network."""

import pytest
import torch

from sml_dist.nn.cross import CrossNetwork


def test_cross_layers_equal_a_naive_loop():
    cross = CrossNetwork(4, 3).double()
    for linear in cross.layers:
        torch.nn.init.normal_(linear.bias)
    x0 = torch.randn(5, 4, dtype=torch.float64)
    outputs = cross(x0)
    x = x0.clone()
    for linear, output in zip(cross.layers, outputs, strict=True):
        new = torch.empty_like(x)
        for b in range(5):
            for i in range(4):
                inner = linear.bias[i] + sum(linear.weight[i, j] * x[b, j] for j in range(4))
                new[b, i] = x0[b, i] * inner + x[b, i]
        x = new
        torch.testing.assert_close(output, x)


def test_the_lth_cross_layer_is_a_polynomial_of_degree_l_plus_one():
    """Along a line t * x0 the (degree + 1)-th differences of a polynomial vanish, its degree-th do not."""
    cross = CrossNetwork(4, 3).double()
    x0 = torch.randn(1, 4, dtype=torch.float64)
    line = torch.arange(6, dtype=torch.float64)[:, None] * x0
    for degree, output in enumerate(cross(line), start=2):
        assert output.diff(n=degree, dim=0).abs().max() > 1e-6
        torch.testing.assert_close(output.diff(n=degree + 1, dim=0), torch.zeros(6 - degree - 1, 4, dtype=torch.float64), atol=1e-6, rtol=0)


@pytest.mark.parametrize("read", [slice(None), slice(-1, None), slice(0, 1)], ids=["every layer", "the last", "the first"])
def test_gradients_of_every_order_are_slopes(read):
    cross, x0 = CrossNetwork(4, 3).double(), torch.randn(3, 4, dtype=torch.float64, requires_grad=True)
    weights = [layer.weight for layer in cross.layers]

    def heard(x0, *weights):
        named = {f"layers.{number}.weight": weight for number, weight in enumerate(weights)}
        return torch.cat(torch.func.functional_call(cross, named, (x0,))[read])

    assert torch.autograd.gradcheck(heard, (x0, *weights))
    assert torch.autograd.gradgradcheck(heard, (x0, *weights))
