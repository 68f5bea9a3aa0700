"""Laws of FinalNet's field gate."""

import torch

from sml_dist.nn.field_gate import FieldGate


def test_a_field_gate_equals_a_naive_loop():
    gate = FieldGate(3).double()
    for parameter in gate.parameters():
        torch.nn.init.normal_(parameter)
    x = torch.randn(5, 3, 4, dtype=torch.float64)
    y = gate(x)
    weight, bias = gate.linear.weight, gate.linear.bias
    torch.testing.assert_close(y[:, :3], x)
    for b in range(5):
        for i in range(3):
            for d in range(4):
                g = bias[i] + sum(weight[i, j] * x[b, j, d] for j in range(3))
                torch.testing.assert_close(y[b, 3 + i, d], x[b, i, d] * g)


def test_a_field_gate_starts_open():
    x = torch.randn(5, 3, 4)
    torch.testing.assert_close(FieldGate(3)(x), torch.cat([x, x], dim=1))
