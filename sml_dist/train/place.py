"""Where a worker stands: its rank among the workers, and its device."""

from dataclasses import dataclass

import torch
from joblib import cpu_count  # os.cpu_count() counts the machine's, whatever a container's limit


@dataclass(frozen=True)
class Place:
    """`local_workers` are those on this worker's node. The default process group spans all workers."""

    rank: int = 0
    workers: int = 1
    local_workers: int = 1
    device: torch.device = torch.device("cpu")

    def set_threads(self, asked: int | None) -> None:
        """Compute threads: as asked, or the cores that this node, or its container, may use, shared between its workers.

        Beside a GPU just one: what is left to compute is copies, and teams of threads in the loop and in the loading of batches get in each
        other's way.
        """
        torch.set_num_threads(asked or (max(1, cpu_count() // self.local_workers) if self.device.type == "cpu" else 1))
