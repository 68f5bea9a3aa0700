"""A trial: a run like any other, in an actor of Ray Tune that hears of its evaluations and may end it at one of them.

A trial of one worker on CPU trains in the actor's own process (train/alone.py): the actor is used for trial after trial,
so that imports and the start of a process are paid once. The CPUs that `train.worker_resources` asks for are the actor's.
Any other trial, one that asks for another of Ray's resources too, goes to Ray Train (train/launch.py), whose start of
some 7 s each of them pays. Either way a trial ends at an evaluation, whose checkpoint is complete: the workers return
and free what they held by themselves; nothing is killed.
"""

import gc
import math
import queue
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from ray import tune

from sml_dist.config.run import RunConfig
from sml_dist.held import held
from sml_dist.spec import InputError, RunError
from sml_dist.train.launch import in_own_process, launch
from sml_dist.train.loop import Stopped
from sml_dist.tune.blueprint import Blueprint
from sml_dist.tune.donation import donate, take

Report = Callable[[dict[str, Any]], bool]
LEFT_BEHIND = math.inf  # seconds: what a killed sweep has left running in a trial's folder ends by itself


class Desk:
    """Where a training hands in its evaluations and waits for what is said to each."""

    def __init__(self) -> None:
        self.handed_in: queue.Queue = queue.Queue()

    def hand_in(self, evaluation: dict[str, Any]) -> bool:
        answer: queue.Queue = queue.Queue()
        self.handed_in.put((evaluation, answer))
        return answer.get()

    def take(self) -> dict[str, Any] | None:
        """The next evaluation; None where there will be no more."""
        evaluation, self.answer_to = self.handed_in.get()
        return evaluation

    def answer(self, go_on: bool) -> None:
        self.answer_to.put(go_on)

    def close(self) -> None:
        self.handed_in.put((None, None))


class Training:
    """A run in a thread, from evaluation to evaluation."""

    def __init__(self, run: Callable[[Report], dict[str, Any]]):
        self.desk, self.outcome, self.fault, self.waits = Desk(), None, None, False
        self.thread = threading.Thread(target=self._work, args=(run,), name="training", daemon=True)
        self.thread.start()

    def next(self) -> dict[str, Any] | None:
        """Lets it go on to its next evaluation. None: it has ended, with an `outcome`. Raises what it failed of."""
        if self.waits:
            self.desk.answer(True)
        evaluation = self.desk.take()
        self.waits = evaluation is not None
        if self.fault is not None:
            raise self.fault
        return evaluation

    def stop(self) -> None:
        """Ends it at the evaluation at which it waits, and waits for that."""
        if self.waits:
            self.desk.answer(False)
            self.waits = False
        self.thread.join()

    def _work(self, run: Callable[[Report], dict[str, Any]]) -> None:
        try:
            self.outcome = run(self.desk.hand_in)
        except Stopped:
            pass
        except BaseException as fault:
            self.fault = fault
        finally:
            self.desk.close()


class Trial(tune.Trainable):
    """Its configuration is {"given": {"id", "params"}}."""

    def setup(self, config: dict[str, Any], blueprint: Blueprint) -> None:
        self.blueprint, self.training = blueprint, None
        self.given, self.note = config["given"], {}

    def reset_config(self, new_config: dict[str, Any]) -> bool:
        """Becomes another trial, or this one with what it takes from another."""
        self.cleanup()
        self.given, self.note = new_config["given"], {}
        return True

    def step(self) -> dict[str, Any]:
        """To the next evaluation: its metrics. At the end {"done", "summary"} besides, or {"done", "failed"} alone."""
        try:
            if self.training is None:
                config = self.blueprint.trial(self.given["id"], self.given["params"])
                self.training = Training(lambda report: trained(config, report))
            evaluation = self.training.next()
            if evaluation is not None and not evaluation["last"]:
                return self._told(evaluation)
            last = evaluation or {}
            while evaluation is not None:
                evaluation = self.training.next()
        except (InputError, RunError) as error:  # what another attempt would not mend
            return {"done": True, "failed": str(error)}
        summary = self.training.outcome
        if not last:  # the run had only its summary left to write
            last = self.blueprint.evaluations(self.given["id"], self.given["params"])[-1]
        return self._told(last) | {"done": True, "summary": summary}

    def save_checkpoint(self, checkpoint_dir: str) -> dict[str, Any]:
        """For another trial, or for itself when its turn comes again; called at an evaluation."""
        return donate(self.folder, self.blueprint.folder / "donors", self.given["id"])

    def load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Takes another's; its own lies in its run folder."""
        if checkpoint["id"] != self.given["id"]:
            step = take(checkpoint, self.folder, self.given["params"])
            self.note = {"exploit": {"step": step, "from": checkpoint["id"], "params": self.given["params"]}}

    def cleanup(self) -> None:
        if self.training is not None:
            self.training.stop()
            self.training = None
            gc.collect()  # a model's reference cycles, before the next one is built

    @property
    def folder(self) -> Path:
        return self.blueprint.folder / self.blueprint.run_of(self.given["id"])

    def _told(self, evaluation: dict[str, Any]) -> dict[str, Any]:
        """An evaluation, the first with a note of what was taken from another."""
        note, self.note = self.note, {}
        return evaluation | note


def in_actor(config: RunConfig) -> bool:
    """Whether a trial trains in its actor's process: one worker, on a CPU, that asks for nothing but CPUs."""
    return in_own_process(config, frozenset({"CPU"}))


def trained(config: RunConfig, report: Report) -> dict[str, Any]:
    if not in_actor(config):
        return train_group(config, report)
    from sml_dist.train.alone import train_alone

    with held(config.run.folder, LEFT_BEHIND):
        return train_alone(config, report)


def train_group(config: RunConfig, report: Report) -> dict[str, Any]:
    """On Ray Train's workers, whose first hands its evaluations in at a desk in an actor. Raises Stopped."""
    desk = ray.remote(num_cpus=0, max_concurrency=4)(Desk).remote()
    relay = threading.Thread(target=relayed, args=(desk, report), daemon=True)
    relay.start()
    try:
        summary = launch(config, report=lambda evaluation: ray.get(desk.hand_in.remote(evaluation)), patience=LEFT_BEHIND)
    finally:
        ray.get(desk.close.remote())
        relay.join()
        ray.kill(desk)
    if summary.get("stopped"):
        raise Stopped
    return summary


def relayed(desk: Any, report: Report) -> None:
    while (evaluation := ray.get(desk.take.remote())) is not None:
        ray.get(desk.answer.remote(report(evaluation)))
