"""Cases whose data lies in memory: the step alone, by precision, by SML, and as tables, fields and layers grow."""

import contextlib
import itertools
import time
from collections.abc import Iterator
from dataclasses import replace
from typing import Any

import pyarrow as pa

from sml_dist.bench.case import Arm
from sml_dist.bench.limits import matrix_products, settled
from sml_dist.bench.plain import hand_written
from sml_dist.bench.workplace import BATCH, Workplace
from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest, read_manifest
from sml_dist.train.in_process import Laboratory, one_process
from sml_dist.train.loop import Progress

BATCHES = 24
ROWS = BATCHES * BATCH
DEPTHS = (3, 10, 30)
WIDTHS = (26, 80, 200)  # fields
GROWTH = {"1x": 1, "8x": 8, "64x": 64}  # of tables of a million rows in all


def in_memory(config: RunConfig, manifest: Manifest | None = None, tables: list[pa.Table] | None = None) -> Arm:
    """Samples/s of training's whole step, from Arrow tables to updated weights. Wants a process group."""
    return stepping(Laboratory.over(manifest or read_manifest(config.data.path), config), tables)


def stepping(laboratory: Laboratory, tables: list[pa.Table] | None = None) -> Arm:
    trainer, progress = laboratory.trainer, Progress()
    tables = tables or list(itertools.islice(laboratory.stream.batches(), BATCHES))

    def read() -> float:
        started = time.perf_counter()
        for table, _, exchange in trainer.coming(tables):
            trainer.step(table, progress, exchange)
        settled(trainer.device)
        return len(tables) * trainer.config.global_batch_size / (time.perf_counter() - started)

    return read


@contextlib.contextmanager
def step(place: Workplace) -> Iterator[dict[str, Arm]]:
    data = place.dataset(ROWS)
    with one_process():
        yield {
            "GEMM bf16": matrix_products("bfloat16"),
            "GEMM fp32": matrix_products("float32"),
            "bf16": in_memory(place.config(data, train={"precision": "bf16"})),
            "fp32": in_memory(place.config(data, train={"precision": "fp32"})),
            "hand-written bf16": hand_written(data, bf16=True),
            "hand-written fp32": hand_written(data, bf16=False),
        }


@contextlib.contextmanager
def sml(place: Workplace) -> Iterator[dict[str, Arm]]:
    data, on = place.dataset(ROWS), {"enabled": True}
    normed = {"hidden": [400] * 3, "norm": "batch", "dropout": 0.4}
    models: dict[str, dict[str, Any]] = {
        "off": {},
        "on": {"sml": on},
        "Skip Logit alone": {"sml": on | {"mtn": {"placement": "none"}}},
        "MTN in tower and skip": {"sml": on | {"mtn": {"placement": "both"}}},
        "off, batch norm and dropout": {"tower": normed},
        "on, batch norm and dropout": {"tower": normed, "sml": on},
    }
    with one_process():
        yield {name: in_memory(place.config(data, model=model, train={"precision": "bf16"})) for name, model in models.items()}


@contextlib.contextmanager
def depth(place: Workplace) -> Iterator[dict[str, Arm]]:
    data = place.dataset(ROWS)
    with one_process():
        yield {
            f"{layers} layers": in_memory(place.config(data, model={"tower": {"hidden": [400] * layers}, "sml": {"enabled": True}}))
            for layers in DEPTHS
        }


@contextlib.contextmanager
def fields(place: Workplace) -> Iterator[dict[str, Arm]]:
    with one_process():
        yield {f"{count} fields": in_memory(place.config(place.dataset(ROWS, fields=count))) for count in WIDTHS}


@contextlib.contextmanager
def table_rows(place: Workplace) -> Iterator[dict[str, Arm]]:
    """The same rows are touched, ever further apart."""
    data = place.dataset(ROWS, table_rows=1_000_000)
    config, manifest = place.config(data, embedding={"sharding": "table_wise"}), read_manifest(data)
    with one_process():
        tables = list(itertools.islice(Laboratory.of(config).stream.batches(), BATCHES))
        yield {
            name: in_memory(config, grown(manifest, times), [spaced(table, times) for table in tables]) for name, times in GROWTH.items()
        }


def grown(manifest: Manifest, times: int) -> Manifest:
    return replace(manifest, fields=[replace(field, rows=field.rows * times) for field in manifest.fields])


def spaced(table: pa.Table, times: int) -> pa.Table:
    """Every id times `times`."""
    ids = table["ids"].combine_chunks()
    values = pa.array(ids.flatten().to_numpy() * times, pa.int32())
    column = pa.FixedSizeListArray.from_arrays(values, ids.type.list_size)
    return table.set_column(table.column_names.index("ids"), "ids", column)
