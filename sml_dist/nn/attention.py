"""Self-attention between fields."""

import torch
from torch import Tensor, nn


class FieldAttention(nn.Module):
    """Layers of attention, each over the last one's fields; (B, F, D) -> every layer's fields, (B, F * heads * head_dim) each.

    The interacting layers of AutoInt (Song et al., arXiv:1810.11921): by the paper l layers relate up to 2^l fields.
    """

    def __init__(self, fields: int, dim: int, layers: int, heads: int, head_dim: int):
        super().__init__()
        self.widths = (fields * heads * head_dim,) * layers
        dims = (dim, *(heads * head_dim,) * (layers - 1))
        self.layers = nn.ModuleList(AttentionLayer(dim, heads, head_dim) for dim in dims)

    def forward(self, x_BFD: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x_BFD = layer(x_BFD)
            outputs.append(x_BFD.flatten(1))
        return outputs


class AttentionLayer(nn.Module):
    """e_m = relu([sum_k a^h_mk V^h x_k]_h + R x_m), a^h_m = softmax_k <Q^h x_m, K^h x_k>; (B, F, D) -> (B, F, heads * head_dim).

    Scores are not divided by sqrt(head_dim): the paper's are plain inner products. Q, K, V and R are one matrix.
    """

    def __init__(self, dim: int, heads: int, head_dim: int):
        super().__init__()
        self.parts = (4, heads, head_dim)
        self.project = nn.Linear(dim, 4 * heads * head_dim, bias=False)
        with torch.no_grad():
            for part in self.project.weight.chunk(4):
                nn.init.xavier_normal_(part)

    def forward(self, x_BFD: Tensor) -> Tensor:
        query, key, value, residual = self.project(x_BFD).unflatten(2, self.parts).permute(2, 0, 3, 1, 4)  # (B, heads, F, head_dim)
        # By hand: on a CPU the fused attention, made for long sequences, makes a layer over 39 fields 5 times slower in bf16.
        mixed = (query @ key.mT).softmax(-1) @ value
        return torch.relu(mixed + residual).transpose(1, 2).flatten(2)
