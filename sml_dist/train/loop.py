"""The training loop. Runs on every worker; knows neither Ray nor where batches come from."""

import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, field
from typing import Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import nn

from sml_dist.config.train import TrainConfig
from sml_dist.data.plan import Cursor
from sml_dist.embeddings.batch import Collator
from sml_dist.spec import InputError
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.report import Meter
from sml_dist.train.schedule import Schedule

LOG_SECONDS = 1.0


@dataclass
class Progress:
    """All of a run's state that is not a tensor; committed with every checkpoint."""

    step: int = 0
    epoch: int = 0
    batch: int = 0
    best: float | None = None  # of the monitored metric, larger is better
    best_step: int | None = None
    best_metrics: dict[str, Any] = field(default_factory=dict)
    since_best: int = 0  # evaluations
    plateau: float = 1.0  # factor on the learning rates
    restarts: int = 0  # times that training went on from a checkpoint

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.batch)

    def finished(self, config: TrainConfig) -> bool:
        """Whether the last epoch is done, or `max_steps`, or no evaluation was better for too long."""
        stale = config.stop_after is not None and self.since_best >= config.stop_after
        return self.epoch >= config.epochs or self.step == config.max_steps or stale

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


@dataclass
class Trainer:
    """What the loop needs, made by the worker. `evaluate` and `commit` are collective; `log` does nothing but on rank 0."""

    config: TrainConfig
    model: nn.Module
    optimizers: Optimizers
    schedule: Schedule
    collate: Collator
    device: torch.device
    steps_per_epoch: int
    evaluate: Callable[[], dict[str, Any]]
    commit: Callable[[Progress], None]
    log: Callable[..., None]
    meter: Meter = field(default_factory=Meter)

    def run(self, batches: Iterator[pa.Table], progress: Progress) -> Progress:
        """Trains from `progress` to the end of the last epoch, `max_steps`, or an early stop."""
        logged = time.monotonic()
        for number, (table, waited) in enumerate(timed(batches)):
            if number == 0:
                self.meter.start(waited)
                waited = 0.0
            loss = self.step(table, progress)
            self.meter.step(self.config.global_batch_size, loss, waited)
            self.advance(progress)
            if time.monotonic() - logged > LOG_SECONDS:
                self.log_steps(progress)
                logged = time.monotonic()
            if self.due(self.config.eval_every_steps, progress):
                self.log_steps(progress)
                self.judge(self.evaluate(), progress)
                self.commit(progress)
                self.meter.reset()
                if progress.finished(self.config):
                    break
            elif self.config.checkpoint_every_steps and progress.step % self.config.checkpoint_every_steps == 0:
                self.log_steps(progress)
                self.commit(progress)
                self.meter.reset()
        return progress

    def step(self, table: pa.Table, progress: Progress) -> float:
        """Forward, backward and update on one batch; the loss on this worker's share of it."""
        torch.manual_seed(step_seed(self.config.seed, progress.step, dist.get_rank()))  # so dropout repeats on resume
        self.optimizers.scale(self.schedule.factor(progress.step, progress.plateau))
        loss, _ = self.model(self.collate(table).to(self.device, non_blocking=True))
        self.refuse_nonfinite(loss, progress)
        self.optimizers.zero_grad()
        loss.backward()
        self.optimizers.step()
        return loss.item()

    def refuse_nonfinite(self, loss: torch.Tensor, progress: Progress) -> None:
        """A loss that is not finite on any worker stops all before backward, whose fused update would poison the tables."""
        bad = (~torch.isfinite(loss.detach())).float()
        if dist.get_world_size() > 1:
            dist.all_reduce(bad, dist.ReduceOp.MAX)
        if bad.item():
            raise InputError(
                f"the loss is not finite at step {progress.step} (epoch {progress.epoch}, batch {progress.batch}); "
                "lower train.lr or embedding.lr"
            )

    def advance(self, progress: Progress) -> None:
        progress.step += 1
        progress.batch += 1
        if progress.batch == self.steps_per_epoch:
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def due(self, every: int | None, progress: Progress) -> bool:
        """Whether to evaluate now: every so many steps, or at each epoch's end; and always at the end."""
        return progress.finished(self.config) or (progress.step % every == 0 if every else progress.batch == 0)

    def judge(self, metrics: dict[str, Any], progress: Progress) -> None:
        """Books an evaluation: the best so far, the plateau schedule, early stopping."""
        value = metrics[self.config.monitor] * (1 if self.config.monitor in ("auc", "gauc") else -1)
        if progress.best is None or value > progress.best:
            progress.best, progress.best_step, progress.best_metrics, progress.since_best = value, progress.step, metrics, 0
        else:
            progress.since_best += 1
            if self.config.schedule == "plateau" and progress.since_best % self.config.patience == 0:
                progress.plateau *= self.config.plateau_factor
        self.log(step=progress.step, epoch=progress.epoch, split="valid", **metrics)

    def log_steps(self, progress: Progress) -> None:
        if self.meter.steps:
            lr = self.optimizers.rates[0][0]["lr"]
            self.log(step=progress.step, epoch=progress.epoch, batch=progress.batch, lr=lr, **self.meter.read())


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one worker: 32 bits, for torch's CPU generator takes no more of it."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def timed(items: Iterator[Any]) -> Iterator[tuple[Any, float]]:
    """Each item with the seconds spent waiting for it."""
    while True:
        started = time.monotonic()
        try:
            item = next(items)
        except StopIteration:
            return
        yield item, time.monotonic() - started
