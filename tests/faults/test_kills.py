"""Killed at any moment, on any number of workers: each row is used once, and on the same workers the same bytes come out."""

import json
import os
import random
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sml_dist.config.run import dump
from tests.faults.runs import Striker, config, events, final_bytes, launched, rows_used_once, workers_of

pytestmark = [pytest.mark.faults, pytest.mark.timeout(600)]


long = pytest.mark.long


@pytest.fixture(scope="module")
def dataset(synthetic) -> str:
    return synthetic(50_000, fields=6, dense=4, table_rows=300)


@pytest.fixture(scope="module")
def undisturbed(ray_local, dataset, tmp_path_factory) -> dict:
    each = config(dataset, tmp_path_factory.mktemp("runs"), "undisturbed")
    summary, _ = launched(each)
    assert rows_used_once(each)["rows"] == 2 * 40_000
    metrics = {"auc": summary["valid"]["auc"], "test": summary["test"]["auc"]}
    return metrics | {"bytes": final_bytes(each), "steps": summary["steps"]}


@pytest.mark.parametrize("seed", [0, *(pytest.param(seed, marks=long) for seed in range(1, 20))])
def test_a_killed_worker_changes_no_byte_of_the_result(undisturbed, dataset, tmp_path, seed):
    each = config(dataset, tmp_path, f"killed-{seed}")
    summary, struck = launched(each, seed, undisturbed["steps"])
    assert struck, "the run ended before the kill"
    assert final_bytes(each) == undisturbed["bytes"]
    assert summary["valid"]["auc"] == undisturbed["auc"] and summary["test"]["auc"] == undisturbed["test"]
    found = rows_used_once(each)
    resumed = [round(event["time"], 1) for event in events(Path(each.run.folder), "resumed")]
    print(f"seed {seed}: attempts {found['attempts']}, resumed {resumed}")


@pytest.mark.parametrize(("seed", "kills"), [(0, 1), *(pytest.param(seed, 2, marks=long) for seed in range(20))])
def test_kills_with_another_number_of_workers_each_time_lose_and_double_no_row(undisturbed, dataset, tmp_path, seed, kills):
    choice, sizes = random.Random(seed), []
    for attempt in range(kills + 1):
        sizes.append(choice.choice([size for size in (1, 2, 3, 4) if size != (sizes or [0])[-1]]))
        each = config(dataset, tmp_path, f"sizes-{seed}", num_workers=sizes[-1], max_restarts=0)
        if attempt < kills:
            assert launched(each, 100 * seed + attempt, undisturbed["steps"]) == (None, True), "the run ended before the kill"
    summary, _ = launched(each)
    found = rows_used_once(each)
    print(f"seed {seed}: workers {sizes}, history {found['workers']}, AUC {summary['valid']['auc']:.5f} against {undisturbed['auc']:.5f}")
    assert found["rows"] == 2 * 40_000
    assert abs(summary["valid"]["auc"] - undisturbed["auc"]) < 0.002


def test_a_killed_driver_started_again_ends_with_the_same_bytes(undisturbed, dataset, tmp_path):
    """The command line, in a session of its own; the same command until it is done."""
    each = config(dataset, tmp_path, "driver")
    (tmp_path / "run.yaml").write_text(dump(each))
    command = [sys.executable, "-m", "sml_dist.cli", "train", str(tmp_path / "run.yaml"), "--json"]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    folder = Path(each.run.folder)
    driver = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    while not list(folder.glob("checkpoints/step-*")):
        assert driver.poll() is None
        time.sleep(0.1)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    deadline = time.monotonic() + 60
    while workers_of(folder):  # they go when they miss their driver
        assert time.monotonic() < deadline, "workers outlived their driver by a minute"
        time.sleep(0.2)
    again = subprocess.run(command, capture_output=True, text=True, check=True, env=environment, timeout=200)
    assert json.loads(again.stdout)["restarts"] >= 1
    assert final_bytes(each) == undisturbed["bytes"]
    rows_used_once(each)


def test_a_stopped_worker_is_noticed_its_stack_is_written_and_the_run_ends_the_same(undisturbed, dataset, tmp_path):
    each = config(dataset, tmp_path, "stopped", step_timeout_s=5)
    folder = Path(each.run.folder)
    striker = Striker(folder, 3, 1.0, signal.SIGSTOP, after_first_checkpoint=True)
    summary, _ = launched(each)
    assert striker.struck is not None and summary["restarts"] == 1
    notes = {path.name.rpartition("-")[2]: path for path in (folder / "stacks").iterdir()}
    note = notes[f"{striker.struck}.txt"]
    seconds = int(note.name.partition("-")[0]) / 1e9 - striker.at
    print(f"noticed after {seconds:.1f} s")
    assert 4 < seconds < 5 + 10
    text = note.read_text()
    assert f"worker {striker.struck} (process" in text and "stopped) made no progress for 5 s" in text
    assert "loop.py" in text, text  # where it stood
    assert final_bytes(each) == undisturbed["bytes"]
