"""The same DNN written by hand in plain torch: one sparse table for all fields, no framework around it."""

import itertools
import time

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.bench.case import Arm
from sml_dist.bench.workplace import BATCH, DENSE, DIM, FIELDS, HIDDEN
from sml_dist.data.dataset import Manifest, matrix, read_manifest, read_rows, row_groups

Rows = tuple[Tensor, Tensor, Tensor]  # ids (B, F) in the one table, dense (B, N), label (B,)


class PlainDNN(nn.Module):
    def __init__(self, rows: int):
        super().__init__()
        self.table = nn.Embedding(rows, DIM, sparse=True)
        widths = [FIELDS * DIM + DENSE, *HIDDEN]
        layers = [part for i, o in itertools.pairwise(widths) for part in (nn.Linear(i, o), nn.ReLU())]
        self.tower = nn.Sequential(*layers, nn.Linear(HIDDEN[-1], 1))

    def forward(self, ids_BF: Tensor, dense_BN: Tensor) -> Tensor:
        return self.tower(torch.cat([self.table(ids_BF).flatten(1), dense_BN], dim=1)).squeeze(1)


def hand_written(data: str, *, bf16: bool) -> Arm:
    """Samples/s of its step on tensors that are ready: Adagrad on the table's touched rows, fused Adam on the rest."""
    manifest = read_manifest(data)
    batches, model = ready(data, manifest), PlainDNN(sum(field.rows for field in manifest.fields))
    optimizers = [torch.optim.Adagrad(model.table.parameters(), lr=0.02), torch.optim.Adam(model.tower.parameters(), lr=1e-3, fused=True)]

    def read() -> float:
        started = time.perf_counter()
        for ids, dense, label in batches:
            with torch.autocast("cpu", torch.bfloat16, enabled=bf16):
                logit = model(ids, dense)
            loss = F.binary_cross_entropy_with_logits(logit.float(), label)
            for optimizer in optimizers:
                optimizer.zero_grad()
            loss.backward()
            for optimizer in optimizers:
                optimizer.step()
            loss.item()
        return len(batches) * BATCH / (time.perf_counter() - started)

    return read


def ready(data: str, manifest: Manifest) -> list[Rows]:
    """The training split as whole batches of tensors."""
    first = np.cumsum([0, *(field.rows for field in manifest.fields[:-1])])
    batches = []
    for path, group, rows in row_groups(manifest.splits["train"]):
        table = read_rows(data, path, group)
        ids = matrix(table["ids"]) + first
        dense = matrix(table["dense"])
        parts = [torch.from_numpy(np.array(part)) for part in (ids, dense, table["label"].to_numpy())]
        batches += [tuple(part[i : i + BATCH] for part in parts) for i in range(0, rows - BATCH + 1, BATCH)]
    return batches
