"""What a model knows of its input: how many fields, how wide, how many numeric values."""

import torch
from torch import Tensor

from sml_dist.spec import spec


@spec
class FieldShape:
    """`fields` embeddings of `dim` numbers each, and `dense` numeric values."""

    fields: int
    dim: int
    dense: int

    @property
    def width(self) -> int:
        return self.fields * self.dim + self.dense


def concat(x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
    """(B, F, D) and (B, N) -> (B, F * D + N); no copy where N = 0."""
    flat = x_BFD.flatten(1)
    return torch.cat([flat, dense_BN], dim=1) if dense_BN.shape[1] else flat
