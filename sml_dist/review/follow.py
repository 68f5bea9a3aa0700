"""Sinks follow a run's metrics.jsonl from the driver, each in a thread of its own: none can touch training.

A sink that fails is told of once and left alone; the lines stay in metrics.jsonl. How far a sink came is booked in the run's
folder (sent_NAME.json), so that a command that is started again goes on after the steps sent before: a resumed run writes
the lines after its checkpoint anew, and a sink wants steps that never fall.
"""

import contextlib
import dataclasses
import os
import threading
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path
from typing import Any, Protocol

from sml_dist.config.file import read_yaml
from sml_dist.config.run import RunConfig, parse
from sml_dist.review.artifacts import log_folder
from sml_dist.review.tensorboard import TensorBoard
from sml_dist.review.wandb import Wandb
from sml_dist.spec import InputError, one_line
from sml_dist.train.run_folder import RunFolder, objects
from sml_dist.trials import read_trials

POLL_SECONDS = 1.0
FINISH_SECONDS = 120.0  # for a sink to send what it still has, once training is done
Say = Callable[[str], None]


class Sink(Protocol):
    """Made with (folder, config, say); methods are called from one thread, steps never fall."""

    def add(self, line: dict[str, Any]) -> None: ...

    def finish(self, *, failed: bool) -> None: ...


@contextlib.contextmanager
def tracked(config: RunConfig, say: Say) -> Iterator[None]:
    """What `config.tracking` asks for, while the run goes on within. `say` takes one line for the user."""
    found, failed = followers(config, say), True
    for follower in found:
        follower.start()
    try:
        yield
        failed = False
    finally:
        for follower in found:
            follower.finish(failed=failed)
        for follower in found:
            follower.wait()


@contextlib.contextmanager
def tracked_sweep(folder: str, say: Say) -> Iterator[None]:
    """The same for each trial of a sweep, as its folder comes up; on W&B they are a group of the sweep's name."""
    sweep = SweepFollower(Path(folder), say)
    sweep.start()
    try:
        yield
    finally:
        sweep.done.set()
        sweep.join()


def followers(config: RunConfig, say: Say) -> list["Follower"]:
    """One for each sink that the configuration names, not started yet."""
    asked = {"wandb": (wandb_wanted(config), Wandb), "tensorboard": (config.tracking.tensorboard, TensorBoard)}
    return [Follower(name, sink, config, say) for name, (wanted, sink) in asked.items() if wanted]


def wandb_wanted(config: RunConfig) -> bool:
    """W&B's own variable may say no where the configuration leaves the mode to it."""
    wandb = config.tracking.wandb
    return wandb is not None and not (wandb.mode == "auto" and os.environ.get("WANDB_MODE") == "disabled")


def track_export(run: str, export: str, say: Say) -> None:
    """Adds an export to the W&B run of the run (or checkpoint) that it was made of, where that one asked for artifacts."""
    path = Path(run) if (Path(run) / "config.yaml").is_file() else Path(run).resolve().parent.parent
    try:
        folder, config = RunFolder(path), read_config(RunFolder(path))
        if config is None or not wandb_wanted(config) or not config.tracking.wandb.artifacts:
            return
        sink = Wandb(folder, config, say)
        log_folder(sink.run, "export", export, {"folder": export})
        sink.run.finish()
    except Exception as error:  # as below: the export is there
        say(f"the export is no W&B artifact: {one_line(error)[:300]}")


def read_config(folder: RunFolder) -> RunConfig | None:
    """The configuration that a run has kept; None where there is none yet. Raises InputError."""
    path = folder.path / "config.yaml"
    return parse(read_yaml(str(path), resolve=False), str(path)) if path.is_file() else None


class Follower(threading.Thread):
    def __init__(self, name: str, sink: type[Sink], config: RunConfig, say: Say):
        super().__init__(daemon=True, name=f"follower-{name}")
        self.sink, self.config, self.say = sink, config, say
        self.folder, self.book = RunFolder(config.run.folder), f"sent_{name}.json"
        self.done, self.failed = threading.Event(), False

    def run(self) -> None:
        try:
            self.before = self.sent = (self.folder.read_json(self.book) or {"step": 0})["step"]
            sink = self.sink(self.folder, self.config, self.say)
            lines, last = self.folder.new_lines("metrics.jsonl", whole=True), False
            while not last:
                last = self.done.wait(POLL_SECONDS)
                self.pass_on(objects(next(lines)), sink)
            sink.finish(failed=self.failed)
            self.folder.write_json(self.book, {"step": self.sent, "finished": True})
        except Exception as error:  # whatever a sink's library raises: training is not to hear of it
            self.say(f"{self.name.removeprefix('follower-')} stopped, training does not: {one_line(error)[:300]}")

    def pass_on(self, lines: Iterable[dict[str, Any]], sink: Sink) -> None:
        new = []
        for line in lines:
            if line["step"] > self.before and line["step"] >= self.sent:
                self.sent = line["step"]
                new.append(line)
        if new:
            self.folder.write_json(self.book, {"step": self.sent})  # first: after a kill a line may be missing, never doubled
        for line in new:
            sink.add(line)

    @property
    def sent_all(self) -> bool:
        """Whether an earlier command's sink has come to its end."""
        return "finished" in (self.folder.read_json(self.book) or {})

    def finish(self, *, failed: bool) -> None:
        """There will be no more lines."""
        self.failed = failed
        self.done.set()

    def wait(self) -> None:
        self.join(FINISH_SECONDS)
        if self.is_alive():
            self.say(f"{self.name.removeprefix('follower-')} has not sent everything after {FINISH_SECONDS:g} s; training is done")


class SweepFollower(threading.Thread):
    """Starts a trial's followers when its run folder is there, and ends them when trials.jsonl says that it has ended."""

    def __init__(self, folder: Path, say: Say):
        super().__init__(daemon=True, name="sweep-follower")
        self.folder, self.say, self.done = folder, say, threading.Event()
        self.trials: dict[int, list[Follower]] = {}
        # What an earlier command left as failed, by their attempts; read here, for the sweep rewrites it as it begins.
        self.to_be_tried_again: set[tuple[int, int]] = set()
        with contextlib.suppress(OSError, InputError):
            self.to_be_tried_again = {(trial.id, trial.attempts) for trial in read_trials(folder) if trial.status == "failed"}

    def run(self) -> None:
        last = False
        while not last:
            last = self.done.wait(POLL_SECONDS)
            with contextlib.suppress(OSError, InputError):  # a folder that is away for a moment, a trial of another version
                self.look()
        for followers in self.trials.values():
            for follower in followers:
                follower.finish(failed=False)
                follower.wait()

    def look(self) -> None:
        for trial in (trial for trial in read_trials(self.folder) if (trial.id, trial.attempts) not in self.to_be_tried_again):
            if trial.id not in self.trials and (config := read_config(RunFolder(self.folder / trial.run))):
                found = followers(in_group(config, self.folder.name), self.say)
                self.trials[trial.id] = [follower for follower in found if not (trial.ended_for_good and follower.sent_all)]
                for follower in self.trials[trial.id]:
                    follower.start()
            if trial.ended_for_good:
                for follower in self.trials.get(trial.id, []):
                    follower.finish(failed=trial.status == "failed")


def in_group(config: RunConfig, group: str) -> RunConfig:
    """The configuration with its W&B runs in this group, unless it names one."""
    wandb = config.tracking.wandb
    if wandb is None or wandb.group:
        return config
    return dataclasses.replace(config, tracking=dataclasses.replace(config.tracking, wandb=dataclasses.replace(wandb, group=group)))
