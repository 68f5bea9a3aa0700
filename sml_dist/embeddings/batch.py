"""Arrow rows to tensors: the one place where a table becomes a Batch, for training, scoring and serving alike."""

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from sml_dist.data.dataset import Manifest, multi_column
from sml_dist.spec import InputError

# Tensors share Arrow's memory where they can; nobody writes to a batch.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)


@dataclass
class Batch(Pipelineable):
    """B rows: dense (B, N) float32, ids of every field (single-valued first), label (B,), weight (B,), group (B,) or None.

    Rows without a label, which are there to be scored alone, have NaN for one.
    """

    dense: Tensor
    ids: KeyedJaggedTensor
    label: Tensor
    weight: Tensor
    group: Tensor | None = None

    def to(self, device: torch.device, non_blocking: bool = False) -> "Batch":
        return self._map(lambda part: part.to(device, non_blocking=non_blocking))

    def pin_memory(self) -> "Batch":
        return self._map(lambda part: part.pin_memory())

    def record_stream(self, stream: torch.Stream) -> None:
        for part in (self.dense, self.ids, self.label, self.weight):
            part.record_stream(stream)

    def _map(self, f) -> "Batch":
        return Batch(f(self.dense), f(self.ids), f(self.label), f(self.weight), self.group)


class Collator:
    """Turns Arrow tables with a dataset's columns into batches. Ids are checked here: FBGEMM would take a wrong one for row 0."""

    def __init__(self, manifest: Manifest):
        self.single, self.multi, self.dense = manifest.single, manifest.multi, manifest.dense
        self.keys = [field.name for field in (*self.single, *self.multi)]
        self.single_rows = np.array([field.rows for field in self.single], dtype=np.uint32)

    def __call__(self, table: pa.Table) -> Batch:
        rows = table.num_rows
        dense = _matrix(table, "dense", len(self.dense)) if self.dense else np.empty((rows, 0), np.float32)
        values, lengths = self._ids(table)
        ids = KeyedJaggedTensor(self.keys, torch.from_numpy(values), lengths=torch.from_numpy(lengths), stride=rows)
        weight = _tensor(table, "weight") if "weight" in table.column_names else torch.ones(rows)
        group = _tensor(table, "group") if "group" in table.column_names else None
        label = _tensor(table, "label") if "label" in table.column_names else torch.full((rows,), torch.nan)
        return Batch(torch.from_numpy(dense), ids, label, weight, group)

    def _ids(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Values and lengths (F * B,) of all fields, field by field; a single-valued field has one id a row."""
        rows, values, lengths = table.num_rows, [], []
        if self.single:
            ids = _matrix(table, "ids", len(self.single))
            bad = ids.view(np.uint32) >= self.single_rows
            if bad.any():
                row, column = np.argwhere(bad)[0]
                self._refuse(self.single[column], ids[row, column])
            values.append(ids.T.reshape(-1))
            lengths.append(np.ones(len(self.single) * rows, np.int32))
        for field in self.multi:
            column = table[multi_column(field.name)].combine_chunks()
            flat = column.flatten().to_numpy(zero_copy_only=False)
            if len(flat) and (bad := flat.view(np.uint32) >= field.rows).any():
                self._refuse(field, flat[bad][0])
            values.append(flat)
            lengths.append(np.diff(column.offsets.to_numpy()).astype(np.int32))
        return np.concatenate(values) if len(values) > 1 else values[0], np.concatenate(lengths)

    def _refuse(self, field, value: int) -> None:
        raise InputError(f"field {field.name}: id {value} is outside its table of {field.rows} rows; prepare the dataset again")


def _matrix(table: pa.Table, column: str, width: int) -> np.ndarray:
    """A fixed-size-list column as (B, width), without a copy where it is one chunk."""
    return table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _tensor(table: pa.Table, column: str) -> Tensor:
    return torch.from_numpy(table[column].to_numpy())
