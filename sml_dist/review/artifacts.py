"""W&B artifacts of a run: dataset (its manifest, by hash) -> run -> model (the best checkpoint), exports.

W&B takes what a run has used online alone: offline the dataset is known by its hash in the configuration and in the model's metadata.
"""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from sml_dist.data.dataset import MANIFEST
from sml_dist.train.run_folder import RunFolder

if TYPE_CHECKING:
    import wandb


def log_dataset_and_model(run: "wandb.Run", folder: RunFolder, summary: dict[str, Any]) -> None:
    import wandb

    from sml_dist.train.dataset_copy import KEPT  # it reads checkpoints, with torchrec: not for those who only follow a run

    dataset = (folder.read_json("about.json") or {})["dataset"]
    if not run.offline:
        used = wandb.Artifact(f"{dataset['name']}-{dataset['sha256'][:12]}", "dataset", metadata=dataset)
        used.add_file(str(folder.path / KEPT / MANIFEST))
        run.use_artifact(used)
    metadata = {"valid": summary["valid"], "dataset": dataset["sha256"], "steps": summary["steps"]}
    log_folder(run, "model", summary["checkpoint"], metadata, "best")


def log_folder(run: "wandb.Run", kind: str, folder: str | Path, metadata: dict[str, Any], *aliases: str) -> None:
    """A folder as an output of the run, without a copy of it on the way."""
    import wandb

    artifact = wandb.Artifact(f"{run.id}-{kind}", kind, metadata=metadata)
    artifact.add_dir(str(folder), policy="immutable")
    run.log_artifact(artifact, aliases=list(aliases))
