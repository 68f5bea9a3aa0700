import copy

import pytest
import torch
from torch import nn

from sml_dist.nn import linear
from sml_dist.nn.linear import Linear, by_onednn
from sml_dist.nn.sml import SMLConfig
from sml_dist.nn.tower import Tower, TowerConfig

# As sml_dist/nn/linear.py asks: without AVX-512 oneDNN has none.
needs_bf16 = pytest.mark.skipif(not torch.ops.mkldnn._is_mkldnn_bf16_supported(), reason="oneDNN takes no bfloat16 products on this CPU")
SHAPES = {"a vector": (429,), "a row": (1, 429), "rows": (300, 429), "tokens": (7, 5, 429)}


@pytest.fixture
def layer():
    torch.manual_seed(0)
    return Linear(429, 40)


def plain(layer: Linear) -> nn.Linear:
    found = nn.Linear(429, 40, bias=layer.bias is not None)
    found.load_state_dict(layer.state_dict())
    return found


@pytest.mark.parametrize("shape", SHAPES.values(), ids=SHAPES)
@pytest.mark.parametrize("bias", [True, False])
def test_it_is_nn_linear_and_its_gradients_but_for_rounding(shape, bias):
    torch.manual_seed(0)
    ours = Linear(429, 40, bias=bias)
    theirs, x = plain(ours), torch.randn(shape)
    assert by_onednn(x, ours.weight, x.dtype) and not by_onednn(x.double(), ours.weight.double(), torch.float64)
    results = []
    for layer, input in ((ours, x.clone().requires_grad_()), (theirs, x.clone().requires_grad_())):
        y = layer(input)
        y.square().sum().backward()
        results.append([y, input.grad, *(parameter.grad for parameter in layer.parameters())])
    for one, other in zip(*results, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-4, atol=1e-4)


def test_an_input_that_does_not_lie_row_by_row(layer):
    x = torch.randn(429, 64).t()
    torch.testing.assert_close(layer(x), plain(layer)(x), rtol=1e-4, atol=1e-5)


def test_a_row_is_the_same_alone_and_in_any_batch_but_for_rounding(layer):
    """Against the product in float64: both within 3 times the error of torch's own, on average (0.6 and 1.6 times)."""
    x = torch.randn(257, 429)
    truth = copy.deepcopy(layer).double()(x.double())
    alone, together, torchs = ((y - truth).norm() for y in (torch.cat([layer(row[None]) for row in x]), layer(x), plain(layer)(x)))
    assert max(alone, together) < 3 * torchs


def test_its_gradient_has_a_gradient(layer):
    """A gradient penalty, as curvature studies take it."""
    found = []
    for each in (layer, plain(layer)):
        x = torch.linspace(-1, 1, 3 * 429).view(3, 429).requires_grad_()
        (slope,) = torch.autograd.grad(torch.tanh(each(x)).sum(), x, create_graph=True)
        slope.square().sum().backward()
        found.append([x.grad, each.weight.grad])
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=1e-3, atol=1e-5)


@pytest.mark.parametrize("bf16", [False, pytest.param(True, marks=needs_bf16)])
@pytest.mark.parametrize("bias", [True, False])
def test_a_stack_of_them_is_torchs_in_values_gradients_and_their_gradients(bf16, bias):
    torch.manual_seed(0)
    ours = nn.Sequential(Linear(429, 40, bias=bias), nn.ReLU(), Linear(40, 300), nn.Tanh(), Linear(300, 40), nn.ReLU())
    theirs = nn.Sequential(nn.Linear(429, 40, bias=bias), nn.ReLU(), nn.Linear(40, 300), nn.Tanh(), nn.Linear(300, 40), nn.ReLU())
    theirs.load_state_dict(ours.state_dict())
    found = []
    for each in (ours, theirs):
        x = torch.linspace(-1, 1, 7 * 429).view(7, 429).requires_grad_()
        with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
            assert by_onednn(x, each[0].weight, torch.bfloat16 if bf16 else torch.float32)
            y = each(x)
        (slope,) = torch.autograd.grad(y.float().square().sum(), x, create_graph=True)
        (slope.square().sum() + y.float().sum()).backward()
        found.append([y.float(), slope, x.grad, *(parameter.grad for parameter in each.parameters())])
    assert (found[0][0] == 0).any() and (found[0][0] > 0).any()
    for one, other in zip(*found, strict=True):
        torch.testing.assert_close(one, other, rtol=2e-2 if bf16 else 1e-3, atol=1e-2 * other.abs().max().item() if bf16 else 1e-5)


def test_without_onednn_and_in_an_export_it_is_torchs_own(layer, monkeypatch):
    x = torch.randn(64, 429)
    calls = [node.target for node in torch.export.export(layer, (x,)).graph.nodes if node.op == "call_function"]
    assert calls == [torch.ops.aten.linear.default]
    monkeypatch.setattr(linear, "ONEDNN", set())
    assert torch.equal(layer(x), plain(layer)(x))


def test_a_number_that_is_not_finite_is_seen_behind_a_layers_relu():
    """oneDNN's product with a relu makes a NaN a 0, and so a score of it."""
    x = torch.randn(4, 429)
    x[1, 7], x[2, 9] = float("nan"), float("inf")
    tower = Tower(429, TowerConfig(hidden=(40, 300)), SMLConfig(enabled=False))
    assert tower(x)[1].isfinite().all(dim=1).tolist() == [True, False, False, True]


def test_in_bfloat16_it_rounds_as_torch_does(layer):
    x = torch.randn(300, 429)
    with torch.autocast("cpu", torch.bfloat16):
        found = layer(x)
        assert found.dtype is torch.bfloat16
        torch.testing.assert_close(found, plain(layer)(x), rtol=2**-7, atol=2**-10)


def test_a_copy_and_a_file_of_it_are_those_of_nn_linear(layer):
    assert type(copy.deepcopy(layer)) is Linear and layer.state_dict().keys() == nn.Linear(429, 40).state_dict().keys()
