"""Laws of the heads."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

from sml_dist.nn.deep_supervision import DeepSupervision
from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig
from sml_dist.nn.norms import NORMS
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.nn.sml import SMLConfig, hidden_norms, logit_head
from sml_dist.nn.tanh_norms import DynamicTanh, FixedTanh
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import from_dict

WIDTHS = (5, 3, 8)
MTN = partial(MetaTanhNorm, config=MTNConfig(init_std=0.5))


def outputs(n=7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, width, dtype=torch.float64, generator=generator) for width in WIDTHS]


def test_skip_logit_equals_the_naive_sum():
    head, hs = SkipLogit(WIDTHS).double(), outputs()
    weight, bias = head.linear.weight[0], head.linear.bias[0]
    naive = torch.stack([bias + sum(weight[i] * v for i, v in enumerate(torch.cat([h[b] for h in hs]))) for b in range(7)])
    torch.testing.assert_close(head(hs).double(), naive, atol=1e-6, rtol=1e-6)  # the head hands out float32


@pytest.mark.parametrize("norm", [MTN, *NORMS.values()])
@pytest.mark.parametrize("bias", [True, False])
def test_the_layers_terms_and_the_bias_add_up_to_the_logit(norm, bias):
    head, hs = SkipLogit(WIDTHS, norm=norm, bias=bias).eval(), [h.float() for h in outputs()]
    start = 0.0
    if bias:
        torch.nn.init.constant_(head.linear.bias, 0.7)
        start = 0.7
    terms = head.terms(hs)
    assert terms.shape == (7, len(WIDTHS))
    torch.testing.assert_close(terms.sum(1) + start, head(hs))


@pytest.mark.parametrize("placement", ["skip", "both"])
@pytest.mark.parametrize("norm", ["mtn", "fixed_tanh", "dyt"])
def test_dropout_before_a_tanh_leaves_the_logit_what_it_is_without(norm, placement):
    """The mean over masks in training, as of any linear head, is the logit that serves: the tanh is of what was there before."""
    torch.manual_seed(0)
    sml = SMLConfig(norm=norm, mtn=MTNConfig(placement=placement, learner="elementwise", init_std=0.5))
    tower = Tower(6, TowerConfig(hidden=(64,), dropout=0.5), sml)
    head, x = logit_head(tower.widths, sml), torch.randn(5, 6) * 3
    masked = torch.stack([head(tower(x)) for _ in range(4000)])
    served = head.eval()(tower.eval()(x))
    assert ((masked.mean(0) - served).abs() < 5 * masked.std(0) / 4000**0.5).all()


def test_a_tanh_of_what_dropout_left_is_dropout_of_the_tanh():
    torch.manual_seed(0)
    h, keep = torch.randn(9, 8, dtype=torch.float64), 0.6
    mask = (torch.rand(9, 8) < keep).double() / keep
    for norm in (MTN(8), FixedTanh(8), DynamicTanh(8)):
        norm = norm.double()
        torch.testing.assert_close(norm(mask * h, keep), mask * norm(h))
    mtn, weight = MTN(8).double(), torch.randn(1, 8, dtype=torch.float64)
    torch.testing.assert_close(mtn.dot(mask * h, weight, keep), (mask * mtn(h)) @ weight.T)


@pytest.mark.parametrize(("connect", "rate"), [("plain", 0.3), ("dense", 0.3), ("residual", 0.0)])
def test_a_tower_tells_heads_of_its_dropout(connect, rate):
    tower = Tower(4, TowerConfig(hidden=(4, 4), connect=connect, dropout=0.3), SMLConfig(enabled=False))
    assert [width.dropout for width in tower.widths] == [rate] * 2 and tower.widths == (4, 4)
    assert copy.deepcopy(tower.widths[0]).dropout == rate


def test_a_layers_term_depends_on_that_layer_alone():
    head, hs = SkipLogit(WIDTHS, norm=MTN), [h.float() for h in outputs()]
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


@pytest.mark.parametrize("name", [name for name in NORMS if name != "none"])
def test_any_normaliser_stands_on_the_skip_paths_where_the_config_names_it(name):
    head = logit_head(WIDTHS, SMLConfig(norm=name)).double().eval()
    assert [type(norm) for norm in head.norms] == [NORMS[name]] * 3
    hs = outputs()
    normed = torch.cat([NORMS[name](width).double().eval()(h) for width, h in zip(WIDTHS, hs, strict=True)], dim=1)
    torch.testing.assert_close(head(hs).double(), normed @ head.linear.weight[0], atol=1e-6, rtol=1e-6)


@pytest.mark.parametrize("name", ["mtn", "batch", "layer", "layer_variance", "fixed_tanh", "dyt"])
@pytest.mark.parametrize(("placement", "on_skip", "inside"), [("none", 0, 0), ("skip", 1, 0), ("hidden", 0, 1), ("both", 1, 1)])
def test_the_placement_holds_for_every_normaliser(name, placement, on_skip, inside):
    kind = MetaTanhNorm if name == "mtn" else NORMS[name]
    for first in (True, False):
        sml = SMLConfig(norm=name, mtn=MTNConfig(placement=placement, before_activation=first))
        before, after = hidden_norms(5, sml)
        assert [isinstance(before, kind), isinstance(after, kind)] == ([first, not first] if inside else [False, False])
        assert sum(isinstance(norm, kind) for norm in logit_head(WIDTHS, sml).norms) == on_skip * 3


@pytest.mark.parametrize("skip", [True, False])
def test_deep_supervision_stands_over_either_head_and_off_means_off(skip):
    head = logit_head(WIDTHS, SMLConfig(skip=skip, deep_supervision=True))
    assert [type(head), type(head.head)] == [DeepSupervision, SkipLogit if skip else LastLogit]
    off = logit_head(WIDTHS, SMLConfig(enabled=False, norm="layer", deep_supervision=True))
    assert type(off) is LastLogit
    assert all(type(m) is nn.Identity for m in hidden_norms(5, SMLConfig(enabled=False, norm="layer", mtn=MTNConfig(placement="both"))))


@pytest.mark.parametrize("name", ["mtn", *(name for name in NORMS if name != "none")])
def test_bf16_and_export_hold_for_every_normaliser_on_the_skip_paths(name):
    head, hs = logit_head(WIDTHS, SMLConfig(norm=name)).eval(), [h.float() for h in outputs()]
    with torch.autocast("cpu", torch.bfloat16):
        low = head([h.bfloat16() for h in hs])
    assert low.dtype == torch.float32
    torch.testing.assert_close(low, head(hs), atol=0.05, rtol=0.05)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(head, (hs,), dynamic_shapes=([{0: batch}] * 3,)).module()
    for n in (1, 2, 9):
        some = [h.float() for h in outputs(n)]
        torch.testing.assert_close(exported(some), head(some))


HEADS = [{"enabled": False}, {"mtn": {"placement": "none"}}, {"mtn": {"learner": "dense"}}, {"norm": "dyt"}, {}]


@pytest.mark.parametrize("sml", HEADS, ids=str)
def test_under_bf16_a_logit_is_not_rounded_to_bf16(sml):
    """Of 500 logits near 5 it would tell 219 apart."""
    head = logit_head(WIDTHS, from_dict(SMLConfig, sml)).eval()
    head.get_submodule("linear").bias.data.fill_(5.0)
    with torch.autocast("cpu", torch.bfloat16):
        assert len(head([h.bfloat16() for h in outputs(500)]).unique()) > 450
