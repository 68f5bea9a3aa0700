"""Laws of FinalMLP's feature gate."""

import pytest
import torch

from sml_dist.nn.feature_gate import FeatureGate
from tests.nn.random_weights import randomized


def draw() -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randn(6, 4, 3, dtype=torch.float64), torch.randn(6, 8, dtype=torch.float64)


@pytest.mark.parametrize("fields", [(), (2,), (3, 0)])
def test_a_gate_equals_a_naive_loop(fields):
    gate, (x, flat) = randomized(FeatureGate(fields, 3, 5, 8)), draw()
    y = gate(x, flat)
    v, _, u = gate.gate
    for b in range(6):
        context = [value for f in fields for value in x[b, f]] if fields else list(gate.context.vector[0])
        hidden = [max(v.bias[i] + sum(v.weight[i, j] * c for j, c in enumerate(context)), torch.zeros(())) for i in range(5)]
        for k in range(8):
            g = 2 / (1 + torch.exp(-u.bias[k] - sum(u.weight[k, i] * hidden[i] for i in range(5))))
            torch.testing.assert_close(y[b, k], g * flat[b, k])


def test_a_learned_context_gates_every_row_alike_and_a_fields_context_does_not():
    x, flat = draw()
    ones = torch.ones_like(flat)
    learned, by_field = randomized(FeatureGate((), 3, 5, 8))(x, ones), randomized(FeatureGate((1,), 3, 5, 8))(x, ones)
    assert torch.equal(learned, learned[:1].expand(6, 8))
    assert (by_field != by_field[:1]).any()


def test_a_gate_lies_between_zero_and_two_and_starts_near_one():
    x, flat = draw()
    gates = FeatureGate((0,), dim=3, hidden=64, width=8).double()(0.01 * x, torch.ones_like(flat))
    torch.testing.assert_close(gates, torch.ones_like(gates), atol=0.05, rtol=0)
    wide = randomized(FeatureGate((0,), 3, 5, 8))(1e3 * x, torch.ones_like(flat))
    assert wide.min() >= 0 and wide.max() <= 2
