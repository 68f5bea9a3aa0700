"""A trained model in this process scores from what its run kept, and refuses what is damaged."""

import shutil
from pathlib import Path

import numpy as np
import pytest
import torch

from sml_dist.scoring.trained import find, load
from sml_dist.spec import InputError
from sml_dist.train.alone import train_alone
from sml_dist.train.metrics import ExactScores
from tests.scoring.runs import config, prepared, rows_of, train


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
