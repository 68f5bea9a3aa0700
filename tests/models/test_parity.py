"""With the same weights a model of ours, SML off, and FuxiCTR's score the same; skipped where FuxiCTR is absent (see fuxi.py)."""

import pytest
import torch
from torch import nn

from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.spec import from_dict
from tests.models.fuxi import DIM, FIELDS, HIDDEN, TOWER, Features, agree, copy, copy_head, flat_input, layers, linear, mlp, ours, randomize

pytestmark = pytest.mark.parametrize("dense", [0, 2])


def test_dnn(dense):
    x_BFD, dense_BN, x = flat_input(dense)
    tower, fc, model = mlp(x.shape[1]), linear(HIDDEN[-1]), ours(dense, name="dnn", tower=TOWER)
    copy(tower, model.tower)
    copy_head(fc, model.head)
    agree(model(x_BFD, dense_BN), fc(tower(x)))


def test_dcn(dense):
    x_BFD, dense_BN, x = flat_input(dense)
    width = x.shape[1]
    tower, cross, fc, model = (
        mlp(width),
        randomize(layers.CrossNet(width, 3)),
        linear(width + HIDDEN[-1]),
        ours(dense, name="dcn", tower=TOWER),
    )
    with torch.no_grad():
        for layer, weight, bias in zip(cross.cross_net, model.cross.weight, model.cross.bias, strict=True):
            weight.copy_(layer.weight.weight[0])
            bias.copy_(layer.bias)
    copy(tower, model.tower)
    copy_head(fc, model.cross_head, model.head)
    agree(model(x_BFD, dense_BN), fc(torch.cat([cross(x), tower(x)], 1)))


def matrix_cross(width, model):
    cross = randomize(layers.CrossNetV2(width, 3))
    copy(cross, model.cross)
    return cross


def mixture_cross(width, model):
    cross = randomize(layers.CrossNetMix(width, 3, low_rank=2, num_experts=3))
    with torch.no_grad():
        model.cross.gate.weight.copy_(torch.cat([gate.weight for gate in cross.gating]))
        for layer, u, v, c, bias in zip(model.cross.layers, cross.U_list, cross.V_list, cross.C_list, cross.bias, strict=True):
            layer.down.weight.copy_(torch.cat([v_e.T for v_e in v]))
            layer.inner.copy_(c)
            layer.up.weight.copy_(torch.cat(list(u), 1))
            layer.up.bias.copy_(bias[:, 0])
    return cross


CROSSES = {"matrix": ({}, matrix_cross), "mixture": ({"cross": "mixture", "experts": 3, "rank": 2}, mixture_cross)}


@pytest.mark.parametrize(("options", "cross_network"), CROSSES.values(), ids=CROSSES)
@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_dcn_v2(dense, structure, options, cross_network):
    x_BFD, dense_BN, x = flat_input(dense)
    width, model = x.shape[1], ours(dense, name="dcn_v2", tower=TOWER, structure=structure, **options)
    tower, cross = mlp(width), cross_network(width, model)
    copy(tower, model.tower)
    if structure == "parallel":
        fc = linear(width + HIDDEN[-1])
        copy_head(fc, model.cross_head, model.head)
        theirs = fc(torch.cat([cross(x), tower(x)], 1))
    else:
        fc = linear(HIDDEN[-1])
        copy_head(fc, model.head)
        theirs = fc(tower(cross(x)))
    agree(model(x_BFD, dense_BN), theirs)


def weighted(dense, name, **config):
    """Their features, and a model of ours whose rows carry first-order weights, with the numeric features' copied."""
    features, model = Features(FIELDS, DIM, dense), ours(dense, dim=DIM + 1, name=name, tower=TOWER, **config)
    if dense:
        model.fields.numeric.weight.data.copy_(features.numeric_weight(weights=True))
    return features, model


def test_deepfm(dense):
    features, model = weighted(dense, "deepfm")
    v = features.embed()
    fm, tower, fc = layers.InnerProductInteraction(FIELDS + dense), mlp(v.flatten(1).shape[1]), linear(HIDDEN[-1])
    copy(tower, model.tower)
    copy_head(fc, model.head)
    agree(model(*features.inputs(weights=True)), features.linear() + fm(v) + fc(tower(v.flatten(1))))


def test_xdeepfm(dense):
    features, model = weighted(dense, "xdeepfm", cin=[5, 3])
    v = features.embed()
    cin, tower, fc = randomize(layers.CompressedInteractionNet(FIELDS + dense, [5, 3])), mlp(v.flatten(1).shape[1]), linear(HIDDEN[-1])
    with torch.no_grad():
        cin.fc.bias.zero_()  # a sum has one bias: the tower's head's
        for layer, target in zip(cin.cin_layer.values(), model.cin.layers, strict=True):
            layer.bias.zero_()  # the paper has none
            target.weight.copy_(layer.weight.view(target.weight.shape))  # both (n, j, i)
        model.cin_head.linear.weight.copy_(cin.fc.weight)
    copy(tower, model.tower)
    copy_head(fc, model.head)
    agree(model(*features.inputs(weights=True)), features.linear() + cin(v) + fc(tower(v.flatten(1))))


@pytest.mark.parametrize("with_tower", [True, False])
def test_autoint(dense, with_tower):
    heads, head_dim = 2, 3
    sizes = {"attention_layers": 2, "heads": heads, "head_dim": head_dim}
    features, model = Features(FIELDS, DIM, dense), ours(dense, name="autoint", tower=TOWER if with_tower else None, **sizes)
    if dense:
        model.fields.weight.data.copy_(features.numeric_weight(weights=False))
    v = features.embed()
    attend, fc = layers.ScaledDotProductAttention(), linear(model.attention.widths[-1])
    h = v
    for layer in model.attention.layers:
        query, key, value, residual = weights = [randomize(nn.Linear(h.shape[2], heads * head_dim, bias=False)) for _ in range(4)]
        layer.project.weight.data.copy_(torch.cat([part.weight for part in weights]))
        split = [part(h).unflatten(2, (heads, head_dim)).transpose(1, 2) for part in (query, key, value)]
        h = (attend(*split)[0].transpose(1, 2).flatten(2) + residual(h)).relu()
    copy_head(fc, model.attention_head)
    theirs = fc(h.flatten(1))
    if with_tower:
        tower, tower_fc = mlp(v.flatten(1).shape[1]), randomize(nn.Linear(HIDDEN[-1], 1, bias=False))
        copy(tower, model.tower)
        copy(tower_fc, model.head)
        theirs = theirs + tower_fc(tower(v.flatten(1)))
    agree(model(*features.inputs(weights=False)), theirs)


@pytest.mark.parametrize("kind", ["all", "each", "interaction"])
def test_fibinet(dense, kind):
    features, model = weighted(dense, "fibinet", bilinear=kind)
    v, fields = features.embed(), FIELDS + dense
    senet = randomize(layers.SqueezeExcitation(fields))
    first, second = (randomize(layers.BilinearInteractionV2(fields, DIM, f"field_{kind}")) for _ in range(2))
    tower, fc = mlp(fields * (fields - 1) * DIM), linear(HIDDEN[-1])
    for theirs, block in ((first, model.bilinear), (second, model.senet_bilinear)):
        weight = theirs.bilinear_W.data.view(-1, DIM, DIM)
        block.weight.data.copy_(weight[:-1] if kind == "each" else weight)  # of `each` theirs keep one for the last field, unused
    copy(senet, model.senet)
    copy(tower, model.tower)
    copy_head(fc, model.head)
    products = torch.cat([first(v), second(senet(v))], 1).flatten(1)
    agree(model(*features.inputs(weights=True)), features.linear() + fc(tower(products)))


@pytest.mark.parametrize("activation", ["relu", "dice"])
def test_din(dense, activation):
    """In training mode, so that Dice takes the batch's own statistics on both sides."""
    (x_BFD, dense_BN, _), length = flat_input(dense), 3
    x_BFD[0, -1] = x_BFD[1, -length:] = 0.0
    shape = FieldShape(fields=FIELDS, dim=DIM, dense=dense, sequences=(SequenceShape(target=1, length=length),))
    config = {"name": "din", "attention": {"hidden": [7], "activation": activation}, "tower": TOWER, "sml": {"enabled": False}}
    model = build(from_dict(ModelConfig, config), shape)
    unit = randomize(layers.DIN_Attention(DIM, attention_units=[7], hidden_activations=activation))
    plain, history = x_BFD.split([FIELDS - length, length], dim=1)
    tower, fc = mlp((FIELDS - length + 1) * DIM + dense), linear(HIDDEN[-1])
    copy(unit, model.attention[0])
    copy(tower, model.tower)
    copy_head(fc, model.head)
    interest = unit(plain[:, 1], history, (history != 0).any(2))
    agree(model(x_BFD, dense_BN), fc(tower(torch.cat([plain.flatten(1), interest, dense_BN], 1))))
