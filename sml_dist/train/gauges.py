"""What Prometheus is told of a run, at the metrics port of the node of worker 0: gauges named ray_sml_dist_*, with the run's name."""

import time
from typing import Any

from ray.util.metrics import Gauge

# From the name in a line of metrics.jsonl to the gauge and what it is.
STEPS = {
    "loss": ("loss", "Training loss since the last line."),
    "samples_per_second": ("samples_per_second", "Rows trained a second, over all workers."),
    "data_wait_fraction": ("data_wait_fraction", "Share of the time spent waiting for data."),
    "step": ("step", "Steps done."),
    "total_steps": ("total_steps", "Steps of the whole run."),
}
EVALUATION = {"auc": ("valid_auc", "AUC on the validation rows."), "logloss": ("valid_logloss", "Logloss on the validation rows, nats.")}
CHECKPOINT = {
    "step": ("checkpoint_step", "Step of the last checkpoint."),
    "seconds": ("checkpoint_seconds", "What writing the last checkpoint took."),
    "blocked_seconds": ("checkpoint_blocked_seconds", "What training stood still for it."),
}
CHECKPOINT_TIME = ("checkpoint_timestamp_seconds", "When the last checkpoint was done; its age is time() minus this.")
COUNTS = {
    "resumed": ("restarts", "Times that the run has gone on from a checkpoint."),
    "skipped": ("skipped_steps", "Steps of this attempt left out for numbers that are not finite."),
    "rolled back": ("rollbacks", "Times of this attempt that training went back to a checkpoint."),
}
REJECTED = ("quarantined_rows", "Rows that prepare has rejected, of the dataset that the run reads.")
NAMES = [name for name, _ in (*STEPS.values(), *EVALUATION.values(), *CHECKPOINT.values(), CHECKPOINT_TIME, *COUNTS.values(), REJECTED)]


class Gauges:
    """Takes the lines that metrics.jsonl takes. Each sets all gauges anew: Ray reports one once for each `set`, and drops it 20 s later."""

    def __init__(self, run: str, rejected: int):
        self.tags, self.gauges, self.counts = {"run": run}, {}, dict.fromkeys(COUNTS, 0)
        self.values: dict[str, float] = {}
        self._note(*REJECTED, rejected)
        for event in COUNTS:
            self._note(*COUNTS[event], 0)

    def log(self, **values: Any) -> None:
        event = values.get("event")
        if event in COUNTS:
            self.counts[event] = values.get("restarts", self.counts[event] + 1)
            self._note(*COUNTS[event], self.counts[event])
        if event == "checkpoint":
            self._note(*CHECKPOINT_TIME, time.time())
        wanted = CHECKPOINT if event == "checkpoint" else EVALUATION if "split" in values else STEPS if "loss" in values else {}
        for name, gauge in wanted.items():
            self._note(*gauge, values.get(name))
        for name, value in self.values.items():
            self.gauges[name].set(value, self.tags)

    def _note(self, name: str, what: str, value: float | None) -> None:
        if value is None:
            return
        if name not in self.gauges:
            self.gauges[name] = Gauge(f"sml_dist_{name}", description=what, tag_keys=("run",))
        self.values[name] = float(value)
