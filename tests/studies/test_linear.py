"""Laws of deep linear networks: the gradient, the inequality it obeys, and where gradient descent ends."""

import numpy as np
import pytest
import torch

from sml_dist.studies.descent import descend
from sml_dist.studies.inequality import ratio
from sml_dist.studies.linear import (
    HEADS,
    Nets,
    Problem,
    backward_weights,
    excess,
    gradient,
    hardest,
    hessian_at_zero,
    layer_bound,
    local_constant,
    loss,
    make_problem,
    metric,
    random_nets,
    squared_norm,
    tightest,
)

torch.set_num_threads(1)
SHAPES = [(1, 3), (2, 8), (5, 4), (10, 8)]  # depth, width


def problem(condition: float = 100.0, rank: int | None = None) -> Problem:
    return make_problem(6, condition, np.random.default_rng(0), rank=rank)


def nets(head: str, depth: int, width: int, scale: float = 1.0, count: int = 30) -> Nets:
    return random_nets(head, 6, width, depth, scale, count, torch.Generator().manual_seed(0))


@pytest.mark.parametrize("rank", [None, 4])
def test_the_closed_form_is_numpys_least_squares(rank):
    found = problem(rank=rank)
    best, *_ = np.linalg.lstsq(found.X.numpy(), found.y.numpy(), rcond=1e-10)
    np.testing.assert_allclose(found.best.numpy(), best, rtol=1e-9, atol=1e-12)
    assert found.mu == pytest.approx(0.01)
    assert found.floor == pytest.approx(np.mean((found.X.numpy() @ best - found.y.numpy()) ** 2) / 2)


@pytest.mark.parametrize("depth, width", SHAPES)
@pytest.mark.parametrize("head", HEADS)
def test_the_gradient_is_autograds_and_its_square_is_the_metrics(head, depth, width):
    at = nets(head, depth, width)
    tensors = [t.requires_grad_() for t in at.tensors()]
    f = loss(at, problem())
    wanted = torch.autograd.grad(f.sum(), tensors)
    at = Nets([t.detach() for t in at.layers], {i: t.detach() for i, t in at.heads.items()})
    for found, true in zip(gradient(at, problem()), wanted, strict=True):
        torch.testing.assert_close(found, true, rtol=1e-8, atol=1e-10)
    torch.testing.assert_close(excess(at, problem()), f.detach() - problem().floor, rtol=1e-8, atol=1e-10)
    g = (backward_weights(at)[0] - problem().best) @ problem().covariance
    torch.testing.assert_close(torch.einsum("si,sij,sj->s", g, metric(at), g), squared_norm(wanted), rtol=1e-9, atol=0)


@pytest.mark.parametrize("rank", [None, 4])
@pytest.mark.parametrize("scale", [0.1, 1.0, 2.0])
@pytest.mark.parametrize("depth, width", SHAPES)
def test_with_the_input_in_the_head_the_gradient_dominates_everywhere(depth, width, scale, rank):
    at, p = nets("direct", depth, width, scale), problem(rank=rank)
    local = local_constant(at, p)
    assert (local >= p.mu * (1 - 1e-9)).all()
    assert (ratio(at, p) >= local * (1 - 1e-9)).all()
    hard = hardest(at, p)
    torch.testing.assert_close(ratio(hard, p), local_constant(hard, p), rtol=1e-6, atol=0)
    torch.testing.assert_close(local_constant(hard, p), local, rtol=1e-9, atol=0)


@pytest.mark.parametrize("head", HEADS)
@pytest.mark.parametrize("depth, width", SHAPES)
def test_layers_make_each_heads_constant_as_large_as_promised(head, depth, width):
    at, p = nets(head, depth, width), problem()
    local, bound = local_constant(at, p), layer_bound(at, p)
    assert (local >= bound * (1 - 1e-9)).all()
    assert (ratio(at, p) >= local * (1 - 1e-9)).all()
    assert (bound > (p.mu if head == "direct" else 0)).all()


@pytest.mark.parametrize("depth, width", SHAPES)
def test_a_constant_one_percent_larger_is_refuted(depth, width):
    p = problem()
    found = ratio(tightest(p, width, depth), p)
    assert found.item() == pytest.approx(p.mu)
    assert found.item() < 1.01 * p.mu


@pytest.mark.parametrize("head, depth, power", [("hidden", 3, 2), ("last", 1, 2), ("last", 3, 6), ("direct", 3, 0)])
def test_towards_zero_weights_the_ratio_falls_as_the_docstring_says(head, depth, power):
    at, p = nets(head, depth, 6), problem()
    here, there = (ratio(at.scaled(t), p) for t in (1e-3, 1e-4))
    np.testing.assert_allclose(torch.log10(here / there).numpy(), power, atol=0.05)


def test_zero_is_no_stationary_point_a_strict_saddle_and_a_flat_one():
    p = problem()
    slope = (p.X.T @ p.y / len(p.y)).norm().item()
    for head, depth, lowest in (("hidden", 3, -slope), ("last", 1, -slope), ("last", 3, 0.0)):
        zero = nets(head, depth, 3, 0.0, 1)
        assert squared_norm(gradient(zero, p)).item() == 0
        assert hessian_at_zero(head, p, 3, depth)[0] == pytest.approx(lowest, abs=1e-9)
    assert squared_norm(gradient(nets("direct", 3, 3, 0.0, 1), p)).sqrt().item() == pytest.approx(slope)


@pytest.mark.parametrize("scale", [0.1, 1.0])
@pytest.mark.parametrize("depth, width", [(2, 3), (6, 8)])
def test_descent_comes_to_least_squares_from_every_start_at_the_rate_promised(depth, width, scale):
    p = problem(condition=10.0)
    found = descend(nets("direct", depth, width, scale), p, 3000, 1e-10)
    assert (found.done >= 0).all()
    assert found.broken.sum() == 0
    assert (found.least_ratio >= p.mu).all()
    assert (found.distance <= 1).all()
    torch.testing.assert_close(loss(found.nets, p), torch.full_like(found.done, p.floor, dtype=torch.float64), rtol=0, atol=1e-7)


def test_without_skips_a_small_start_stays_on_the_plateau():
    p = problem(condition=10.0)
    plain = descend(nets("last", 10, 6, 0.1), p, 300, 1e-10)
    assert (plain.curve[-1] > 0.999 * plain.curve[0]).all()
    assert (descend(nets("hidden", 10, 6, 0.1), p, 300, 1e-10).done >= 0).all()
