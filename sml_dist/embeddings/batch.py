"""Arrow rows to tensors: the one place where a table becomes a Batch, for training, scoring and serving alike."""

import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor
from torchrec.streamable import Pipelineable

from sml_dist.data.dataset import Field, Manifest, multi_column
from sml_dist.spec import InputError

# Tensors share Arrow's memory where they can; nobody writes to a batch.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)


@dataclass
class Batch(Pipelineable):
    """B rows: dense (B, N) float32, ids by `Manifest.features`, label (B,) or of T labels (B, T), weight (B,), group (B,) or None.

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
        self.single, self.multi, self.sequences, self.dense = manifest.single, manifest.multi, manifest.sequences, manifest.dense
        self.keys, self.labels = manifest.features, manifest.labels
        self.single_rows = np.array([field.rows for field in self.single], dtype=np.uint32)

    def __call__(self, table: pa.Table) -> Batch:
        rows = table.num_rows
        dense = _matrix(table, "dense", len(self.dense)) if self.dense else np.empty((rows, 0), np.float32)
        values, lengths = self._ids(table)
        ids = KeyedJaggedTensor(self.keys, torch.from_numpy(values), lengths=torch.from_numpy(lengths), stride=rows)
        weight = _tensor(table, "weight") if "weight" in table.column_names else torch.ones(rows)
        group = _tensor(table, "group") if "group" in table.column_names else None
        return Batch(torch.from_numpy(dense), ids, self._label(table), weight, group)

    def _label(self, table: pa.Table) -> Tensor:
        several = len(self.labels) > 1
        if "label" not in table.column_names:
            return torch.full((table.num_rows, len(self.labels)) if several else (table.num_rows,), torch.nan)
        return torch.from_numpy(_matrix(table, "label", len(self.labels))) if several else _tensor(table, "label")

    def _ids(self, table: pa.Table) -> tuple[np.ndarray, np.ndarray]:
        """Values and lengths (F * B,) of all features, one after another; a single-valued field has one id a row."""
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
            flat, counts = self._lists(table, field)
            values.append(flat)
            lengths.append(counts)
        for field in self.sequences:
            flat, counts = by_position(*self._lists(table, field), field.length)
            values.append(flat)
            lengths.append(counts)
        return np.concatenate(values) if len(values) > 1 else values[0], np.concatenate(lengths)

    def _lists(self, table: pa.Table, field: Field) -> tuple[np.ndarray, np.ndarray]:
        """All ids of a list column and how many each row has, (B,)."""
        column = table[multi_column(field.name)].combine_chunks()
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if len(flat) and (bad := flat.view(np.uint32) >= field.rows).any():
            self._refuse(field, flat[bad][0])
        return flat, np.diff(column.offsets.to_numpy()).astype(np.int32)

    def _refuse(self, field: Field, value: int) -> None:
        raise InputError(f"field {field.name}: id {value} is outside its table of {field.rows} rows; prepare the dataset again")


def by_position(flat: np.ndarray, counts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows' sequences, the newest id last, as values and lengths (length * B,) of `length` features, each row's newest id first.

    A position that a row does not have has no id.
    """
    place_L1 = np.arange(length)[:, None]
    held_LB = place_L1 < counts
    return flat[(np.cumsum(counts) - 1 - place_L1)[held_LB]], held_LB.astype(np.int32).reshape(-1)


def _matrix(table: pa.Table, column: str, width: int) -> np.ndarray:
    """A fixed-size-list column as (B, width), without a copy where it is one chunk."""
    return table[column].combine_chunks().flatten().to_numpy(zero_copy_only=False).reshape(-1, width)


def _tensor(table: pa.Table, column: str) -> Tensor:
    return torch.from_numpy(table[column].to_numpy())
