import pytest
import torch

from sml_dist.nn import native
from sml_dist.nn.dropout import Dropout


@pytest.fixture(params=["kernel", "torch"], autouse=True)
def either(request, monkeypatch):
    """Every test holds for the kernel and for what stands in where there is no compiler."""
    if request.param == "torch":
        monkeypatch.setattr(native, "library", lambda source: None)


@pytest.mark.parametrize("p", [0.1, 0.4, 0.75])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_a_share_p_is_dropped_and_the_mean_kept(p, dtype):
    torch.manual_seed(0)
    n = 400_003
    y = Dropout(p)(torch.ones(n, dtype=dtype)).float()
    error = 4 * (p * (1 - p) / n) ** 0.5
    assert abs((y == 0).float().mean().item() - p) < error
    assert abs(y.mean().item() - 1) < error / (1 - p) + (0.005 if dtype is torch.bfloat16 else 0)  # bf16 rounds the scale


def test_masks_are_independent_of_each_other_and_of_their_neighbours():
    torch.manual_seed(0)
    dropout, n = Dropout(0.5), 200_000
    masks = [dropout(torch.ones(n)) - 1 for _ in range(6)]
    for lag in (1, 2, 3, 4, 8, 64, 400):
        assert abs((masks[0][:-lag] * masks[0][lag:]).mean().item()) < 4 / n**0.5
    for i, first in enumerate(masks):
        for second in masks[:i]:
            assert abs((first * second).mean().item()) < 4.5 / n**0.5


def test_no_unit_is_dropped_more_often_than_another():
    """The columns of many batches: chi-squared of the counts, whose mean is the number of units."""
    torch.manual_seed(0)
    dropout, rows, units = Dropout(0.3), 1000, 400
    kept = sum((dropout(torch.ones(rows, units)) > 0).sum(0).double() for _ in range(10))
    n = 10 * rows
    chi_squared = ((kept - 0.7 * n) ** 2 / (0.3 * 0.7 * n)).sum().item()
    assert abs(chi_squared - units) < 4 * (2 * units) ** 0.5


def test_the_gradient_goes_under_the_same_mask_and_so_does_its_own():
    x, v = torch.randn(30, 40, requires_grad=True), torch.randn(30, 40, requires_grad=True)
    y = Dropout(0.3)(x)
    (dx,) = torch.autograd.grad(y, x, v, create_graph=True)
    torch.testing.assert_close(dx * x, y * v)
    (ddx,) = torch.autograd.grad(dx, v, torch.ones_like(v))
    torch.testing.assert_close(ddx * x, y)


def test_rows_that_do_not_lie_one_after_another_are_taken():
    y = Dropout(0.5)(torch.ones(400, 30).t())
    assert y.shape == (30, 400)
    assert set(y.unique().tolist()) == {0.0, 2.0}
    assert Dropout(0.5)(torch.ones(0, 30)).shape == (0, 30)


def test_it_repeats_with_the_seed_and_does_nothing_in_evaluation():
    dropout, x = Dropout(0.5), torch.randn(1000)
    torch.manual_seed(7)
    first = dropout(x)
    torch.manual_seed(7)
    assert dropout(x).equal(first)
    assert dropout.eval()(x) is x
