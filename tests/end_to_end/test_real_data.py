"""The shipped configurations on real logs, where they are at hand."""

from pathlib import Path

from sml_dist.config.run import RunConfig, load
from sml_dist.train.alone import train_alone
from sml_dist.train.launch import launch

CONFIGS = Path(__file__).parents[2] / "configs"


def config(name: str, data: str, storage: Path, *overrides: str) -> RunConfig:
    return load(str(CONFIGS / name), [f"data.path={data}", f"run.storage={storage}", *overrides])


def test_dcn_v2_on_the_criteo_sample_reaches_its_auc(real_dataset, tmp_path):
    summary = train_alone(config("criteo/dcn_v2.yaml", real_dataset("criteo"), tmp_path))
    assert summary["valid"]["auc"] >= 0.765 and summary["valid"]["rows"] == 8_000


def test_movielens_trains_on_its_own_schema_and_gives_auc_per_group(real_dataset, tmp_path):
    summary = launch(config("ml1m/dcn_v2.yaml", real_dataset("ml1m"), tmp_path, "train.epochs=1"))  # on two workers
    valid, test = summary["valid"], summary["test"]
    assert valid["auc"] > 0.70 and 0.6 < valid["gauc"] < 1 and test["gauc"] > 0.6
    groups = valid["largest_groups"]
    assert len(groups) == 10 and groups[0]["rows"] >= groups[-1]["rows"] > 0


def test_frappe_learns_in_a_few_epochs(real_dataset, tmp_path):
    # the whole run takes over a minute (README has its AUC); three epochs from a larger start show that it is on its way
    overrides = ("train.epochs=3", "embedding.init_std=0.01")
    summary = train_alone(config("frappe/dcn_v2.yaml", real_dataset("frappe"), tmp_path, *overrides))
    assert summary["valid"]["auc"] > 0.93
