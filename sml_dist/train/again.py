"""A command for a run that already exists: refused, done, or to be continued; known from its folder, before anything starts."""

from typing import TYPE_CHECKING, Any

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import fingerprint
from sml_dist.train.run_folder import RunFolder

if TYPE_CHECKING:
    from sml_dist.train.checkpoint import Checkpoint


def finished(config: RunConfig) -> dict[str, Any] | None:
    """The summary of a run that has done all that this configuration asks for, if it lived to write it; else None.

    Raises InputError where the run cannot go on under this configuration.
    """
    if (found := _newest(config)) is None:
        return None
    from sml_dist.train.resume import progress_of, refuse_another

    refuse_another(found, config, fingerprint(config.data.path))
    progress, summary = progress_of(found, config), RunFolder(config.run.folder).read_json("summary.json")
    return summary if progress.done(config.train) and summary and summary["steps"] == progress.step else None


def changed_since(config: RunConfig) -> str:
    """The settings that are not those of the run's last checkpoint (see resume.py); "" if none are."""
    if (found := _newest(config)) is None:
        return ""
    from sml_dist.train.resume import changed

    return changed(found, config)


def _newest(config: RunConfig) -> "Checkpoint | None":
    folder = RunFolder(config.run.folder)
    if not any(folder.checkpoints.glob("step-*")):
        return None
    from sml_dist.train.checkpoint import newest  # imports torch, and resume.py TorchRec, for seconds: not for a new run
    from sml_dist.train.storage import Storage

    return newest(Storage(folder.checkpoints))
