"""A run in this process whose model stays at hand: no Ray, no run folder. For studies and measurements that look inside."""

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
import pyarrow as pa
import torch.distributed as dist

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import Manifest, read_manifest, read_rows, row_groups
from sml_dist.data.plan import Cursor
from sml_dist.data.stream import DirectStream, Source
from sml_dist.embeddings.batch import Batch, Collator
from sml_dist.quiet import quiet
from sml_dist.train.build import training_task
from sml_dist.train.evaluate import Evaluation
from sml_dist.train.finite import Diverged
from sml_dist.train.loop import Progress, Trainer
from sml_dist.train.optimizers import Optimizers
from sml_dist.train.place import Place
from sml_dist.train.rows import training_plan
from sml_dist.train.schedule import Schedule
from sml_dist.train.sharded import shard, start_tables
from sml_dist.train.task import CTRTask


@contextlib.contextmanager
def alone(backend: str = "gloo") -> Iterator[None]:
    """A process group of this process alone."""
    dist.init_process_group(backend, store=dist.HashStore(), rank=0, world_size=1)
    try:
        yield
    finally:
        dist.destroy_process_group()


@contextlib.contextmanager
def one_process(threads: int | None = None, backend: str = "gloo") -> Iterator[None]:
    """Alone, and quietly: TorchRec's twenty lines of warnings for each model made are left out."""
    Place().set_threads(threads)
    with quiet(), alone(backend):
        yield


@dataclass(frozen=True)
class Laboratory:
    """One run within `one_process`: made, and trained when it is told to."""

    config: RunConfig
    manifest: Manifest
    stream: DirectStream
    trainer: Trainer

    @classmethod
    def of(cls, config: RunConfig, place: Place = Place()) -> "Laboratory":  # noqa: B008
        return cls.over(read_manifest(config.data.path, config.data.label), config, place)

    @classmethod
    def over(cls, manifest: Manifest, config: RunConfig, place: Place = Place()) -> "Laboratory":  # noqa: B008
        """Over a manifest that need not be what lies at `data.path`, such as one of larger tables."""
        plan, collate = training_plan(manifest, config), Collator(manifest)
        stream = DirectStream(Source.of(config.data.path, manifest, "train"), plan, epochs=config.train.epochs)
        together = config.train.evaluated_together(place.device.type)
        valid = Evaluation(stream.of(Source.of(config.data.path, manifest, "valid")), together, times=1)
        task = training_task(manifest, config, place.device)
        model, _ = shard(task, manifest, config, place.device, place.local_workers)
        start_tables(model, config)
        trainer = Trainer(
            config=config.train,
            model=model,
            optimizers=Optimizers(model, config.train, config.embedding),
            schedule=Schedule(config.train, config.train.most_steps(plan.steps)),
            collate=collate,
            device=place.device,
            steps_per_epoch=plan.steps,
            evaluate=lambda: valid.run(model, collate, place.device),
            log=lambda **values: None,
        )
        return cls(config, manifest, stream, trainer)

    @property
    def task(self) -> CTRTask:
        return self.trainer.model.module

    def train(self) -> dict[str, Any] | None:
        """To the end of the run: the metrics of its best evaluation on the validation rows. None where training diverged."""
        progress = Progress()
        try:
            self.trainer.stretch(self.trainer.coming(self.stream.batches(Cursor())), progress)
        except Diverged:
            return None
        return progress.best_metrics

    def sample(self, split: str, rows: int) -> Batch:
        """Rows evenly spaced over the split's first row group."""
        path, group, size = next(row_groups(self.manifest.splits[split]))
        places = np.linspace(0, size - 1, min(rows, size)).astype(np.int64)
        return self.trainer.collate(read_rows(self.config.data.path, path, group).take(pa.array(places)))
