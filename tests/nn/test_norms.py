"""Laws of the normalisers that can stand in MTN's place."""

import pytest
import torch

from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig
from sml_dist.nn.norms import NORMS

WIDTH = 6
BY_ROW = [name for name in NORMS if name != "batch"]
EPS = 1e-5


def rows(n=9, scale=1.0, dtype=torch.float64) -> torch.Tensor:
    return scale * torch.randn(n, WIDTH, dtype=torch.float64, generator=torch.Generator().manual_seed(1)).to(dtype)


def norm(name, spread=0.3) -> torch.nn.Module:
    """Its parameters away from their start, so that none of them can hide."""
    torch.manual_seed(2)
    module = NORMS[name](WIDTH).double()
    with torch.no_grad():
        for parameter in module.parameters():
            parameter += spread * torch.randn_like(parameter)
    return module


def test_variance_only_layer_norm_divides_by_the_standard_deviation_and_keeps_the_mean():
    module, x = norm("layer_variance"), rows() + 3
    for b in range(9):
        mean = sum(x[b]) / WIDTH
        deviation = (sum((x[b] - mean) ** 2) / WIDTH + EPS) ** 0.5
        torch.testing.assert_close(module(x)[b], torch.stack([module.scale[k] * x[b, k] / deviation for k in range(WIDTH)]))


def test_variance_only_layer_norm_of_a_centred_row_is_layer_norm():
    x = rows()
    x -= x.mean(1, keepdim=True)
    torch.testing.assert_close(norm("layer_variance", 0)(x), norm("layer", 0)(x))


def test_variance_only_layer_norm_undoes_a_rows_scale_and_passes_its_shift_on():
    module, x = norm("layer_variance"), rows(scale=100)
    torch.testing.assert_close(module(7 * x), module(x))
    torch.testing.assert_close(module(x + 100) - module(x), 100 * module(x) / x)


def test_variance_only_layer_norm_blows_a_row_of_equal_numbers_up():
    assert norm("layer_variance", 0)(torch.ones(1, WIDTH).double()).tolist() == [[pytest.approx(EPS**-0.5)] * WIDTH]
    assert norm("layer", 0)(torch.ones(1, WIDTH).double()).tolist() == [[0.0] * WIDTH]


@pytest.mark.parametrize("name", ["layer", "layer_variance"])
@pytest.mark.parametrize("row", [0.0, 1.0])
def test_a_row_without_spread_has_a_finite_gradient(name, row):
    x = torch.full((2, WIDTH), row).requires_grad_()
    NORMS[name](WIDTH)(x).square().sum().backward()
    assert x.grad.isfinite().all()


def test_fixed_tanh_equals_its_formula():
    module, x = norm("fixed_tanh"), rows()
    for b in range(9):
        torch.testing.assert_close(module(x)[b], torch.stack([module.scale[k] * x[b, k].tanh() for k in range(WIDTH)]))


def test_fixed_tanh_is_mtn_whose_steepness_is_held_at_one():
    held = MetaTanhNorm(WIDTH, MTNConfig(offset=1, learn_offset=False, init_std=0)).double()
    torch.testing.assert_close(norm("fixed_tanh", 0)(rows()), held(rows()))


def test_dynamic_tanh_equals_its_formula_and_starts_at_alpha_one_half():
    module, x = norm("dyt"), rows()
    for b in range(9):
        y = [module.scale[k] * (module.alpha[0] * x[b, k]).tanh() + module.bias[k] for k in range(WIDTH)]
        torch.testing.assert_close(module(x)[b], torch.stack(y))
    torch.testing.assert_close(norm("dyt", 0)(x), torch.tanh(x / 2))


@pytest.mark.parametrize("name", ["fixed_tanh", "dyt"])
@pytest.mark.parametrize("scale", [1.0, 1e3, 1e30])
def test_the_tanhs_are_bounded_by_their_scale_about_their_bias(name, scale):
    module = norm(name)
    distance = (module(rows(scale=scale)) - getattr(module, "bias", 0)).abs()
    assert (distance <= module.scale.abs() * (1 + 1e-12)).all()
    if scale > 1e6:  # and come as near to it as rounding lets them
        torch.testing.assert_close(distance, module.scale.abs().expand(9, WIDTH))


@pytest.mark.parametrize("name", BY_ROW)
def test_a_row_alone_is_normalised_as_in_a_batch(name):
    module, x = norm(name).train(), rows()
    torch.testing.assert_close(torch.cat([module(row) for row in x.split(1)]), module(x), rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("name", [name for name in NORMS if name != "none"])
def test_every_parameter_and_the_input_get_a_gradient_that_is_right(name):
    module, x = norm(name), rows(4).requires_grad_()
    parameters = tuple(module.parameters())
    torch.autograd.gradcheck(lambda x, *_: module(x), (x, *parameters))
    weights = rows(4).flip(0)
    (weights * module(x)).sum().backward()
    assert x.grad.abs().sum() > 0 and all(p.grad.any() for p in parameters)


@pytest.mark.parametrize("name", NORMS)
def test_bf16_stays_bf16_and_close(name):
    module, x = NORMS[name](WIDTH), rows(dtype=torch.float32)
    with torch.autocast("cpu", torch.bfloat16):
        low = module(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), module(x), atol=0.03, rtol=0.03)


@pytest.mark.parametrize("name", NORMS)
def test_an_exported_normaliser_takes_any_batch(name):
    module = norm(name).eval()
    exported = torch.export.export(module, (rows(5),), dynamic_shapes=({0: torch.export.Dim("batch")},)).module()
    for n in (1, 2, 9):
        torch.testing.assert_close(exported(rows(n)), module(rows(n)))
