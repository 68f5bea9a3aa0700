"""Every model of the zoo, in each of its structures and with SML on, trains on two ranks as on one."""

import numpy as np
import pytest

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.synthetic import synth
from sml_dist.spec import to_dict
from tests.data.histories import choosy
from tests.models.test_zoo import variants
from tests.train.ranks import on_ranks, trained

# Dice has statistics of a batch, of which a rank sees its own share
MODELS = {p.id: p.values[0] for p in variants() if p.id.endswith(("-mtn-both", "-no-sml")) and "-dice-" not in p.id}
STEPS = 3


def run_config(model, dataset: str) -> RunConfig:
    return parse(
        {
            "run": {"name": "t"},
            "data": {"path": dataset, "streams": 4},
            "model": to_dict(model),
            "embedding": {"dim": 4, "optimizer": "sgd", "lr": 0.1, "init_std": 0.5, "data_parallel_rows": 50},
            # Adam would hide a gradient's scale, such as a sum over ranks in place of their mean
            "train": {"global_batch_size": 64, "precision": "fp32", "optimizer": "sgd", "lr": 0.1},
        }
    )


def trained_all(configs: list[RunConfig], *steps: int) -> list[list[dict]]:
    """Of each config the weights after so many steps."""
    return [[trained(config, n) for n in steps] for config in configs]


@pytest.fixture(scope="module")
def weights(tmp_path_factory) -> dict[str, dict[str, dict]]:
    """By model: the weights at the start, after some steps on one rank, and on two. One start of the ranks serves all models."""
    folder = tmp_path_factory.mktemp("data")
    synth(2_000, str(folder / "data"), fields=4, dense=2, table_rows=400)
    others = choosy(folder)
    configs = [run_config(model, others.get(model.name, str(folder / "data"))) for model in MODELS.values()]
    one = on_ranks(1, trained_all, configs, 0, STEPS)[0]
    two = on_ranks(2, trained_all, configs, STEPS)[0]
    return {model: {"start": start, "one": alone, "two": shared} for model, (start, alone), (shared,) in zip(MODELS, one, two, strict=True)}


@pytest.mark.parametrize("model", MODELS)
def test_two_ranks_end_with_the_weights_of_one(weights, model):
    one, two = weights[model]["one"], weights[model]["two"]
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=0, atol=2e-6, err_msg=name)


@pytest.mark.parametrize("model", MODELS)
def test_every_weight_of_a_model_trains(weights, model):
    start, one = weights[model]["start"], weights[model]["one"]
    assert [name for name, value in start.items() if np.array_equal(value, one[name])] == []
