"""FinalMLP's feature gate: which inputs a stream looks at, decided from a few fields or once for all rows."""

from collections.abc import Sequence

import torch
from torch import Tensor, nn

from sml_dist.nn.linear import Linear


class FeatureGate(nn.Module):
    """y = 2 sigmoid(U relu(V context + a) + b) * x; fields (B, F, D) and x (B, K) -> (B, K).

    The context is the embeddings of some fields (user, item), or one learned vector where `fields` is empty; the gate then
    weighs inputs, the same for every row. A gate starts near 1 and never exceeds 2. From FinalMLP (Mao et al.,
    arXiv:2304.00902), which says nothing of the learned vector's start: here N(0, 1). Its code starts it at 0, where relu
    passes no gradient either to V or to the vector, and both stay what they were.
    """

    def __init__(self, fields: Sequence[int], dim: int, hidden: int, width: int):
        super().__init__()
        self.context = FieldContext(fields) if fields else LearnedContext(dim)
        self.gate = nn.Sequential(Linear(max(1, len(fields)) * dim, hidden), nn.ReLU(), Linear(hidden, width))
        for part in (self.gate[0], self.gate[2]):
            nn.init.xavier_normal_(part.weight)
            nn.init.zeros_(part.bias)

    def forward(self, x_BFD: Tensor, flat_BK: Tensor) -> Tensor:
        return 2 * torch.sigmoid(self.gate(self.context(x_BFD))) * flat_BK


class FieldContext(nn.Module):
    """The embeddings of some fields, side by side; (B, F, D) -> (B, len(fields) * D)."""

    def __init__(self, fields: Sequence[int]):
        super().__init__()
        self.fields = list(fields)

    def forward(self, x_BFD: Tensor) -> Tensor:
        return torch.cat([x_BFD[:, field] for field in self.fields], dim=1)


class LearnedContext(nn.Module):
    """One learned vector for all rows; (B, F, D) -> (1, D), left to broadcast: its gate is computed once a batch."""

    def __init__(self, dim: int):
        super().__init__()
        self.vector = nn.Parameter(torch.randn(1, dim))

    def forward(self, x_BFD: Tensor) -> Tensor:
        return self.vector
