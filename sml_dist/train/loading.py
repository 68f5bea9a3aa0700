"""From a stream's tables to batches on the worker's device; for a GPU, while it computes the batch before."""

from collections.abc import Generator
from concurrent.futures import ThreadPoolExecutor

import pyarrow as pa
import torch

from sml_dist.embeddings.batch import Batch, Collator

Tables = Generator[pa.Table]
Loaded = tuple[pa.Table, Batch | None]


def loaded(tables: Tables, collate: Collator, device: torch.device) -> Generator[Loaded]:
    """Each table with its batch, which on a CPU is left for the step to make. Closing it closes `tables`.

    For a GPU a thread takes the next table, copies it on a stream of its own, and waits there for its ids to be checked.
    TorchRec has such a thread too; it skips a batch whose reading failed with an error that says it may be tried again.
    """
    if device.type == "cpu":
        try:
            for table in tables:
                yield table, None
        finally:
            tables.close()
        return
    stream, computing = torch.cuda.Stream(device), torch.cuda.current_stream(device)

    def load() -> tuple[pa.Table, Batch, torch.cuda.Event] | None:
        table = next(tables, None)
        if table is None:
            return None
        with torch.cuda.stream(stream):
            return table, collate(table, device), stream.record_event()

    try:
        with ThreadPoolExecutor(1, initializer=torch.cuda.set_device, initargs=(stream.device,)) as thread:
            coming = thread.submit(load)
            while (found := coming.result()) is not None:
                coming = thread.submit(load)
                table, batch, ready = found
                computing.wait_event(ready)
                batch.record_stream(computing)
                yield table, batch
    finally:
        tables.close()
