"""The kernels are the formulas."""

import pytest
import torch

from sml_dist.nn import native
from sml_dist.nn.mtn_kernel import SOURCE, dot_written_out, mtn, mtn_dot, mtn_written_out
from sml_dist.nn.native import library

SLOPE = 0.2
BOTH = pytest.mark.parametrize(("kernel", "formula"), [(mtn, mtn_written_out), (mtn_dot, dot_written_out)])
pytestmark = pytest.mark.skipif(library(SOURCE) is None, reason="no C++ compiler: torch's operations stand in for the kernels")


def inputs(dtype=torch.float64, rows=37, width=19):
    """x of both signs and many sizes, and parameters with which s has both signs too."""
    draw = torch.Generator().manual_seed(0)
    x = torch.randn(rows, width, generator=draw, dtype=torch.float64) * torch.logspace(-4, 1.5, width, dtype=torch.float64)
    parameters = [0.8 * torch.randn(width, generator=draw, dtype=torch.float64) + start for start in (0, 0.5, 1)]
    return [value.to(dtype).requires_grad_() for value in (x, *parameters)]


def gradients(function, values, **options):
    y = function(*values, SLOPE)
    weights = torch.linspace(-1, 2, y.numel(), dtype=torch.float64).view_as(y).to(y.dtype)
    return torch.autograd.grad((y * weights).sum(), values, **options)


@BOTH
def test_forward_and_backward_are_those_of_the_written_out_formula(kernel, formula):
    values = inputs()
    torch.testing.assert_close(kernel(*values, SLOPE), formula(*values, SLOPE), rtol=1e-12, atol=1e-13)
    torch.testing.assert_close(gradients(kernel, values), gradients(formula, values), rtol=1e-10, atol=1e-13)


@BOTH
def test_gradients_are_slopes_where_s_is_held(kernel, formula):
    x, weight, bias, scale = inputs(rows=5, width=4)
    assert torch.autograd.gradcheck(lambda *p: kernel(x.detach(), *p, SLOPE), (weight, bias, scale))
    s = torch.nn.functional.leaky_relu(bias + weight * x, SLOPE).detach()
    held = torch.autograd.grad((scale.detach() * torch.tanh(s * x)).sum(), x)
    torch.testing.assert_close(torch.autograd.grad(kernel(x, weight, bias, scale, SLOPE).sum(), x), held)


@BOTH
def test_second_derivatives_are_those_of_the_written_out_formula(kernel, formula):
    def curvature(function):
        values = inputs()
        return torch.autograd.grad(sum((g * g).sum() for g in gradients(function, values, create_graph=True)), values)

    torch.testing.assert_close(curvature(kernel), curvature(formula))


@BOTH
def test_float32_is_the_formula_but_for_rounding(kernel, formula):
    exact, found = formula(*inputs(), SLOPE), kernel(*inputs(torch.float32), SLOPE)
    torch.testing.assert_close(found.double(), exact, rtol=3e-6, atol=2e-6 if kernel is mtn_dot else 1e-7)
    for ours, theirs in zip(gradients(kernel, inputs(torch.float32)), gradients(formula, inputs()), strict=True):
        torch.testing.assert_close(ours.double(), theirs, rtol=1e-3, atol=1e-4)  # x^2 (1 - tanh^2) at x = 30


def test_bf16_is_the_float32_result_rounded_once():
    x, *parameters = inputs(torch.float32)
    low = x.detach().bfloat16()
    exact = mtn(low.float(), *parameters, SLOPE)
    assert torch.equal(mtn(low, *parameters, SLOPE), exact.bfloat16())
    torch.testing.assert_close(mtn_dot(low, *parameters, SLOPE), mtn_dot(low.float(), *parameters, SLOPE))


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64, torch.bfloat16])
def test_what_is_not_finite_stays_so_and_large_inputs_saturate(dtype):
    x = torch.tensor([[float("nan"), float("inf"), 1e30, -1e30, 0.0]], dtype=dtype)
    zeros, ones = torch.zeros(5), torch.ones(5)
    y = mtn(x, zeros, ones, ones, SLOPE)
    assert y[0, :2].isnan().all() and (y[0, 2:] - torch.tensor([1, -1, 0])).abs().max() < 3e-7
    assert mtn_dot(x[:, :1], zeros[:1], ones[:1], ones[:1], SLOPE).isnan().all()


def test_with_scale_one_no_output_is_above_one():
    x = torch.linspace(-12, 12, 200_001)[:, None]
    assert mtn(x, torch.zeros(1), torch.ones(1), torch.ones(1), SLOPE).abs().max() <= 1


def test_where_a_row_lies_in_memory_changes_no_bit():
    _, *parameters = inputs(torch.float32, width=400)
    row = torch.randn(400, generator=torch.Generator().manual_seed(2))
    found = []
    for offset in range(16):
        x = torch.zeros(offset + 400)[offset:].copy_(row)[None].requires_grad_()
        y = mtn_dot(x, *parameters, SLOPE)
        found.append(torch.cat([y, *(g.flatten() for g in torch.autograd.grad(y.sum(), (x, *parameters)))]))
    assert all(torch.equal(found[0], other) for other in found)


@BOTH
def test_any_number_of_threads_gives_the_same_rows_and_sums(kernel, formula):
    values, threads, found = inputs(rows=1000), torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append((kernel(*values, SLOPE), *gradients(kernel, values)))
    torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0], found[1])


@BOTH
def test_an_exported_model_holds_operations_alone(kernel, formula):
    class Model(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.values = torch.nn.ParameterList(inputs(torch.float32)[1:])

        def forward(self, x):
            return kernel(x, *self.values, SLOPE)

    x, model = inputs(torch.float32)[0].detach(), Model()
    torch.testing.assert_close(torch.export.export(model, (x,)).module()(x), model(x), rtol=1e-5, atol=1e-5)


def test_a_compiler_that_fails_is_told_of_beside_the_output_that_a_program_reads(monkeypatch, tmp_path, capfd):
    monkeypatch.setenv("CXX", "false")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert native.library.__wrapped__(SOURCE) is None
    out, err = capfd.readouterr()
    assert out == "" and "mtn.cpp was not compiled" in err and "torch's own operations take its place" in err


def test_without_a_compiler_the_formulas_stand_in(monkeypatch):
    monkeypatch.setenv("CXX", "no-such-compiler")
    assert native.find_compiler() is None
    monkeypatch.setattr(native, "library", lambda source: None)
    values = inputs()
    assert torch.equal(mtn(*values, SLOPE), mtn_written_out(*values, SLOPE))
    assert torch.equal(mtn_dot(*values, SLOPE), dot_written_out(*values, SLOPE))
