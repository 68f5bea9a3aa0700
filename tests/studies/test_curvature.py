"""Laws of Hessian-vector products, power iteration, and filter-normalised planes."""

import numpy as np
import pytest
import torch
from torch import nn

from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig
from sml_dist.studies.curvature import Hessian, along, dot, top_eigenpairs
from sml_dist.studies.real_towers import shape
from sml_dist.studies.surface import filter_normalised, loss_surface

torch.set_num_threads(1)


def small_model(*, mtn: bool = False):
    torch.manual_seed(0)
    middle = MetaTanhNorm(5, MTNConfig(init_std=0.5)) if mtn else nn.Tanh()
    model = nn.Sequential(nn.Linear(4, 5), middle, nn.Linear(5, 1)).double()
    x, y = torch.randn(30, 4, dtype=torch.float64), torch.rand(30, 1, dtype=torch.float64)
    return list(model.parameters()), lambda: nn.functional.binary_cross_entropy_with_logits(model(x), y)


def direction(parameters, seed=1):
    generator = torch.Generator().manual_seed(seed)
    return [torch.randn(p.shape, dtype=p.dtype, generator=generator) for p in parameters]


def gradient_at(parameters, loss, v, step):
    with torch.no_grad():
        for p, part in zip(parameters, v, strict=True):
            p.add_(part, alpha=step)
    found = torch.autograd.grad(loss(), parameters)
    with torch.no_grad():
        for p, part in zip(parameters, v, strict=True):
            p.sub_(part, alpha=step)
    return found


def test_a_hessian_vector_product_is_the_finite_difference_of_gradients():
    parameters, loss = small_model()
    v = direction(parameters)
    product = Hessian(loss, parameters)(v)
    for found, right, left in zip(product, *(gradient_at(parameters, loss, v, s) for s in (1e-5, -1e-5)), strict=True):
        torch.testing.assert_close(found, (right - left) / 2e-5, rtol=1e-6, atol=1e-8)


def test_the_second_difference_is_the_products_where_no_gradient_is_stopped():
    parameters, loss = small_model()
    v, before = direction(parameters), [p.detach().clone() for p in parameters]
    assert along(loss, parameters, v, 1e-4) == pytest.approx(float(dot(v, Hessian(loss, parameters)(v))), rel=1e-5)
    assert all(torch.allclose(p, q, rtol=0, atol=1e-15) for p, q in zip(parameters, before, strict=True))


def test_under_mtn_products_are_symmetric_but_not_the_true_losss():
    parameters, loss = small_model(mtn=True)
    u, v, hessian = direction(parameters), direction(parameters, 2), Hessian(loss, parameters)
    assert float(dot(u, hessian(v))) == pytest.approx(float(dot(v, hessian(u))), rel=1e-9)
    held = float(dot(v, hessian(v)))
    assert along(loss, parameters, v, 1e-4) != pytest.approx(held, rel=1e-2)


def test_power_iteration_finds_the_largest_eigenvalues():
    parameters, loss = small_model()
    hessian = Hessian(loss, parameters)
    units = torch.eye(sum(p.numel() for p in parameters), dtype=torch.float64)
    split = [[part.view_as(p) for part, p in zip(u.split([q.numel() for q in parameters]), parameters, strict=True)] for u in units]
    whole = torch.stack([torch.cat([part.flatten() for part in hessian(v)]) for v in split])
    wanted = sorted(torch.linalg.eigvalsh(whole).tolist(), key=abs, reverse=True)[:2]
    found = top_eigenpairs(hessian, 2, 2000, 1e-6)
    assert [pair.value for pair in found] == pytest.approx(wanted, rel=1e-4)
    assert all(pair.residual < 1e-5 for pair in found)


def test_a_random_direction_is_as_long_as_each_filter_and_leaves_biases():
    layer = nn.Linear(4, 3)
    weight, bias = filter_normalised([layer.weight, layer.bias], torch.Generator().manual_seed(0))
    torch.testing.assert_close(weight.norm(dim=1), layer.weight.detach().norm(dim=1))
    assert not bias.any()


def test_a_surface_is_the_loss_on_the_plane_and_leaves_the_weights():
    p = nn.Parameter(torch.tensor([[1.0, -1.0]], dtype=torch.float64))
    directions = ([torch.tensor([[1.0, 0.0]])], [torch.tensor([[0.0, 2.0]])])
    surface = loss_surface(lambda: p[0, 0] ** 2 + p[0, 1], [p], directions, np.array([-1.0, 0.0, 1.0]))
    np.testing.assert_allclose(surface, [[-3, -1, 1], [-2, 0, 2], [1, 3, 5]])
    assert p.tolist() == [[1.0, -1.0]]


@pytest.mark.parametrize("sign, share", [(1, 0.0), (-1, 1.0)])
def test_a_bowl_is_convex_and_a_dome_is_not(sign, share):
    a, b = np.meshgrid(np.linspace(-1, 1, 9), np.linspace(-1, 1, 9))
    found = shape(sign * (a**2 + b**2))
    assert found["not convex"] == share
    assert np.sign(found["mean rise"]) == sign


def test_a_long_bowl_that_lies_across_the_grid_is_convex_up_to_its_edge():
    a, b = np.meshgrid(np.linspace(-1, 1, 21), np.linspace(-1, 1, 21))
    assert shape((a + b) ** 2 + 0.01 * (a - b) ** 2)["not convex"] == 0
