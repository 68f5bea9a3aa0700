import copy

import pytest
import torch
from torch import nn

from sml_dist.nn import linear
from sml_dist.nn.linear import Linear, by_onednn

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
    assert by_onednn(x, ours.weight) and not by_onednn(x.double(), ours.weight.double())
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
    x = torch.randn(257, 429)
    torch.testing.assert_close(torch.cat([layer(row[None]) for row in x]), layer(x), rtol=0, atol=2e-6)


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


def test_without_onednn_under_autocast_and_in_an_export_it_is_torchs_own(layer, monkeypatch):
    x = torch.randn(64, 429)
    with torch.autocast("cpu", torch.bfloat16):
        assert not by_onednn(x, layer.weight) and layer(x).dtype is torch.bfloat16
    calls = [node.target for node in torch.export.export(layer, (x,)).graph.nodes if node.op == "call_function"]
    assert calls == [torch.ops.aten.linear.default]
    monkeypatch.setattr(linear, "HAS_ONEDNN", False)
    assert torch.equal(layer(x), plain(layer)(x))


def test_a_copy_and_a_file_of_it_are_those_of_nn_linear(layer):
    assert type(copy.deepcopy(layer)) is Linear and layer.state_dict().keys() == nn.Linear(429, 40).state_dict().keys()
