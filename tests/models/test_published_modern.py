"""The newer models with SML off are the published ones: each against its formula, written out again from its parameters."""

from pathlib import Path

import pytest
import torch
from torch.nn import functional as F

from sml_dist.config.run import load
from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ModelConfig, build
from sml_dist.nn.skip_logit import SkipLogit
from sml_dist.spec import InputError, from_dict
from tests.models.published import DIM, FIELDS, OFF, ROWS, SHAPE, TOWER, agree, all_fields, flat, head, linear, plain, tower

NO_DENSE = FieldShape(fields=FIELDS, dim=DIM, dense=0)


def normed(x):
    return (x - x.mean(-1, keepdim=True)) / (x.var(-1, unbiased=False, keepdim=True) + 1e-5).sqrt()


@pytest.mark.parametrize("shape", [SHAPE, NO_DENSE])
def test_dlrm(shape):
    model, x, dense, p = plain(shape, sml=OFF, name="dlrm", bottom={"hidden": [5]}, tower=TOWER)
    z = [tower(dense, p, "bottom")] if shape.dense else []
    embeddings = [*x.unbind(1), *z]
    dots = [(a * b).sum(1) for i, a in enumerate(embeddings) for b in embeddings[i + 1 :]]
    agree(model, x, dense, head(tower(torch.cat([*z, torch.stack(dots, 1)], 1), p), p))


@pytest.mark.parametrize("structure", ["serial", "parallel"])
def test_masknet(structure):
    model, x, dense, p = plain(sml=OFF, name="masknet", structure=structure, blocks=[7, 5], ratio=1.5, tower=TOWER)
    fields = torch.stack(all_fields(x, dense, p["fields.weight"]), 1)
    guide = fields.reshape(ROWS, -1)
    v_emb = (normed(fields) * p["norm.weight"] + p["norm.bias"]).reshape(ROWS, -1)

    def block(i, v):
        name = f"blocks.blocks.{i}"
        mask = linear(linear(guide, p, f"{name}.mask.0").clamp(min=0), p, f"{name}.mask.2")
        h = normed(linear(mask * v, p, f"{name}.hidden.0"))
        return (h * p[f"{name}.hidden.1.weight"] + p[f"{name}.hidden.1.bias"]).clamp(min=0)

    if structure == "serial":
        expected = head(block(1, block(0, v_emb)), p)
    else:
        expected = head(tower(torch.cat([block(0, v_emb), block(1, v_emb)], 1), p), p)
    agree(model, x, dense, expected)


@pytest.mark.parametrize("heads", [1, 2])
@pytest.mark.parametrize("contexts", [((), ()), ((0,), (2, 1))])
def test_finalmlp(contexts, heads):
    first, second = contexts
    towers = {"first": TOWER, "second": {"hidden": [7, 4]}}
    model, x, dense, p = plain(sml=OFF, name="finalmlp", **towers, first_context=first, second_context=second, gate=5, heads=heads)

    def stream(name, context):
        context = torch.cat([x[:, i] for i in context], 1) if context else p[f"{name}_gate.context.vector"].expand(ROWS, DIM)
        gate = linear(linear(context, p, f"{name}_gate.gate.0").clamp(min=0), p, f"{name}_gate.gate.2")
        return tower(2 * torch.sigmoid(gate) * flat(x, dense), p, name)

    a, b = stream("first", first), stream("second", second)
    products = sum(((a_k @ w) * b_k).sum(1) for a_k, w, b_k in zip(a.chunk(heads, 1), p["fusion.weight"], b.chunk(heads, 1), strict=True))
    agree(model, x, dense, head(a, p, "first_head") + head(b, p, "second_head") + products)


@pytest.mark.parametrize("residual", ["sum", "concat"])
@pytest.mark.parametrize("second", [None, {"hidden": [4]}])
@pytest.mark.parametrize("gated", [True, False])
def test_finalnet(gated, second, residual):
    model, x, dense, p = plain(sml=OFF, name="finalnet", first=TOWER, second=second, residual=residual, field_gate=gated)
    fields = torch.stack(all_fields(x, dense, p["fields.weight"]), 1)
    gates = torch.einsum("ij,bjd->bid", p["gate.linear.weight"], fields) + p["gate.linear.bias"][:, None] if gated else None
    inputs = torch.cat([fields, fields * gates], 1) if gated else fields

    def block(h, index, layers):
        for i in range(layers):
            u, v = linear(h, p, f"blocks.{index}.layers.{i}.0.linear").chunk(2, 1)
            h = (u + u * v if residual == "sum" else torch.cat([u, u * v], 1)).clamp(min=0)
        return head(h, p, f"heads.{index}")

    logit = block(inputs.reshape(ROWS, -1), 0, 2)
    if second:
        logit = (logit + block(fields.reshape(ROWS, -1), 1, 1)) / 2
    agree(model, x, dense, logit)


@pytest.mark.parametrize("structure", ["parallel", "stacked"])
def test_gdcn(structure):
    model, x, dense, p = plain(sml=OFF, name="gdcn", structure=structure, cross_layers=2, tower=TOWER)
    c0 = c = flat(x, dense)
    for i in range(2):
        c = c0 * linear(c, p, f"cross.layers.{i}") * torch.sigmoid(linear(c, p, f"cross.gates.{i}")) + c
    if structure == "parallel":
        last = torch.cat([c, tower(c0, p)], 1)
        weight = torch.cat([p["cross_head.linear.weight"], p["head.linear.weight"]], 1)[0]
    else:
        last, weight = tower(c, p), p["head.linear.weight"][0]
    agree(model, x, dense, last @ weight + p["head.linear.bias"])


@pytest.mark.parametrize("shape", [SHAPE, NO_DENSE])
def test_wukong(shape):
    sizes = {"layers": 2, "fmb": 2, "lcb": 3, "rank": 2, "fmb_tower": {"hidden": [7]}, "bottom": {"hidden": [5]}}
    model, x, dense, p = plain(shape, sml=OFF, name="wukong", tower=TOWER, **sizes)
    e = torch.cat([x, tower(dense, p, "bottom")[:, None]], 1) if shape.dense else x
    for i in range(2):
        name = f"stack.layers.{i}"
        machine = (e @ e.transpose(1, 2) @ p[f"{name}.fmb.project"]).reshape(ROWS, -1)
        machine = normed(machine) * p[f"{name}.fmb.norm.weight"] + p[f"{name}.fmb.norm.bias"]
        machine = tower(machine, p, f"{name}.fmb.tower").reshape(ROWS, 2, DIM)
        mixed = torch.stack([sum(w * e[:, n] for n, w in enumerate(row)) for row in p[f"{name}.lcb.weight"]], 1)
        residual = torch.einsum("mn,bnd->bmd", p[f"{name}.residual.weight"], e) if i == 0 else e
        e = normed(torch.cat([machine, mixed], 1) + residual) * p[f"{name}.norm.weight"] + p[f"{name}.norm.bias"]
    agree(model, x, dense, head(tower(e.reshape(ROWS, -1), p), p))


def test_rankmixer():
    tokens, width = 3, 6
    model, x, dense, p = plain(sml=OFF, name="rankmixer", tokens=tokens, width=width, layers=2, expansion=2)
    padded = F.pad(flat(x, dense), (0, 1))  # 14 numbers for 3 slices of 5

    def per_token(x, name):
        weight, bias = p[f"{name}.weight"], p[f"{name}.bias"]
        return torch.stack([x[:, t] @ weight[t] + bias[t] for t in range(tokens)], 1)

    h = per_token(padded.reshape(ROWS, tokens, 5), "project")
    for i in range(2):
        name = f"stack.layers.{i}"
        mixed = torch.stack([torch.cat([h[:, t, 2 * s : 2 * s + 2] for t in range(tokens)], 1) for s in range(tokens)], 1)
        s = normed(mixed + h) * p[f"{name}.mix_norm.weight"] + p[f"{name}.mix_norm.bias"]
        y = per_token(F.gelu(per_token(s, f"{name}.ffn.expand")), f"{name}.ffn.contract")
        h = normed(y + s) * p[f"{name}.ffn_norm.weight"] + p[f"{name}.ffn_norm.bias"]
    agree(model, x, dense, head(h.mean(1), p))


SMALL = {
    "dlrm": {"bottom": {"hidden": [5]}, "tower": TOWER},
    "masknet": {"blocks": [7, 5], "tower": TOWER},
    "masknet-serial": {"structure": "serial", "blocks": [7, 5]},
    "finalmlp": {"first": TOWER, "second": {"hidden": [7, 6]}, "gate": 5, "heads": 2},
    "finalnet": {"first": TOWER, "second": {"hidden": [8, 4]}},
    "gdcn": {"cross_layers": 2, "tower": TOWER},
    "gdcn-stacked": {"structure": "stacked", "cross_layers": 2, "tower": TOWER},
    "wukong": {"layers": 2, "fmb": 2, "lcb": 2, "rank": 2, "fmb_tower": {"hidden": [7]}, "tower": TOWER},
    "rankmixer": {"tokens": 3, "width": 6},
}


@pytest.mark.parametrize("name", SMALL)
def test_a_skip_logit_that_weighs_the_last_layers_alone_is_the_published_model(name):
    """So nothing but the heads tells SML without MTN from the published form."""
    model, x, dense, p = plain(sml=OFF, name=name.split("-")[0], **SMALL[name])
    sml = {"sml": {"mtn": {"placement": "none"}}}
    skip = build(from_dict(ModelConfig, {"name": name.split("-")[0], **SMALL[name], **sml}), SHAPE).double()
    widened = 0
    with torch.no_grad():
        for key, target in skip.named_parameters():
            earlier = target.shape[-1] - p[key].shape[-1]
            widened += earlier > 0
            target.copy_(F.pad(p[key], (earlier, 0)))
    assert widened == sum(isinstance(head, SkipLogit) for head in skip.modules()) > 0
    agree(skip, x, dense, model(x, dense).double())


CONFIGS = Path(__file__).parents[2] / "configs/frappe"
TABLES = 5399 * 10  # Frappe_x1's rows in the benchmark, of dim 10


@pytest.mark.parametrize(
    ("name", "dense_parameters"),
    [
        ("finalmlp", 253_392 - TABLES - (956 + 4084) * 10 - 1),  # theirs: the contexts' own tables, and a second bias
        ("finalnet", 338_502 - TABLES - 1),  # theirs: a second bias
        ("masknet", 571_691 - (TABLES - 100) + 200),  # theirs: a row a field fewer; ours: the norm of the fields
    ],
)
def test_at_the_benchmarks_sizes_a_model_has_the_parameters_that_the_benchmark_logged(name, dense_parameters):
    model = build(load(str(CONFIGS / f"{name}.yaml")).model, FieldShape(fields=10, dim=10, dense=0))
    assert sum(p.numel() for p in model.parameters()) == dense_parameters


@pytest.mark.parametrize(
    ("wrong", "says"),
    [
        ({"name": "rankmixer", "tokens": 8, "width": 100}, "width` 100 is not divisible by 8 tokens; try 96 or 104"),
        ({"name": "finalmlp", "first": {"hidden": [9]}, "heads": 2}, "2 heads do not divide the last width of `first`, 9"),
        ({"name": "finalnet", "second": {"hidden": [8, 7]}}, "halves each width, and 7 is odd"),
    ],
)
def test_sizes_that_do_not_fit_are_refused_with_the_reason(wrong, says):
    with pytest.raises(ValueError, match=says):
        from_dict(ModelConfig, wrong)


def test_a_context_field_that_the_data_lacks_is_refused_by_number():
    with pytest.raises(InputError, match=r"model\.second_context names field 3; the dataset has fields 0 to 2"):
        build(from_dict(ModelConfig, {"name": "finalmlp", "second_context": [3]}), SHAPE)
