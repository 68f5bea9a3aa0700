"""The run folder: what a run writes for people and tools to read.

config.yaml  plan.txt  metrics.jsonl  progress.json  checkpoints/step-*/  summary.json  error.json (what the user can mend)
"""

import json
import os
import time
from pathlib import Path
from typing import Any


class RunFolder:
    """Files of one run. Only rank 0 writes."""

    def __init__(self, path: str | Path):
        self.path = Path(path)

    @property
    def checkpoints(self) -> Path:
        return self.path / "checkpoints"

    def write(self, name: str, text: str) -> None:
        """A whole file or none."""
        self.path.mkdir(parents=True, exist_ok=True)
        partial = self.path / f".{name}.partial"
        partial.write_text(text)
        os.replace(partial, self.path / name)

    def write_json(self, name: str, value: Any) -> None:
        self.write(name, json.dumps(value, indent=1) + "\n")

    def remove(self, name: str) -> None:
        (self.path / name).unlink(missing_ok=True)

    def read_json(self, name: str) -> Any:
        """The file's value, or None where there is none."""
        text = self.read(name)
        return None if text is None else json.loads(text)

    def read(self, name: str) -> str | None:
        """The file's text, or None where there is none."""
        path = self.path / name
        return path.read_text() if path.is_file() else None

    def begin(self, config: str, plan: str, step: int) -> None:
        """What a run writes before its first step, or before it goes on from `step`."""
        self.write("config.yaml", config)
        self.write("plan.txt", plan)
        self._forget_after(step)

    def log(self, values: dict[str, Any], **plan: Any) -> None:
        """One line of metrics.jsonl; and progress.json, which adds what the run plans to do."""
        now = round(time.time(), 3)
        with open(self.path / "metrics.jsonl", "a") as file:
            file.write(json.dumps({"time": now, **values}) + "\n")
        self.write_json("progress.json", values | plan | {"updated": now})

    def _forget_after(self, step: int) -> None:
        """Drops the metrics of steps that a resumed run does again; a half-written last line goes with them."""
        path = self.path / "metrics.jsonl"
        if path.is_file():
            kept = [line for line in path.read_text().splitlines() if _step(line) <= step]
            self.write("metrics.jsonl", "".join(line + "\n" for line in kept))


def _step(line: str) -> float:
    try:
        return json.loads(line)["step"]
    except (ValueError, KeyError):
        return float("inf")


class Meter:
    """Time and rows of the steps since the last reading: samples/s and the share of time spent waiting for data."""

    def __init__(self) -> None:
        self.reset()
        self.total_seconds = self.total_wait = 0.0
        self.total_rows = 0
        self.first_batch_seconds = 0.0

    def reset(self) -> None:
        self.started, self.waited, self.rows, self.loss, self.steps = time.monotonic(), 0.0, 0, 0.0, 0

    def start(self, waited: float) -> None:
        """The pipeline gave its first batch: time counts from here."""
        self.first_batch_seconds = waited
        self.reset()

    def step(self, rows: int, loss: float, waited: float) -> None:
        self.rows += rows
        self.loss += loss
        self.waited += waited
        self.steps += 1

    def read(self) -> dict[str, float]:
        """What happened since the last reading; starts the next."""
        seconds = max(time.monotonic() - self.started, 1e-9)
        self.total_seconds += seconds
        self.total_wait += self.waited
        self.total_rows += self.rows
        values = {
            "loss": self.loss / max(self.steps, 1),
            "samples_per_second": round(self.rows / seconds, 1),
            "data_wait_fraction": round(self.waited / seconds, 4),
        }
        self.reset()
        return values

    def totals(self) -> dict[str, float]:
        """Over all readings; evaluations, checkpoints and the wait for the first batch do not count."""
        seconds = max(self.total_seconds, 1e-9)
        return {
            "samples_per_second": round(self.total_rows / seconds, 1),
            "data_wait_fraction": round(self.total_wait / seconds, 4),
            "first_batch_seconds": round(self.first_batch_seconds, 2),
        }
