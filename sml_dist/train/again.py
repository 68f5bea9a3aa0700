"""A command for a run that already exists: refused, done, or to be continued; known from its folder, before anything starts."""

from typing import Any

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import fingerprint
from sml_dist.train.run_folder import RunFolder


def finished(config: RunConfig) -> dict[str, Any] | None:
    """The summary of a run that has done all that this configuration asks for, if it lived to write it; else None.

    Raises InputError where the run cannot go on under this configuration.
    """
    folder = RunFolder(config.run.folder)
    if not any(folder.checkpoints.glob("step-*")):
        return None
    from sml_dist.train.checkpoint import newest  # these import TorchRec, for seconds: not for a new run
    from sml_dist.train.resume import progress_of, refuse_another
    from sml_dist.train.storage import Storage

    found = newest(Storage(folder.checkpoints))
    if found is None:
        return None
    refuse_another(found, config, fingerprint(config.data.path))
    progress, summary = progress_of(found, config), folder.read_json("summary.json")
    return summary if progress.done(config.train) and summary and summary["steps"] == progress.step else None
