"""Laws of attention between fields."""

import torch

from sml_dist.nn.attention import FieldAttention

FIELDS, DIM, HEADS, HEAD_DIM = 4, 3, 2, 5


def test_layers_equal_a_loop_over_heads_and_fields():
    attention = FieldAttention(FIELDS, DIM, 2, HEADS, HEAD_DIM).double()
    x = torch.randn(3, FIELDS, DIM, dtype=torch.float64)
    outputs = attention(x)
    for layer, output in zip(attention.layers, outputs, strict=True):
        query, key, value, residual = (part.view(HEADS, HEAD_DIM, -1) for part in layer.project.weight.chunk(4))
        new = torch.empty(3, FIELDS, HEADS, HEAD_DIM, dtype=torch.float64)
        for b in range(3):
            for h in range(HEADS):
                for m in range(FIELDS):
                    scores = torch.stack([(query[h] @ x[b, m]) @ (key[h] @ x[b, k]) for k in range(FIELDS)])
                    shares = scores.exp() / scores.exp().sum()
                    mixed = sum(shares[k] * (value[h] @ x[b, k]) for k in range(FIELDS))
                    new[b, m, h] = torch.clamp(mixed + residual[h] @ x[b, m], min=0)
        x = new.flatten(2)
        torch.testing.assert_close(output, x.flatten(1))
    assert attention.widths == (FIELDS * HEADS * HEAD_DIM,) * 2


def test_fields_that_change_places_change_places_in_every_layer():
    attention = FieldAttention(FIELDS, DIM, 3, HEADS, HEAD_DIM).double()
    x, order = torch.randn(3, FIELDS, DIM, dtype=torch.float64), [2, 0, 3, 1]
    for output, moved in zip(attention(x), attention(x[:, order]), strict=True):
        torch.testing.assert_close(moved.view(3, FIELDS, -1), output.view(3, FIELDS, -1)[:, order])
