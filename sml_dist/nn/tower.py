"""The tower: fully connected layers that hand out every layer's output."""

from typing import Annotated

from pydantic import Field
from torch import Tensor, nn

from sml_dist.nn.dropout import Dropout
from sml_dist.nn.norms import ACTIVATIONS, NORMS, ActivationName, NormName
from sml_dist.nn.sml import SMLConfig, hidden_norms
from sml_dist.spec import spec


@spec
class TowerConfig:
    hidden: Annotated[tuple[Annotated[int, Field(gt=0)], ...], Field(min_length=1)] = (400, 400, 400)
    activation: ActivationName = "relu"
    norm: NormName = "none"
    dropout: Annotated[float, Field(ge=0, lt=1)] = 0.0


class Tower(nn.Module):
    """h_i = dropout(activation(norm(W_i h_{i-1} + b_i))); (B, width) -> every h_i, (B, hidden[i]).

    With SML an MTN stands before or after the activation, where `sml.mtn` says so.
    """

    def __init__(self, width: int, config: TowerConfig, sml: SMLConfig):
        super().__init__()
        self.widths = config.hidden
        inputs = (width, *config.hidden[:-1])
        self.layers = nn.ModuleList(layer(i, o, config, sml) for i, o in zip(inputs, config.hidden, strict=True))

    def forward(self, x_BK: Tensor) -> list[Tensor]:
        outputs = []
        for layer in self.layers:
            x_BK = layer(x_BK)
            outputs.append(x_BK)
        return outputs


def layer(inputs: int, outputs: int, config: TowerConfig, sml: SMLConfig) -> nn.Sequential:
    """One layer of the tower, (B, inputs) -> (B, outputs); Glorot start, as the published CTR benchmarks have it."""
    linear = nn.Linear(inputs, outputs)
    nn.init.xavier_normal_(linear.weight)
    nn.init.zeros_(linear.bias)
    before, after = hidden_norms(outputs, sml)
    parts = [linear, NORMS[config.norm](outputs), before, ACTIVATIONS[config.activation](), after, Dropout(config.dropout)]
    return nn.Sequential(*(part for part in parts if not isinstance(part, nn.Identity)))
