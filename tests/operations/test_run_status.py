"""`sml-dist status` tells from the folder alone whether a run lives."""

import io
import json
import sys
from pathlib import Path

import fsspec
import pytest
from rich.console import Console

from sml_dist.cli.status import parts
from sml_dist.held import held
from sml_dist.operations.run_status import run_status
from sml_dist.spec import InputError
from sml_dist.train.terminal import TrainProgress
from sml_dist.train.watchdog import Watchdog

STEP = {"total_steps": 100, "epochs": 1, "epoch": 0, "loss": 0.5, "samples_per_second": 1000.0, "data_wait_fraction": 0.0}


def folder(tmp_path: Path, lines: list[dict], doing: str, when: float) -> str:
    (tmp_path / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines) + '{"half')
    (tmp_path / "heartbeat.json").write_text(json.dumps({"time": when, "doing": doing}))
    (tmp_path / "lock").write_text("process 1 on another-machine since 2026-01-01 00:00:00 UTC")  # of which nothing more is known here
    return str(tmp_path)


def test_a_run_is_alive_while_it_is_heard_of_and_its_eta_is_that_of_its_pace(tmp_path):
    lines = [{"time": 1000.0, "step": 10, **STEP}, {"time": 1020.0, "step": 20, **STEP}]
    found = run_status(folder(tmp_path, lines, "evaluating", 1030.0), now=1035.0)
    assert (found["state"], found["step"], found["eta_seconds"]) == ("alive", 20, 80 * 2.0 - 15.0)


def test_a_torn_line_in_the_middle_is_passed_over(tmp_path):
    lines = [{"time": 1000.0, "step": 10, **STEP}, {"time": 1020.0, "step": 20, **STEP}]
    run = folder(tmp_path, lines, "evaluating", 1030.0)
    first, second, *_ = (tmp_path / "metrics.jsonl").read_bytes().splitlines()
    (tmp_path / "metrics.jsonl").write_bytes(b"\n".join([first, b'{"time": 1010.0, "st\xff', b"7", second, b""]))
    assert (run_status(run, now=1035.0)["step"], run_status(run, now=1035.0)["eta_seconds"]) == (20, 80 * 2.0 - 15.0)


def test_a_run_is_read_through_any_file_system_of_fsspec():
    with fsspec.open("memory://runs/a/heartbeat.json", "w") as file:
        json.dump({"time": 1000.0, "doing": "step 7"}, file)
    assert run_status("memory://runs/a", now=1001.0)["state"] == "alive"


def test_an_eta_counts_from_the_last_restart_alone(tmp_path):
    earlier = [{"time": 0.0, "step": 1, **STEP}, {"time": 900.0, "step": 10, **STEP}]
    lines = [*earlier, {"time": 1000.0, "event": "resumed", "step": 10, "restarts": 2}]
    lines += [{"time": 1000.0, "step": 11, **STEP}, {"time": 1009.0, "step": 20, **STEP}]
    found = run_status(folder(tmp_path, lines, "step 20", 1009.0), now=1009.0)
    assert (found["eta_seconds"], found["restarts"]) == (80.0, 2)


def test_a_run_that_is_not_heard_of_is_stalled_but_one_that_starts_has_time(tmp_path):
    assert run_status(folder(tmp_path, [], "step 7", 1000.0), now=1061.0)["state"] == "stalled"
    assert run_status(folder(tmp_path, [], "starting", 1000.0), now=1061.0)["state"] == "starting"
    assert run_status(folder(tmp_path, [], "starting", 1000.0), now=1601.0)["state"] == "stalled"


def test_a_run_that_is_not_done_has_stopped_when_no_command_holds_its_folder_and_its_checkpoint_is_the_newest_there(tmp_path):
    lines = [{"time": 1000.0, "step": 310, **STEP}, {"time": 1000.0, "event": "checkpoint", "step": 200}]
    run = folder(tmp_path, lines, "step 314", 1000.0)
    with held(run):
        assert run_status(run, now=1001.0)["state"] == "alive"
    assert parts(run_status(run, now=1001.0))[-1] == "the same command starts over"
    for step in (200, 313):
        (tmp_path / "checkpoints" / f"step-{step:09d}").mkdir(parents=True)
        (tmp_path / "checkpoints" / f"step-{step:09d}" / "MANIFEST.json").touch()
    for name in ("step-000000400", "step-000000313.bad"):  # without a manifest; set aside by hand
        (tmp_path / "checkpoints" / name).mkdir()
    found = run_status(run, now=1001.0)
    assert (found["state"], found["checkpoint_step"]) == ("stopped", 313)
    assert parts(found)[-1] == "the same command goes on from that checkpoint"
    assert run_status(folder(tmp_path, lines, "done", 1000.0), now=1001.0)["state"] == "done"


def test_a_run_is_done_when_its_worker_said_so_and_not_by_the_summary_of_an_earlier_one(tmp_path):
    run = folder(tmp_path, [], "step 3", 1000.0)
    (tmp_path / "summary.json").write_text("{}")
    assert run_status(run, now=1001.0)["state"] == "alive"
    (tmp_path / "summary.json").write_text('{"model": "lr"}')
    assert run_status(folder(tmp_path, [], "done", 1000.0), now=9999.0)["state"] == "done"


def test_the_last_evaluation_is_shown_while_a_run_goes_on_and_the_best_which_its_summary_reports_when_it_is_done(tmp_path):
    valid = {"time": 1000.0, **STEP, "split": "valid"}
    lines = [valid | {"step": step, "auc": auc, "logloss": 1 - auc} for step, auc in ((50, 0.75), (100, 0.5))]
    (tmp_path / "summary.json").write_text('{"valid": {"auc": 0.75, "logloss": 0.25}}')
    for doing, auc, shown in (("evaluating", 0.5, "last valid AUC 0.50000"), ("done", 0.75, "best valid AUC 0.75000")):
        found = run_status(folder(tmp_path, lines, doing, 1000.0), now=1001.0)
        assert (found["valid_auc"], found["valid_logloss"]) == (auc, 1 - auc) and shown in parts(found)


def test_a_metric_that_is_not_a_number_is_left_out(tmp_path):
    line = {"time": 1000.0, "step": 10, "total_steps": 100, "epoch": 0, "epochs": 1, "split": "valid", "auc": None, "logloss": 0.25}
    found = run_status(folder(tmp_path, [line], "step 10", 1000.0), now=1001.0)
    assert "valid_auc" not in found and found["valid_logloss"] == 0.25 and "step 10 of 100 (10%)" in parts(found)
    progress = TrainProgress(Console(file=io.StringIO(), width=200))
    progress.update(line | {"calibration": None})
    assert "step 10 valid: AUC nan logloss 0.25000 calibration nan" in progress.console.file.getvalue()


def test_a_run_that_must_not_be_tried_again_has_failed_and_says_why(tmp_path):
    run = folder(tmp_path, [], "step 3", 1000.0)
    (tmp_path / "error.json").write_text('{"input_error": "embedding.lr is too high"}')
    found = run_status(run, now=1001.0)
    assert (found["state"], found["input_error"]) == ("failed", "embedding.lr is too high")


def test_what_is_no_run_is_said_to_be_none(tmp_path):
    with pytest.raises(InputError, match="is no run's folder"):
        run_status(str(tmp_path / "nowhere"))


@pytest.mark.parametrize("run", ["s4://runs/a", "gs://runs/a"])
def test_a_folder_on_a_file_system_that_is_not_there_is_refused_in_one_line_that_names_it(run, monkeypatch):
    monkeypatch.setitem(sys.modules, "gcsfs", None)
    with pytest.raises(InputError, match=f"^{run}: .*(s4|gcsfs)[^\n]*$"):
        run_status(run)


def test_a_damaged_file_of_a_run_is_named(tmp_path):
    (tmp_path / "summary.json").write_text("{")
    with pytest.raises(InputError, match=f"^{tmp_path}/summary.json is damaged: not JSON$"):
        run_status(str(tmp_path))


def test_worker_0_alone_notes_that_it_lives_and_that_it_is_done(tmp_path):
    for rank in (0, 1):
        dog = Watchdog(tmp_path / str(rank) / "stacks", rank, timeout=60.0)
        note = tmp_path / str(rank) / "heartbeat.json"
        assert note.exists() == (rank == 0)
        dog.beat("done")
        dog.close()
        assert not rank and json.loads(note.read_text())["doing"] == "done" or not note.exists()
