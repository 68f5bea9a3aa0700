"""Real runs on the session's Ray, and how to find and strike their workers."""

import json
import os
import random
import signal
import threading
import time
from pathlib import Path

from sml_dist.config.run import RunConfig, parse
from sml_dist.spec import RunError
from sml_dist.train.launch import launch
from sml_dist.train.verify import verify_run


def config(dataset: str, storage: Path, name: str, **train) -> RunConfig:
    """A small model with sharded and data_parallel tables; about 4 s of training on two workers."""
    return parse(
        {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": dataset, "streams": 12, "reader_cpus": 0.25},
            "model": {"name": "dcn_v2", "cross_layers": 2, "tower": {"hidden": [32, 16], "norm": "batch", "dropout": 0.1}},
            "embedding": {"dim": 8, "lr": 0.05, "data_parallel_rows": 30},
            "train": {
                "num_workers": 2, "global_batch_size": 96, "epochs": 2, "lr": 3e-3, "precision": "fp32", "threads": 1,
                "checkpoint_every_steps": 40, "eval_every_steps": 200, "max_restarts": 5, "record_rows": True, **train,
            },
        }
    )  # fmt: skip


def workers_of(folder: Path) -> dict[int, int]:
    """Rank -> process id of a run's living workers, as their watchdogs name them."""
    found = {}
    for entry in Path("/proc").iterdir():
        if entry.name.isdigit():
            try:
                words = (entry / "cmdline").read_text().split("\0")
            except OSError:
                continue
            if "sml_dist.train.watchdog" in words and str(folder / "stacks") in words:
                at = words.index("sml_dist.train.watchdog")
                found[int(words[at + 2])] = int(words[at + 1])
    return found


class Striker(threading.Thread):
    """Sends a signal to a random worker of a run, at a random moment of `within` seconds after the workers are there and the run has come
    to `step` (and a checkpoint is there).
    """

    def __init__(
        self,
        folder: Path,
        seed: int,
        within: float,
        signal_number: int = signal.SIGKILL,
        after_first_checkpoint: bool = False,
        step: int = 0,
    ):
        super().__init__(daemon=True)
        self.step, self.earlier = step, {*workers_of(folder).values()}  # of an attempt that died, and go by themselves
        self.folder, self.random, self.within, self.signal = folder, random.Random(seed), within, signal_number
        self.after_first_checkpoint, self.struck, self.at, self.over = after_first_checkpoint, None, None, threading.Event()
        self.start()

    def run(self) -> None:
        while not (found := self.workers()) or not self.far_enough():
            if self.over.wait(0.02):
                return
        if self.over.wait(self.random.uniform(0, self.within)):
            return
        found = self.workers() or found
        rank = self.random.choice(sorted(found))
        try:
            os.kill(found[rank], self.signal)
        except ProcessLookupError:
            return
        self.struck, self.at = rank, time.time()

    def workers(self) -> dict[int, int]:
        return {rank: pid for rank, pid in workers_of(self.folder).items() if pid not in self.earlier}

    def far_enough(self) -> bool:
        if self.after_first_checkpoint and not events(self.folder, "checkpoint"):
            return False
        return not self.step or any(json.loads(line)["step"] >= self.step for line in steps_logged(self.folder))


def events(folder: Path, name: str) -> list[dict]:
    path = folder / "metrics.jsonl"
    lines = [json.loads(line) for line in path.read_text().splitlines()] if path.is_file() else []
    return [line for line in lines if line.get("event") == name]


def steps_logged(folder: Path) -> list[str]:
    path = folder / "metrics.jsonl"
    return [line for line in path.read_text().splitlines() if '"loss"' in line] if path.is_file() else []


def launched(each: RunConfig, seed: int | None = None, steps: int = 0) -> tuple[dict | None, bool]:
    """The summary, or None where the run died; and whether a worker was struck. With a `seed`, one kill: in a fifth of the cases once the
    workers are there, else at a step among the first 80 % of the run's.
    """
    striker = None
    if seed is not None:
        choice = random.Random(seed)
        step = max(0, int(choice.uniform(-0.2, 0.8) * steps))
        striker = Striker(Path(each.run.folder), choice.getrandbits(32), within=0.2, step=step)
    try:
        return launch(each), bool(striker and striker.struck is not None)
    except RunError:
        return None, bool(striker and striker.struck is not None)
    finally:
        if striker:
            striker.over.set()
            striker.join()


def final_bytes(each: RunConfig) -> dict[str, str]:
    """The hash of every tensor file of a run's last checkpoint: weights and optimiser state."""
    last = sorted((Path(each.run.folder) / "checkpoints").glob("step-*"))[-1]
    return json.loads((last / "MANIFEST.json").read_text())["files"]


def rows_used_once(each: RunConfig) -> dict:
    found = verify_run(each.run.folder)
    assert found["ok"] and (found["missing"], found["doubled"], found["wrong"]) == (0, 0, 0), found
    return found
