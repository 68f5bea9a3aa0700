"""Runs on several labels and on sequences, whole but for Ray: what is learnt, measured by label, and refused."""

import json
from pathlib import Path

import pytest

from sml_dist.config.run import RunConfig, parse
from sml_dist.spec import InputError
from sml_dist.train.alone import train_alone
from sml_dist.train.check import check
from tests.data.histories import prepared

ONE = "label: {column: rating, at_least: 5}"
MODELS = {
    "mmoe": {"experts": 2, "expert": {"hidden": [16]}, "tower": {"hidden": [8]}},
    "din": {"attention": {"hidden": [16]}, "tower": {"hidden": [16]}},
    "dnn": {"tower": {"hidden": [16]}},
}


@pytest.fixture(scope="module")
def two_labels(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("two")
    prepared(folder, 3_000)
    return str(folder / "data")


@pytest.fixture(scope="module")
def one_label(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("one")
    prepared(folder, 4_000, labels=ONE)
    return str(folder / "data")


def config(data: str, folder: Path, model: str, **train) -> RunConfig:
    return parse(
        {
            "run": {"name": model, "storage": str(folder)},
            "data": {"path": data, "streams": 4},
            "model": {"name": model, **MODELS[model]},
            "embedding": {"dim": 8, "lr": 0.1, "init_std": 0.3},
            "train": {"global_batch_size": 128, "epochs": 4, "lr": 0.01, "precision": "fp32", "threads": 1, **train},
        }
    )


def test_a_run_on_several_labels_tells_each_ones_metrics_and_keeps_the_weights_best_for_the_one_named(two_labels, tmp_path):
    summary = train_alone(config(two_labels, tmp_path, "mmoe", monitor="love.logloss"))
    metrics = summary["valid"]
    assert list(metrics["labels"]) == ["like", "love"]
    assert metrics["labels"]["like"].items() <= metrics.items()
    assert min(found["auc"] for found in metrics["labels"].values()) > 0.52
    lines = [json.loads(line) for line in (tmp_path / "mmoe/metrics.jsonl").read_text().splitlines()]
    told = [line["labels"]["love"]["logloss"] for line in lines if line.get("split") == "valid"]
    assert len(told) == 4 and min(told) == metrics["labels"]["love"]["logloss"]


def test_attention_finds_the_candidate_among_a_users_behaviours(one_label, tmp_path):
    """A film that was seen lately is loved; without the sequence a DNN gets .51."""
    assert train_alone(config(one_label, tmp_path, "din"))["valid"]["auc"] > 0.7


def test_models_and_labels_that_do_not_go_together_are_refused_before_a_worker_starts(one_label, two_labels, tmp_path):
    with pytest.raises(InputError, match="^model dnn predicts one label, and the data has 2; models that fit: mmoe$"):
        check(config(two_labels, tmp_path, "dnn"))
    with pytest.raises(InputError, match="^model mmoe predicts several labels, and the data has 1; models that fit: lr, fm, dnn"):
        check(config(one_label, tmp_path, "mmoe"))
    with pytest.raises(InputError, match=r"^train.monitor lust.auc: .* has labels like, love$"):
        check(config(two_labels, tmp_path, "mmoe", monitor="lust.auc"))
    with pytest.raises(InputError, match=r"^train.monitor label.auc: .* has one label; give the metric alone$"):
        check(config(one_label, tmp_path, "din", monitor="label.auc"))
    with pytest.raises(InputError, match="^train.monitor: 'love.acu' is no metric; give auc, gauc, logloss, ne, or with a label as in"):
        config(two_labels, tmp_path, "mmoe", monitor="love.acu")
    check(config(two_labels, tmp_path, "mmoe", monitor="love.auc"))
