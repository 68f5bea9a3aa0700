"""Laws of the heads."""

import pytest
import torch

from sml_dist.nn.mtn import MTNConfig
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.nn.sml import SMLConfig, logit_head

WIDTHS = (5, 3, 8)


def outputs(n=7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, width, dtype=torch.float64, generator=generator) for width in WIDTHS]


def test_skip_logit_equals_the_naive_sum():
    head, hs = SkipLogit(WIDTHS).double(), outputs()
    weight, bias = head.linear.weight[0], head.linear.bias[0]
    naive = torch.stack([bias + sum(weight[i] * v for i, v in enumerate(torch.cat([h[b] for h in hs]))) for b in range(7)])
    torch.testing.assert_close(head(hs).double(), naive, atol=1e-6, rtol=1e-6)  # the head hands out float32


@pytest.mark.parametrize("mtn", [None, MTNConfig(init_std=0.5)])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layers_terms_and_the_bias_add_up_to_the_logit(mtn, bias):
    head, hs = SkipLogit(WIDTHS, mtn=mtn, bias=bias), [h.float() for h in outputs()]
    start = 0.0
    if bias:
        torch.nn.init.constant_(head.linear.bias, 0.7)
        start = 0.7
    terms = head.terms(hs)
    assert terms.shape == (7, len(WIDTHS))
    torch.testing.assert_close(terms.sum(1) + start, head(hs))


def test_a_layers_term_depends_on_that_layer_alone():
    head, hs = SkipLogit(WIDTHS, mtn=MTNConfig(init_std=0.5)), [h.float() for h in outputs()]
    before = head.terms(hs)
    after = head.terms([hs[0], hs[1] + 1, hs[2]])
    assert (before != after).any(0).tolist() == [False, True, False]


def test_the_first_layers_gradient_does_not_depend_on_depth():
    """A skip path of its own: through depth layers of weight 0, the gradient still arrives."""
    first = torch.randn(4, 5, requires_grad=True)
    deeper = [first * 0.0 for _ in range(30)]
    SkipLogit((5,) * 31)([first, *deeper]).sum().backward()
    assert first.grad.abs().min() > 0


def test_last_logit_reads_the_last_layer_alone():
    head, hs = LastLogit(WIDTHS).double(), outputs()
    torch.testing.assert_close(head(hs), head.linear(hs[-1]).squeeze(1).float())
    assert head.linear.in_features == WIDTHS[-1]


@pytest.mark.parametrize(
    ("options", "kind", "norms"),
    [
        ({"enabled": False}, LastLogit, 0),
        ({"skip": False}, LastLogit, 0),
        ({"mtn": MTNConfig(placement="none")}, SkipLogit, 0),
        ({"mtn": MTNConfig(placement="hidden")}, SkipLogit, 0),
        ({"mtn": MTNConfig(placement="skip")}, SkipLogit, 3),
        ({"mtn": MTNConfig(placement="both")}, SkipLogit, 3),
    ],
)
def test_the_config_chooses_the_head(options, kind, norms):
    head = logit_head(WIDTHS, SMLConfig(**options))
    assert type(head) is kind
    assert sum(type(m).__name__ == "MetaTanhNorm" for m in head.modules()) == norms
