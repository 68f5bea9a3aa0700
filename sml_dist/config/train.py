"""`train`: the loop, its schedule, and the workers it runs on."""

from dataclasses import field
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, NonNegativeFloat, NonNegativeInt, PositiveFloat, PositiveInt

from sml_dist.config.metrics import COMPARABLE
from sml_dist.spec import spec

Precision = Literal["auto", "fp32", "tf32", "bf16"]
LONGEST = 31_536_000.0  # seconds, a year


def known_metric(monitor: str) -> str:
    if monitor.rpartition(".")[2] not in COMPARABLE:
        raise ValueError(f"{monitor!r} is no metric; give {', '.join(COMPARABLE)}, or with a label as in click.auc")
    return monitor


@spec
class TrainConfig:
    """global_batch_size: rows in each step, over all workers. lr: of the dense part; tables have `embedding.lr`.

    num_workers: a number, or a range [least, most] in which Ray Train takes as many as the cluster has: fewer after a node is lost, more
    at the next checkpoint after one comes.
    """

    num_workers: PositiveInt | tuple[PositiveInt, PositiveInt] = 1
    worker_resources: dict[str, PositiveFloat] = field(default_factory=dict)  # Ray's; {}: one CPU, and one GPU when training on GPUs
    placement: Literal["pack", "spread"] = "pack"  # workers on as few nodes as possible, or on as many
    global_batch_size: PositiveInt = 4096
    epochs: PositiveInt = 1
    max_steps: PositiveInt | None = None
    seed: NonNegativeInt = 0
    device: Literal["auto", "cpu", "cuda"] = "auto"
    precision: Precision = "auto"  # of the dense part's matrix products; auto: bf16 if that is faster, else fp32; tf32 on a CPU: fp32
    compile: bool | None = None  # torch.compile of the dense part (its time counts for `step_timeout_s`); None: on a GPU, as CUDA graphs
    threads: PositiveInt | None = None  # compute threads per worker; None: the machine's cores divided among its workers, 1 with a GPU

    optimizer: Literal["adam", "adamw", "sgd", "adagrad"] = "adam"
    lr: PositiveFloat = 1e-3
    weight_decay: NonNegativeFloat = 0.0
    clip_norm: PositiveFloat | None = None
    warmup_steps: NonNegativeInt = 0
    schedule: Literal["constant", "cosine", "plateau"] = "constant"
    plateau_factor: PositiveFloat = 0.1
    min_lr: NonNegativeFloat = 1e-6  # at which cosine ends and plateau stops falling

    monitor: Annotated[str, AfterValidator(known_metric)] = "auc"  # or gauc, logloss, ne; of several labels the first one's, or LABEL.auc
    patience: PositiveInt = 2  # plateau: evaluations in a row without a better `monitor` before the rate falls
    stop_after: PositiveInt | None = None  # evaluations in a row without a better `monitor` before training stops; None: never
    eval_every_steps: PositiveInt | None = None  # None: at the end of each epoch
    eval_batch_size: PositiveInt | None = None  # rows; None: 16,384, on a GPU 8 training batches if that is more, but at most 131,072

    checkpoint_every_steps: PositiveInt | None = None  # None: at each evaluation
    checkpoint_in_background: bool = True  # false: training waits while one is written, and needs no copy of all tables in host memory
    keep_checkpoints: Annotated[int, Field(ge=2)] = 2  # how many of the newest to keep; the best as of each of them is kept too
    max_restarts: NonNegativeInt = 3  # of all workers, after one died
    max_rollbacks: NonNegativeInt = 2  # to the last checkpoint with half the learning rates, after 3 bad steps in a row
    # A worker that makes no progress for so long is stopped, and its stack is written to stacks/; at most a year, in effect never
    step_timeout_s: Annotated[float, Field(gt=0, le=LONGEST, allow_inf_nan=True)] = 600.0
    resize_seconds: PositiveFloat = 60.0  # at least, between checks whether a range of workers can grow; it does so at a checkpoint
    health_every_steps: PositiveInt | None = 100  # steps between lines of layer, gradient and table-row signals (train/health.py)
    profile_steps: NonNegativeInt = 0  # traced by torch's profiler on worker 0, into the run's profile/
    record_rows: bool = False  # keep a ledger of the rows of each step, for `sml-dist verify`

    @property
    def monitored(self) -> tuple[str, str]:
        """(label, metric) of `monitor`; the label is "" for the first."""
        label, _, metric = self.monitor.rpartition(".")
        return label, metric

    @property
    def worker_range(self) -> tuple[int, int]:
        """The least and the most workers."""
        return self.num_workers if isinstance(self.num_workers, tuple) else (self.num_workers, self.num_workers)

    def evaluated_together(self, device: str) -> int:
        """Rows in one batch of an evaluation, over all workers."""
        return self.eval_batch_size or (min(max(16_384, 8 * self.global_batch_size), 131_072) if device == "cuda" else 16_384)

    def most_steps(self, steps_per_epoch: int) -> int:
        """Steps of a run that is not stopped early."""
        return min(self.max_steps or steps_per_epoch * self.epochs, steps_per_epoch * self.epochs)

    def most_evaluations(self, steps_per_epoch: int) -> int:
        """An upper bound on a run's evaluations, including the one at its end."""
        return self.epochs * (-(-steps_per_epoch // self.eval_every_steps) if self.eval_every_steps else 1) + 1
