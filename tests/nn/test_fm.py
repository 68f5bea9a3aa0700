"""Laws of the factorisation machine's interaction."""

import torch

from sml_dist.nn.fm import pairwise_sum


def test_the_pairwise_sum_equals_a_loop_over_pairs():
    x = torch.randn(5, 4, 3, dtype=torch.float64)
    for b in range(5):
        naive = sum(x[b, i, d] * x[b, j, d] for i in range(4) for j in range(i + 1, 4) for d in range(3))
        torch.testing.assert_close(pairwise_sum(x)[b], naive)


def test_one_field_alone_has_no_pair():
    assert pairwise_sum(torch.randn(5, 1, 3, dtype=torch.float64)).abs().max() < 1e-12
