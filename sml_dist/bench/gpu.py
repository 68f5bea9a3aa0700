"""Cases on a GPU: the whole step, data in the host's memory, beside what the card can do."""

import contextlib
import itertools
from collections.abc import Iterator
from functools import partial
from typing import Any

import torch

from sml_dist.bench.case import Arm
from sml_dist.bench.in_memory import stepping
from sml_dist.bench.limits import copies, layers_of, matrix_products
from sml_dist.bench.runs import trained
from sml_dist.bench.workplace import FIELDS, MODELS, Workplace
from sml_dist.config.run import RunConfig
from sml_dist.session import ray_session
from sml_dist.spec import InputError
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.place import Place

BATCH = 65_536
BATCHES, PASSES = 8, 8
SML = {"enabled": True, "mtn": {"placement": "both"}}
BACKEND = "cpu:gloo,cuda:nccl"
RUN_ROWS, EPOCHS = 4_000_000, 16
MOVES = 5  # of a row's embeddings: read and handed out; their gradient read, the row read and written


@contextlib.contextmanager
def step(place: Workplace, model: str, dim: int) -> Iterator[dict[str, Arm]]:
    """Samples/s; the limits are of steps that were nothing but matrix products, or nothing but moves of embeddings."""
    here = card()
    data = place.dataset(BATCHES * BATCH)

    def made(precision: str = "bf16", *, compile: bool = True, **changes: Any) -> Laboratory:
        train = {"precision": precision, "compile": compile}
        return Laboratory.of(on_gpu(place, data, model=MODELS[model] | changes, embedding={"dim": dim}, train=train), here)

    with one_process(threads=1, backend=BACKEND):
        ours = made()
        tables = list(itertools.islice(ours.stream.batches(), BATCHES)) * PASSES
        yield {
            "bf16": stepping(ours, tables),
            "bf16, SML": stepping(made(sml=SML), tables),
            "bf16, not compiled": stepping(made(compile=False), tables),
            "tf32": stepping(made("tf32"), tables),
            "GEMM bf16": matrix_products("bfloat16", layers_of(ours.task.model), BATCH, here.device),
            "embeddings moved": copies(here.device, unit=4.0 * MOVES * FIELDS * dim),
        }


@contextlib.contextmanager
def end_to_end(place: Workplace) -> Iterator[dict[str, Arm]]:
    """Whole runs of 64 M rows through Ray Data; their samples/s are those of the steps, waits for data included."""
    here = card()
    path, bf16 = place.dataset(RUN_ROWS), {"precision": "bf16"}
    with ray_session(1), one_process(threads=1, backend=BACKEND):
        memory = Laboratory.of(on_gpu(place, path, train=bf16), here)
        from_memory = stepping(memory, list(itertools.islice(memory.stream.batches(), BATCHES)) * PASSES)
        from_memory()  # compiles; a run does so too, a few seconds among its steps'
        yield {
            "train": partial(trained, place, on_gpu(place, path, train=bf16 | {"epochs": EPOCHS})),
            "memory": from_memory,
        }


def card() -> Place:
    if not torch.cuda.is_available():
        raise InputError("there is no GPU here")
    return Place(device=torch.device("cuda"))


def on_gpu(place: Workplace, path: str, train: dict[str, Any], **sections: Any) -> RunConfig:
    return place.config(path, train={"global_batch_size": BATCH, "device": "cuda"} | train, **sections)
