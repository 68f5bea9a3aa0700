"""Ctrl-C: exit status 130 and one line, and nothing is left half made."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path

from sml_dist.config.run import dump, parse
from sml_dist.data.synthetic import synth


def interrupted(when: Callable[[], bool], *words: str) -> tuple[int, str]:
    """Exit status and standard error of a command to which Ctrl-C comes as soon as `when` holds."""
    command = [sys.executable, "-m", "sml_dist.cli", *words]
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"} | {"COLUMNS": "200"}
    process = subprocess.Popen(
        command,
        stdout=subprocess.DEVNULL,
        stderr=subprocess.PIPE,
        text=True,
        env=environment,
        start_new_session=True,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),  # a shell has what it starts in the background ignore it
    )
    try:
        while not when():
            assert process.poll() is None
            time.sleep(0.05)
        process.send_signal(signal.SIGINT)
        said = process.communicate(timeout=60)[1]
    finally:
        process.kill()
    return process.returncode, said


def test_synth_leaves_nothing(tmp_path):
    folder = tmp_path / "data"
    status, said = interrupted(lambda: any(tmp_path.rglob("*.parquet")), "synth", "--rows", "50000000", "--output", str(folder))
    assert (status, said) == (130, "stopped; the same command starts over\n")
    assert not (folder / "dataset.json").exists()


def test_train_ends_its_workers_and_goes_on_from_its_last_checkpoint(tmp_path):
    synth(20_000, str(tmp_path / "data"), fields=3, table_rows=300)
    config = {
        "run": {"name": "run", "storage": str(tmp_path)},
        "data": {"path": str(tmp_path / "data")},
        "model": {"name": "dnn", "tower": {"hidden": [8]}},
        "embedding": {"dim": 4},
        "train": {"global_batch_size": 96, "epochs": 500, "checkpoint_every_steps": 20},
    }
    (tmp_path / "run.yaml").write_text(dump(parse(config)))
    words = ("train", str(tmp_path / "run.yaml"))
    status, said = interrupted(lambda: bool(steps(tmp_path / "run")), *words)
    assert status == 130 and said.endswith("stopped; the same command resumes it\n") and "Traceback" not in said
    stopped = max(steps(tmp_path / "run"))
    most = ("--set", f"train.max_steps={stopped + 20}", "--json")
    again = subprocess.run([sys.executable, "-m", "sml_dist.cli", *words, *most], capture_output=True, text=True, check=True)
    assert json.loads(again.stdout)["restarts"] == 1 and json.loads(again.stdout)["steps"] == stopped + 20


def steps(run: Path) -> list[int]:
    return [int(path.name.partition("-")[2]) for path in run.glob("checkpoints/step-*")]
