"""How much of the time a run that loses a worker every two minutes spends on work that counts."""

import json
import os
import signal
import threading
import time
from pathlib import Path

import pytest

from sml_dist.config.run import load
from sml_dist.data.synthetic import synth
from sml_dist.operations.run_status import run_status
from sml_dist.train.launch import launch
from tests.faults.runs import rows_used_once, workers_of

pytestmark = [pytest.mark.faults, pytest.mark.long, pytest.mark.timeout(1500)]
EVERY, STEPS = 120.0, 9_000


def account(lines: list[dict], kills: list[float], started: float, ended: float) -> dict[str, float]:
    """Seconds by what they were spent on, from a run's metrics.jsonl; it holds no line of a step that was done again."""
    steps = [line for line in lines if "loss" in line]
    resumed = [line["time"] for line in lines if line.get("event") == "resumed"]
    first = [next(line for line in steps if line["time"] > moment) for moment in resumed]
    again = [next(line["time"] for line in steps if line["time"] > line_["time"]) for line_ in first]
    spent = {
        "start to the first step": steps[0]["time"] - started,
        "kill to the next step": sum(line["time"] - kill for line, kill in zip(first, kills, strict=True)),
        "steps lost with the worker": sum(
            kill - max(line["time"] for line in steps if line["time"] < kill) for kill in kills
        ),
        "after the last step": ended - steps[-1]["time"],
    }  # fmt: skip
    assert again
    wall = ended - started
    return spent | {"wall": wall, "effective": 1 - sum(spent.values()) / wall}


def test_one_kill_every_two_minutes_costs_less_than_a_fifth(ray_local, tmp_path):
    synth(300_000, str(tmp_path / "data"))
    overrides = ["train.checkpoint_every_steps=100", "train.eval_every_steps=4000", "train.record_rows=true", "train.max_restarts=100"]
    places = [f"data.path={tmp_path}/data", f"run.storage={tmp_path}", "run.name=demo", "train.epochs=1000", f"train.max_steps={STEPS}"]
    each, kills, done = load("configs/smoke.yaml", [*overrides, *places]), [], threading.Event()
    folder = Path(each.run.folder)

    def strike() -> None:
        while not done.wait(EVERY):
            if run_status(str(folder))["step"] > 0.9 * STEPS:  # a kill in the last moments may leave no step after it to be timed by
                return
            pid = sorted(workers_of(folder).values())[len(kills) % 2]
            kills.append(time.time())
            os.kill(pid, signal.SIGKILL)

    thread, started = threading.Thread(target=strike), time.time()
    thread.start()
    launch(each)
    ended = time.time()
    done.set()
    thread.join()
    lines = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    found = account(lines, kills, started, ended)
    print({name: round(value, 3) for name, value in found.items()}, f"{len(kills)} kills")
    rows_used_once(each)
    assert kills and found["kill to the next step"] / len(kills) < 20
    assert found["effective"] >= 0.80
