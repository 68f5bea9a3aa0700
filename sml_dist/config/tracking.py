"""`tracking`: where a run's metrics go besides metrics.jsonl in the run folder."""

from typing import Literal

from sml_dist.spec import spec


@spec
class WandbConfig:
    """mode: auto is online if there is a key (WANDB_API_KEY, `wandb login`), else offline, for `wandb sync` later; it never prompts.
    WANDB_MODE=offline or disabled in the environment takes auto's place.

    artifacts: log the dataset's manifest, and at the end the best checkpoint, as artifacts of the run.
    """

    project: str
    entity: str | None = None
    group: str | None = None
    mode: Literal["auto", "online", "offline"] = "auto"
    artifacts: bool = False


@spec
class TrackingConfig:
    """`tensorboard`: write event files to tensorboard/ in the run folder."""

    wandb: WandbConfig | None = None
    tensorboard: bool = False
