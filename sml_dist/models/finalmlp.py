"""FinalMLP: two towers over differently gated inputs, fused by a bilinear product (Mao et al., arXiv:2304.00902)."""

from dataclasses import field
from typing import Literal

from pydantic import NonNegativeInt, PositiveInt
from torch import Tensor, nn

from sml_dist.models.fields import FieldShape, concat
from sml_dist.nn.bilinear_fusion import BilinearFusion
from sml_dist.nn.feature_gate import FeatureGate
from sml_dist.nn.sml import SMLConfig, logit_head
from sml_dist.nn.tower import Tower, TowerConfig
from sml_dist.spec import InputError, spec

Fields = tuple[NonNegativeInt, ...]


@spec
class FinalMLPConfig:
    """`first`, `second`: the towers. `first_context`, `second_context`: the fields, counted from 0, that gate each tower's
    input; with none a learned vector does. `gate`: the gates' hidden width. `heads` divides the last widths of both towers.
    """

    name: Literal["finalmlp"] = "finalmlp"
    first: TowerConfig = field(default_factory=TowerConfig)
    second: TowerConfig = field(default_factory=TowerConfig)
    first_context: Fields = ()
    second_context: Fields = ()
    gate: PositiveInt = 64
    heads: PositiveInt = 1
    sml: SMLConfig = field(default_factory=SMLConfig)

    def __post_init__(self) -> None:
        for name, tower in (("first", self.first), ("second", self.second)):
            if tower.hidden[-1] % self.heads:
                raise ValueError(f"{self.heads} heads do not divide the last width of `{name}`, {tower.hidden[-1]}")


class FinalMLP(nn.Module):
    """logit = head_1(a) + head_2(b) + fusion(a_L, b_M), a = first(gate_1 * x), b = second(gate_2 * x); -> (B,).

    With the last-layer heads this is the published fusion, bias + w_1 . a_L + w_2 . b_M + a_L^T W b_M, in heads. With SML
    the earlier layers of both towers join the linear part by their skip paths; the products stay those of the last layers.
    The gates read the embeddings that they gate; the authors' code gives them tables of their own.
    """

    def __init__(self, config: FinalMLPConfig, shape: FieldShape):
        super().__init__()
        for name, fields in (("first_context", config.first_context), ("second_context", config.second_context)):
            if fields and max(fields) >= shape.fields:
                raise InputError(f"model.{name} names field {max(fields)}; the dataset has fields 0 to {shape.fields - 1}")
        self.first_gate = FeatureGate(config.first_context, shape.dim, config.gate, shape.width)
        self.second_gate = FeatureGate(config.second_context, shape.dim, config.gate, shape.width)
        self.first = Tower(shape.width, config.first, config.sml)
        self.second = Tower(shape.width, config.second, config.sml)
        self.first_head = logit_head(self.first.widths, config.sml)
        self.second_head = logit_head(self.second.widths, config.sml, bias=False)
        self.fusion = BilinearFusion(self.first.widths[-1], self.second.widths[-1], config.heads)

    def forward(self, x_BFD: Tensor, dense_BN: Tensor) -> Tensor:
        x_BK = concat(x_BFD, dense_BN)
        a, b = self.first(self.first_gate(x_BFD, x_BK)), self.second(self.second_gate(x_BFD, x_BK))
        return self.first_head(a) + self.second_head(b) + self.fusion(a[-1], b[-1])
