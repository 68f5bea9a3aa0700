"""What each layer adds to a logit: the explanation that a Skip Logit gives and a last layer does not."""

import contextlib
from collections.abc import Callable, Iterator
from typing import Any

import torch
from torch import Tensor, nn

from sml_dist.nn.skip_logit import SkipLogit

REST = "rest"


class Explained(nn.Module):
    """A model and, beside its logit (B,), what its layers add to it, (B, L), which add up to it; `names` has the L columns.

    A column `head.3` is the third layer of the Skip Logit `head`; the last, `rest`, is all else: biases, first-order weights,
    heads of a last layer alone. A zoo model's logit is a sum or a mean of heads, so a term reaches it times a constant,
    which autograd finds once on `probe`, any rows of the model's input.
    """

    def __init__(self, model: nn.Module, *probe: Tensor):
        super().__init__()
        self.model = model
        self.heads = {name.removesuffix(".head"): part for name, part in model.named_modules() if isinstance(part, SkipLogit)}
        self.names = [f"{name}.{layer}" for name, head in self.heads.items() for layer in range(1, len(head.widths) + 1)] + [REST]
        self.scales = self._scales(probe)

    def forward(self, *inputs: Tensor) -> tuple[Tensor, Tensor]:
        terms: dict[nn.Module, Tensor] = {}

        def note(head: nn.Module, arguments: Any, _: Tensor) -> None:
            terms[head] = head.terms(*arguments)

        with self._hooked(note):
            logit = self.model(*inputs)
        shares = [scale * terms[head] for head, scale in zip(self.heads.values(), self.scales, strict=True)]
        rest = logit - sum(share.sum(dim=1) for share in shares)
        return logit, torch.cat([*shares, rest[:, None]], dim=1)

    @contextlib.contextmanager
    def _hooked(self, hook: Callable[..., Any]) -> Iterator[None]:
        handles = [head.register_forward_hook(hook) for head in self.heads.values()]
        try:
            yield
        finally:
            for handle in handles:
                handle.remove()

    def _scales(self, probe: tuple[Tensor, ...]) -> list[float]:
        outputs: dict[nn.Module, Tensor] = {}

        def cut(head: nn.Module, _: Any, output: Tensor) -> Tensor:
            outputs[head] = output.detach().requires_grad_()
            return outputs[head]

        if not self.heads:
            return []
        with torch.enable_grad(), self._hooked(cut):
            logit = self.model(*probe).sum()
        gradients = torch.autograd.grad(logit, [outputs[head] for head in self.heads.values()])
        return [gradient.mean().item() for gradient in gradients]
