"""With the same weights the newer models, SML off, and FuxiCTR's score the same; skipped where FuxiCTR is absent (see fuxi.py).

Its installed package holds the parts of DLRM and FinalMLP. Those of the other models are in its repository alone: put a checkout
of that on PYTHONPATH, or their tests are skipped.
"""

from types import SimpleNamespace

import pytest
import torch
from torch import nn

from tests.models.fuxi import DIM, FIELDS, HIDDEN, TOWER, Features, agree, copy, copy_head, flat_input, layers, linear, mlp, ours, randomize

pytestmark = pytest.mark.parametrize("dense", [0, 2])


def with_features(dense, **config):
    """Their embedded fields (B, F + N, D), our inputs for the same batch, and a model of ours with the numeric vectors copied."""
    features, model = Features(FIELDS, DIM, dense), ours(dense, **config)
    if dense:
        model.fields.weight.data.copy_(features.numeric_weight(weights=False))
    return features.embed(), features.inputs(weights=False), model


def theirs(module):
    return pytest.importorskip(f"model_zoo.{module}", reason=f"{module} of FuxiCTR's model_zoo is not on the path")


def test_dlrm(dense):
    x_BFD, dense_BN, _ = flat_input(dense)
    model = ours(dense, name="dlrm", bottom={"hidden": [5]}, tower=TOWER)
    embeddings, z_width = x_BFD, 0
    if dense:
        bottom = randomize(layers.MLP_Block(dense, [5], output_dim=DIM, output_activation="ReLU"))
        copy(bottom, model.bottom)
        embeddings, z_width = torch.cat([x_BFD, bottom(dense_BN)[:, None]], 1), DIM
    products = layers.InnerProductInteraction(embeddings.shape[1], output="inner_product")(embeddings)
    top = mlp(z_width + products.shape[1])
    fc = linear(HIDDEN[-1])
    copy(top, model.tower)
    copy_head(fc, model.head)
    first = model.tower.layers[0][0].weight  # their top reads [products, z], ours [z, products]
    first.data = first.data.roll(z_width, dims=1)
    z = embeddings[:, FIELDS:].flatten(1)
    agree(model(x_BFD, dense_BN), fc(top(torch.cat([products, z], 1))))


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("contexts", [((), ()), ((0,), (1, 2))], ids=["learned", "fields"])
def test_finalmlp(dense, contexts, heads):
    package = theirs("LongCTR.FinalMLP.FinalMLP")
    features = Features(FIELDS, DIM, dense)
    x_BFD, dense_BN = features.inputs(weights=False)
    flat, second = torch.cat([x_BFD.flatten(1), dense_BN], 1), [7, 4]
    first_context, second_context = contexts
    config = {"first": TOWER, "second": {"hidden": second}, "gate": 3, "heads": heads}
    model = ours(dense, name="finalmlp", first_context=first_context, second_context=second_context, **config)

    specs = {name: {"type": "categorical", "source": "", "vocab_size": 7} for name in features.fields}
    names = [[features.fields[i] for i in context] for context in contexts]
    gates = randomize(package.FeatureSelection(SimpleNamespace(features=specs), flat.shape[1], DIM, [3], *names))
    for number, gate, context in ((1, model.first_gate, names[0]), (2, model.second_gate, names[1])):
        copy(getattr(gates, f"fs{number}_gate"), gate.gate)
        for name in context:  # their gates read tables of their own, ours the model's
            own = getattr(gates, f"fs{number}_ctx_emb").embedding_layer.embedding_layers[name]
            own.weight.data.copy_(features.embedding.embedding_layer.embedding_layers[name].weight)
        if not context:
            gate.context.vector.data.copy_(getattr(gates, f"fs{number}_ctx_bias"))
    towers = [randomize(layers.MLP_Block(flat.shape[1], hidden)) for hidden in (HIDDEN, second)]
    copy(nn.ModuleList(towers), nn.ModuleList([model.first, model.second]))
    fusion = randomize(package.InteractionAggregation(HIDDEN[-1], second[-1], num_heads=heads))
    copy_head(fusion.w_x, model.first_head)
    model.first_head.linear.bias.data += fusion.w_y.bias  # theirs has two where one does
    model.second_head.linear.weight.data.copy_(fusion.w_y.weight)
    model.fusion.weight.data.copy_(fusion.w_xy.view_as(model.fusion.weight))

    ids = {name: features.batch[name] for name in features.fields}
    a, b = (tower(gated) for tower, gated in zip(towers, gates(ids, flat), strict=True))
    agree(model(x_BFD, dense_BN), fusion(a, b))


@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_masknet(dense, structure):
    package = theirs("MaskNet.src.MaskNet")
    v, inputs, model = with_features(dense, name="masknet", structure=structure, blocks=[6, 6], ratio=2, tower=TOWER)
    width = v.flatten(1).shape[1]
    norms = randomize(nn.ModuleList(nn.LayerNorm(DIM) for _ in range(v.shape[1])))
    model.norm.weight.data.copy_(torch.stack([norm.weight for norm in norms]))
    model.norm.bias.data.copy_(torch.stack([norm.bias for norm in norms]))
    if structure == "serial":
        net = package.SerialMaskNet(width, 1, None, [6, 6], reduction_ratio=2)
        fc = net.fc[0]
    else:
        net = package.ParallelMaskNet(width, 1, None, num_blocks=2, block_dim=6, hidden_units=HIDDEN, reduction_ratio=2)
        fc = net.dnn.mlp[-1]
    randomize(net)
    copy(net.mask_blocks, model.blocks)
    copy_head(fc, model.head)
    if structure == "parallel":
        copy(net.dnn.mlp[:-1], model.tower)
    normed = torch.stack([norm(field) for norm, field in zip(norms, v.unbind(1), strict=True)], 1)
    agree(model(*inputs), net(v.flatten(1), normed.flatten(1)))


@pytest.mark.parametrize("residual", ["sum", "concat"])
@pytest.mark.parametrize("second", [None, [4]], ids=["one-block", "two-blocks"])
def test_finalnet(dense, second, residual):
    package = theirs("FinalNet.src.FinalNet")
    towers = {"first": {**TOWER, "norm": "batch"}, "second": second and {"hidden": second, "norm": "batch"}}
    v, inputs, model = with_features(dense, name="finalnet", residual=residual, **towers)
    model.eval()
    gate = randomize(package.FeatureGating(v.shape[1]))
    copy(gate, model.gate)
    logits, bias = [], 0
    for x, hidden, block, head in zip((gate(v), v), (HIDDEN, second), model.blocks, model.heads, strict=False):
        net = package.FinalBlock(x.flatten(1).shape[1], hidden, "ReLU", 0, batch_norm=True, residual_type=residual)
        fc = nn.Linear(hidden[-1], 1)
        randomize(nn.ModuleList([net, fc])).eval()
        for layer, norm, target in zip(net.layer, net.norm, block.layers, strict=True):
            copy(nn.ModuleList([layer, norm]), target)
        head.linear.weight.data.copy_(fc.weight)
        logits.append(fc(net(x.flatten(1))))
        bias = bias + fc.bias  # in the mean theirs are one
    model.heads[0].linear.bias.data.copy_(bias)
    agree(model(*inputs), sum(logits) / len(logits))


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_gdcn(dense, structure):
    package = theirs("GDCN.src.GDCN")
    x_BFD, dense_BN, x = flat_input(dense)
    width, model = x.shape[1], ours(dense, name="gdcn", structure=structure, cross_layers=3, tower=TOWER)
    cross, tower = randomize(package.GateCorssLayer(width, 3)), mlp(width)
    copy(nn.ModuleList([*cross.w, *cross.wg]), nn.ModuleList([*map(weight_alone, model.cross.layers), *model.cross.gates]))
    for layer, bias in zip(model.cross.layers, cross.b, strict=True):
        layer.bias.data.copy_(bias)
    copy(tower, model.tower)
    if structure == "parallel":
        fc = linear(width + HIDDEN[-1])
        copy_head(fc, model.cross_head, model.head)
        other = fc(torch.cat([cross(x), tower(x)], 1))
    else:
        fc = linear(HIDDEN[-1])
        copy_head(fc, model.head)
        other = fc(tower(cross(x)))
    agree(model(x_BFD, dense_BN), other)


def weight_alone(linear):
    return nn.ParameterList([linear.weight])


def test_wukong(dense):
    """Theirs embeds each numeric value, ours all of them together: the numeric embedding is taken from ours."""
    package = theirs("WuKong.src.WuKong")
    fmb, lcb, rank = 2, 4, 3
    model = ours(dense, name="wukong", layers=2, fmb=fmb, lcb=lcb, rank=rank, fmb_tower={"hidden": [7]}, tower=TOWER)
    x_BFD, dense_BN, _ = flat_input(dense)
    e = torch.cat([x_BFD, *(z[:, None] for z in model.bottom(dense_BN)[-1:])], 1)
    for layer in model.stack.layers:
        net = randomize(package.WuKongLayer(e.shape[1], lcb, fmb, DIM, rank, [7], fmb_dropout=0))
        copy(net.fmb, layer.fmb)
        layer.lcb.weight.data.copy_(net.lcb.linear.weight)
        copy(net.layer_norm, layer.norm)
        if e.shape[1] != fmb + lcb:
            net.residual_proj.bias.data.zero_()  # ours has none
            layer.residual.weight.data.copy_(net.residual_proj.weight)
        e = net(e)
    top, fc = mlp(e.flatten(1).shape[1]), linear(HIDDEN[-1])
    copy(top, model.tower)
    copy_head(fc, model.head)
    agree(model(x_BFD, dense_BN), fc(top(e.flatten(1))))
