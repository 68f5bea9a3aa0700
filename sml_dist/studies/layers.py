"""What a tower's layers do with a batch: spread, likeness of rows, rank, dead units, gradients."""

from collections.abc import Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from sml_dist.models.dnn import DNN
from sml_dist.models.fields import concat
from sml_dist.nn.skip_logit import SkipLogit
from sml_dist.tabular import Row
from sml_dist.train.health import NAN, mean_cosine, term_variances


def measure_layers(model: DNN, x_BFD: Tensor, dense_BN: Tensor, label_B: Tensor) -> tuple[list[Row], Row]:
    """A row for the input (layer 0) and every layer, and one for the whole model.

    In training mode, so that batch norm uses the batch's own statistics as it does in training; its running ones are put
    back. `gradient norm` is of the mean logistic loss in the layer's parameters. Without a Skip Logit only the last layer
    has a term; `fresh term variance` is there for every layer.
    """
    kept = [buffer.clone() for buffer in model.buffers()]
    model.train().zero_grad()
    x_BK = concat(x_BFD.detach(), dense_BN)
    outputs = model.tower(x_BK)
    logit = model.head(outputs)
    F.binary_cross_entropy_with_logits(logit, label_B).backward()
    for buffer, value in zip(model.buffers(), kept, strict=True):
        buffer.copy_(value)
    gradients = [torch.nn.utils.get_total_norm([p.grad for p in layer.parameters() if p.grad is not None]) for layer in model.tower.layers]
    with torch.no_grad():
        spreads = zip([NAN, *term_variances(model.head, outputs)], [NAN, *(g.item() for g in gradients)], strict=True)
        layers = [
            {"layer": i, "term variance": term, "gradient norm": gradient} | of_output(h.double())
            for i, (h, (term, gradient)) in enumerate(zip([x_BK, *outputs], spreads, strict=True))
        ]
        whole = {"logit variance": logit.double().var().item(), "cosine of the head's input": mean_cosine(head_input(model, outputs))}
    model.zero_grad()
    return layers, whole


def head_input(model: DNN, outputs: Sequence[Tensor]) -> Tensor:
    """What the logit is linear in: (B, sum of widths) under a Skip Logit, else the last layer."""
    if isinstance(model.head, SkipLogit):
        return torch.cat([norm(h) for norm, h in zip(model.head.norms, outputs, strict=True)], dim=1).double()
    return outputs[-1].double()


def of_output(h_BK: Tensor) -> Row:
    return {
        "fresh term variance": fresh_term_variance(h_BK),
        "cosine": mean_cosine(h_BK),
        "effective rank": effective_rank(h_BK),
        "dead units": dead_share(h_BK),
    }


def fresh_term_variance(h_BK: Tensor) -> float:
    """Expected variance over rows of w . h with w as a head starts it, normal(0, 2 / (K + 1)): 2 / (K + 1) sum_k Var(h_k)."""
    return (2 / (h_BK.shape[1] + 1) * h_BK.var(dim=0).sum()).item()


def effective_rank(h_BK: Tensor) -> float:
    """exp of the entropy of the singular values over their sum (Roy and Vetterli, EUSIPCO 2007): n for n equal ones; 0 for h = 0."""
    values = torch.linalg.svdvals(h_BK)
    if not values.sum() > 0:
        return 0.0
    return torch.special.entr(values / values.sum()).sum().exp().item()


def dead_share(h_BK: Tensor) -> float:
    """Share of units that give every row the same number: a ReLU that is off throughout, or a tanh at its end."""
    return (h_BK.amax(dim=0) == h_BK.amin(dim=0)).double().mean().item()
