"""`train`: the loop, its schedule, and the workers it runs on."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.spec import spec

Precision = Literal["auto", "fp32", "tf32", "bf16"]
LONGEST = 31_536_000.0  # seconds, a year
METRICS = ("auc", "logloss", "ne", "gauc")


def known_metric(monitor: str) -> str:
    if monitor.rpartition(".")[2] not in METRICS:
        raise ValueError(f"{monitor!r} is no metric; give {', '.join(METRICS)}, or with a label as in click.auc")
    return monitor


@spec
class TrainConfig:
    """`global_batch_size` rows over all workers a step; rates are for the dense part (tables have `embedding.lr`).

    `num_workers` may be a range [least, most]: Ray Train then runs with what the cluster has, fewer after a node is lost.
    """

    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    worker_resources: dict[str, PositiveFloat] = field(default_factory=dict)  # Ray's, of each worker; {}: one CPU, and one GPU
    placement: Literal["pack", "spread"] = "pack"  # workers on as few nodes as hold them, or on as many as there are
    global_batch_size: PositiveInt = 4096
    epochs: PositiveInt = 1
    max_steps: PositiveInt | None = None
    seed: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"  # of the dense part's matrix products; auto is bf16 where that is faster, tf32 is fp32 on a CPU
    compile: bool | None = None  # torch.compile of the dense part, with CUDA graphs (in `step_timeout_s`); None: on a GPU
    threads: PositiveInt | None = None  # compute threads a worker; None: the machine's cores between its workers, one beside a GPU

    optimizer: Literal["adam", "adamw", "sgd", "adagrad"] = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = None
    warmup_steps: NonNegativeInt = 0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    plateau_factor: PositiveFloat = 0.1
    min_lr: NonNegativeFloat = 1e-6  # where cosine ends and plateau stops falling

    monitor: Annotated[str, AfterValidator(known_metric)] = "auc"  # or logloss, ne, gauc; of several labels the first one's, or LABEL.auc
    patience: PositiveInt = 2  # plateau: evaluations without a better `monitor` before the rate falls; see `stop_after`
    stop_after: PositiveInt | None = None  # evaluations in a row without a better `monitor` before training stops; None never stops
    eval_every_steps: PositiveInt | None = None  # None: at the end of each epoch
    eval_batch_size: PositiveInt | None = None  # None: 16,384 rows, on a GPU 8 training batches if that is more, 131,072 at most

    checkpoint_every_steps: PositiveInt | None = None  # None: at each evaluation
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2  # the newest; the best of each is kept besides
    max_restarts: NonNegativeInt = 3  # of the worker group, after a worker died
    max_rollbacks: NonNegativeInt = 2  # to the last checkpoint with half the learning rates, after 3 bad steps in a row
    # A worker without progress for so long is stopped, its stack written to stacks/; a year, which is the most, stands for never
    step_timeout_s: Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=True)] = 600.0
    resize_seconds: PositiveFloat = 60.0  # between looks at whether a range of workers can grow
    health_every_steps: PositiveInt | None = 100  # steps between lines of layer, gradient and table-row signals (train/health.py)
    profile_steps: NonNegativeInt = 0  # traced by torch's profiler on worker 0, into the run's profile/
    record_rows: bool = False  # keep a ledger of the rows of each step, for `sml-dist verify`

    @property
    def monitored(self) -> tuple[str, str]:
        """(label, metric) of `monitor`; no label is the first."""
        label, _, metric = self.monitor.rpartition(".")
        return label, metric

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.num_workers if isinstance(self.num_workers, tuple) else (self.num_workers, self.num_workers)

    def evaluated_together(self, device: str) -> int:
        """Rows of one batch of an evaluation, over all workers."""
        return self.eval_batch_size or (min(max(16_384, 8 * self.global_batch_size), 131_072) if device == "cuda" else 16_384)

    def most_steps(self, steps_per_epoch: int) -> int:
        """Steps of a run that nothing stops early."""
        return min(self.max_steps or steps_per_epoch * self.epochs, steps_per_epoch * self.epochs)

    def most_evaluations(self, steps_per_epoch: int) -> int:
        """An upper bound of the evaluations of a run, the one at its end included."""
        return self.epochs * (-(-steps_per_epoch // self.eval_every_steps) if self.eval_every_steps else 1) + 1
