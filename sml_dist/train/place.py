"""Where a worker stands: its rank among the workers, and its device."""

import os
from dataclasses import dataclass

import torch


@dataclass(frozen=True)
class Place:
    """`local_workers` are those on this worker's node. The default process group spans all workers."""

    rank: int = 0
    workers: int = 1
    local_workers: int = 1
    device: torch.device = torch.device("cpu")

    def set_threads(self, asked: int | None) -> None:
        """Compute threads: as asked, or the node's cores shared between its workers."""
        torch.set_num_threads(asked or max(1, (os.cpu_count() or 1) // self.local_workers))
