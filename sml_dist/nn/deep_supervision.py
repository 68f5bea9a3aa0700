"""Deep supervision: in training every layer predicts the label by itself."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sml_dist.nn.logit_product import logit_product
from sml_dist.nn.skip_logit import logit_layer


class DeepSupervision(nn.Module):
    """logit = head(h_1, ..., h_L), (B,) float32; in training also logit_i = b_i + w_i . h_i of every layer before the last.

    Lee et al. (arXiv:1409.5185): companion objectives on hidden layers, so that a shallow layer's gradient need not come
    through the deep ones, and at the end a prediction of the output's head alone, so the model that serves is the one
    without them. Theirs fade out as training goes on; here the training loss is the mean over all logits throughout.
    Nothing but the loss reads the companions: it must take them, by `every_logit`, or their weights get no gradient.
    """

    def __init__(self, head: nn.Module, widths: Sequence[int]):
        super().__init__()
        self.head = head
        self.linears = nn.ModuleList(logit_layer(width, bias=True) for width in widths[:-1])
        self.companions: list[Tensor] = []  # of the last forward in training, until the loss takes them

    def forward(self, outputs: Sequence[Tensor]) -> Tensor:
        if self.training:
            layers = zip(self.linears, outputs[:-1], strict=True)
            self.companions = [logit_product(h, linear.weight, linear.bias).squeeze(1).float() for linear, h in layers]
        return self.head(outputs)


def supervisions(model: nn.Module) -> list[DeepSupervision]:
    """Those of a model, in order: one a label, or none."""
    return [module for module in model.modules() if isinstance(module, DeepSupervision)]


def every_logit(heads: Sequence[DeepSupervision], logit_B: Tensor) -> Tensor:
    """The model's own logit and under it those that deep supervision made on the way; (B,) -> (H, B), H = 1 without any.

    A model of T labels has one head a label, in order, each with as many layers: (B, T) -> (H, B, T).
    Takes them from the model, which then holds no part of the graph: a model is copied and saved between steps.
    """
    companions = [head.companions for head in heads]
    for head in heads:
        head.companions = []
    if logit_B.dim() == 1:
        return torch.stack([logit_B, *(logit for layers in companions for logit in layers)])
    return torch.stack([logit_B, *(torch.stack(layer, dim=1) for layer in zip(*companions, strict=True))])
