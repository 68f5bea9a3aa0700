"""Cases through Ray: the step fed by the stream, whole runs beside published packages, workers, rows, and the start."""

import contextlib
import itertools
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Iterator
from functools import partial
from typing import Any

from sml_dist.bench.case import Arm
from sml_dist.bench.in_memory import ROWS, in_memory
from sml_dist.bench.peers import peer_arms
from sml_dist.bench.workplace import BATCH, MODELS, Workplace
from sml_dist.config.run import RunConfig, dump
from sml_dist.data.dataset import read_manifest
from sml_dist.data.stream import Source, Stream
from sml_dist.scoring.predict import predict
from sml_dist.session import ray_session
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.launch import launch
from sml_dist.train.loop import Progress

RUN_ROWS = 1_000_000
FEW_ROWS, MANY_ROWS, GROWTH_STEPS = 1_000_000, 16_000_000, 500
WINDOW = 64  # batches of a window of 16 row groups
STREAM_BATCHES = 2 * WINDOW
READ_AHEAD = 4 * WINDOW  # more than a pipeline with two of them ahead holds


@contextlib.contextmanager
def stream(place: Workplace) -> Iterator[dict[str, Arm]]:
    """Both arms take the same steps of two equal models, one from memory, one from Ray Data."""
    config = place.config(place.dataset(RUN_ROWS))
    with ray_session(1), one_process(), contextlib.closing(fed_batches(config)) as batches:
        yield {"memory": in_memory(config), "stream": fed(config, batches)}


def fed_batches(config: RunConfig) -> Iterator[Any]:
    manifest = read_manifest(config.data.path)
    plan = Laboratory.of(config).stream.plan
    return Stream(Source.of(config.data.path, manifest, "train"), plan, epochs=config.train.epochs).batches()


def fed(config: RunConfig, batches: Iterator[Any]) -> Arm:
    trainer, progress = Laboratory.of(config).trainer, Progress()

    def train(count: int) -> None:
        for table in itertools.islice(batches, count):
            trainer.step(table, progress)

    def read() -> float:
        for _ in itertools.islice(batches, READ_AHEAD):
            pass  # what was read while another arm ran is not this reading's
        train(WINDOW)  # until readers are as far ahead again as they may be: from then on a window is read for each that is trained on
        started = time.perf_counter()
        train(STREAM_BATCHES)
        return STREAM_BATCHES * BATCH / (time.perf_counter() - started)

    return read


@contextlib.contextmanager
def end_to_end(place: Workplace, model: str) -> Iterator[dict[str, Arm]]:
    """Whole runs of two epochs; their samples/s are those of the steps, waits for data included, evaluations and commits not."""
    data = place.dataset(RUN_ROWS)
    with ray_session(1), one_process():
        memory = in_memory(place.config(place.dataset(ROWS), model=MODELS[model]))
        memory()  # its first steps make kernels and touch their pages; in a whole run they are few among many
        yield {
            "train": partial(trained, place, place.config(data, model=MODELS[model], train={"epochs": 2})),
            "memory": memory,
            **peer_arms(place, data, model),
        }


@contextlib.contextmanager
def workers(place: Workplace) -> Iterator[dict[str, Arm]]:
    data = place.dataset(RUN_ROWS)
    with ray_session(2):
        yield {
            f"{count} x {threads} threads": partial(
                trained, place, place.config(data, train={"num_workers": count, "threads": threads, "epochs": 2})
            )
            for count, threads in ((1, 2), (2, 1))
        }


@contextlib.contextmanager
def rows(place: Workplace) -> Iterator[dict[str, Arm]]:
    with ray_session(1):
        yield {
            f"{count // 1_000_000} M rows": partial(trained, place, place.config(place.dataset(count), train={"max_steps": GROWTH_STEPS}))
            for count in (FEW_ROWS, MANY_ROWS)
        }


def trained(place: Workplace, config: RunConfig) -> float:
    try:
        return launch(config)["samples_per_second"]
    finally:
        place.clear_runs()


@contextlib.contextmanager
def predicting(place: Workplace) -> Iterator[dict[str, Arm]]:
    """Samples/s of a run's steps, and rows/s of its scoring."""
    data, scored = place.dataset(RUN_ROWS), place.folder / "scored"
    shutil.rmtree(scored, ignore_errors=True)
    config = place.config(data, train={"epochs": 1}, run={"name": "run", "storage": str(scored)})
    with ray_session(2):
        launch(config)
        yield {
            "train": partial(trained, place, place.config(data, train={"epochs": 2})),
            "predict": partial(predicted, place, config.run.folder, data),
        }


def predicted(place: Workplace, run: str, data: str) -> float:
    """By the difference between a million rows and an eighth of them, so that the start of its workers does not count."""
    seconds, rows = zip(*(timed_predict(place, run, data, splits) for splits in (["valid"], ["train"])), strict=True)
    return (rows[1] - rows[0]) / (seconds[1] - seconds[0])


def timed_predict(place: Workplace, run: str, data: str, splits: list[str]) -> tuple[float, int]:
    started = time.perf_counter()
    found = predict(run, data, str(place.folder / "predictions"), splits=splits, overwrite=True)
    return time.perf_counter() - started, found.rows_scored


@contextlib.contextmanager
def start(place: Workplace) -> Iterator[dict[str, Arm]]:
    config = place.config(place.dataset(ROWS, table_rows=100_000), train={"epochs": 1, "max_steps": 1})
    yield {"train": partial(first_step, place, config)}


def first_step(place: Workplace, config: RunConfig) -> float:
    """Seconds from the command to its first step's end: the first line of metrics.jsonl is written then."""
    file = place.folder / "start.yaml"
    file.write_text(dump(config))
    started = time.time()
    subprocess.run([sys.executable, "-m", "sml_dist.cli", "train", str(file)], check=True, capture_output=True)
    with (place.folder / "runs" / "run" / "metrics.jsonl").open() as lines:
        seconds = json.loads(next(lines))["time"] - started
    place.clear_runs()
    return seconds
