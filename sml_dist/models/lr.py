"""LR: logistic regression, a weight for each id and each numeric value (McMahan et al., Ad Click Prediction, KDD 2013)."""

from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, NumericFields
from sml_dist.spec import spec


@spec
class LRConfig:
    """No SML: one layer, so there is nothing to skip. The tables are the model: give `embedding.dim: 1`."""

    name: Literal["lr"] = "lr"


class LR(nn.Module):
    """logit = bias + sum_i w_i; (B, F, D), (B, N) -> (B,).

    w_i is the sum of an id's D numbers. D > 1 fits the same functions with more parameters (FBGEMM wants multiples of 4).
    """

    def __init__(self, config: LRConfig, shape: FieldShape):
        super().__init__()
        self.fields = NumericFields(shape)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        return self.bias + self.fields(x_BFD, dense_BN).sum((1, 2))
