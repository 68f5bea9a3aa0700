"""With SML off a model is the published one: each is compared with its formula, written out again from its parameters."""

import pytest
import torch

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import from_dict

SHAPE = FieldShape(fields=3, dim=4, dense=2)


def plain(**config):
    model = build(from_dict(ModelConfig, {**config, "tower": {"hidden": [8, 5]}, "sml": {"enabled": False}}), SHAPE).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x_BFD, dense_BN = torch.randn(6, 3, 4, dtype=torch.float64), torch.randn(6, 2, dtype=torch.float64)
    return model, x_BFD, dense_BN, dict(model.named_parameters())


def tower(x, p):
    for i in (0, 1):
        x = torch.clamp(x @ p[f"tower.layers.{i}.0.weight"].T + p[f"tower.layers.{i}.0.bias"], min=0)
    return x


def cross(x0, p):
    x = x0
    for i in (0, 1, 2):
        x = x0 * (x @ p[f"cross.layers.{i}.weight"].T + p[f"cross.layers.{i}.bias"]) + x
    return x


def test_dnn():
    model, x, dense, p = plain(name="dnn")
    flat = torch.cat([x.reshape(6, 12), dense], 1)
    expected = tower(flat, p) @ p["head.linear.weight"][0] + p["head.linear.bias"]
    torch.testing.assert_close(model(x, dense).double(), expected, atol=1e-4, rtol=1e-5)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_dcn_v2(structure):
    model, x, dense, p = plain(name="dcn_v2", structure=structure)
    flat = torch.cat([x.reshape(6, 12), dense], 1)
    if structure == "parallel":
        last = torch.cat([cross(flat, p), tower(flat, p)], 1)
        weight = torch.cat([p["cross_head.linear.weight"], p["head.linear.weight"]], 1)[0]
    else:
        last, weight = tower(cross(flat, p), p), p["head.linear.weight"][0]
    expected = last @ weight + p["head.linear.bias"]
    torch.testing.assert_close(model(x, dense).double(), expected, atol=1e-4, rtol=1e-5)
