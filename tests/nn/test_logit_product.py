"""The kernel is the product."""

import pytest
import torch
from torch.nn import functional as F

from sml_dist.nn import native
from sml_dist.nn.logit_product import SOURCE, logit_product
from sml_dist.nn.native import library

kernel = pytest.mark.skipif(library(SOURCE) is None, reason="no C++ compiler: torch's operations stand in for the kernel")


def inputs(dtype=torch.float64, rows=37, width=19):
    draw = torch.Generator().manual_seed(0)
    x, weight, bias = (torch.randn(*shape, generator=draw, dtype=torch.float64) for shape in ((rows, width), (1, width), (1,)))
    parameters = torch.float32 if dtype is torch.bfloat16 else dtype
    return x.to(dtype).requires_grad_(), weight.to(parameters).requires_grad_(), bias.to(parameters).requires_grad_()


def plain(x, weight, bias):
    return F.linear(x.to(weight.dtype), weight, bias)


def gradients(function, values, **options):
    y = function(*values)
    return torch.autograd.grad((y * torch.linspace(-1, 2, len(y), dtype=y.dtype)[:, None]).sum(), values, **options)


@kernel
@pytest.mark.parametrize("dtype", [torch.float64, torch.float32, torch.bfloat16])
def test_it_is_torchs_product_and_its_gradients_but_for_rounding(dtype):
    values = inputs(dtype)
    y = logit_product(*values)
    assert y.dtype is values[1].dtype and "Dot" in str(y.grad_fn.next_functions)
    torch.testing.assert_close(y, plain(*values))
    torch.testing.assert_close(gradients(logit_product, values), gradients(plain, values))


@kernel
def test_second_derivatives_are_those_of_torchs_product():
    def curvature(function):
        values = inputs()
        found = gradients(lambda x, weight, bias: function(torch.tanh(x), weight, bias), values, create_graph=True)
        return torch.autograd.grad(sum((g * g).sum() for g in found), values[:2])

    torch.testing.assert_close(curvature(logit_product), curvature(plain))


@kernel
def test_a_row_is_the_same_alone_and_in_a_batch_on_any_number_of_threads_wherever_it_lies():
    x, weight, _ = inputs(torch.float32, rows=1000, width=400)
    threads, found = torch.get_num_threads(), []
    for count in (1, 3):
        torch.set_num_threads(count)
        found.append((logit_product(x, weight), *torch.autograd.grad(logit_product(x, weight).square().sum(), (x, weight))))
    torch.set_num_threads(threads)
    assert torch.equal(found[0][0], found[1][0]) and torch.equal(found[0][1], found[1][1])
    torch.testing.assert_close(found[0], found[1], rtol=1e-3, atol=2e-2)
    for offset in range(16):
        row = torch.zeros(offset + 400)[offset:].copy_(x[7].detach())[None]
        assert torch.equal(logit_product(row, weight), found[0][0][7:8])
    columns = x.detach().t().contiguous().t()
    assert torch.equal(logit_product(columns, weight), found[0][0])


def test_an_exported_model_holds_operations_alone():
    class Model(torch.nn.Module):
        def forward(self, x, weight, bias):
            return logit_product(x, weight, bias)

    values = tuple(value.detach() for value in inputs(torch.bfloat16))
    torch.testing.assert_close(torch.export.export(Model(), values).module()(*values), logit_product(*values))


def test_a_logit_is_not_rounded_under_autocast_with_a_compiler_or_without(monkeypatch):
    values = inputs(torch.bfloat16)
    with torch.autocast("cpu", torch.bfloat16):
        found = logit_product(*values)
        monkeypatch.setattr(native, "library", lambda source: None)
        without = logit_product(*values)
    assert found.dtype is without.dtype is torch.float32
    torch.testing.assert_close(found, plain(*values))
    torch.testing.assert_close(without, plain(*values))
