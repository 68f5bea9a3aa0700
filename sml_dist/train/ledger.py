"""The ledger: which rows each step of each worker used, written beside the checkpoints it leads to.

ledger/<attempt>-rank-<r>.jsonl   one line a step: step, epoch, batch, rows, digest, weight, and skipped where it was

An attempt is one life of a worker group, or of what follows a rollback. Files are only appended to; the `history` in a checkpoint's
manifest says which lines belong to it: [attempt, first step, workers], so a step done by an attempt that died before saving it counts
for nothing, and is done again by a later one. An attempt without a ledger has no name there: null.
"""

import json
import time
import uuid
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa

from sml_dist.data.hashing import fmix64
from sml_dist.train.storage import append


def new_attempt() -> str:
    """A name that no other attempt has; names sort by time."""
    return f"{time.time_ns():020d}-{uuid.uuid4().hex[:8]}"


def digest(rows: np.ndarray) -> int:
    """Of a set of row numbers, whatever their order: digests of disjoint sets add up (mod 2**64) to that of their union."""
    return int(fmix64(rows.astype(np.uint64) + np.uint64(1)).sum(dtype=np.uint64))


class Ledger:
    """One worker's part. Lines wait in memory until `flush`, which a save calls before it writes."""

    def __init__(self, folder: Path, rank: int):
        self.folder, self.rank, self.lines, self.path = folder, rank, [], None

    def begin(self, attempt: str) -> None:
        """Lines from here on are this attempt's."""
        self.lines, self.path = [], self.folder / f"{attempt}-rank-{self.rank}.jsonl"

    def add(self, progress: Any, table: pa.Table, skipped: bool) -> None:
        rows, weight = table["row"].to_numpy(), table["weight"].to_numpy()
        real = rows[rows >= 0]
        where = {"step": progress.step, "epoch": progress.epoch, "batch": progress.batch}
        what = {"rows": len(real), "digest": f"{digest(real):016x}", "weight": float(weight.sum(dtype=np.float64))}
        self.lines.append(json.dumps(where | what | ({"skipped": True} if skipped else {})))

    def flush(self) -> None:
        """Makes the lines so far durable."""
        if not self.lines:
            return
        taken = len(self.lines)
        self.folder.mkdir(parents=True, exist_ok=True)
        append(self.path, "".join(line + "\n" for line in self.lines[:taken]), sync=True)
        del self.lines[:taken]
