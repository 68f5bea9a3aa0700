"""Laws of FinalMLP's bilinear fusion."""

import pytest
import torch

from sml_dist.nn.bilinear_fusion import BilinearFusion


@pytest.mark.parametrize("heads", [1, 2])
def test_the_fusion_equals_a_naive_loop(heads):
    fusion = BilinearFusion(6, 4, heads).double()
    a, b = torch.randn(5, 6, dtype=torch.float64), torch.randn(5, 4, dtype=torch.float64)
    p, q = 6 // heads, 4 // heads
    assert fusion.weight.shape == (heads, p, q)
    y = fusion(a, b)
    for n in range(5):
        naive = sum(a[n, k * p + i] * fusion.weight[k, i, j] * b[n, k * q + j] for k in range(heads) for i in range(p) for j in range(q))
        torch.testing.assert_close(y[n].double(), naive, atol=1e-6, rtol=1e-6)  # the fusion hands out float32


@pytest.mark.parametrize(("first", "second", "heads"), [(8, 8, 1), (400, 100, 5), (1024, 1024, 1)])
def test_at_the_start_the_fusion_varies_as_one_product_does_at_any_width(first, second, heads):
    torch.manual_seed(0)
    y = torch.cat([BilinearFusion(first, second, heads)(torch.randn(64, first), torch.randn(64, second)) for _ in range(16)])
    assert 0.7 < y.var().item() < 1.4
