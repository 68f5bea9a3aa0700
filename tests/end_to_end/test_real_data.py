"""The shipped configurations on real logs, where they are at hand."""

from pathlib import Path

import pytest

from sml_dist.config.run import load
from sml_dist.data.prepare import prepare
from sml_dist.train.launch import launch

pytestmark = [pytest.mark.ray, pytest.mark.slow]
CONFIGS = Path(__file__).parents[2] / "configs"


def run(config: str, data: Path, storage: Path, *overrides: str) -> dict:
    return launch(load(str(CONFIGS / config), [f"data.path={data}", f"run.storage={storage}", *overrides]))


def test_dcn_v2_on_the_criteo_sample_reaches_its_auc(ray_local, real_data, tmp_path):
    prepare("criteo", str(tmp_path / "d"), inputs=str(real_data / "criteo/criteo_sample_72k.tsv.gz"), split="order:64000,8000")
    summary = run("criteo/dcn_v2.yaml", tmp_path / "d", tmp_path)
    assert summary["valid"]["auc"] >= 0.765 and summary["valid"]["rows"] == 8_000


def test_movielens_trains_on_its_own_schema_and_gives_auc_per_group(ray_local, real_data, tmp_path):
    prepare("ml1m", str(tmp_path / "d"), inputs=str(real_data / "ml1m/ml1m_half.parquet"), split="time:0.8,0.1,0.1")
    summary = run("ml1m/dcn_v2.yaml", tmp_path / "d", tmp_path, "train.epochs=1")
    valid, test = summary["valid"], summary["test"]
    assert valid["auc"] > 0.70 and 0.6 < valid["gauc"] < 1 and test["gauc"] > 0.6
    groups = valid["largest_groups"]
    assert len(groups) == 10 and groups[0]["rows"] >= groups[-1]["rows"] > 0


def test_frappe_learns_in_a_few_epochs(ray_local, real_data, tmp_path):
    # the whole run takes over a minute (README has its AUC); three epochs from a larger start show that it is on its way
    prepare("frappe", str(tmp_path / "d"), train=str(real_data / "frappe/train.csv.gz"), valid=str(real_data / "frappe/valid.csv.gz"))
    summary = run("frappe/dcn_v2.yaml", tmp_path / "d", tmp_path, "train.epochs=3", "embedding.init_std=0.01")
    assert summary["valid"]["auc"] > 0.93
