"""Ids on their way to the workers that hold their rows, ahead of the step that needs them.

Workers first exchange how many ids go to whom, then the ids themselves; each exchange has a whole step to finish. TorchRec's own pipeline
(TrainPipelineSparseDist) runs the step itself, and updates before anyone has checked its numbers.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator
from typing import Any

import pyarrow as pa
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor, KeyedTensor

from sml_dist.embeddings.batch import Batch
from sml_dist.train.loading import Loaded


class Sent:
    """One batch's ids on their way to the sharded tables. Each method is collective."""

    def __init__(self, tables: nn.Module, ids: KeyedJaggedTensor):
        self.tables, self.context = tables, tables.create_context()
        self.counts = tables.input_dist(self.context, ids)
        self.ids: Any = None

    def follow(self) -> None:
        """Sends the ids themselves, once all workers know how many to expect."""
        self.ids = self.counts.wait()

    def embeddings(self) -> KeyedTensor:
        return self.tables.compute_and_output_dist(self.context, self.ids.wait())


Item = tuple[pa.Table, Batch, Sent, float]


def sent_ahead(
    items: Iterable[tuple[Loaded, float]], tables: nn.Module, collate: Callable[[pa.Table], Batch], enter: Callable[[str], None]
) -> Iterator[Item]:
    """Each of `items`, a table and the seconds waited for it, with its batch, whose ids travel during the step before it, and their counts
    during the one before that."""
    ahead: deque[Item] = deque()
    for (table, batch), waited in items:
        enter("collate")
        batch = collate(table) if batch is None else batch
        enter("embedding_forward")
        if ahead:
            ahead[-1][2].follow()
        ahead.append((table, batch, Sent(tables, batch.ids), waited))
        if len(ahead) == 3:
            yield ahead.popleft()
    if ahead:
        ahead[-1][2].follow()
    yield from ahead
