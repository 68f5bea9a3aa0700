"""A model with SML off in float64, every weight random, and what the published formulas have in common, written out again."""

import torch

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import from_dict

ROWS, FIELDS, DIM, DENSE = 6, 3, 4, 2
SHAPE = FieldShape(fields=FIELDS, dim=DIM, dense=DENSE)
TOWER = {"hidden": [8, 6]}
OFF = {"enabled": False}


def plain(shape=SHAPE, **config):
    """The model, x_BFD, dense_BN and its parameters by name."""
    model = build(from_dict(ModelConfig, config), shape).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x_BFD = torch.randn(ROWS, shape.fields, shape.dim, dtype=torch.float64)
    return model, x_BFD, torch.randn(ROWS, shape.dense, dtype=torch.float64), dict(model.named_parameters())


def agree(model, x, dense, expected):
    torch.testing.assert_close(model(x, dense).double(), expected, atol=1e-4, rtol=1e-5)  # heads hand out float32


def flat(x, dense):
    return torch.cat([x.reshape(ROWS, -1), dense], 1)


def all_fields(x, dense, numeric):
    """The fields as a list, each numeric value j as x_j v_j at its end."""
    return [*x.unbind(1), *(dense[:, j, None] * numeric[j] for j in range(DENSE))]


def linear(x, p, name):
    return x @ p[f"{name}.weight"].T + p.get(f"{name}.bias", 0.0)


def tower(x, p, name="tower", layers=2):
    for i in range(layers):
        x = linear(x, p, f"{name}.layers.{i}.0").clamp(min=0)
    return x


def head(x, p, name="head"):
    return linear(x, p, f"{name}.linear")[..., 0]
