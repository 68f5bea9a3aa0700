"""Laws that every model of the zoo obeys, in each of its structures, with SML on and off."""

import dataclasses

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import ZOO, ModelConfig, build
from sml_dist.nn.norms import NORMS
from sml_dist.nn.tower import TowerConfig
from sml_dist.spec import InputError, from_dict, to_dict

# To a model that reads no sequences the last two are fields like the others.
SHAPE = FieldShape(fields=4, dim=3, dense=2, sequences=(SequenceShape(target=1, length=2),))
NO_DENSE = dataclasses.replace(SHAPE, dense=0)
TOWER = {"hidden": [16, 8]}
# What keeps a model small here, where that is not a tower alone.
SIZES = {
    "lr": {},
    "fm": {},
    "xdeepfm": {"tower": TOWER, "cin": [6, 5]},
    "autoint": {"tower": TOWER, "attention_layers": 2, "head_dim": 4},
    "dlrm": {"tower": TOWER, "bottom": {"hidden": [8]}},
    "masknet": {"tower": TOWER, "blocks": [16, 16]},
    "finalmlp": {"first": TOWER, "second": {"hidden": [8]}, "gate": 16},
    "finalnet": {"first": TOWER, "second": {"hidden": [8]}},
    "wukong": {"tower": TOWER, "layers": 2, "fmb": 4, "lcb": 4, "rank": 4, "fmb_tower": {"hidden": [16]}, "bottom": {"hidden": [8]}},
    "rankmixer": {"tokens": 4, "width": 8, "expansion": 2},
    "din": {"tower": TOWER, "attention": {"hidden": [8], "activation": "relu"}},
    "mmoe": {"tower": {"hidden": [8]}, "expert": TOWER, "experts": 3},
}
# A model's structures beside its default one.
STRUCTURES = {
    "dcn_v2": {"stacked": {"structure": "stacked"}, "mixture": {"cross": "mixture", "experts": 2, "rank": 3}},
    "autoint": {"alone": {"tower": None}},
    "fibinet": {"all": {"bilinear": "all"}, "each": {"bilinear": "each"}},
    "masknet": {"serial": {"structure": "serial"}},
    "finalmlp": {"contexts": {"first_context": [0], "second_context": [1, 2]}, "heads": {"heads": 4}},
    "finalnet": {"one-block": {"second": None}, "sum": {"residual": "sum"}, "no-gate": {"field_gate": False}},
    "gdcn": {"stacked": {"structure": "stacked"}},
    "din": {"dice": {"attention": {"hidden": [8], "activation": "dice"}}},
}
# One entry for every value that an option can take, beside the default; each must change what the model computes.
SML_OPTIONS = {
    "off": {"enabled": False},
    "mtn-none": {"mtn": {"placement": "none"}},
    "mtn-hidden": {"mtn": {"placement": "hidden"}},
    "mtn-skip": {"mtn": {"placement": "skip"}},
    "mtn-both": {"mtn": {"placement": "both"}},
    "last-layer": {"skip": False, "mtn": {"placement": "hidden"}},
    "after": {"mtn": {"placement": "hidden", "before_activation": False}},
    "lowrank": {"mtn": {"placement": "hidden", "learner": "lowrank"}},
    "lowrank-2": {"mtn": {"placement": "hidden", "learner": "lowrank", "rank": 2}},
    "dense": {"mtn": {"placement": "hidden", "learner": "dense"}},
    "scalar": {"mtn": {"placement": "hidden", "learner": "scalar"}},
    "offset": {"mtn": {"placement": "hidden", "offset": 0.5}},
    "held-offset": {"mtn": {"placement": "hidden", "learn_offset": False}},
    "init-std": {"mtn": {"placement": "hidden", "init_std": 0.5}},
    "slope": {"mtn": {"placement": "hidden", "offset": -1.0, "slope": 0.3}},
    "scale": {"mtn": {"placement": "hidden", "scale_init": 0.5}},
    **{norm: {"norm": norm, "mtn": {"placement": "both"}} for norm in ("batch", "layer", "layer_variance", "fixed_tanh", "dyt")},
    "deep-supervision": {"deep_supervision": True, "mtn": {"placement": "both"}},
}


def has(name, key):
    return key in {field.name for field in dataclasses.fields(ZOO[name].config)}


WITH_SML = [name for name in ZOO if has(name, "sml")]


def config(name, sml="mtn-both", **rest):
    sml = {"sml": SML_OPTIONS[sml]} if has(name, "sml") else {}
    return from_dict(ModelConfig, {"name": name, **SIZES.get(name, {"tower": TOWER}), **sml, **rest})


def variants():
    """Every model in its structures, with SML on and off where it has SML."""
    for name in ZOO:
        for title, structure in {"default": {}, **STRUCTURES.get(name, {})}.items():
            for sml in ("off", "mtn-both", "last-layer") if has(name, "sml") else ("no-sml",):
                yield pytest.param(config(name, sml, **structure), id=f"{name}-{title}-{sml}")


def towers(model_config):
    return [f.name for f in dataclasses.fields(model_config) if isinstance(getattr(model_config, f.name), TowerConfig)]


def labels(model_config):
    return 2 if ZOO[model_config.name].multitask else 1


def make(model_config, shape=SHAPE, seed=0):
    torch.manual_seed(seed)
    return build(model_config, dataclasses.replace(shape, labels=labels(model_config)))


def loss_of(logit, label):
    """Of several labels the second is the first, turned round in every other row: no one logit is right for both."""
    if logit.dim() == 2:
        turned = torch.where(torch.arange(len(label)) % 2 == 1, 1 - label, label)
        label = torch.stack([label, turned], dim=1)
    return F.binary_cross_entropy_with_logits(logit, label)


def rows(n, shape=SHAPE):
    generator = torch.Generator().manual_seed(5)
    x_BFD = torch.randn(n, shape.fields, shape.dim, generator=generator)
    return x_BFD, torch.randn(n, shape.dense, generator=generator), torch.randint(2, (n,), generator=generator).float()


@pytest.mark.parametrize("norm", NORMS)
@pytest.mark.parametrize("model_config", variants())
def test_a_row_scores_the_same_alone_and_in_a_batch(model_config, norm):
    normed = {name: {**TOWER, "norm": norm, "dropout": 0.3} for name in towers(model_config)}
    model = make(from_dict(ModelConfig, {**to_dict(model_config), **normed}))
    x, dense, _ = rows(9)
    model(x, dense)  # in training, so that batch statistics are not at their start
    model.eval()
    batch = model(x, dense)
    alone = torch.cat([model(x[i : i + 1], dense[i : i + 1]) for i in range(9)])
    assert batch.shape == ((9,) if labels(model_config) == 1 else (9, labels(model_config)))
    torch.testing.assert_close(alone, batch, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_config", variants())
@pytest.mark.parametrize("shape", [SHAPE, NO_DENSE])
def test_gradient_reaches_every_parameter_and_both_inputs(model_config, shape):
    model = make(model_config, shape)
    x, dense, label = rows(64, shape)
    x.requires_grad_(), dense.requires_grad_()
    loss_of(model(x, dense), label).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert x.grad.any(0).all()
    assert shape.dense == 0 or dense.grad.any(0).all()


@pytest.mark.parametrize("model_config", variants())
def test_a_model_overfits_256_rows(model_config):
    model = make(model_config)
    x, dense, label = rows(256)
    tables = [] if towers(model_config) else [x.requires_grad_()]  # they are most of such a model
    optimiser = torch.optim.Adam([*model.parameters(), *tables], lr=0.01, fused=True)
    for _ in range(300):
        loss = loss_of(model(x, dense), label)
        if loss < 0.1:
            return
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    pytest.fail(f"a loss of {loss.item():.3f} after 300 steps")


@pytest.mark.parametrize("model_config", variants())
def test_bf16_autocast_scores_close_to_fp32_and_hands_out_fp32(model_config):
    model = make(model_config).eval()
    x, dense, _ = rows(64)
    exact = model(x, dense)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x, dense)
    assert low.dtype == exact.dtype == torch.float32
    assert (low - exact).abs().max() < 0.03 * exact.abs().max()


def exported():
    """Every structure; with heads that are one linear layer only in the long tests."""
    for param in variants():
        marks = [] if param.id.endswith(("-mtn-both", "-no-sml")) else [pytest.mark.long]
        yield pytest.param(*param.values, id=param.id, marks=marks)


@pytest.mark.parametrize("model_config", exported())
def test_an_exported_model_takes_any_batch(model_config):
    model = make(model_config).eval()
    x, dense, _ = rows(5)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (x, dense), dynamic_shapes=({0: batch}, {0: batch})).module()
    for n in (1, 2, 9):
        x, dense, _ = rows(n)
        torch.testing.assert_close(exported(x, dense), model(x, dense), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", WITH_SML)
def test_with_sml_off_its_other_options_change_nothing(name):
    x, dense, _ = rows(4)
    plain = config(name, "off")
    for options in SML_OPTIONS.values():
        off = from_dict(ModelConfig, {**to_dict(plain), "sml": {**options, "enabled": False}})
        assert make(off)(x, dense).equal(make(plain)(x, dense))


@pytest.mark.parametrize("name", WITH_SML)
def test_every_sml_option_changes_the_model(name):
    """Parameters' shapes, what trains, or what comes out: no two settings are the same network."""
    x, dense, _ = rows(16)
    seen = {}
    for title in SML_OPTIONS:
        model = make(config(name, title))
        with torch.no_grad():
            out = tuple(model(x, dense).flatten().tolist())
        seen[title] = (out, tuple(n for n, p in model.named_parameters() if p.requires_grad))
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("name", ["lr", "fm"])
def test_a_model_of_one_layer_has_no_sml_to_set(name):
    with pytest.raises(ValidationError, match="sml"):
        from_dict(ModelConfig, {"name": name, "sml": {}})


@pytest.mark.parametrize("name", STRUCTURES)
def test_every_structure_is_another_network(name):
    x, dense, _ = rows(16)
    models = [make(config(name, **structure)) for structure in ({}, *STRUCTURES[name].values())]
    assert len({tuple(model(x, dense).tolist()) for model in models}) == len(models)


@pytest.mark.parametrize("name", ["fm", "wide_deep", "deepfm", "xdeepfm", "fibinet"])
def test_a_model_with_first_order_weights_refuses_rows_that_hold_nothing_else(name):
    with pytest.raises(InputError, match=r"embedding\.dim 1"):
        build(config(name), FieldShape(fields=4, dim=1, dense=2))


@pytest.mark.parametrize("model_config", variants())
def test_a_config_comes_back_from_plain_data_the_same(model_config):
    assert from_dict(ModelConfig, to_dict(model_config)) == model_config
    assert TypeAdapter(ModelConfig).validate_json(TypeAdapter(ModelConfig).dump_json(model_config)) == model_config


@pytest.mark.parametrize("name", ZOO)
def test_a_config_carries_its_name_in_the_registry(name):
    assert ZOO[name].config().name == name
    assert type(make(ZOO[name].config())) is ZOO[name].model


@pytest.mark.parametrize("name", ZOO)
def test_a_model_of_one_label_refuses_several_and_one_of_several_refuses_one(name):
    wrong = dataclasses.replace(SHAPE, labels=1 if ZOO[name].multitask else 2)
    fits = "dnn" if ZOO[name].multitask else "mmoe"
    with pytest.raises(InputError, match=rf"^model {name} predicts .*, and the data has {wrong.labels}; models that fit: .*\b{fits}\b"):
        build(config(name), wrong)


def test_din_refuses_data_without_sequences():
    with pytest.raises(InputError, match="model din reads behaviour sequences, and the dataset has none"):
        build(config("din"), FieldShape(fields=4, dim=3, dense=2))


@pytest.mark.parametrize("name", ZOO)
def test_a_single_field_is_scored_or_refused_in_one_line(name):
    """Products of pairs are all that some models read of their input."""
    refused = []
    for dense in (0, 1):
        shape = FieldShape(fields=1, dim=3, dense=dense)
        x, numbers, _ = rows(9, shape)
        try:
            assert len(make(config(name), shape)(x, numbers).unique(dim=0)) == 9, "some rows score the same"
        except InputError as error:
            refused.append((dense, str(error)))
    assert all(name in line and "\n" not in line for _, line in refused)
    assert [dense for dense, _ in refused] == {"fibinet": [0], "dlrm": [0], "din": [0, 1]}.get(name, [])


@pytest.mark.parametrize(
    ("wrong", "where"),
    [
        ({"hiden": [3]}, "hiden"),
        ({"hidden": []}, "hidden"),
        ({"hidden": [0]}, "hidden"),
        ({"dropout": 1.0}, "dropout"),
        ({"norm": "bach"}, "norm"),
    ],
)
def test_a_wrong_tower_is_refused_by_name(wrong, where):
    with pytest.raises(ValidationError) as error:
        from_dict(ModelConfig, {"name": "dnn", "tower": wrong})
    assert where in error.value.errors()[0]["loc"]
