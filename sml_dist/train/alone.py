"""One run in this process: the same `train` as everywhere, on one worker, without Ray Train and its start (7 s)."""

import logging
from typing import Any

from sml_dist.config.run import RunConfig
from sml_dist.data.stream import DirectStream
from sml_dist.train.code import commit
from sml_dist.train.in_process import alone
from sml_dist.train.place import Place
from sml_dist.train.run_folder import RunFolder
from sml_dist.train.worker import Report, train_watched


def train_alone(config: RunConfig, report: Report | None = None) -> dict[str, Any]:
    """Trains and returns the summary; goes on from the run's last checkpoint. Raises InputError, RunError, Stopped.

    TorchRec's twenty lines of warnings for each model made are left out.
    """
    logging.getLogger("torchrec").setLevel(logging.ERROR)
    RunFolder(config.run.folder).write_json("code.json", commit())
    with alone():
        return train_watched(config, Place(), DirectStream, report)
