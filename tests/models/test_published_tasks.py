"""DIN and MMoE with SML off are the published ones: each against its formula, written out again row by row from its parameters."""

import pytest
import torch

from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import from_dict

ROWS, DIM, DENSE = 6, 4, 2
TOWER = {"hidden": [8, 6]}


def plain(shape, **config):
    torch.manual_seed(1)
    model = build(from_dict(ModelConfig, {**config, "sml": {"enabled": False}}), shape).double()
    for parameter in model.parameters():
        torch.nn.init.normal_(parameter, std=0.5)
    x_BFD = torch.randn(ROWS, shape.fields, shape.dim, dtype=torch.float64)
    return model, x_BFD, torch.randn(ROWS, shape.dense, dtype=torch.float64), dict(model.named_parameters())


def layers(x, p, names):
    for name in names:
        x = (p[f"{name}.weight"] @ x + p[f"{name}.bias"]).clamp(min=0)
    return x


def linear(x, p, name):
    return p[f"{name}.weight"] @ x + p[f"{name}.bias"]


def tower(name, depth):
    return [f"{name}.layers.{i}.0" for i in range(depth)]


@pytest.mark.parametrize("sequences", [((0, 3),), ((1, 2), (0, 3))])
def test_din(sequences):
    lengths = [length for _, length in sequences]
    shapes = tuple(SequenceShape(target=target, length=length) for target, length in sequences)
    shape = FieldShape(fields=2 + sum(lengths), dim=DIM, dense=DENSE, sequences=shapes)
    attention = {"hidden": [5], "activation": "relu"}
    model, x, dense, p = plain(shape, name="din", attention=attention, tower=TOWER)
    x[1, 3:] = 0.0  # a row whose history has one behaviour, or none
    expected = torch.zeros(ROWS, dtype=torch.float64)
    for b in range(ROWS):
        interests, first = [], 2
        for k, (target, length) in enumerate(sequences):
            t, interest = x[b, target], torch.zeros(DIM, dtype=torch.float64)
            for h in x[b, first : first + length]:
                if h.any():
                    unit = f"attention.{k}"
                    hidden = layers(torch.cat([t, h, t - h, t * h]), p, tower(f"{unit}.tower", 1))
                    interest = interest + linear(hidden, p, f"{unit}.score.linear") * h
            interests.append(interest)
            first += length
        inner = torch.cat([x[b, 0], x[b, 1], *interests, dense[b]])
        expected[b] = linear(layers(inner, p, tower("tower", 2)), p, "head.linear")
    torch.testing.assert_close(model(x, dense).double(), expected, atol=1e-4, rtol=1e-5)  # heads hand out float32


def test_mmoe():
    shape = FieldShape(fields=3, dim=DIM, dense=DENSE, labels=2)
    model, x, dense, p = plain(shape, name="mmoe", experts=3, expert=TOWER, tower={"hidden": [5]})
    expected = torch.zeros(ROWS, 2, dtype=torch.float64)
    for b in range(ROWS):
        inner = torch.cat([x[b].flatten(), dense[b]])
        outputs = torch.stack([layers(inner, p, tower(f"experts.experts.{e}", 2)) for e in range(3)])
        for k in range(2):
            shares = (p[f"experts.gates.{k}.weight"] @ inner).softmax(0)
            expected[b, k] = linear(layers(shares @ outputs, p, tower(f"towers.{k}", 1)), p, f"heads.{k}.linear")
    torch.testing.assert_close(model(x, dense).double(), expected, atol=1e-4, rtol=1e-5)
