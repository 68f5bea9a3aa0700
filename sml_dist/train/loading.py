"""From a stream's tables to batches on the worker's device; for a GPU, while it computes the batch before."""

import time
from collections.abc import Callable, Generator, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from typing import Any

import pyarrow as pa
import torch

from sml_dist.embeddings.batch import Batch, Collator

Loaded = tuple[pa.Table, Batch, float]
Enter = Callable[[str], None]


def loaded(tables: Iterable[pa.Table], collate: Collator, device: torch.device, enter: Enter = lambda phase: None) -> Generator[Loaded]:
    """Each table with its batch, and the seconds spent waiting for it. `enter` is told the phases of a clock (clock.py)."""
    if device.type == "cpu":
        for table, waited in timed(iter(tables), enter):
            enter("collate")
            batch = collate(table, device)
            enter("other")
            yield table, batch, waited
    else:
        with closing(copied(iter(tables), collate, device)) as batches:
            for (table, batch), waited in timed(batches, enter):
                yield table, batch, waited


def copied(tables: Iterator[pa.Table], collate: Collator, device: torch.device) -> Generator[tuple[pa.Table, Batch]]:
    """Each table with its batch on the GPU. A thread takes the next table, copies it on a stream of its own, and waits there for its ids to
    be checked. TorchRec has such a thread too; it skips a batch whose reading failed with an error that says it may be tried again.
    """
    stream, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def load() -> tuple[pa.Table, Batch, torch.cuda.Event] | None:
        table = next(tables, None)
        if table is None:
            return None
        with torch.cuda.stream(stream):
            return table, collate(table, device), stream.record_event()

    with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(stream.device,)) as thread:
        coming = thread.submit(load)
        while (found := coming.result()) is not None:
            coming = thread.submit(load)
            table, batch, ready = found
            computing.wait_event(ready)
            batch.record_stream(computing)
            yield table, batch


def timed(items: Iterator[Any], enter: Enter) -> Iterator[tuple[Any, float]]:
    """Each item with the seconds spent waiting for it, which the clock counts as data_wait from the second on."""
    while True:
        started = time.monotonic()
        try:
            item = next(items)
        except StopIteration:
            return
        enter("other")
        yield item, time.monotonic() - started
        enter("data_wait")
