"""RankMixer: tokens that mix by swapping slices, and a network for each token (Zhu et al., arXiv:2507.15551)."""

from dataclasses import field
from typing import Literal

from pydantic import PositiveInt
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.rankmixer import PerTokenLinear, RankMixerStack
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.spec import spec


@spec
class RankMixerConfig:
    """`tokens`, `width`, `layers`, `expansion`: T, D, L and k of the paper."""

    name: Literal["rankmixer"] = "rankmixer"
    tokens: PositiveInt = 8
    width: PositiveInt = 128
    layers: PositiveInt = 2
    expansion: PositiveInt = 4
    sml: SMLConfig = field(default_factory=SMLConfig)

    def __post_init__(self) -> None:
        if self.width % self.tokens:
            below = self.width - self.width % self.tokens
            near = " or ".join(str(width) for width in (below, below + self.tokens) if width)
            raise ValueError(f"`width` {self.width} is not divisible by {self.tokens} tokens; try {near}")


class RankMixer(nn.Module):
    """tokens = T equal slices of the input, each through its own linear layer; logit = head(stack(tokens)); -> (B,).

    The paper groups features by meaning before it slices them: here their order in the dataset does that, and zeros fill
    the last slice. Its task networks over the mean token are a head alone: the paper leaves them open.
    """

    def __init__(self, config: RankMixerConfig, shape: FieldShape):
        super().__init__()
        self.tokens = config.tokens
        slice_width = -(-shape.width // config.tokens)
        self.padding = slice_width * config.tokens - shape.width
        self.project = PerTokenLinear(config.tokens, slice_width, config.width)
        self.stack = RankMixerStack(config.tokens, config.width, config.layers, config.expansion, config.sml)
        self.head = logit_head(self.stack.widths, config.sml)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        slices_BTK = F.pad(concat(x_BFD, dense_BN), (0, self.padding)).unflatten(1, (self.tokens, -1))
        return self.head(self.stack(self.project(slices_BTK)))
