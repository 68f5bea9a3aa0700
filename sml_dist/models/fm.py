"""FM: the factorisation machine (Rendle, Factorization Machines, ICDM 2010)."""

from typing import Literal

import torch
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, WeightedFields
from sml_dist.nn.fm import pairwise_sum
from sml_dist.spec import spec


@spec
class FMConfig:
    """No SML: one layer, so there is nothing to skip. The last of an id's `embedding.dim` numbers is its first-order weight."""

    name: Literal["fm"] = "fm"


class FM(nn.Module):
    """logit = bias + sum_i w_i + sum_{i<j} <v_i, v_j>; (B, F, D + 1), (B, N) -> (B,)."""

    def __init__(self, config: FMConfig, shape: FieldShape):
        super().__init__()
        self.fields = WeightedFields(shape)
        self.bias = nn.Parameter(torch.zeros(1))

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        v_BFD, w_BF = self.fields(x_BFD, dense_BN)
        return self.bias + w_BF.sum(1) + pairwise_sum(v_BFD)
