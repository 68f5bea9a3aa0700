"""A warm start takes no tensor that reads by its place what stands elsewhere in the new dataset."""

import re
from dataclasses import replace

import pytest
import torch

from sml_dist.config.run import parse
from sml_dist.data.dataset import Field, Manifest
from sml_dist.models.fields import FieldShape, SequenceShape
from sml_dist.models.zoo import ZOO
from sml_dist.train.moved import MORE, moved_inputs, readers
from tests.models.test_zoo import SHAPE, SIZES, config, make, rows, variants

# Where a layer is as wide as its input, residual connections let places through to the layers behind it.
RESIDUAL = {"tower": {"hidden": [SHAPE.width, SHAPE.width, 8], "connect": "residual"}}
THROUGH = {"dnn": RESIDUAL, "dcn_v2": RESIDUAL, "wukong": {**SIZES["wukong"], "fmb": 3, "lcb": 2}}
MODELS = [*variants(), *(pytest.param(config(name, **sizes), id=f"{name}-through") for name, sizes in THROUGH.items())]


def shape_for(model) -> FieldShape:
    return replace(SHAPE, labels=1 + ZOO[model.name].multitask)


def logits(model, shape: FieldShape, initialised: set[str], x_BFD, dense_BN) -> torch.Tensor:
    """Of a model all of whose tensors are random, without those that are initialised."""
    made, draw = make(model, shape).eval(), torch.Generator().manual_seed(0)
    for name, tensor in made.state_dict().items():
        if tensor.is_floating_point():
            tensor.copy_(0.5 + torch.rand(tensor.shape, generator=draw)).mul_(name not in initialised)
    with torch.no_grad():
        return made(x_BFD, dense_BN)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_taken_of_a_model_reads_moved_fields_only_through_what_is_initialised(model):
    """Without that, the logits of rows with the fields of its dataset in another order are the same."""
    x_BFD, dense_BN, _ = rows(8)
    initialised = readers(model, shape_for(model), replace(shape_for(model), fields=SHAPE.fields + MORE))
    order = [1, 0, 2, 3] if model.name == "din" else [3, 2, 1, 0]  # the last two are places of a sequence, as DIN knows
    turned = replace(SHAPE, sequences=(SequenceShape(target=0, length=2),))
    before = logits(model, SHAPE, initialised, x_BFD, dense_BN)
    torch.testing.assert_close(logits(model, turned, initialised, x_BFD[:, order], dense_BN), before)


@pytest.mark.parametrize("model", MODELS)
def test_what_is_taken_of_a_model_reads_moved_numeric_values_only_through_what_is_initialised(model):
    x_BFD, dense_BN, _ = rows(8)
    initialised = readers(model, shape_for(model), replace(shape_for(model), dense=SHAPE.dense + MORE))
    before = logits(model, SHAPE, initialised, x_BFD, dense_BN)
    torch.testing.assert_close(logits(model, SHAPE, initialised, x_BFD, dense_BN.flip(1)), before)


def test_layers_that_read_no_places_are_taken():
    taken = {
        "lr": {"fields.weight", "bias"},
        "fm": {"fields.numeric.weight", "bias"},
        "deepfm": {"fields.numeric.weight", "tower.layers.0.0.bias", "tower.layers.1.0.weight"},
        "autoint": {"fields.weight", "attention.layers.0.project.weight", "tower.layers.1.0.weight"},
        "din": {"attention.0.tower.layers.0.0.weight", "tower.layers.1.0.weight"},
    }
    for name, expected in taken.items():
        model = config(name, "off")
        initialised = readers(model, SHAPE, replace(SHAPE, fields=SHAPE.fields + MORE))
        assert expected <= {*make(model).state_dict()} - initialised, name


def dataset(fields: str, dense: str = "x", labels: str = "like love") -> Manifest:
    """`seen:3` is a sequence of films, of that length."""
    each = [re.match(r"(\w+):?(\d*)", word).groups() for word in fields.split()]
    made = [Field(name=n, rows=9, multivalued=True, of="film", length=int(k)) if k else Field(name=n, rows=9) for n, k in each]
    counts = {"rows_read": 0, "rows_kept": 0, "rows_rejected": 0}
    return Manifest(name="t", fields=made, dense=dense.split(), labels=labels.split(), splits={}, split_rule="", **counts)


@pytest.mark.parametrize(
    ("old", "new", "moved"),
    [
        (("film user",), ("film user",), []),
        (("film user",), ("user film",), ["fields"]),
        (("film user",), ("film city",), ["fields"]),
        (("film user",), ("film user city",), ["fields"]),
        (("film user", "x y"), ("film user", "y x"), ["numeric values"]),
        (("film user", "x y"), ("film user", ""), []),
        (("film seen:3 liked:4",), ("film seen:4 liked:3",), ["lengths of sequences"]),
        (("film seen:3 liked:3",), ("film liked:3 seen:3",), ["sequences"]),
        (("film user", "x", "like love"), ("film user", "x", "love like"), ["labels"]),
        (("film user", "x", "like love"), ("film user", "x", "like love share"), []),
        (("film user", "x", "like love"), ("user film", "", "love like"), ["fields", "labels"]),
    ],
)
def test_what_has_moved_is_told(old, new, moved):
    run = parse({"run": {"name": "t"}, "data": {"path": "d", "streams": 1}, "model": {"name": "mmoe"}})
    found, initialised = moved_inputs(run, dataset(*new), dataset(*old))
    assert found == moved and bool(initialised) == bool(moved)


def test_another_order_of_labels_or_sequences_leaves_no_tensor_to_the_place_of_another_and_a_length_leaves_all():
    mmoe, din = config("mmoe"), config("din", "off")
    two = replace(SHAPE, labels=2)
    assert readers(mmoe, two, replace(two, labels=3)) == {*make(mmoe).state_dict()}
    more = (*SHAPE.sequences, SequenceShape(target=0, length=MORE))
    assert readers(din, SHAPE, replace(SHAPE, fields=SHAPE.fields + MORE, sequences=more)) == {*make(din).state_dict()}
    longer = replace(SHAPE, fields=SHAPE.fields + MORE, sequences=(SequenceShape(target=1, length=2 + MORE),))
    assert not readers(din, SHAPE, longer)
    assert "tower.layers.0.0.weight" in readers(config("dnn"), SHAPE, longer)
