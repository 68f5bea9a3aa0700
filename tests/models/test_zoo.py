"""Laws that every model of the zoo obeys, with SML on and off."""

import pytest
import torch
from pydantic import TypeAdapter, ValidationError
from torch.nn import functional as F

from sml_dist.models.fields import FieldShape
from sml_dist.models.zoo import ZOO, ModelConfig, build
from sml_dist.spec import from_dict, to_dict

SHAPE = FieldShape(fields=4, dim=3, dense=2)
NO_DENSE = FieldShape(fields=4, dim=3, dense=0)
TOWER = {"hidden": [16, 8]}
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
}


def config(name, sml="mtn-both", tower=TOWER, **rest):
    return from_dict(ModelConfig, {"name": name, "tower": tower, "sml": SML_OPTIONS[sml], **rest})


def variants():
    """Every model with SML on and off, and the structures of those that have more than one."""
    for name in ZOO:
        for sml in ("off", "mtn-both", "last-layer"):
            yield pytest.param(config(name, sml), id=f"{name}-{sml}")
    for sml in ("off", "mtn-both", "last-layer"):
        yield pytest.param(config("dcn_v2", sml, structure="stacked"), id=f"dcn_v2-stacked-{sml}")


def make(model_config, shape=SHAPE, seed=0):
    torch.manual_seed(seed)
    return build(model_config, shape)


def rows(n, shape=SHAPE):
    generator = torch.Generator().manual_seed(5)
    x_BFD = torch.randn(n, shape.fields, shape.dim, generator=generator)
    return x_BFD, torch.randn(n, shape.dense, generator=generator), torch.randint(2, (n,), generator=generator).float()


@pytest.mark.parametrize("norm", ["none", "batch", "layer"])
@pytest.mark.parametrize("model_config", variants())
def test_a_row_scores_the_same_alone_and_in_a_batch(model_config, norm):
    model = make(from_dict(ModelConfig, {**to_dict(model_config), "tower": {**TOWER, "norm": norm, "dropout": 0.3}}))
    x, dense, _ = rows(33)
    model(x, dense)  # in training, so that batch statistics are not at their start
    model.eval()
    batch = model(x, dense)
    alone = torch.cat([model(x[i : i + 1], dense[i : i + 1]) for i in range(33)])
    assert batch.shape == (33,)
    torch.testing.assert_close(alone, batch, atol=1e-5, rtol=1e-5)


@pytest.mark.parametrize("model_config", variants())
@pytest.mark.parametrize("shape", [SHAPE, NO_DENSE])
def test_gradient_reaches_every_parameter_and_both_inputs(model_config, shape):
    model = make(model_config, shape)
    x, dense, label = rows(64, shape)
    x.requires_grad_(), dense.requires_grad_()
    F.binary_cross_entropy_with_logits(model(x, dense), label).backward()
    assert [name for name, p in model.named_parameters() if p.grad is None or not p.grad.any()] == []
    assert x.grad.any(0).all()
    assert shape.dense == 0 or dense.grad.any(0).all()


@pytest.mark.parametrize("model_config", variants())
def test_a_model_overfits_256_rows(model_config):
    model = make(model_config)
    x, dense, label = rows(256)
    optimiser = torch.optim.Adam(model.parameters(), lr=0.01)
    for _ in range(300):
        loss = F.binary_cross_entropy_with_logits(model(x, dense), label)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
    assert loss < 0.1


@pytest.mark.parametrize("model_config", variants())
def test_bf16_autocast_scores_close_to_fp32_and_hands_out_fp32(model_config):
    model = make(model_config).eval()
    x, dense, _ = rows(64)
    exact = model(x, dense)
    with torch.autocast("cpu", torch.bfloat16):
        low = model(x, dense)
    assert low.dtype == exact.dtype == torch.float32
    assert (low - exact).abs().max() < 0.03 * exact.abs().max()


@pytest.mark.parametrize("model_config", variants())
def test_an_exported_model_takes_any_batch(model_config):
    model = make(model_config).eval()
    x, dense, _ = rows(5)
    batch = torch.export.Dim("batch")
    exported = torch.export.export(model, (x, dense), dynamic_shapes=({0: batch}, {0: batch})).module()
    for n in (1, 2, 9):
        x, dense, _ = rows(n)
        torch.testing.assert_close(exported(x, dense), model(x, dense), atol=1e-6, rtol=1e-5)


@pytest.mark.parametrize("name", ZOO)
def test_with_sml_off_its_other_options_change_nothing(name):
    x, dense, _ = rows(4)
    plain = make(config(name, "off"))(x, dense)
    for options in SML_OPTIONS.values():
        off = from_dict(ModelConfig, {"name": name, "tower": TOWER, "sml": {**options, "enabled": False}})
        assert make(off)(x, dense).equal(plain)


@pytest.mark.parametrize("name", ZOO)
def test_every_sml_option_changes_the_model(name):
    """Parameters' shapes, what trains, or what comes out: no two settings are the same network."""
    x, dense, _ = rows(16)
    seen = {}
    for title in SML_OPTIONS:
        model = make(config(name, title))
        with torch.no_grad():
            out = tuple(model(x, dense).tolist())
        seen[title] = (out, tuple(n for n, p in model.named_parameters() if p.requires_grad))
    assert len(set(seen.values())) == len(seen)


@pytest.mark.parametrize("model_config", variants())
def test_a_config_comes_back_from_plain_data_the_same(model_config):
    assert from_dict(ModelConfig, to_dict(model_config)) == model_config
    assert TypeAdapter(ModelConfig).validate_json(TypeAdapter(ModelConfig).dump_json(model_config)) == model_config


@pytest.mark.parametrize("name", ZOO)
def test_a_config_carries_its_name_in_the_registry(name):
    assert ZOO[name].config().name == name
    assert type(build(ZOO[name].config(), SHAPE)) is ZOO[name].model


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
