"""Whole studies, as small as they get: every file is written, and the landscape's claims hold."""

import csv
import math
from pathlib import Path

import pytest
import torch
from omegaconf import OmegaConf
from typer.testing import CliRunner

from sml_dist.cli import app
from sml_dist.config.settings import load_settings
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError
from sml_dist.studies import depth, landscape
from sml_dist.studies.depth import DepthConfig
from sml_dist.studies.online_config import OnlineConfig
from sml_dist.studies.statements import Rules, judge

torch.set_num_threads(1)
CONFIGS = Path(__file__).parents[2] / "configs/studies"


def rows(path: Path) -> list[dict[str, str]]:
    with path.open() as file:
        return list(csv.DictReader(file))


def pictures_of(folder: Path) -> set[str]:
    """Those that lie there, which are those that its page shows."""
    lines = (folder / "README.md").read_text().splitlines()
    shown = {line[line.index("(") + 1 : -1] for line in lines if line.startswith("![")}
    assert shown == {path.name for path in folder.glob("*.png")}
    return shown


def test_the_landscape_study_writes_its_page_and_finds_no_violation(tmp_path):
    small = [
        *("points.depths=[1,3]", "points.widths=[4]", "points.scales=[1]", "points.count=5", "points.conditions=[1,100]"),
        *("descent.depths=[2]", "descent.starts=3", "descent.steps=500", "towers.rows=64", "towers.steps=5"),
        *("towers.eigenvalues=1", "towers.iterations=3", "towers.grid=3"),
    ]
    landscape.check(str(CONFIGS / "landscape.yaml"), small)
    found = landscape.run(str(CONFIGS / "landscape.yaml"), small, str(tmp_path))
    assert found["violations"] == 0 and found["sharp"]
    assert found["reached_the_optimum"]["direct"] == 1
    assert found["least_ratio_over_mu"]["direct"] >= 1 > found["least_ratio_over_mu"]["last"]
    assert len(rows(tmp_path / "points.csv")) == 2 * 2 * 2 * 3
    assert pictures_of(tmp_path) == {"ratios.png", "descent.png", "eigenvalues.png", "surfaces.png"}


def test_the_depth_study_trains_measures_and_judges(tmp_path):
    synth(3_000, str(tmp_path / "data"), fields=4, dense=2, table_rows=100)
    config = {
        "data": {"path": str(tmp_path / "data"), "streams": 4},
        "embedding": {"dim": 4, "optimizer": "adam", "sharding": "data_parallel"},
        "train": {"global_batch_size": 256, "max_steps": 3, "precision": "fp32", "threads": 1},
        "width": 8,
        "depths": [2, 3],
        "start_depths": [6],
        "probe_rows": 100,
        "variants": {"plain": {"sml": {"enabled": False}}, "on": {}},
        "rules": {"sml": ["on"]},
    }
    OmegaConf.save(OmegaConf.create(config), tmp_path / "depth.yaml")
    depth.check(str(tmp_path / "depth.yaml"), [])
    found = depth.run(str(tmp_path / "depth.yaml"), [], str(tmp_path / "out"))
    layers, models = rows(tmp_path / "out/layers.csv"), rows(tmp_path / "out/models.csv")
    assert len(layers) == 2 * (2 * (3 + 4) + 7)
    assert len(models) == 2 * (2 * 2 + 1)
    trained = [row for row in models if row["moment"] == "trained"]
    assert all(0 < float(row["auc"]) < 1 and math.isfinite(float(row["logloss"])) for row in trained)
    assert {row["statement"][0] for row in found["statements"]} == {"a", "b", "c"}
    names = ("models", "variance", "terms", "cosine", "dead", "rank", "gradient")
    assert pictures_of(tmp_path / "out") == {f"{name}.png" for name in names}
    start, after = ([row["fresh term variance"] for row in layers if row["moment"] == moment] for moment in ("start", "trained"))
    assert start[:3] != after[:3]


@pytest.mark.parametrize(("cls", "name"), [(DepthConfig, "depth"), (OnlineConfig, "online")])
@pytest.mark.parametrize("asked", ["device=cuda", "num_workers=2", "num_workers=[1,2]", "worker_resources.CPU=2"])
def test_a_study_whose_towers_train_in_its_own_processes_refuses_a_run_that_wants_another_place(cls, name, asked):
    path = str(CONFIGS / f"{name}.yaml")
    key = asked.partition("=")[0].partition(".")[0]
    with pytest.raises(InputError, match=f"{name}.yaml: train.{key} .*: this study trains in one process on the CPU; leave it out"):
        load_settings(cls, path, [f"train.{asked}"])
    for fine in ("device=cpu", "device=auto", "num_workers=1"):
        load_settings(cls, path, [f"train.{fine}"])


def layer(layer: int, **numbers: float) -> dict:
    found = {"variant": "plain", "moment": "trained", "depth": 5, "layer": layer, "cosine": 1.0, "dead units": 1.0}
    return found | {"fresh term variance": 0.0} | numbers


def test_a_first_layer_that_is_dead_has_no_share_to_judge_by_and_ends_no_study():
    model = {"variant": "plain", "moment": "trained", "depth": 5, "cosine of the head's input": 1.0}
    first = judge(Rules(sml=()), [layer(i) for i in range(6)], [model])[0]
    assert first["statement"] == "a: logit variance gone" and math.isnan(first["number"]) and first["seen"] == "not seen"
    alive = [layer(0), layer(1, **{"fresh term variance": 2.0}), *(layer(i, **{"fresh term variance": 0.05}) for i in range(2, 6))]
    assert judge(Rules(sml=()), alive, [model])[0]["number"] == 0.025


@pytest.mark.parametrize("name", ["ablation", "depth", "landscape", "online"])
@pytest.mark.parametrize(("config", "fault"), [("nowhere.yaml", "no such file"), ("wrong.yaml", "deph is not a key")])
def test_what_is_wrong_in_a_configuration_is_said_before_a_folder_is_made_or_ray_starts(tmp_path, monkeypatch, name, config, fault):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setattr("sml_dist.session.ray_session", lambda **_: pytest.fail("Ray was started"))
    shipped = OmegaConf.load(CONFIGS / f"{name}.yaml")
    OmegaConf.save(OmegaConf.merge(shipped, {"deph": 1}), "wrong.yaml")
    found = CliRunner().invoke(app, ["study", name, config, "--output", "out"])
    assert isinstance(found.exception, InputError) and fault in str(found.exception)
    assert not Path("out").exists()


@pytest.mark.parametrize(
    ("name", "overrides"),
    [
        ("ablation", ["set=[data.path=nowhere]"]),
        ("depth", ["data.path=nowhere"]),
        ("online", ["logs.ml1m.path=nowhere"]),
    ],
)
def test_a_dataset_that_is_not_there_is_said_before_a_folder_is_made_or_ray_starts(tmp_path, monkeypatch, name, overrides):
    monkeypatch.chdir(CONFIGS.parents[1])  # which the base of a grid is relative to
    monkeypatch.setattr("sml_dist.session.ray_session", lambda **_: pytest.fail("Ray was started"))
    settings = [part for override in overrides for part in ("--set", override)]
    found = CliRunner().invoke(app, ["study", name, str(CONFIGS / f"{name}.yaml"), "--output", str(tmp_path / "out"), *settings])
    assert isinstance(found.exception, InputError) and "nowhere is not a prepared dataset" in str(found.exception), found.exception
    assert not (tmp_path / "out").exists()


def test_a_wrong_key_or_variant_is_one_line(tmp_path):
    with pytest.raises(InputError, match="nowhere.yaml: no such file"):
        depth.run("nowhere.yaml", [], str(tmp_path))
    with pytest.raises(InputError, match=r"depths_ is not a key; did you mean depths\?"):
        depth.run(str(CONFIGS / "depth.yaml"), ["depths_=[3]"], str(tmp_path))
    with pytest.raises(InputError, match="rules name other"):
        depth.run(str(CONFIGS / "depth.yaml"), ["rules.sml=[other]"], str(tmp_path))
