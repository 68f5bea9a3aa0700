"""Progressive validation: one pass over a log in its own order, each batch predicted first and trained on then."""

import itertools
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from torch import nn

from sml_dist.config.run import RunConfig
from sml_dist.data.dataset import SPLITS, Manifest
from sml_dist.data.plan import Plan
from sml_dist.data.stream import DirectStream, Source
from sml_dist.spec import InputError
from sml_dist.tabular import Row
from sml_dist.train.evaluate import scoring
from sml_dist.train.finite import Diverged
from sml_dist.train.in_process import Laboratory
from sml_dist.train.loop import Progress
from sml_dist.train.metrics import auc, logloss


class CannotLearn(Exception):
    """Why a model does not get through the log."""


@dataclass(frozen=True)
class Predictions:
    """Of every row, in the log's order, by the model that had seen the batches before the row's and nothing else; (N,) each."""

    logits: np.ndarray
    labels: np.ndarray
    weights: np.ndarray

    def curve(self, windows: int) -> list[Row]:
        """At the end of each of `windows` windows, equal in rows but for one: the metrics of all rows so far, and of the window's.

        The cumulative logloss is the progressive validation loss, which for one pass is an estimate as good as a hold-out
        set's (Blum, Kalai and Langford, COLT 1999). The cumulative AUC also ranks early rows, scored by the young model,
        against late ones; a window's does so less.
        """
        edges = np.linspace(0, len(self.logits), windows + 1).astype(np.int64)
        whole = ({"rows": int(end)} | self._metrics(slice(0, end), "") for end in edges[1:])
        parts = (self._metrics(slice(start, end), "window ") for start, end in itertools.pairwise(edges))
        return [row | part for row, part in zip(whole, parts, strict=True)]

    def _metrics(self, rows: slice, prefix: str) -> dict[str, float]:
        columns = self.logits[rows], self.labels[rows], self.weights[rows]
        return {f"{prefix}logloss": logloss(*columns), f"{prefix}auc": auc(*columns)}


def progressive(config: RunConfig) -> Predictions:
    """One pass with `train.global_batch_size` rows a step, over all splits in order, to `train.max_steps`. Within `one_process`.

    A step is the trainer's own, as in `sml-dist train`. A prediction is what a server would have given: in evaluation
    mode, so that batch norm takes its running statistics. Raises CannotLearn, InputError.
    """
    laboratory = Laboratory.of(config)
    if len(laboratory.manifest.labels) > 1:
        raise InputError(f"{config.data.path} has several labels; this study is for one: set data.label")
    trainer, task = laboratory.trainer, laboratory.task
    if config.train.global_batch_size == 1 and any(isinstance(module, nn.BatchNorm1d) for module in task.modules()):
        raise CannotLearn("batch norm has no variance to divide by in a batch of one row")  # torch refuses it too
    found: list[tuple[np.ndarray, ...]] = []
    progress = Progress()
    for table in in_order(config, laboratory.manifest):
        batch = trainer.collate(table)
        with scoring(trainer.model):
            logit = task.logit(batch)
        real = batch.weight > 0  # the rest fills the last batch up
        found.append(tuple(column[real].numpy() for column in (logit, batch.label, batch.weight)))
        if not np.isfinite(found[-1][0]).all():
            raise CannotLearn(f"diverged: after {progress.step} steps it predicts what is not a number")
        try:
            trainer.step(table, progress)
        except Diverged as fault:
            raise CannotLearn(f"diverged: {fault}") from None
    return Predictions(*(np.concatenate(column) for column in zip(*found, strict=True)))


def in_order(config: RunConfig, manifest: Manifest) -> Iterator[Any]:
    """The batches of train, valid and test, one after another and as they lie in their files."""
    root, splits = config.data.path, [name for name in SPLITS if name in manifest.splits]
    sources = [Source.of(root, manifest, name) for name in splits]
    whole = Source(root, tuple(group for source in sources for group in source.groups), sources[0].row_bytes)
    plan = Plan(whole.rows, 1, config.train.global_batch_size, manifest.row_group_rows, seed=0, shuffle=False)
    return itertools.islice(DirectStream(whole, plan).batches(), config.train.max_steps)
