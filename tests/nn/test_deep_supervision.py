"""Laws of deep supervision."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.nn.deep_supervision import DeepSupervision, every_logit, supervisions
from sml_dist.nn.skip_logit import LastLogit, SkipLogit
from sml_dist.spec import from_dict

WIDTHS = (5, 3, 8)
HEADS = {"last": LastLogit, "skip": SkipLogit}


def outputs(n=7) -> list[torch.Tensor]:
    generator = torch.Generator().manual_seed(3)
    return [torch.randn(n, width, generator=generator).requires_grad_() for width in WIDTHS]


def labels(n=7) -> torch.Tensor:
    return (torch.arange(n) % 2).float()


def supervised(kind="last") -> DeepSupervision:
    torch.manual_seed(0)
    return DeepSupervision(HEADS[kind](WIDTHS), WIDTHS)


def mean_loss(model: nn.Module, logit_B: torch.Tensor, label_B: torch.Tensor) -> torch.Tensor:
    logits_HB = every_logit(supervisions(model), logit_B)
    losses_HB = F.binary_cross_entropy_with_logits(logits_HB, label_B.expand_as(logits_HB), reduction="none")
    return losses_HB.mean(dim=0).sum()


@pytest.mark.parametrize("kind", HEADS)
@pytest.mark.parametrize("training", [True, False])
def test_the_logit_is_that_of_the_head_alone(kind, training):
    deep, hs = supervised(kind).train(training), outputs()
    assert deep(hs).equal(deep.head(hs))


def test_in_training_each_layer_before_the_last_has_a_logit_of_its_own():
    deep, hs = supervised(), outputs()
    logits = every_logit(supervisions(deep), deep(hs))
    assert logits.shape == (len(WIDTHS), 7)
    expected = [deep.head(hs), *(h @ linear.weight[0] + linear.bias for h, linear in zip(hs, deep.linears, strict=False))]
    torch.testing.assert_close(logits, torch.stack(expected))


@pytest.mark.parametrize("kind", HEADS)
def test_each_head_gets_its_own_losss_gradient_at_weight_one_in_all_heads(kind):
    deep, hs = supervised(kind), outputs()
    mean_loss(deep, deep(hs), labels()).backward()
    for head, h in [*zip(deep.linears, hs[:-1], strict=True), (deep.head, hs)]:
        alone = copy.deepcopy(head).requires_grad_()
        alone.zero_grad()
        logit = alone(h) if h is hs else alone(h.detach()).squeeze(1)
        F.binary_cross_entropy_with_logits(logit, labels(), reduction="sum").backward()
        for mine, whole in zip(head.parameters(), alone.parameters(), strict=True):
            torch.testing.assert_close(mine.grad, whole.grad / len(WIDTHS))


def test_a_layers_gradient_is_that_of_the_heads_that_read_it():
    """Under the last layer's head: an earlier layer's output has its companion's alone, as nothing else reads it here."""
    deep, hs = supervised(), outputs()
    logit = deep(hs)
    logits = every_logit(supervisions(deep), logit)
    F.binary_cross_entropy_with_logits(logits, labels().expand_as(logits), reduction="none").mean(dim=0).sum().backward()
    readers = [*deep.linears, deep.head.linear]
    for h, linear, z in zip(hs, readers, (*logits[1:], logits[0]), strict=True):
        expected = (torch.sigmoid(z) - labels())[:, None] * linear.weight / len(WIDTHS)
        torch.testing.assert_close(h.grad, expected)


def test_without_companions_the_logit_stands_alone():
    assert every_logit(supervisions(nn.Linear(2, 1)), torch.ones(4)).equal(torch.ones(1, 4))
    deep = supervised().eval()
    assert every_logit(supervisions(deep), deep(outputs())).shape == (1, 7)


def test_logits_are_taken_once_and_the_model_can_be_copied_between_steps():
    deep = supervised()
    logit = deep(outputs())
    assert every_logit(supervisions(deep), logit).shape == (3, 7)
    assert every_logit(supervisions(deep), logit).shape == (1, 7)
    copy.deepcopy(deep)


@pytest.mark.parametrize("name", ["dnn", "dcn_v2", "deepfm"])
def test_in_a_model_every_blocks_layers_are_supervised_and_every_parameter_gets_a_gradient(name):
    shape = FieldShape(fields=4, dim=3, dense=2)
    config = {"name": name, "tower": {"hidden": [8, 6, 4]}, "sml": {"skip": False, "deep_supervision": True}}
    model = build(from_dict(ModelConfig, config), shape)
    generator = torch.Generator().manual_seed(5)
    logit = model(torch.randn(16, 4, 3, generator=generator), torch.randn(16, 2, generator=generator))
    mean_loss(model, logit, labels(16)).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert sum(len(m.linears) for m in model.modules() if isinstance(m, DeepSupervision)) == (4 if name == "dcn_v2" else 2)


def test_under_bf16_all_logits_are_float32():
    deep = supervised()
    with torch.autocast("cpu", torch.bfloat16):
        logits = every_logit(supervisions(deep), deep([h.bfloat16() for h in outputs()]))
    assert logits.dtype == torch.float32
    torch.testing.assert_close(logits, every_logit(supervisions(deep), deep(outputs())), atol=0.03, rtol=0.03)


def test_an_exported_head_takes_any_batch_and_has_no_companions():
    deep = supervised().eval()
    batch = torch.export.Dim("batch")
    exported = torch.export.export(deep, (outputs(5),), dynamic_shapes=([{0: batch}] * 3,))
    for n in (1, 2, 9):
        torch.testing.assert_close(exported.module()(outputs(n)), deep(outputs(n)))
    assert deep.companions == []
