"""The training loop. Runs on every worker; knows neither Ray nor where batches come from."""

import time
from collections.abc import Callable, Generator, Iterable
from contextlib import closing, nullcontext
from dataclasses import asdict, dataclass, field
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np
import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.nn import functional as F

from sml_dist.config.metrics import METRICS
from sml_dist.config.train import TrainConfig
from sml_dist.data.plan import Cursor
from sml_dist.embeddings.batch import Batch, Collator
from sml_dist.nn.deep_supervision import DeepSupervision, every_logit, supervisions
from sml_dist.spec import InputError
from sml_dist.train.clock import Clock
from sml_dist.train.exchange import AHEAD, Exchange, Item, exchanged
from sml_dist.train.finite import Diverged, cause, over_workers, why
from sml_dist.train.health import Usage, heads_heard, signals
from sml_dist.train.ledger import Ledger
from sml_dist.train.loading import loaded
from sml_dist.train.meter import Meter
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.schedule import Schedule
from sml_dist.train.task import CTRTask

if TYPE_CHECKING:
    from sml_dist.train.keeper import Keeper

LOG_SECONDS = 1.0
BAD_STEPS = 3  # in a row, that make the run go back to its last checkpoint
ROLLBACK_FACTOR = 0.5  # on the learning rates, each time it does


class Stopped(Exception):
    """Whoever is told of the run's evaluations asked to stop: training ends where it stands, its checkpoint saved."""


@dataclass
class Progress:
    """All of a run's state that is not a tensor; saved with every checkpoint."""

    step: int = 0
    warm_steps: int = 0  # of earlier runs, behind the tables' optimiser state at a warm start
    epoch: int = 0
    batch: int = 0
    best: float | None = None  # of the monitored metric, larger is better
    best_step: int | None = None
    best_metrics: dict[str, Any] = field(default_factory=dict)
    evaluated: int | None = None  # step of the last evaluation
    since_best: int = 0  # evaluations
    plateau: float = 1.0  # factor on the learning rates
    restarts: int = 0  # times that training went on from a checkpoint
    bad_steps: int = 0  # in a row, skipped
    skipped: int = 0  # in all
    rollbacks: int = 0
    # Who made which steps of this history: [name of the attempt's ledger or None, its first step, workers]; see ledger.py.
    history: list[tuple[str | None, int, int]] = field(default_factory=list)

    @property
    def cursor(self) -> Cursor:
        return Cursor(self.epoch, self.batch)

    def finished(self, config: TrainConfig) -> bool:
        """Whether the last epoch is done, or `max_steps`, or no evaluation was better for too long."""
        stale = config.stop_after is not None and self.since_best >= config.stop_after
        enough = config.max_steps is not None and self.step >= config.max_steps
        return self.epoch >= config.epochs or enough or stale

    def done(self, config: TrainConfig) -> bool:
        """Whether it is finished, and its end evaluated."""
        return self.finished(config) and self.evaluated == self.step

    def as_dict(self) -> dict[str, Any]:
        return asdict(self)


class NoKeeper:
    """What the loop asks of a keeper (keeper.py), of one that keeps nothing."""

    ledger: Ledger | None = None

    def save(self, progress: Progress) -> None:
        """Starts to write a checkpoint."""

    def restore(self) -> Progress | None:
        """The newest sound checkpoint's progress, if there is one; its weights are loaded."""

    def settle(self) -> None:
        """Waits for the save under way."""


@dataclass
class Trainer:
    """What the loop needs, made by the worker.

    `evaluate`, `report` (of each evaluation, once it is saved; may raise Stopped) and the keeper's methods are collective;
    `log` does nothing but on rank 0; `beat` tells a watchdog that the worker is alive; `traced` is told of each step's end.
    """

    config: TrainConfig
    model: nn.Module
    optimizers: Optimizers
    schedule: Schedule
    collate: Collator
    device: torch.device
    steps_per_epoch: int
    evaluate: Callable[[], dict[str, Any]]
    log: Callable[..., None]
    keeper: "Keeper | NoKeeper" = field(default_factory=NoKeeper)
    beat: Callable[[str], None] = lambda doing: None
    traced: Callable[[], None] = lambda: None
    report: Callable[[Progress, dict[str, Any]], None] = lambda progress, metrics: None
    meter: Meter = field(default_factory=Meter)
    clock: Clock = field(default_factory=Clock)
    usage: Usage = field(default_factory=Usage)

    def run(self, batches_from: Callable[[Cursor], Generator[pa.Table]], progress: Progress) -> Progress:
        """Trains from `progress` to the end of the last epoch, `max_steps`, or an early stop."""
        while not progress.done(self.config):
            self.clock.enter("start")
            with closing(batches_from(progress.cursor)) as tables, closing(self.coming(tables)) as items:
                try:
                    self.stretch(items, progress)
                    self.clock.enter("checkpoint")
                    self.keeper.settle()
                except Diverged as fault:
                    progress = self.roll_back(fault, progress)
        self.clock.enter("other")
        return progress

    def coming(self, tables: Iterable[pa.Table]) -> Generator[Item]:
        """What `stretch` trains on: each table with the seconds waited for it, and its batch's exchange."""
        with closing(loaded(tables, self.collate, self.device, self.clock.enter)) as items:
            yield from exchanged(items, self.task.tables, self.clock.enter)

    def stretch(self, items: Iterable[Item], progress: Progress) -> None:
        """Trains to the end and evaluates there."""
        if progress.finished(self.config):  # already where it resumes: the end was moved closer since
            self.conclude(progress)
            return
        logged = time.monotonic()
        for number, (table, waited, exchange) in enumerate(items):
            if number == 0:
                self.meter.start(waited)
            if number < AHEAD:
                waited = 0.0  # it was before the meter's start
            loss, weight = self.step(table, progress, exchange)
            self.meter.step(self.config.global_batch_size, loss, weight, waited)
            self.beat(f"step {progress.step}")
            self.traced()
            if time.monotonic() - logged > LOG_SECONDS:
                self.log_steps(progress)
                logged = time.monotonic()
            if self.due(self.config.eval_every_steps, progress):
                self.log_steps(progress)
                self.conclude(progress)
                if progress.finished(self.config):
                    break
            elif self.config.checkpoint_every_steps and progress.step % self.config.checkpoint_every_steps == 0:
                self.log_steps(progress)
                self.save(progress)

    def conclude(self, progress: Progress) -> None:
        """Evaluates, saves and reports."""
        self.clock.enter("evaluation")
        metrics = self.evaluate()
        self.judge(metrics, progress)
        self.save(progress)
        self.report(progress, metrics)

    def save(self, progress: Progress) -> None:
        self.clock.enter("checkpoint")
        self.keeper.save(progress)
        self.clock.enter("other")
        self.meter.reset()

    # Looked up once: a step on a GPU is as short as its host is quick.

    @cached_property
    def task(self) -> CTRTask:
        return self.model.module

    @cached_property
    def buffers(self) -> list[Tensor]:
        """Running statistics, which forward itself updates."""
        return list(self.task.model.buffers())

    @cached_property
    def supervisions(self) -> list[DeepSupervision]:
        return supervisions(self.task.model)

    def step(self, table: pa.Table, progress: Progress, exchange: Exchange | None = None) -> tuple[float, float]:
        """Forward, backward and update on one batch, the table's. All workers' losses together, and what to divide them by for the mean
        over their rows: a batch may have padding.

        Backward goes in two: first through the model and the exchange, down to the rows that were looked up, where the gradients are
        checked; then `Exchange.update`, in which FBGEMM's fused optimiser changes the tables. A step with a number that is not finite on
        any worker changes nothing, and gives zeros. `exchange` is the batch's, made ahead by `coming`; without it the step makes its own.
        """
        enter = self.clock.enter
        reseed(step_seed(self.config.seed, progress.step, dist.get_rank()), self.device)  # so dropout repeats on resume
        self.optimizers.scale(self.schedule.factor(progress.step, progress.plateau))
        task = self.task
        if exchange is None:
            exchange = Exchange(task.tables, self.collate(table, self.device))
            exchange.send()
        batch = exchange.batch
        enter("embedding_forward")
        before = [buffer.clone() for buffer in self.buffers]
        x_BFD = task.embed(exchange)
        x_BFD.retain_grad()
        enter("dense_forward")
        self.optimizers.zero_grad()
        with heads_heard(task.model) if self.watched(progress) else nullcontext() as heard:
            logit = self.model(x_BFD, batch.dense)
        loss = self.loss(logit, batch)
        enter("dense_backward")
        loss.backward()
        norm = self.optimizers.norm()
        finite = torch.isfinite(loss.detach() + torch.linalg.vector_norm(x_BFD.grad) + norm)
        enter("communication")
        bad, total, weight = over_workers(~finite, loss.detach(), batch.weight.sum() * self.row_weight)
        enter("other")
        if self.keeper.ledger:
            self.keeper.ledger.add(progress, table, bad > 0)
        if bad:
            for buffer, value in zip(self.buffers, before, strict=True):
                buffer.copy_(value)
            self.skip(progress, why(cause(batch, task.fields, self.collate.dense, x_BFD, logit, loss)))
            self.advance(progress)
            return 0.0, 0.0
        enter("embedding_backward")
        exchange.update()
        if heard is not None:
            enter("health")
            self.log_health(progress, signals(task.model, heard, task.fields, x_BFD, logit, norm))
        enter("optimizer")
        self.optimizers.step(norm)
        enter("other")
        progress.bad_steps = 0
        self.advance(progress)
        return total, weight

    def loss(self, logit: Tensor, batch: Batch) -> Tensor:
        """sum_i weight_i * bce_i over this worker's rows, times W / B: its mean over workers is the sum over the global batch / B. So a row
        counts the same in a full batch and a padded one, on any worker."""
        logits_HB = every_logit(self.supervisions, logit)  # the mean over deep supervision's, else the one
        losses = F.binary_cross_entropy_with_logits(logits_HB, batch.label.expand_as(logits_HB), reduction="none").mean(dim=0)
        if losses.dim() == 2:  # several labels
            losses = losses.mean(dim=1)
        return (losses * batch.weight).sum() * self.row_weight

    @property
    def row_weight(self) -> float:
        return dist.get_world_size() / self.config.global_batch_size

    def skip(self, progress: Progress, reason: str) -> None:
        """Records a bad step, the same on every worker. Raises Diverged at the third in a row."""
        progress.bad_steps, progress.skipped = progress.bad_steps + 1, progress.skipped + 1
        where = {"step": progress.step, "epoch": progress.epoch, "batch": progress.batch}
        self.log(event="skipped", **where, why=reason)
        if progress.bad_steps == BAD_STEPS:
            last = f"step {progress.step} (epoch {progress.epoch}, batch {progress.batch})"
            raise Diverged(f"{BAD_STEPS} bad steps in a row, the last {last}: {reason}")

    def roll_back(self, fault: Diverged, progress: Progress) -> Progress:
        """Goes back to the last checkpoint with lower learning rates. Raises InputError where that has been done too often."""
        way_out = "mend the data, or lower train.lr or embedding.lr"
        if progress.rollbacks == self.config.max_rollbacks:
            raise InputError(f"{fault}; given up after {progress.rollbacks} rollbacks (train.max_rollbacks); {way_out}")
        earlier = self.keeper.restore()
        if earlier is None:
            raise InputError(f"{fault}; there is no checkpoint yet to go back to; {way_out}")
        self.log(event="rolled back", step=earlier.step, epoch=earlier.epoch, batch=earlier.batch, why=str(fault))
        earlier.plateau *= ROLLBACK_FACTOR ** (progress.rollbacks + 1 - earlier.rollbacks)
        earlier.rollbacks = progress.rollbacks + 1
        return earlier

    def advance(self, progress: Progress) -> None:
        progress.step += 1
        progress.batch += 1
        if progress.batch == self.steps_per_epoch:
            progress.epoch, progress.batch = progress.epoch + 1, 0

    def due(self, every: int | None, progress: Progress) -> bool:
        """Whether to evaluate now: every so many steps, or at each epoch's end; and always at the end."""
        return progress.finished(self.config) or (progress.step % every == 0 if every else progress.batch == 0)

    def judge(self, metrics: dict[str, Any], progress: Progress) -> None:
        """Records an evaluation: the best so far, the plateau schedule, early stopping.

        Raises InputError if these rows leave the metric undefined, Diverged if its value is otherwise not finite.
        """
        value = monitored(metrics, self.config)
        if not np.isfinite(value):
            raise Diverged(f"{self.config.monitor} on the validation rows is {value} at step {progress.step}")
        progress.evaluated = progress.step
        if progress.best is None or value > progress.best:
            progress.best, progress.best_step, progress.best_metrics, progress.since_best = value, progress.step, metrics, 0
        else:
            progress.since_best += 1
            if self.config.schedule == "plateau" and progress.since_best % self.config.patience == 0:
                progress.plateau *= self.config.plateau_factor
        self.log(step=progress.step, epoch=progress.epoch, split="valid", **metrics)

    def watched(self, progress: Progress) -> bool:
        """Whether the coming step's health is logged: the first one's, and that of one in so many."""
        every = self.config.health_every_steps
        return every is not None and (progress.step == 0 or (progress.step + 1) % every == 0)

    def log_health(self, progress: Progress, found: dict[str, float]) -> None:
        self.log(event="health", step=progress.step + 1, epoch=progress.epoch, **found, **self.usage.read())

    def log_steps(self, progress: Progress) -> None:
        if self.meter.weight:
            lr = self.optimizers.rates[0][0]["lr"]
            self.log(step=progress.step, epoch=progress.epoch, batch=progress.batch, lr=lr, **self.meter.read())


def monitored(metrics: dict[str, Any], config: TrainConfig) -> float:
    """What an evaluation says of `train.monitor`, larger is better. Raises InputError where the rows leave it undefined."""
    label, metric = config.monitored
    if metrics.get("rows") == 0:
        raise InputError("no validation row weighs anything, so there is nothing to evaluate; mend their weights, and prepare again")
    value = (metrics["labels"][label] if label else metrics)[metric] * METRICS[metric].sign
    if np.isnan(value) and metric != "logloss":
        why = (
            "no group of the validation rows has both labels"
            if metric == "gauc"
            else "all validation rows that weigh anything have one label"
        )
        way_out = f"set train.monitor={config.monitor.removesuffix(metric)}logloss"
        raise InputError(f"train.monitor {config.monitor} is undefined: {why}; {way_out}")
    return value


def step_seed(seed: int, step: int, rank: int) -> int:
    """A seed for one step of one worker: 32 bits, as torch's CPU generator takes no more."""
    return int(np.random.SeedSequence([seed, step, rank]).generate_state(1)[0])


def reseed(seed: int, device: torch.device) -> None:
    """torch.manual_seed for this device alone: torch's formats a stack for every kind of device not in use yet, 0.2 ms each time."""
    torch.default_generator.manual_seed(seed)
    if device.type == "cuda":
        torch.cuda.manual_seed(seed)
