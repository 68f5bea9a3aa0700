"""One run of a study in this process: the same `train` as everywhere, on one worker, without Ray Train and its start."""

import contextlib
from collections.abc import Iterator
from typing import Any

import torch.distributed as dist

from sml_dist.config.run import RunConfig
from sml_dist.data.stream import DirectStream
from sml_dist.train.place import Place
from sml_dist.train.worker import train


def run_cell(config: RunConfig) -> dict[str, Any]:
    """Trains and returns the summary; goes on from the run's last checkpoint. Raises InputError, RunError."""
    with alone():
        return train(config, Place(), DirectStream)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group("gloo", store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()
