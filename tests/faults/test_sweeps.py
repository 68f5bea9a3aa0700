"""A sweep whose driver is killed: no finished trial runs twice, and the others go on from where they were."""

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from sml_dist.data.synthetic import synth
from tests.tune.sweeps import trials, write_sweep

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(600)]
SPACE = {"embedding.lr": {"loguniform": [0.01, 0.1]}}


def sweep(path: str) -> list[str]:
    return [sys.executable, "-m", "sml_dist.cli", "sweep", path, "--json"]


def events(folder: Path, record: dict, name: str) -> list[dict]:
    lines = [json.loads(line) for line in (folder / record["run"] / "metrics.jsonl").read_text().splitlines()]
    return [line for line in lines if line.get("event") == name]


def test_a_sweep_that_was_killed_goes_on_without_running_a_finished_trial_again(tmp_path):
    synth(20_000, str(tmp_path / "data"), fields=3, dense=2, table_rows=60)
    path = write_sweep(tmp_path, str(tmp_path / "data"), base={"train": {"epochs": 12}}, space=SPACE, trials=5)
    folder, environment = tmp_path / "s", {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    driver = subprocess.Popen(sweep(path), stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL, env=environment, start_new_session=True)
    while not (folder / "trials.jsonl").exists() or not half_done(trials(folder)):
        assert driver.poll() is None
        time.sleep(0.02)
    driver.send_signal(signal.SIGKILL)
    driver.wait()
    before = {record["id"]: record for record in trials(folder)}
    stamps = {id: (folder / record["run"] / "summary.json").stat().st_mtime_ns for id, record in finished(before).items()}
    found = json.loads(subprocess.run(sweep(path), capture_output=True, text=True, check=True, env=environment, timeout=300).stdout)
    after = {record["id"]: record for record in trials(folder)}
    assert found["trials"] == {"finished": 5}
    for id, stamp in stamps.items():
        assert after[id] == before[id] and (folder / after[id]["run"] / "summary.json").stat().st_mtime_ns == stamp
    for id, record in before.items():
        if record["status"] == "running" and record["history"]:
            assert after[id]["attempts"] == 2 and after[id]["summary"]["restarts"] == 1
            assert events(folder, after[id], "resumed")[0]["step"] >= record["history"][-1]["step"]
            assert after[id]["history"][: len(record["history"])] == record["history"]
    assert all([each["rows"] for each in record["history"]] == [16_000 * n for n in range(1, 13)] for record in after.values())


def finished(records: dict[int, dict]) -> dict[int, dict]:
    return {id: record for id, record in records.items() if record["status"] == "finished"}


def half_done(records: list[dict]) -> bool:
    """Two trials finished, and one that runs has evaluations behind it."""
    running = [record for record in records if record["status"] == "running" and len(record["history"]) > 2]
    return sum(record["status"] == "finished" for record in records) >= 2 and bool(running)
