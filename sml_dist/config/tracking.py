"""`tracking`: where else a run's metrics go. metrics.jsonl of the run folder always has them."""

from typing import Literal

from sml_dist.spec import spec


@spec
class WandbConfig:
    """`mode` auto is online where there is a key (WANDB_API_KEY, `wandb login`), else offline, for `wandb sync` later; never a prompt.

    artifacts: the dataset's manifest, and at the end the best checkpoint, as artifacts of the run.
    """

    project: str
    entity: str | None = None
    group: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    artifacts: bool = False


@spec
class TrackingConfig:
    """`tensorboard` writes event files to tensorboard/ of the run folder."""

    wandb: WandbConfig | None = None
    tensorboard: bool = False
