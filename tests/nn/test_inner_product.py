"""Laws of the inner products of pairs."""

import torch

from sml_dist.nn.inner_product import InnerProducts


def test_inner_products_equal_a_loop_over_pairs():
    x, products = torch.randn(5, 4, 3, dtype=torch.float64), InnerProducts(4)
    (output,) = products(x)
    assert products.widths == (6,)
    for b in range(5):
        naive = [sum(x[b, i, d] * x[b, j, d] for d in range(3)) for i in range(4) for j in range(i + 1, 4)]
        torch.testing.assert_close(output[b], torch.stack(naive))


def test_the_pairs_are_no_part_of_the_weights():
    assert InnerProducts(4).state_dict() == {}
