"""What each layer adds to a logit: the explanation that a Skip Logit gives and a last layer does not."""

import contextlib
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import torch
from torch import Tensor, nn

from sml_dist.nn.deep_supervision import DeepSupervision
from sml_dist.nn.skip_logit import SkipLogit
from sml_dist.train.evaluate import by_label

REST = "rest"


class Explained(nn.Module):
    """A model and, beside its logit (B,), what its layers add to it, (B, L), which add up to it; `names` has the L columns.

    A column `head.3` is the third layer of the Skip Logit `head`; the last, `rest`, is all else: biases, first-order weights,
    heads of a last layer alone. A zoo model's logit is a sum or a mean of heads, so a term reaches it times a constant,
    which autograd finds once on `probe`, any rows of the model's input. Of T labels the logit is (B, T), and the columns of
    one label, LABEL:head.3 and so on, add up to that label's.
    """

    def __init__(self, model: nn.Module, *probe: Tensor, labels: Sequence[str] = ("label",)):
        super().__init__()
        self.model = model
        self.heads = dict(skip_logits(model))
        self.scales = self._scales(probe, len(labels))
        self.names = []
        for label, scales in zip(labels, self.scales, strict=True):
            layers = [f"{name}.{layer + 1}" for name in scales for layer in range(len(self.heads[name].widths))]
            self.names += [f"{label}:{name}" if len(labels) > 1 else name for name in (*layers, REST)]

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        with self._noted() as terms:
            logit = self.model(*inputs)
        columns = []
        for own, scales in zip(by_label(logit), self.scales, strict=True):
            shares = [scale * terms[name] for name, scale in scales.items()]
            rest = own - sum(share.sum(dim=1) for share in shares)
            columns += [*shares, rest[:, None]]
        return logit, torch.cat(columns, dim=1)

    @contextlib.contextmanager
    def _noted(self) -> Iterator[dict[str, Tensor]]:
        """The terms that the heads sum up within, by the names of the heads: noted where they are made, not made again."""
        terms: dict[str, Tensor] = {}

        def noting(name: str, make: Callable[[Sequence[Tensor]], Tensor]) -> Callable[[Sequence[Tensor]], Tensor]:
            def noted(outputs: Sequence[Tensor]) -> Tensor:
                terms[name] = make(outputs)
                return terms[name]

            return noted

        for name, head in self.heads.items():
            head.terms = noting(name, head.terms)
        try:
            yield terms
        finally:
            for head in self.heads.values():
                del head.terms

    def _scales(self, probe: tuple[Tensor, ...], labels: int) -> list[dict[str, float]]:
        """For each label the heads that it hears, and by what factor."""
        outputs: dict[nn.Module, Tensor] = {}

        def cut(head: nn.Module, _: Any, output: Tensor) -> Tensor:
            outputs[head] = output.detach().requires_grad_()
            return outputs[head]

        if not self.heads:
            return [{}] * labels
        handles = [head.register_forward_hook(cut) for head in self.heads.values()]
        with torch.enable_grad():
            logits = [own.sum() for own in by_label(self.model(*probe))]
        for handle in handles:
            handle.remove()
        return [self._heard(logit, outputs) for logit in logits]

    def _heard(self, logit: Tensor, outputs: dict[nn.Module, Tensor]) -> dict[str, float]:
        heads = [outputs[head] for head in self.heads.values()]
        gradients = torch.autograd.grad(logit, heads, retain_graph=True, allow_unused=True)
        found = {name: gradient.mean().item() for name, gradient in zip(self.heads, gradients, strict=True) if gradient is not None}
        return {name: factor for name, factor in found.items() if factor}


def skip_logits(model: nn.Module) -> Iterator[tuple[str, SkipLogit]]:
    """By the names that they have in a zoo model, without those of what they are wrapped in."""
    modules = dict(model.named_modules())
    for name, part in modules.items():
        outer = name.rpartition(".")[0]
        if isinstance(part, SkipLogit):
            yield (outer if isinstance(modules[outer], DeepSupervision) else name).removeprefix("model."), part
