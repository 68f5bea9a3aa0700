"""RankMixer's layers: tokens that swap their slices, and a feed-forward network for each token."""

import torch
from torch import Tensor, nn

from sml_dist.nn.sml import SMLConfig, hidden_norms


def mix_tokens(x_BTD: Tensor) -> Tensor:
    """y_h = [x_1^h, ..., x_T^h], x_t^h the h-th of T slices of x_t; (B, T, D) -> (B, T, D), T divides D.

    The paper's H heads with H = T, which the residual needs. No weights and no products: a transpose, and its own inverse.
    """
    tokens = x_BTD.shape[1]
    return x_BTD.unflatten(2, (tokens, -1)).transpose(1, 2).flatten(2)


class PerTokenLinear(nn.Module):
    """y_t = W_t x_t + b_t, no weight shared between tokens; (B, T, I) -> (B, T, O)."""

    def __init__(self, tokens: int, inputs: int, outputs: int):
        super().__init__()
        self.weight = nn.Parameter(torch.stack([nn.init.xavier_normal_(torch.empty(inputs, outputs)) for _ in range(tokens)]))
        self.bias = nn.Parameter(torch.zeros(tokens, outputs))

    def forward(self, x_BTI: Tensor) -> Tensor:
        y_BTO = torch.einsum("bti,tio->bto", x_BTI, self.weight)
        return y_BTO + self.bias.to(y_BTO.dtype)


class PerTokenFFN(nn.Module):
    """y_t = U_t gelu(V_t x_t + a_t) + b_t; (B, T, D) -> (B, T, D), inside `expansion` times as wide.

    With SML an MTN over the hidden units of all tokens stands before or after the gelu, where `sml.mtn` says so.
    """

    def __init__(self, tokens: int, width: int, expansion: int, sml: SMLConfig):
        super().__init__()
        self.expand = PerTokenLinear(tokens, width, expansion * width)
        before, after = hidden_norms(tokens * expansion * width, sml)
        self.activation = nn.Sequential(before, nn.GELU(), after)
        self.contract = PerTokenLinear(tokens, expansion * width, width)

    def forward(self, x_BTD: Tensor) -> Tensor:
        hidden = self.activation(self.expand(x_BTD).flatten(1))
        return self.contract(hidden.unflatten(1, (x_BTD.shape[1], -1)))


class RankMixerLayer(nn.Module):
    """S = layer_norm(mix_tokens(X) + X), Y = layer_norm(FFN(S) + S); (B, T, D) -> (B, T, D)."""

    def __init__(self, tokens: int, width: int, expansion: int, sml: SMLConfig):
        super().__init__()
        self.mix_norm, self.ffn_norm = nn.LayerNorm(width), nn.LayerNorm(width)
        self.ffn = PerTokenFFN(tokens, width, expansion, sml)

    def forward(self, x_BTD: Tensor) -> Tensor:
        s_BTD = self.mix_norm(mix_tokens(x_BTD) + x_BTD)
        return self.ffn_norm(self.ffn(s_BTD) + s_BTD)


class RankMixerStack(nn.Module):
    """X_l = layer_l(X_{l-1}); (B, T, D) -> every X_l's mean over its tokens, (B, D) each.

    The dense variant of RankMixer (Zhu et al., arXiv:2507.15551), without its mixture of experts.
    """

    def __init__(self, tokens: int, width: int, layers: int, expansion: int, sml: SMLConfig):
        super().__init__()
        self.widths = (width,) * layers
        self.layers = nn.ModuleList(RankMixerLayer(tokens, width, expansion, sml) for _ in range(layers))

    def forward(self, x_BTD: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x_BTD = layer(x_BTD)
            outputs.append(x_BTD.mean(dim=1))
        return outputs
