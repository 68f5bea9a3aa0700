"""With SML off a model is the published one: each is compared with its formula, written out again from its parameters."""

from itertools import combinations

import pytest
import torch

from tests.models.published import DENSE, FIELDS, OFF, ROWS, TOWER, agree, all_fields, flat, head, plain, tower

PAIRS = list(combinations(range(FIELDS + DENSE), 2))
TOWER_OFF = {"tower": TOWER, "sml": OFF}


def split(fields):
    """Embeddings, and the sum of the first-order weights."""
    return [e[:, :-1] for e in fields], sum(e[:, -1] for e in fields)


def dot(a, b):
    return (a * b).sum(1)


def test_lr():
    model, x, dense, p = plain(name="lr")
    agree(model, x, dense, p["bias"] + sum(e.sum(1) for e in all_fields(x, dense, p["fields.weight"])))


def test_fm():
    model, x, dense, p = plain(name="fm")
    v, linear = split(all_fields(x, dense, p["fields.numeric.weight"]))
    agree(model, x, dense, p["bias"] + linear + sum(dot(v[i], v[j]) for i, j in PAIRS))


def test_dnn():
    model, x, dense, p = plain(name="dnn", **TOWER_OFF)
    agree(model, x, dense, head(tower(flat(x, dense), p), p))


def test_wide_deep():
    model, x, dense, p = plain(name="wide_deep", **TOWER_OFF)
    wide = sum(x[:, i, -1] for i in range(FIELDS)) + sum(dense[:, j] * p["wide.weight"][j, 0] for j in range(DENSE))
    agree(model, x, dense, wide + head(tower(flat(x[:, :, :-1], dense), p), p))


def test_deepfm():
    model, x, dense, p = plain(name="deepfm", **TOWER_OFF)
    v, linear = split(all_fields(x, dense, p["fields.numeric.weight"]))
    agree(model, x, dense, linear + sum(dot(v[i], v[j]) for i, j in PAIRS) + head(tower(torch.cat(v, 1), p), p))


def test_ipnn():
    model, x, dense, p = plain(name="ipnn", **TOWER_OFF)
    v = all_fields(x, dense, p["fields.weight"])
    products = torch.stack([dot(v[i], v[j]) for i, j in PAIRS], 1)
    agree(model, x, dense, head(tower(torch.cat([*v, products], 1), p), p))


def test_dcn():
    model, x, dense, p = plain(name="dcn", **TOWER_OFF)
    x0 = crossed = flat(x, dense)
    for weight, bias in zip(p["cross.weight"], p["cross.bias"], strict=True):
        crossed = x0 * (crossed @ weight)[:, None] + bias + crossed
    agree(model, x, dense, head(crossed, p, "cross_head") + head(tower(x0, p), p))


def matrix_cross(x0, p):
    x = x0
    for i in (0, 1, 2):
        x = x0 * (x @ p[f"cross.layers.{i}.weight"].T + p[f"cross.layers.{i}.bias"]) + x
    return x


def mixture_cross(x0, p, experts=2):
    x = x0
    for i in (0, 1, 2):
        down, inner, up, bias = (p[f"cross.layers.{i}.{name}"] for name in ("down.weight", "inner", "up.weight", "up.bias"))
        gates = torch.softmax(x @ p["cross.gate.weight"].T, 1)
        new = x
        for e, (v, u) in enumerate(zip(down.chunk(experts), up.chunk(experts, 1), strict=True)):
            low = torch.tanh(torch.tanh(x @ v.T) @ inner[e].T)
            new = new + gates[:, e, None] * x0 * (low @ u.T + bias)
        x = new
    return x


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
@pytest.mark.parametrize(
    ("options", "cross"), [({"cross": "matrix"}, matrix_cross), ({"cross": "mixture", "experts": 2, "rank": 3}, mixture_cross)]
)
def test_dcn_v2(structure, options, cross):
    model, x, dense, p = plain(name="dcn_v2", structure=structure, **options, **TOWER_OFF)
    x0 = flat(x, dense)
    crossed, stacked = cross(x0, p), structure == "stacked"
    deep = head(tower(crossed if stacked else x0, p), p)
    agree(model, x, dense, deep if stacked else head(crossed, p, "cross_head") + deep)


@pytest.mark.parametrize("sml", [OFF, {"skip": False, "mtn": {"placement": "none"}}])
def test_xdeepfm(sml):
    model, x, dense, p = plain(name="xdeepfm", cin=[5, 4], **{**TOWER_OFF, "sml": sml})
    v, linear = split(all_fields(x, dense, p["fields.numeric.weight"]))
    last, pooled = v, []
    for i in (0, 1):
        weights = p[f"cin.layers.{i}.weight"].reshape(-1, len(v), len(last))
        last = [sum(w[b, a] * last[a] * v[b] for a in range(len(last)) for b in range(len(v))) for w in weights]
        pooled += [e.sum(1) for e in last]
    agree(model, x, dense, linear + head(torch.stack(pooled, 1), p, "cin_head") + head(tower(torch.cat(v, 1), p), p))


@pytest.mark.parametrize("options", [TOWER_OFF, {**TOWER_OFF, "tower": None}])
def test_autoint(options):
    heads, head_dim = 2, 3
    model, x, dense, p = plain(name="autoint", attention_layers=2, heads=heads, head_dim=head_dim, **options)
    v = torch.stack(all_fields(x, dense, p["fields.weight"]), 1)
    e = v
    for i in (0, 1):
        query, key, value, residual = (e @ part.T for part in p[f"attention.layers.{i}.project.weight"].chunk(4))
        mixed = [
            torch.softmax(q @ k.transpose(1, 2), 2) @ u
            for q, k, u in zip(*(part.split(head_dim, 2) for part in (query, key, value)), strict=True)
        ]
        e = torch.clamp(torch.cat(mixed, 2) + residual, min=0)
    expected = head(e.reshape(ROWS, -1), p, "attention_head")
    agree(model, x, dense, expected + head(tower(v.reshape(ROWS, -1), p), p) if options["tower"] else expected)


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_fibinet(kind):
    model, x, dense, p = plain(name="fibinet", bilinear=kind, **TOWER_OFF)
    v, linear = split(all_fields(x, dense, p["fields.numeric.weight"]))
    z = torch.stack([e.mean(1) for e in v], 1)
    a = torch.clamp(torch.clamp(z @ p["senet.excite.0.weight"].T, min=0) @ p["senet.excite.2.weight"].T, min=0)
    weighed = [a[:, i, None] * e for i, e in enumerate(v)]
    products = [
        (e[i] @ p[f"{block}.weight"][{"all": 0, "each": i, "interaction": n}[kind]]) * e[j]
        for block, e in (("bilinear", v), ("senet_bilinear", weighed))
        for n, (i, j) in enumerate(PAIRS)
    ]
    agree(model, x, dense, linear + head(tower(torch.cat(products, 1), p), p))
