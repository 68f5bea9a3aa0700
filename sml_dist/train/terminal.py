"""What a person sees while a run trains: one live line on a terminal, a line now and then elsewhere."""

import math
import time
from typing import Any

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeRemainingColumn

from sml_dist.spec import many

LINE_SECONDS = 15.0
EVENTS = {
    "skipped": "step {step:,} (epoch {epoch}, batch {batch}) skipped: {why}",
    "rolled back": "back to the checkpoint of step {step:,} with half the learning rates: {why}",
    "damaged": "a damaged checkpoint is passed over: {why}",
    "resharded": "another sharding plan than the checkpoint's: the column shards of {tables} start with the state of their whole rows",
    "warm start": "{text}",
    "resumed": "going on from the checkpoint of step {step:,}, on {workers}",
}


class TrainProgress:
    """Shows the sharding plan once, then the lines of metrics.jsonl: loss, samples/s, time waiting for data, metrics, events."""

    def __init__(self, console: Console):
        self.console = console
        self.bar = Progress(
            TextColumn("{task.description}"), BarColumn(), TextColumn("{task.fields[note]}"), TimeRemainingColumn(),
            console=console, disable=not console.is_terminal,
        )  # fmt: skip
        self.task = self.bar.add_task("starting workers", total=None, note="")
        self.printed = 0.0

    def __enter__(self) -> "TrainProgress":
        self.bar.start()
        return self

    def __exit__(self, *_: Any) -> None:
        self.bar.stop()

    def update(self, values: dict[str, Any]) -> None:
        if "plan" in values:
            self.console.print(values["plan"], highlight=False, end="")
            return
        if event := EVENTS.get(values.get("event")):
            told = values | {"workers": many(values.get("workers", 0), "worker")}
            self.console.print(event.format(**told), highlight=False, style="yellow")
        if changed := values.get("changed"):
            self.console.print(f"settings changed since that checkpoint: {changed}", highlight=False, style="yellow", soft_wrap=True)
        if "event" in values:
            return
        values = numbers(values)
        step = f"epoch {values['epoch'] + 1}/{values['epochs']} step {values['step']:,}/{values['total_steps']:,}"
        if "split" in values:
            gauc = f" GAUC {values['gauc']:.5f}" if "gauc" in values else ""
            for label, metrics in list(values.get("labels", {}).items())[1:]:
                gauc += f" AUC of {label} {numbers(metrics)['auc']:.5f}"
            self.console.print(
                f"step {values['step']:,} {values['split']}: AUC {values['auc']:.5f}{gauc} logloss {values['logloss']:.5f} "
                f"calibration {values['calibration']:.3f}", highlight=False,
            )  # fmt: skip
        else:
            note = f"loss {values['loss']:.4f}  {values['samples_per_second']:,.0f} samples/s  data wait {values['data_wait_fraction']:.1%}"
            self.bar.update(self.task, description=step, completed=values["step"], total=values["total_steps"], note=note)
            if not self.console.is_terminal and time.monotonic() - self.printed > LINE_SECONDS:
                self.printed = time.monotonic()
                self.console.print(f"{step}  {note}", highlight=False)


def numbers(values: dict[str, Any]) -> dict[str, Any]:
    """With nan for each None, which is how JSON holds it."""
    return {key: math.nan if value is None else value for key, value in values.items()}
