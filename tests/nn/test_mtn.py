"""Laws of Meta Tanh Normalisation."""

import pytest
import torch

from sml_dist.nn.mtn import MetaTanhNorm, MTNConfig

LEARNERS = ["dense", "lowrank", "elementwise", "scalar"]


def mtn(width=6, **options) -> MetaTanhNorm:
    return MetaTanhNorm(width, MTNConfig(**options)).double()


def rows(n=9, width=6, scale=1.0) -> torch.Tensor:
    return scale * torch.randn(n, width, dtype=torch.float64, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize("learner", LEARNERS)
def test_no_gradient_passes_through_the_learners_input(learner):
    norm, x = mtn(learner=learner, init_std=0.5), rows().requires_grad_()
    norm(x).sum().backward()
    with torch.no_grad():
        read = norm.learner.bias + norm.learner.weight * x if learner == "elementwise" else norm.learner(x)
        s = torch.nn.functional.leaky_relu(read, norm.slope).expand_as(x)
        as_if_s_were_constant = norm.scale * (1 - torch.tanh(s * x) ** 2) * s
    torch.testing.assert_close(x.grad, as_if_s_were_constant)
    assert all(p.grad.abs().sum() > 0 for p in norm.parameters())


def test_dense_mtn_equals_a_loop_over_units():
    norm, x = mtn(learner="dense", init_std=0.7, slope=0.2, scale_init=1.5), rows()
    weight, bias = norm.learner.weight, norm.learner.bias
    y = norm(x)
    for b in range(x.shape[0]):
        for k in range(x.shape[1]):
            s = bias[k] + sum(weight[k, j] * x[b, j] for j in range(x.shape[1]))
            s = s if s > 0 else 0.2 * s
            torch.testing.assert_close(y[b, k], 1.5 * torch.tanh(s * x[b, k]))


@pytest.mark.parametrize("learner", LEARNERS)
def test_with_offset_one_and_no_learner_weight_it_starts_as_tanh(learner):
    torch.testing.assert_close(mtn(learner=learner, init_std=0.0)(rows()), torch.tanh(rows()))


def test_with_no_offset_and_no_learner_weight_it_starts_at_zero():
    assert mtn(offset=0.0, init_std=0.0)(rows()).abs().max() == 0


def test_a_held_offset_does_not_train():
    assert [name for name, p in mtn(learn_offset=False).named_parameters() if not p.requires_grad] == ["learner.bias"]


@pytest.mark.parametrize("learner", LEARNERS)
@pytest.mark.parametrize("spread", [0.1, 1.0, 30.0])
def test_with_scale_one_a_skip_sum_varies_no_more_than_its_first_term_and_one_a_layer(learner, spread):
    layers = [spread * torch.randn(4000, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(i)) for i in range(8)]
    total = layers[0] + sum(mtn(learner=learner, init_std=0.3)(x) for x in layers[1:])
    sampling = 1 + 4 * (2 / 4000) ** 0.5  # four standard errors of a variance over 4,000 rows
    assert (total.var(0) <= (layers[0].var(0) + len(layers) - 1) * sampling).all()


@pytest.mark.parametrize("learner", LEARNERS)
def test_bf16_stays_bf16_and_close(learner):
    norm, x = MetaTanhNorm(6, MTNConfig(learner=learner, init_std=0.3)), rows().float()
    with torch.autocast("cpu", torch.bfloat16):
        low = norm(x.bfloat16())
    assert low.dtype == torch.bfloat16
    torch.testing.assert_close(low.float(), norm(x), atol=0.03, rtol=0.03)
