"""DIN and MMoE with SML off are the published ones: each against its formula, written out again row by row from its parameters."""

import pytest
import torch

from sml_dist.models.fields import FieldShape, SequenceShape
from tests.models.published import DENSE, DIM, OFF, ROWS, TOWER, agree, head, linear, plain, tower


@pytest.mark.parametrize("sequences", [((0, 3),), ((1, 2), (0, 3))])
def test_din(sequences):
    lengths = [length for _, length in sequences]
    shapes = tuple(SequenceShape(target=target, length=length) for target, length in sequences)
    shape = FieldShape(fields=2 + sum(lengths), dim=DIM, dense=DENSE, sequences=shapes)
    attention = {"hidden": [5], "activation": "relu"}
    model, x, dense, p = plain(shape, sml=OFF, name="din", attention=attention, tower=TOWER)
    x[1, 3:] = 0.0  # a row whose history has one behaviour, or none
    expected = torch.zeros(ROWS, dtype=torch.float64)
    for b in range(ROWS):
        interests, first = [], 2
        for k, (target, length) in enumerate(sequences):
            t, interest = x[b, target], torch.zeros(DIM, dtype=torch.float64)
            for h in x[b, first : first + length]:
                if h.any():
                    unit = f"attention.{k}"
                    hidden = tower(torch.cat([t, h, t - h, t * h]), p, f"{unit}.tower", 1)
                    interest = interest + linear(hidden, p, f"{unit}.score.linear") * h
            interests.append(interest)
            first += length
        inner = torch.cat([x[b, 0], x[b, 1], *interests, dense[b]])
        expected[b] = head(tower(inner, p), p)
    agree(model, x, dense, expected)


def test_mmoe():
    shape = FieldShape(fields=3, dim=DIM, dense=DENSE, labels=2)
    model, x, dense, p = plain(shape, sml=OFF, name="mmoe", experts=3, expert=TOWER, tower={"hidden": [5]})
    expected = torch.zeros(ROWS, 2, dtype=torch.float64)
    for b in range(ROWS):
        inner = torch.cat([x[b].flatten(), dense[b]])
        outputs = torch.stack([tower(inner, p, f"experts.experts.{e}") for e in range(3)])
        for k in range(2):
            shares = (p[f"experts.gates.{k}.weight"] @ inner).softmax(0)
            expected[b, k] = head(tower(shares @ outputs, p, f"towers.{k}", 1), p, f"heads.{k}")
    agree(model, x, dense, expected)
