"""Laws of bilinear products."""

import pytest
import torch

from sml_dist.nn.bilinear import Bilinear

FIELDS, DIM = 4, 3
PAIRS = [(i, j) for i in range(FIELDS) for j in range(i + 1, FIELDS)]


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_products_equal_a_loop_over_pairs(kind):
    bilinear, x = Bilinear(FIELDS, DIM, kind).double(), torch.randn(5, FIELDS, DIM, dtype=torch.float64)
    (output,) = bilinear(x)
    assert bilinear.widths == (len(PAIRS) * DIM,)
    for b in range(5):
        for p, (i, j) in enumerate(PAIRS):
            weight = bilinear.weight[{"all": 0, "each": i, "interaction": p}[kind]]
            for d in range(DIM):
                naive = sum(x[b, i, k] * weight[k, d] for k in range(DIM)) * x[b, j, d]
                torch.testing.assert_close(output[b].view(-1, DIM)[p, d], naive)


@pytest.mark.parametrize(("kind", "matrices"), [("all", 1), ("each", 3), ("interaction", 6)])
def test_every_matrix_is_used(kind, matrices):
    bilinear = Bilinear(FIELDS, DIM, kind)
    bilinear(torch.randn(5, FIELDS, DIM))[0].square().sum().backward()
    assert bilinear.weight.grad.any(2).any(1).sum() == matrices
