"""A batch's exchange with the workers that hold its rows: its ids travel ahead of the step that needs them, and the gradient of what they
looked up travels before the tables are updated by it.

Workers first exchange how many ids go to whom, then the ids themselves; each exchange has a whole step to finish. TorchRec's own pipeline
(TrainPipelineSparseDist) runs the step itself, and updates before anyone has checked its numbers.
"""

from collections import deque
from collections.abc import Iterable, Iterator
from typing import Any

import pyarrow as pa
import torch
from torch import nn
from torchrec.sparse.jagged_tensor import KeyedTensor

from sml_dist.embeddings.batch import Batch
from sml_dist.train.loading import Enter, Loaded


class Exchange:
    """One batch's. Each method is collective, and called once, in this order.

    Backward ends at what was looked up: by then the gradient has come to the worker that holds the rows, beside DDP's all-reduce, and no
    row has changed. FBGEMM updates rows in the backward of their lookup, which is left to `update`.
    """

    def __init__(self, tables: nn.Module, batch: Batch):
        self.tables, self.batch, self.context = tables, batch, tables.create_context()
        self.counts = tables.input_dist(self.context, batch.ids)
        self.ids: Any = None

    def send(self) -> None:
        """Sends the ids themselves, once all workers know how many to expect."""
        self.ids = self.counts.wait()

    def embeddings(self) -> KeyedTensor:
        """What this worker's ids look up."""
        self.found = self.tables.compute(self.context, self.ids.wait())
        self.leaves = [rows.detach().requires_grad_() for rows in self.found]
        return self.tables.output_dist(self.context, self.leaves).wait()

    def update(self) -> None:
        """Updates the rows by the gradient that backward has brought."""
        torch.autograd.backward(self.found, [rows.grad for rows in self.leaves])


Item = tuple[pa.Table, float, Exchange]
AHEAD = 3  # batches that are made before the first step


def exchanged(items: Iterable[Loaded], tables: nn.Module, enter: Enter) -> Iterator[Item]:
    """Each of `items` with its exchange, whose ids are sent: they travel during the step before it, their counts during the one before
    that."""
    ahead: deque[Item] = deque()
    for table, batch, waited in items:
        enter("embedding_forward")
        if ahead:
            ahead[-1][2].send()
        ahead.append((table, waited, Exchange(tables, batch)))
        if len(ahead) == AHEAD:
            yield ahead.popleft()
    if ahead:
        ahead[-1][2].send()
    yield from ahead
