"""A trained model in this process scores as the training forward does, and says what each layer adds."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sml_dist.models.zoo import ZOO
from sml_dist.scoring.trained import find, load
from sml_dist.spec import InputError, to_dict
from sml_dist.train.alone import train_alone
from sml_dist.train.metrics import ExactScores
from tests.data.histories import choosy
from tests.models.test_zoo import STRUCTURES, WITH_SML
from tests.models.test_zoo import config as model_config
from tests.scoring.runs import config, prepared, rows_of, train


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> str:
    return prepared(tmp_path_factory.mktemp("clicks"))


def models():
    for name in ZOO:
        for title, structure in {"default": {}, **STRUCTURES.get(name, {})}.items():
            yield pytest.param(name, structure, id=f"{name}-{title}")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> dict[str, str]:
    return choosy(tmp_path_factory.mktemp("films"))


@pytest.mark.parametrize(("name", "structure"), models())
def test_a_loaded_model_scores_as_the_training_forward_and_its_layers_add_up(data, others, tmp_path, name, structure):
    data = others.get(name, data)
    run = config(data, tmp_path, model=to_dict(model_config(name, **structure)))
    expected = torch.from_numpy(train(run)["valid"])
    model = load(find(run.run.folder))
    several = ZOO[name].multitask
    scores = model.score(model.collate(rows_of(data, "valid")), contributions=not several)
    torch.testing.assert_close(scores.probability, torch.sigmoid(expected), atol=1e-6, rtol=0)
    torch.testing.assert_close(scores.logit, expected, atol=1e-5, rtol=1e-5)
    if several:
        with pytest.raises(InputError, match="predicts several labels; contributions are told of models of one"):
            model.score(model.collate(rows_of(data, "valid")), contributions=True)
        return
    torch.testing.assert_close(scores.contributions.sum(1), expected, atol=1e-5, rtol=1e-5)
    assert scores.contributions.shape[1] == len(model.explained.names)
    assert (len(model.explained.names) > 1) == (name in WITH_SML)


def test_a_run_scores_where_its_dataset_is_gone_with_the_vocabularies_it_kept(tmp_path):
    data = prepared(tmp_path, rows=300)
    run = config(data, tmp_path)
    expected = torch.from_numpy(train(run)["valid"])
    rows = rows_of(data, "valid")
    tokens = load(find(run.run.folder)).encoder.vocabularies["site"].hashes
    shutil.rmtree(data)
    model = load(find(run.run.folder))
    torch.testing.assert_close(model.score(model.collate(rows)).logit, expected)
    assert np.array_equal(model.encoder.vocabularies["site"].hashes, tokens)
    shutil.rmtree(tmp_path / "run/dataset")
    with pytest.raises(InputError, match="run/dataset is missing"):
        load(find(run.run.folder))


def test_damage_is_refused_by_name(data, tmp_path):
    run = config(data, tmp_path)
    train(run)
    [file] = Path(run.run.folder).glob("checkpoints/*/rank-00000.safetensors")
    content = bytearray(file.read_bytes())
    content[-1] ^= 1
    file.write_bytes(content)
    with pytest.raises(InputError, match=r"rank-00000.safetensors is damaged .* name the folder of another checkpoint"):
        find(run.run.folder)
    with pytest.raises(InputError, match="has no checkpoint of step 3; it has step-000000004"):
        find(run.run.folder, 3)
    with pytest.raises(InputError, match="holds no checkpoint; name the folder of a run"):
        find(str(tmp_path / "nothing"))


def test_the_best_evaluation_s_weights_are_taken_not_the_last_ones(data, tmp_path):
    run = config(data, tmp_path, train={"epochs": 3, "lr": 10.0})
    summary = train_alone(run)
    found = find(run.run.folder)
    assert found.path == summary["checkpoint"]
    model = load(found)
    scores = ExactScores()
    batch = model.collate(rows_of(data, "valid"))
    scores.add(model.score(batch).logit.numpy(), batch.label.numpy(), batch.weight.numpy())
    assert scores.result()["auc"] == pytest.approx(summary["valid"]["auc"], abs=1e-6)
