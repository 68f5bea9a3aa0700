"""An ablation runs each cell once, pairs by seed, and writes what it says."""

import csv
import math
from dataclasses import replace
from pathlib import Path

import pytest

from sml_dist.config.run import load
from sml_dist.data.dataset import fingerprint, read_manifest
from sml_dist.data.synthetic import synth
from sml_dist.spec import InputError
from sml_dist.studies import ablation
from sml_dist.studies.ablation import done, run
from sml_dist.studies.grid import cells, placed, read_grid
from sml_dist.train.run_folder import RunFolder

GRID = """
name: trial
base: {base}
axes:
  model:
    dnn: [model.name=dnn]
    dcn_v2: [model.name=dcn_v2, model.cross_layers=1]
  sml:
    "off": [model.sml.enabled=false]
    "on": [model.sml.enabled=true]
compare: [sml, "off"]
seeds: [1, 2]
target: 0.01
cpus: 4  # two runs at once on the instance for tests: each process that Ray starts imports torch
"""
BASE = """
data: {{path: {data}, streams: 4}}
model: {{name: dnn, tower: {{hidden: [8]}}}}
embedding: {{dim: 8, lr: 0.05}}
train: {{global_batch_size: 256, max_steps: 8, precision: fp32}}
"""


@pytest.fixture(scope="module")
def grid(tmp_path_factory) -> str:
    folder = tmp_path_factory.mktemp("ablation")
    synth(4_000, str(folder / "data"), fields=4, dense=2, table_rows=200)
    (folder / "base.yaml").write_text(BASE.format(data=folder / "data"))
    (folder / "grid.yaml").write_text(GRID.format(base=folder / "base.yaml"))
    return str(folder / "grid.yaml")


def test_the_grid_is_every_combination_with_every_seed_and_each_run_has_a_name_of_its_own(grid):
    found = cells(read_grid(grid), "x")
    assert len(found) == 8 and len({cell.config.run.name for cell in found}) == 8
    assert {(cell.config.model.name, cell.config.model.sml.enabled, cell.config.train.seed) for cell in found} == {
        (model, sml, seed) for model in ("dnn", "dcn_v2") for sml in (False, True) for seed in (1, 2)
    }
    longer = cells(read_grid(grid, ["set=[train.max_steps=9]"]), "x")
    assert not {cell.config.run.name for cell in found} & {cell.config.run.name for cell in longer}


def test_a_sound_grid_passes_the_look_that_comes_before_ray(grid):
    assert ablation.check(grid, []) is None


def test_a_cells_paths_are_absolute_and_its_name_is_of_what_the_user_wrote(grid, tmp_path, monkeypatch):
    """A worker of a cluster that was joined has another folder than the command."""
    monkeypatch.chdir(Path(grid).parent)
    cell = cells(read_grid(grid, ["set=[data.path=data]"]), str(tmp_path))[0]
    assert cell.config.data.path == str(Path(grid).parent / "data") and cell.config.run.name == "dnn-off-seed1-b947b57a"
    warm = cells(read_grid(grid, ["set=[data.path=data,run.warm_start=old]"]), str(tmp_path))[0]
    assert warm.config.run.warm_start == str(Path(grid).parent / "old")


def test_cells_that_start_from_other_weights_are_other_cells(grid):
    cold, one, other = (
        cells(read_grid(grid, [f"set={[f'run.warm_start={start}', 'run.storage=s']}"]), "x")[0].config.run.name
        for start in ("null", "a", "b")
    )
    assert len({cold, one, other}) == 3 and cold == cells(read_grid(grid), "x")[0].config.run.name


@pytest.mark.parametrize(("given", "off"), [("{wandb: {project: ctr}}", "wandb=null"), ("{tensorboard: true}", "tensorboard=false")])
def test_tracking_of_a_cell_is_refused_wherever_it_stands_and_makes_no_other_cell_of_it(grid, tmp_path, given, off):
    told, plain = f"^tracking.{off.partition('=')[0]}: .* add tracking.{off} to the study's set$", cells(read_grid(grid), "x")
    with pytest.raises(InputError, match=told):
        cells(read_grid(grid, [f"set=['tracking={given}']"]), "x")
    (tmp_path / "base.yaml").write_text(Path(grid).with_name("base.yaml").read_text() + f"tracking: {given}\n")
    with pytest.raises(InputError, match=told):
        cells(read_grid(grid, [f"base={tmp_path}/base.yaml"]), "x")
    assert cells(read_grid(grid, [f"base={tmp_path}/base.yaml", f"set=[tracking.{off}]"]), "x") == plain
    tracked = replace(plain[0].config, tracking=load(f"{tmp_path}/base.yaml").tracking)
    assert placed(tracked, "x", {}, 1).run == placed(plain[0].config, "x", {}, 1).run


def test_what_is_wrong_in_a_grid_is_named(grid, monkeypatch):
    with pytest.raises(InputError, match="compare: .sml, of. is no axis and one of its settings"):
        read_grid(grid, ["compare=[sml,of]"])
    with pytest.raises(InputError, match="seeds .1, 1.: one that counts twice"):
        read_grid(grid, ["seeds=[1,1]"])
    with pytest.raises(InputError, match="metric: input should be 'auc', 'gauc'"):
        read_grid(grid, ["metric=acu"])
    with pytest.raises(InputError, match="metric gauc needs a dataset with a group; name one in the schema of .*data, or set metric=auc"):
        cells(read_grid(grid, ["metric=gauc"]), "x")
    with pytest.raises(InputError, match="model.twoer is not a key; did you mean model.tower?"):
        cells(read_grid(grid, ["set=[model.twoer=3]"]), "x")
    with pytest.raises(InputError, match="no such file; configs/"):
        read_grid("absent.yaml")
    monkeypatch.setattr("sml_dist.studies.grid.read_manifest", lambda path, label: replace(read_manifest(path), group=True))
    monkeypatch.setattr("sml_dist.train.check.EXACT_ROWS", 300)
    with pytest.raises(InputError, match="metric gauc is known of up to 300 valid rows, and .*data has [0-9]+; set metric=auc or"):
        cells(read_grid(grid, ["metric=gauc"]), "x")


@pytest.mark.parametrize("metric", ["auc", "gauc", "ne"])
@pytest.mark.parametrize("share", [0, 1])
def test_a_metric_that_is_not_defined_on_the_split_is_refused_before_any_cell_runs(grid, monkeypatch, metric, share):
    def one_class(path, label):
        manifest = read_manifest(path)
        test = replace(manifest.splits["test"], positives=share * manifest.splits["test"].rows)
        return replace(manifest, group=True, splits=manifest.splits | {"test": test})

    monkeypatch.setattr("sml_dist.studies.grid.read_manifest", one_class)
    with pytest.raises(InputError, match=f"data: all test rows have one label, so their {metric} is undefined; set metric=logloss"):
        cells(read_grid(grid, [f"metric={metric}", "split=test"]), "x")
    assert cells(read_grid(grid, [f"metric={metric}"]), "x") and cells(read_grid(grid, ["metric=logloss", "split=test"]), "x")


@pytest.mark.parametrize("unknown", [None, math.nan])  # as a summary.json has it, and as a run returns it
def test_a_value_that_is_not_known_ends_in_the_tables(grid, tmp_path, monkeypatch, unknown):
    monkeypatch.setattr("sml_dist.studies.ablation.done", lambda cell: {"valid": {"auc": unknown if cell.config.train.seed == 2 else 0.7}})
    found = run(grid, [], str(tmp_path))
    assert len(found["pairs"]) == 2 and all(math.isnan(pair["mean"]) and math.isnan(pair["needed"]) for pair in found["pairs"])
    assert "0.70000 nan" in (tmp_path / "README.md").read_text()
    assert {path.name for path in tmp_path.iterdir()} == {"cells.csv", "pairs.csv", "pairs.png", "README.md"}


def test_the_page_allows_for_the_number_of_its_comparisons(grid, tmp_path, monkeypatch):
    height = {("dnn", 1): 0.1, ("dnn", 2): 0.11, ("dcn_v2", 1): 0.1, ("dcn_v2", 2): 0.13}  # of SML on over off, which has 0

    def made(cell):
        return {"valid": {"auc": cell.config.model.sml.enabled * height[cell.config.model.name, cell.config.train.seed]}}

    monkeypatch.setattr("sml_dist.studies.ablation.done", made)
    first, second = sorted(pair["p"] for pair in run(grid, [], str(tmp_path))["pairs"])
    text = (tmp_path / "README.md").read_text()
    assert "allows for all\n2 comparisons" in text
    assert f"| {first:.3f} | {2 * first:.3f} |" in text and f"| {second:.3f} | {max(2 * first, second):.3f} |" in text


def test_a_cell_that_was_run_on_other_data_is_not_taken_for_done(grid, tmp_path):
    cell = cells(read_grid(grid), str(tmp_path))[0]
    folder = RunFolder(cell.config.run.folder)
    assert done(cell) is None
    folder.write_json("summary.json", {"steps": 8})
    folder.write_json("about.json", {"dataset": {"sha256": fingerprint(cell.config.data.path)}})
    assert done(cell) == {"steps": 8}
    folder.write_json("about.json", {"dataset": {"sha256": "of another"}})
    with pytest.raises(InputError, match="was run on another dataset .* choose another --output"):
        done(cell)


@pytest.mark.parametrize(
    ("settings", "gpus", "to_ray_train"),
    [
        ([], 0, False),
        ([], 1, True),
        (["train.device=cpu"], 1, False),
        (["train.device=cuda"], 1, True),
        (["train.num_workers=2"], 0, True),
        (["train.worker_resources={CPU: 2}"], 0, True),
    ],
)
def test_a_cell_trains_where_its_configuration_says(grid, tmp_path, monkeypatch, settings, gpus, to_ray_train):
    """As `sml-dist train` does: whatever is not one worker on a CPU is Ray Train's."""
    alone, launched = [], []
    monkeypatch.setattr("sml_dist.train.launch.ray.cluster_resources", lambda: {"CPU": 8, "GPU": gpus})
    monkeypatch.setattr(ablation, "as_they_end", lambda function, given, *_: ((i, alone.append(i) or {}) for i in given))
    monkeypatch.setattr("sml_dist.train.launch.launch", lambda config: launched.append(config.run.name) or {})
    wanted = cells(read_grid(grid, [f"set={settings}"]), str(tmp_path))
    assert ablation.finished(wanted, read_grid(grid), lambda *_: None) == [{}] * 8
    assert (len(alone), launched) == ((0, [cell.config.run.name for cell in wanted]) if to_ray_train else (8, []))


def test_a_cell_for_a_gpu_that_is_not_there_is_refused_before_any_cell_runs(grid, tmp_path, monkeypatch):
    monkeypatch.delenv("RAY_ADDRESS", raising=False)
    monkeypatch.setattr("sml_dist.train.launch.ray.cluster_resources", lambda: {"CPU": 8})
    monkeypatch.setattr(ablation, "as_they_end", lambda *_: pytest.fail("a cell ran"))
    wanted = cells(read_grid(grid, ["axes.model.dcn_v2=[model.name=dcn_v2,model.cross_layers=1,train.device=cuda]"]), str(tmp_path))
    with pytest.raises(InputError, match="1 worker wants 1 GPU, and this machine has 0"):
        ablation.finished(wanted, read_grid(grid), lambda *_: None)


def test_a_cell_for_which_no_node_is_large_enough_is_refused(ray_local, grid, tmp_path):
    with pytest.raises(InputError, match="cpus 8.5: the largest node has 8, .* lower it with --set cpus=8"):
        run(grid, ["cpus=8.5"], str(tmp_path))


def test_cells_run_once_differences_are_paired_and_files_are_written(ray_local, grid, tmp_path):
    told: list[tuple] = []
    found = run(grid, [], str(tmp_path), lambda *done: told.append(done))
    assert told[0] == ("runs", 0, 8) and told[-1] == ("runs", 8, 8)
    rows = list(csv.DictReader((tmp_path / "cells.csv").read_text().splitlines()))
    auc = {(row["model"], row["sml"], row["seed"]): float(row["valid.auc"]) for row in rows}
    for pair in found["pairs"]:
        differences = [auc[pair["model"], "on", seed] - auc[pair["model"], "off", seed] for seed in ("1", "2")]
        assert pair["mean"] == pytest.approx(sum(differences) / 2) and pair["seeds"] == 2
    assert len(found["pairs"]) == 2 and (tmp_path / "pairs.png").stat().st_size > 5_000
    assert "| dcn_v2 | on |" in (tmp_path / "README.md").read_text()
    before = {path: path.stat().st_mtime_ns for path in Path(tmp_path, "cells").glob("*/summary.json")}
    told.clear()
    again = run(grid, [], str(tmp_path), lambda *done: told.append(done))
    assert told == [("runs", 8, 8)] and again["pairs"] == found["pairs"] and len(before) == 8
    assert before == {path: path.stat().st_mtime_ns for path in Path(tmp_path, "cells").glob("*/summary.json")}
