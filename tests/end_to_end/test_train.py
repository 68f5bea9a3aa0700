"""The whole way, through the command line's own functions: logs, dataset, workers, tables, checkpoints, summary.

What a worker does no otherwise for Ray Train than for `train_alone` is seen there, without the start of the workers.
"""

import gzip
import io
import json
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch
from rich.console import Console

from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.run import RunConfig, dump, parse
from sml_dist.data.dataset import MANIFEST, Field, read_manifest
from sml_dist.data.synthetic import synth
from sml_dist.embeddings.tables import embedding_tables
from sml_dist.held import held
from sml_dist.spec import InputError, to_dict
from sml_dist.train.again import finished
from sml_dist.train.alone import train_alone
from sml_dist.train.check import check, check_monitor, few_steps
from sml_dist.train.keeper import Keeper
from sml_dist.train.launch import check_room, launch
from sml_dist.train.loop import Trainer
from sml_dist.train.metrics import EXACT_ROWS
from sml_dist.train.terminal import EVENTS, TrainProgress


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(150_000, fields=6, dense=4, table_rows=300)


def config(dataset: str, storage: Path, name: str, **train) -> RunConfig:
    return parse(
        {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": dataset, "streams": 4},
            "model": {"name": "dcn_v2", "tower": {"hidden": [32, 16]}},
            "embedding": {"dim": 8, "lr": 0.05, "data_parallel_rows": 30},
            "train": {"global_batch_size": 512, "epochs": 2, "lr": 3e-3, "precision": "fp32", **train},
        }
    )


def test_synthetic_data_reaches_near_its_known_best_at_one_and_two_workers(ray_local, dataset, tmp_path):
    aucs = {}
    for workers in (1, 2):
        shown = []
        summary = launch(config(dataset, tmp_path, f"w{workers}", num_workers=workers), shown.append)
        aucs[workers] = summary["valid"]["auc"]
        assert summary["workers"] == workers and summary["rows_seen"] == 2 * 120_000 and summary["restarts"] == 0
        assert summary["best"]["valid"]["auc"] - 0.02 < aucs[workers] < summary["best"]["valid"]["auc"] + 0.01
        assert abs(sum(summary["seconds_by_phase"].values()) - summary["seconds"]) < 0.1
        assert shown and json.loads((tmp_path / f"w{workers}/summary.json").read_text()) == summary
    assert max(aucs.values()) - min(aucs.values()) < 0.002, aucs


def test_a_run_that_another_command_trains_is_left_alone(ray_local, dataset, tmp_path):
    each = config(dataset, tmp_path, "busy")
    with held(each.run.folder), pytest.raises(InputError, match=r"busy is being written by another command \(process \d+ on "):
        launch(each, patience=0.2)
    assert not Path(each.run.folder, "code.json").exists()


def test_a_run_started_again_goes_on_and_ends_with_the_same_weights(dataset, tmp_path):
    whole = train_alone(config(dataset, tmp_path, "whole", max_steps=100, checkpoint_every_steps=30))
    first = train_alone(config(dataset, tmp_path, "cut", max_steps=70, checkpoint_every_steps=30))
    assert first["steps"] == 70
    again = train_alone(config(dataset, tmp_path, "cut", max_steps=100, checkpoint_every_steps=30))
    assert again["steps"] == 100 and again["restarts"] == 1
    assert hashes(whole) == hashes(again)
    lines = [json.loads(line) for line in (tmp_path / "cut/metrics.jsonl").read_text().splitlines()]
    steps = [line["step"] for line in lines if "event" not in line]  # that a checkpoint is done is told some steps after it
    assert steps == sorted(steps)


def test_a_run_that_is_past_a_lower_max_steps_is_done(dataset, tmp_path):
    first = train_alone(config(dataset, tmp_path, "a", max_steps=30))
    again = train_alone(config(dataset, tmp_path, "a", max_steps=20))
    assert again["steps"] == 30 and again["valid"] == first["valid"]


def interrupted(config: RunConfig, monkeypatch: pytest.MonkeyPatch, at: int) -> None:
    """Trains until a step, which it does not do; the checkpoints before it are complete."""

    def step(trainer, table, progress, *more):
        if progress.step == at:
            trainer.keeper.settle()
            raise KeyboardInterrupt
        return whole(trainer, table, progress, *more)

    whole = Trainer.step
    with monkeypatch.context() as patched, pytest.raises(KeyboardInterrupt):
        patched.setattr(Trainer, "step", step)
        train_alone(config)


def evaluated(run: Path) -> list[int]:
    lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
    return [line["step"] for line in lines if line.get("split") == "valid"]


def test_a_run_whose_end_is_set_to_a_step_before_its_first_evaluation_is_evaluated_there(dataset, tmp_path, monkeypatch):
    interrupted(config(dataset, tmp_path, "a", checkpoint_every_steps=20), monkeypatch, at=25)
    found = train_alone(config(dataset, tmp_path, "a", checkpoint_every_steps=20, max_steps=20))
    assert found["steps"] == 20 and 0 < found["valid"]["auc"] < 1


def test_a_run_whose_end_is_set_to_a_step_after_its_last_evaluation_is_evaluated_there_once(dataset, tmp_path, monkeypatch):
    each = {"eval_every_steps": 13, "checkpoint_every_steps": 20}
    train_alone(config(dataset, tmp_path, "a", max_steps=13, **each))
    interrupted(config(dataset, tmp_path, "a", **each), monkeypatch, at=22)
    nearer = config(dataset, tmp_path, "a", max_steps=20, **each)
    assert finished(nearer) is None  # what summary.json holds is of the end at step 13
    assert train_alone(nearer)["steps"] == 20 and evaluated(tmp_path / "a") == [13, 20]
    assert train_alone(nearer)["steps"] == 20 and evaluated(tmp_path / "a") == [13, 20] and finished(nearer)["steps"] == 20


def test_a_damaged_checkpoint_is_told_of_when_it_is_passed_over_and_without_a_sound_one_nothing_is_begun_anew(dataset, tmp_path):
    each = [config(dataset, tmp_path, "a", max_steps=steps, checkpoint_every_steps=20) for steps in (30, 25)]
    train_alone(each[0])
    run, shown = tmp_path / "a", Console(file=io.StringIO(), width=1000)
    damaged = next((run / "checkpoints/step-000000030").glob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:-1])
    assert train_alone(each[1])["steps"] == 25
    events = [line for line in map(json.loads, (run / "metrics.jsonl").read_text().splitlines()) if line.get("event") in EVENTS]
    assert [(event["event"], event["step"]) for event in events] == [("damaged", 20), ("resumed", 20)]
    TrainProgress(shown).update(events[0])
    assert f"a damaged checkpoint is passed over: {damaged} is damaged (its SHA-256" in shown.file.getvalue()

    for manifest in run.glob("checkpoints/*/MANIFEST.json"):
        manifest.write_text("{")
    held = sorted(path for path in run.rglob("*") if path.is_file())
    for command in (finished, train_alone):
        with pytest.raises(
            InputError, match=r"^no checkpoint of .*/a/checkpoints is sound: .*step-000000025/MANIFEST.json is unreadable .*"
        ):
            command(each[0])
    assert sorted(path for path in run.rglob("*") if path.is_file()) == held


def test_a_run_goes_on_from_a_checkpoint_before_which_every_step_was_skipped(dataset, tmp_path, monkeypatch):
    with monkeypatch.context() as patched:
        patched.setattr(Trainer, "loss", lambda trainer, logit, batch: logit.sum() * float("nan"))
        assert train_alone(config(dataset, tmp_path, "a", max_steps=2))["skipped_steps"] == 2
    found = train_alone(config(dataset, tmp_path, "a", max_steps=4))
    assert found["steps"] == 4 and found["restarts"] == 1


def test_a_parameter_that_is_held_does_not_keep_the_others_from_training(dataset, tmp_path):
    each = config(dataset, tmp_path, "a", max_steps=3)
    model = replace(each.model, sml=replace(each.model.sml, mtn=replace(each.model.sml.mtn, learn_offset=False)))
    assert train_alone(replace(each, model=model))["steps"] == 3


def test_a_traced_run_says_where_its_steps_time_went(dataset, tmp_path):
    summary = train_alone(config(dataset, tmp_path, "traced", max_steps=40, profile_steps=3))
    table = (tmp_path / "traced/profile/table.txt").read_text()
    assert "aten::addmm" in table and "embedding_forward" in table
    trace = json.loads(gzip.decompress((tmp_path / "traced/profile/trace.json.gz").read_bytes()))
    assert sum(event["name"] == "dense_backward" and event.get("cat") == "user_annotation" for event in trace["traceEvents"]) == 3
    assert {"start", "dense_forward", "optimizer", "evaluation", "checkpoint"} <= summary["seconds_by_phase"].keys()


def hashes(summary: dict) -> dict[str, str]:
    """The weights' bytes, by the hash of every data file of a run's last checkpoint."""
    last = sorted(Path(summary["run"]).glob("checkpoints/step-*"))[-1]
    return json.loads((last / "MANIFEST.json").read_text())["files"]


def test_a_run_of_another_seed_is_not_gone_on_with_and_keeps_its_own_configuration(dataset, tmp_path):
    train_alone(config(dataset, tmp_path, "a", max_steps=3))
    before = (tmp_path / "a/config.yaml").read_text()
    another = config(dataset, tmp_path, "a", max_steps=5, seed=1)
    for command in (train_alone, finished):
        with pytest.raises(InputError, match="run a was started with train.seed=0, now it is 1; choose another run.name"):
            command(another)
    assert (tmp_path / "a/config.yaml").read_text() == before


def test_a_run_that_began_from_nothing_is_not_said_to_go_on_from_another(dataset, tmp_path):
    each = config(dataset, tmp_path, "a", max_steps=3)
    train_alone(each)
    warm = replace(each, run=replace(each.run, warm_start=str(tmp_path / "b")))
    for command in (train_alone, finished):
        with pytest.raises(InputError, match=r"was started from no other run, now run.warm_start is /.*/b; leave that out, or choose"):
            command(warm)


def test_a_run_that_is_done_is_done_under_other_rates_and_goes_on_to_more_steps(dataset, tmp_path):
    each = config(dataset, tmp_path, "a", max_steps=3)
    assert finished(each) is None
    summary = train_alone(each)
    assert finished(each) == finished(config(dataset, tmp_path, "a", max_steps=2, lr=0.5)) == json.loads(json.dumps(summary))
    assert finished(config(dataset, tmp_path, "a", max_steps=4)) is None


def test_a_run_taken_further_has_the_summary_of_its_last_checkpoint_or_none(dataset, tmp_path, monkeypatch):
    """Struck between its last commit and the rows of the test split."""
    first = train_alone(config(dataset, tmp_path, "a", max_steps=3))
    further, path = config(dataset, tmp_path, "a", max_steps=6), tmp_path / "a/summary.json"
    with monkeypatch.context() as patched:
        patched.setattr(Keeper, "best", struck)
        with pytest.raises(KeyboardInterrupt):
            train_alone(further)
    assert not path.exists()
    path.write_text(json.dumps(first))  # as one left it that kept the earlier summary
    assert finished(further) is None
    assert train_alone(further)["steps"] == finished(further)["steps"] == 6


def struck(*_) -> None:
    raise KeyboardInterrupt


def test_the_command_of_a_run_that_is_done_shows_its_result_and_changes_nothing(dataset, tmp_path):
    each = config(dataset, tmp_path, "a", max_steps=3)
    train_alone(each)
    before = {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()}
    (tmp_path / "run.yaml").write_text(dump(each))
    found = ended("train", str(tmp_path / "run.yaml"), "--set", "train.lr=0.5", "--json")
    assert found.returncode == 0 and "is done: nothing was trained" in found.stderr
    assert json.loads(found.stdout) == json.loads(before[tmp_path / "a/summary.json"])
    assert {path: path.read_bytes() for path in (tmp_path / "a").rglob("*") if path.is_file()} == before


def test_what_the_user_can_mend_ends_the_run_on_all_workers_with_one_line(ray_local, dataset, tmp_path):
    with pytest.raises(InputError, match="3 bad steps in a row, .*there is no checkpoint yet to go back to; mend the data, or lower"):
        launch(config(dataset, tmp_path, "nan", lr=1e30, num_workers=2))


def test_what_one_worker_cannot_use_ends_the_others_too(ray_local, tmp_path):
    """They wait for it in a collective, where the watchdog would leave them for ten minutes."""
    synth(4_000, str(tmp_path / "data"), fields=3, dense=1, table_rows=300)
    part = next((tmp_path / "data/train").glob("*.parquet"))
    table = pq.read_table(part)
    ids = table["ids"].combine_chunks()
    values = ids.flatten().to_numpy().copy()
    values[-1] = 1_000_000
    column = pa.FixedSizeListArray.from_arrays(pa.array(values), type=ids.type)
    table = table.set_column(table.column_names.index("ids"), table.schema.field("ids"), column)
    pq.write_table(table, part, row_group_size=pq.read_metadata(part).row_group(0).num_rows, write_page_checksum=True)
    started = time.monotonic()
    with pytest.raises(InputError, match="id 1000000 is outside its table of .* rows; prepare the dataset again"):
        launch(config(str(tmp_path / "data"), tmp_path, "a", num_workers=2, global_batch_size=64))
    assert time.monotonic() - started < 120


def test_readers_that_may_hold_more_than_the_object_stores_are_refused(ray_local, dataset, tmp_path):
    large = config(dataset, tmp_path, "a", global_batch_size=8192)
    line = r"readers may need .* MB \(8192 streams, 2 windows ahead\), but the nodes' object stores hold 500 MB"
    with pytest.raises(InputError, match=line):
        check_room(replace(large, data=replace(large.data, streams=8192)))


@pytest.mark.skipif(torch.cuda.is_available(), reason="there is a GPU")
def test_workers_that_this_machine_has_no_room_for_are_refused(ray_local, dataset, tmp_path):
    with pytest.raises(InputError, match="1 worker wants 1 GPU, and this machine has 0 that Ray sees; set train.device=cpu, or name"):
        launch(config(dataset, tmp_path, "a", device="cuda"))
    with pytest.raises(InputError, match="2 workers want 20000 CPU, .*; set fewer train.num_workers or train.worker_resources, or name"):
        launch(config(dataset, tmp_path, "a", num_workers=2, worker_resources={"CPU": 10_000}))


def test_what_cannot_work_is_refused_before_a_worker_starts(dataset, tmp_path):
    with pytest.raises(InputError, match="global_batch_size 250 is not divisible by data.streams 4; try 248 or 252"):
        check(config(dataset, tmp_path, "a", global_batch_size=250))
    with pytest.raises(InputError, match="data.streams 4 is fewer than 8 workers; set data.streams to 32"):
        check(config(dataset, tmp_path, "a", num_workers=[2, 8]))
    with pytest.raises(InputError, match=r"train.num_workers \[4, 2\]: give the least first"):
        check(config(dataset, tmp_path, "a", num_workers=[4, 2]))
    with pytest.raises(InputError, match="monitor gauc needs a dataset with a group"):
        check(config(dataset, tmp_path, "a", monitor="gauc"))
    with pytest.raises(InputError, match="not a prepared dataset"):
        check(config(str(tmp_path), tmp_path, "a"))
    (tmp_path / MANIFEST).write_text(json.dumps(to_dict(replace(read_manifest(dataset), fields=[]))))
    with pytest.raises(InputError, match="has numeric features alone; in its schema name a categorical column, .*, and prepare it again"):
        check(config(str(tmp_path), tmp_path, "a"))


def test_what_is_undefined_where_all_valid_rows_have_one_label_is_not_monitored(dataset, tmp_path):
    manifest = read_manifest(dataset)
    same = replace(manifest, group=True, splits={"valid": replace(manifest.splits["valid"], positives=0)})
    check_monitor(config(dataset, tmp_path, "a", monitor="logloss"), same)
    for metric in ("auc", "gauc", "ne"):
        with pytest.raises(InputError, match=f"all valid rows have one label, so their {metric} is undefined; set train.monitor=logloss"):
            check_monitor(config(dataset, tmp_path, "a", monitor=metric), same)


def test_a_dataset_of_which_two_tables_would_have_one_name_is_refused(dataset, tmp_path):
    twins = replace(read_manifest(dataset), fields=[Field(name="a.b", rows=9), Field(name="a_b", rows=9)])
    (tmp_path / MANIFEST).write_text(json.dumps(to_dict(twins)))
    line = "fields 'a.b' and 'a_b' would both have the table t_a_b; rename one of the columns, then prepare"
    with pytest.raises(InputError, match=f"^{tmp_path}: {line}"):
        check(config(str(tmp_path), tmp_path, "a"))
    with pytest.raises(InputError, match=f"^the dataset: {line}"):
        embedding_tables(twins, EmbeddingConfig())


def test_auc_per_group_is_not_monitored_where_rows_are_too_many_to_be_kept(dataset, tmp_path):
    manifest = replace(read_manifest(dataset), group=True, labels=["like", "love"])
    valid = manifest.splits["valid"]
    large = replace(manifest, splits={"valid": replace(valid, rows=EXACT_ROWS + 1, positives=[valid.positives] * 2)})
    check_monitor(config(dataset, tmp_path, "a", monitor="love.auc"), large)
    for metric, way_out in (("gauc", "auc"), ("love.gauc", "love.auc")):
        line = f"{metric} is known of up to 20,000,000 valid rows, and .* has 20,000,001; set train.monitor={way_out} or prepare fewer"
        with pytest.raises(InputError, match=line):
            check_monitor(config(dataset, tmp_path, "a", monitor=metric), large)


def test_a_run_of_few_steps_is_told_so_before_it_starts(dataset, tmp_path):
    def told(**train):
        run = config(dataset, tmp_path, "a", **train)
        return few_steps(run.train, check(run))

    assert told() is None
    assert told(max_steps=3) is None
    said = told(global_batch_size=8192)
    assert said.startswith("30 steps in all (120,000 rows in batches of 8,192) may be too few to learn from; lower train.global_batch_size")


def ended(*arguments: str) -> subprocess.CompletedProcess[str]:
    """The command in a process of its own: into this one's output Ray writes lines of other processes when they come."""
    return subprocess.run([sys.executable, "-m", "sml_dist.cli", *arguments], capture_output=True, text=True)


def test_the_command_line_exits_2_with_one_line(tmp_path):
    found = ended("train", str(tmp_path / "no.yaml"))
    assert found.returncode == 2
    assert found.stdout == "" and found.stderr.startswith("error: ") and found.stderr.count("\n") == 1 and "no.yaml" in found.stderr


def test_json_output_is_one_object(tmp_path):
    found = ended("synth", "--rows", "500", "--output", str(tmp_path / "d"), "--json")
    assert found.returncode == 0
    assert np.isclose(sum(split["rows"] for split in json.loads(found.stdout)["splits"].values()), 500)
