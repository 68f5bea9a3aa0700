"""One run of a study in this process: the same `train` as everywhere, on one worker, without Ray Train and its start."""

from typing import Any

from sml_dist.config.run import RunConfig
from sml_dist.data.stream import DirectStream
from sml_dist.train.in_process import alone
from sml_dist.train.place import Place
from sml_dist.train.worker import train


def run_cell(config: RunConfig) -> dict[str, Any]:
    """Trains and returns the summary; goes on from the run's last checkpoint. Raises InputError, RunError."""
    with alone():
        return train(config, Place(), DirectStream)
