"""Starts a run on Ray Train and waits for it, showing its progress."""

import contextlib
import os
import re
import threading
import time
from collections.abc import Callable, Iterator
from typing import Any

import ray
from ray.train import FailureConfig, ScalingConfig, TrainingFailedError
from ray.train import RunConfig as RayRunConfig

from sml_dist.config.run import RunConfig, rooted
from sml_dist.data.dataset import read_manifest
from sml_dist.data.stream import Source, held_bytes, windows_ahead
from sml_dist.held import PATIENCE_SECONDS, held
from sml_dist.importing import importing
from sml_dist.spec import InputError, RunError, many, to_dict
from sml_dist.train.code import commit
from sml_dist.train.controller import Trainer
from sml_dist.train.process_group import ProcessGroupConfig
from sml_dist.train.rows import training_plan
from sml_dist.train.run_folder import RunFolder, objects

POLL_SECONDS = 0.5


def launch(
    config: RunConfig,
    show: Callable[[dict[str, Any]], None] | None = None,
    report: Callable[[dict[str, Any]], bool] | None = None,
    patience: float = PATIENCE_SECONDS,
    followed: contextlib.AbstractContextManager[None] | None = None,
) -> dict[str, Any]:
    """Trains and returns the summary. `show` gets the plan and then each new line of metrics.jsonl.

    `report` is worker.py's Report, called on worker 0; a run that it stops gives {"stopped": True}. `patience`: seconds to
    wait for another command to leave the run's folder. `followed` is entered once the folder is this command's, and left
    when the run has ended. Ray must be running. Raises InputError for what the user can mend, RunError for the rest.
    """
    folder = RunFolder(os.path.abspath(config.run.folder))
    if config.train.worker_range[0] < config.train.worker_range[1]:
        # after a node is lost Ray still counts on it for some seconds; do not wait a minute for workers on it
        os.environ.setdefault("RAY_TRAIN_WORKER_GROUP_START_TIMEOUT_S", "20")
    check_room(config)
    check_place(config)
    cuda = on_gpu(config)
    trainer = Trainer(
        worker_main,
        checkpoints=folder.checkpoints,
        last_step=config.train.most_steps(training_plan(read_manifest(config.data.path), config).steps),
        train_loop_config={"raw": to_dict(rooted(config)), "report": report},
        scaling_config=ScalingConfig(
            num_workers=config.train.num_workers,
            use_gpu=cuda,
            resources_per_worker=worker_resources(config),
            placement_strategy=config.train.placement.upper(),
            elastic_resize_monitor_interval_s=config.train.resize_seconds,
        ),
        # a collective that outlasts the watchdog's patience will not come back
        backend_config=ProcessGroupConfig("cpu:gloo,cuda:nccl" if cuda else "gloo", int(config.train.step_timeout_s) + 60),
        # Ray keeps its own record of each attempt; ours decides what to resume from.
        run_config=RayRunConfig(
            name=f"{time.time_ns()}",
            storage_path=str(folder.path / "ray"),
            failure_config=FailureConfig(max_failures=config.train.max_restarts),
        ),
    )
    with contextlib.ExitStack() as stack:
        begin(folder, stack, patience)
        stack.enter_context(followed or contextlib.nullcontext())
        try:
            with watching(folder, show):
                summary = trainer.fit().return_value
        except TrainingFailedError as error:
            summary = folder.read_json("error.json")
            if summary is None:
                failed = f"training failed after {many(config.train.max_restarts, 'restart')}: {root_cause(error)}"
                raise RunError(f"{failed}; --verbose shows the workers' logs") from error
        if "input_error" in summary:
            raise InputError(summary["input_error"])
        if "run_error" in summary:
            raise RunError(summary["run_error"])
        return summary


def begin(folder: RunFolder, stack: contextlib.ExitStack, patience: float) -> None:
    """Locks the folder until the stack closes, and removes what an earlier attempt wrote of its end. Raises InputError."""
    try:
        stack.enter_context(held(folder.path, patience))
        folder.write("error.json", "")
        for stale in ("error.json", "plan.txt"):
            folder.remove(stale)
        folder.write_json("code.json", commit())
    except OSError as error:
        way_out = "mend it, or name another with --set run.storage=FOLDER"
        raise InputError(f"run.storage: {folder.path} cannot be written ({error.strerror}); {way_out}") from None


def on_gpu(config: RunConfig) -> bool:
    return config.train.device == "cuda" or (config.train.device == "auto" and ray.cluster_resources().get("GPU", 0) >= 1)


def in_own_process(config: RunConfig, given: frozenset[str] = frozenset()) -> bool:
    """Whether a study or a sweep may train it without Ray Train (train/alone.py): one worker, on a CPU, that asks for none of Ray's
    resources but those that its process is `given`."""
    return config.train.worker_range[1] == 1 and config.train.worker_resources.keys() <= given and not on_gpu(config)


def worker_resources(config: RunConfig) -> dict[str, float]:
    """What a worker asks Ray for.

    Unless configured: one on a GPU keeps a CPU for itself, as by Ray's default it would have none and readers would take a node's last. An
    elastic group takes as many workers as fit, so each asks for a little over one CPU: a node's last one is left to the readers.
    """
    least, most = config.train.worker_range
    return config.train.worker_resources or {"CPU": 1.0 if least == most else 1.01} | ({"GPU": 1.0} if on_gpu(config) else {})


def check_place(config: RunConfig) -> None:
    """Raises InputError if this machine lacks what the workers ask for: Ray would wait for ever. A cluster may yet grow."""
    if os.environ.get("RAY_ADDRESS"):
        return
    least, there = config.train.worker_range[0], ray.cluster_resources()
    for name, number in worker_resources(config).items():
        if least * number > there.get(name, 0):
            want = "1 worker wants" if least == 1 else f"{least} workers want"
            what = f"{want} {least * number:g} {name}, and this machine has {there.get(name, 0):g} that Ray sees"
            way_out = "train.device=cpu" if name == "GPU" else "fewer train.num_workers or train.worker_resources"
            raise InputError(f"{what}; set {way_out}, or name a cluster by RAY_ADDRESS")


def root_cause(error: TrainingFailedError) -> str:
    """The line of the first worker's traceback that names the error."""
    failures = getattr(error, "worker_failures", None) or {0: error}
    lines = str(failures[min(failures)]).strip().splitlines()
    named = [line for line in lines if re.match(r"[\w.]*(Error|Exception|Interrupt)\b", line)]
    return (named or lines)[-1][:300]


def worker_main(given: dict[str, Any]) -> dict[str, Any]:
    """Imported inside the worker: the driver's machine need not have torchrec."""
    with importing():
        from sml_dist.train.worker import run

    return run(**given)


def check_room(config: RunConfig) -> None:
    """Raises InputError if the present nodes' object stores cannot hold what the readers may put into them."""
    manifest = read_manifest(config.data.path)
    plan = training_plan(manifest, config)
    source = Source.of(config.data.path, manifest, "train")
    ahead = windows_ahead(config.data.prefetch_windows, source, plan, on_gpu(config))
    wanted = held_bytes(source, plan, ahead)
    there = ray.cluster_resources()
    room, grows = there.get("object_store_memory", 0), there.get("CPU", 0) < config.train.worker_range[0]
    if wanted > room and not grows:  # a cluster that is still to grow for the workers may have room then
        what = f"{wanted / 1e6:,.0f} MB ({config.data.streams} streams, {ahead} windows ahead)"
        way_out = "lower data.streams or data.prefetch_windows, or start nodes with more --object-store-memory"
        raise InputError(f"readers may need {what}, but the nodes' object stores hold {room / 1e6:,.0f} MB; {way_out}")


@contextlib.contextmanager
def watching(folder: RunFolder, show: Callable[[dict[str, Any]], None] | None) -> Iterator[None]:
    """Calls `show` from a thread with the plan once it is made, as {"plan": text}, and with each new line of metrics.jsonl."""
    done = threading.Event()

    def watch() -> None:
        plan, lines = None, folder.new_lines("metrics.jsonl")
        while not done.wait(POLL_SECONDS):
            with contextlib.suppress(ValueError, OSError):
                if plan is None and (plan := folder.read("plan.txt")):
                    show({"plan": plan})
                for line in objects(next(lines)):
                    show(line)

    thread = threading.Thread(target=watch, daemon=True)
    if show:
        thread.start()
    try:
        yield
    finally:
        done.set()
        if show:
            thread.join()
