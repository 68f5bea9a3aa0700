"""Arrow rows to tensors: the one place where a table becomes a Batch, for training, scoring and serving alike."""

import logging
import warnings
from dataclasses import dataclass

import numpy as np
import pyarrow as pa
import torch
from torch import Tensor
from torchrec.sparse.jagged_tensor import KeyedJaggedTensor

from sml_dist.data.dataset import Field, Manifest, matrix, multi_column, whole
from sml_dist.spec import InputError

# Tensors share Arrow's memory where they can; nobody writes to a batch.
warnings.filterwarnings("ignore", "The given NumPy array is not writable", UserWarning)
# A KeyedJaggedTensor asks torch, by a function of which torch warns, whether it is traced.
logging.getLogger("torch.fx._symbolic_trace").setLevel(logging.ERROR)

CPU = torch.device("cpu")


@dataclass
class Batch:
    """B rows: dense (B, N) float32, ids by `Manifest.features`, label (B,) or of T labels (B, T), weight (B,), group (B,) or None.

    Rows without a label, which are there to be scored alone, have NaN for one.
    """

    dense: Tensor
    ids: KeyedJaggedTensor
    label: Tensor
    weight: Tensor
    group: Tensor | None = None

    def to(self, device: torch.device) -> "Batch":
        return Batch(self.dense.to(device), self.ids.to(device), self.label.to(device), self.weight.to(device), self.group)

    def record_stream(self, stream: torch.Stream) -> None:
        """The memory of a batch made on another stream is not used again before `stream` is done with it."""
        for part in (self.dense, self.ids, self.label, self.weight):
            part.record_stream(stream)


class Collator:
    """Turns Arrow tables with a dataset's columns into batches. Ids are checked here: FBGEMM is told not to."""

    def __init__(self, manifest: Manifest):
        self.single, self.multi, self.sequences, self.dense = manifest.single, manifest.multi, manifest.sequences, manifest.dense
        self.keys, self.labels, self.label_columns = manifest.features, manifest.labels, manifest.label_columns
        self.single_rows = torch.tensor([field.rows for field in self.single])

    def __call__(self, table: pa.Table, device: torch.device = CPU) -> Batch:
        """The batch on a device: columns go to a GPU as they lie in the table, through pinned memory, and are transposed there."""
        rows = table.num_rows
        dense = matrix(table["dense"]) if self.dense else np.empty((rows, 0), np.float32)
        values, lengths = self._ids(table, device)
        ids = KeyedJaggedTensor(self.keys, values, lengths=lengths, stride=rows)
        weight = moved(table["weight"].to_numpy(), device) if "weight" in table.column_names else torch.ones(rows, device=device)
        group = torch.from_numpy(table["group"].to_numpy()) if "group" in table.column_names else None
        return Batch(moved(dense, device), ids, self._label(table, device), weight, group)

    def _label(self, table: pa.Table, device: torch.device) -> Tensor:
        several = len(self.labels) > 1
        if "label" not in table.column_names:
            return torch.full((table.num_rows, len(self.labels)) if several else (table.num_rows,), torch.nan, device=device)
        if len(self.label_columns) == 1:
            return moved(table["label"].to_numpy(), device)
        label_BT = matrix(table["label"])
        return moved(label_BT if several else label_BT[:, self.label_columns.index(self.labels[0])].copy(), device)

    def _ids(self, table: pa.Table, device: torch.device) -> tuple[Tensor, Tensor]:
        """Values and lengths (F * B,) of all features, one after another; a single-valued field has one id a row."""
        values, lengths = [], []
        if self.single:
            ids_BF = moved(matrix(table["ids"]), device)
            self._check(ids_BF)
            values.append(ids_BF.t().reshape(-1))
            lengths.append(torch.ones(ids_BF.numel(), dtype=torch.int32, device=device))
        lists = [self._lists(table, field) for field in self.multi]
        lists += [by_position(*self._lists(table, field), field.length) for field in self.sequences]
        for flat, counts in lists:
            values.append(moved(flat, device))
            lengths.append(moved(counts, device))
        return torch.cat(values) if len(values) > 1 else values[0], torch.cat(lengths) if len(lengths) > 1 else lengths[0]

    def _check(self, ids_BF: Tensor) -> None:
        if not len(ids_BF):
            return
        least_F, most_F = (ends.cpu() for ends in torch.aminmax(ids_BF, dim=0))
        bad_F = (least_F < 0) | (most_F >= self.single_rows)
        if bad_F.any():
            column = int(bad_F.int().argmax())
            field, ids = self.single[column], ids_BF[:, column]
            self._refuse(field, int(ids[(ids < 0) | (ids >= field.rows)][0]))

    def _lists(self, table: pa.Table, field: Field) -> tuple[np.ndarray, np.ndarray]:
        """All ids of a list column and how many each row has, (B,)."""
        column = whole(table[multi_column(field.name)])
        flat = column.flatten().to_numpy(zero_copy_only=False)
        if len(flat) and (bad := flat.view(np.uint32) >= field.rows).any():
            self._refuse(field, flat[bad][0])
        return flat, np.diff(column.offsets.to_numpy()).astype(np.int32)

    def _refuse(self, field: Field, value: int) -> None:
        raise InputError(f"field {field.name}: id {value} is outside its table of {field.rows} rows; prepare the dataset again")


def moved(values: np.ndarray, device: torch.device) -> Tensor:
    """On a CPU the array's own memory. To a GPU, a copy that the host does not wait for, in the order of the current stream."""
    here = torch.from_numpy(values)
    return here if device.type == "cpu" else here.pin_memory().to(device, non_blocking=True)


def by_position(flat: np.ndarray, counts: np.ndarray, length: int) -> tuple[np.ndarray, np.ndarray]:
    """Rows' sequences, the newest id last, as values and lengths (length * B,) of `length` features, each row's newest id first.

    A position that a row does not have has no id.
    """
    place_L1 = np.arange(length)[:, None]
    held_LB = place_L1 < counts
    return flat[(np.cumsum(counts) - 1 - place_L1)[held_LB]], held_LB.astype(np.int32).reshape(-1)
