"""Laws of the factorized interaction layer."""

import pytest
import torch

from sml_dist.nn.factorized import FactorizedLinear, FactorizedTower
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import TowerConfig
from tests.nn.random_weights import randomized

OFF = SMLConfig(enabled=False)


@pytest.mark.parametrize("residual", ["sum", "concat"])
def test_a_factorized_layer_equals_a_naive_loop(residual):
    layer, x = randomized(FactorizedLinear(4, 6, residual)), torch.randn(5, 4, dtype=torch.float64)
    weight, bias = layer.linear.weight, layer.linear.bias
    y, half = layer(x), weight.shape[0] // 2
    assert y.shape == (5, 6)
    for b in range(5):
        h = [bias[i] + sum(weight[i, j] * x[b, j] for j in range(4)) for i in range(2 * half)]
        u, v = h[:half], h[half:]
        products = [u[i] * v[i] for i in range(half)]
        naive = [u[i] + products[i] for i in range(half)] if residual == "sum" else [*u, *products]
        torch.testing.assert_close(y[b], torch.stack(naive))


def test_concat_costs_what_the_linear_layer_does_and_sum_twice_that():
    counts = {kind: sum(p.numel() for p in FactorizedLinear(7, 10, kind).parameters()) for kind in ("sum", "concat")}
    linear = sum(p.numel() for p in torch.nn.Linear(7, 10).parameters())
    assert counts == {"concat": linear, "sum": 2 * linear}


@pytest.mark.parametrize("residual", ["sum", "concat"])
def test_each_layer_doubles_the_degree(residual):
    """Along a line t * x the (degree + 1)-th differences of a polynomial vanish, its degree-th do not."""
    tower = randomized(FactorizedTower(3, TowerConfig(hidden=(4, 4), activation="identity"), residual, OFF))
    line = torch.arange(7, dtype=torch.float64)[:, None] * torch.randn(1, 3, dtype=torch.float64) / 6
    for degree, output in zip((2, 4), tower(line), strict=True):
        assert output.diff(n=degree, dim=0).abs().max() > 1e-6
        assert output.diff(n=degree + 1, dim=0).abs().max() < 1e-9


def test_a_normaliser_and_an_activation_follow_the_product():
    tower = FactorizedTower(4, TowerConfig(hidden=(6,), norm="layer", activation="tanh"), "concat", OFF)
    x = torch.randn(5, 4)
    product = tower.layers[0][0](x)
    torch.testing.assert_close(tower(x)[0], torch.tanh(torch.nn.functional.layer_norm(product, (6,))))
