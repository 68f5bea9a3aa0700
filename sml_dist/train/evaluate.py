"""Metrics of a model over a whole split, over all workers."""

import itertools
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Any

import pyarrow as pa
import torch
import torch.distributed as dist
from torch import Tensor, nn

from sml_dist.data.plan import Plan
from sml_dist.data.stream import Stream, ahead_in_evaluation
from sml_dist.embeddings.batch import Collator
from sml_dist.train.finite import Diverged, cause, over_workers, why
from sml_dist.train.loading import loaded
from sml_dist.train.metrics import ExactScores, HistogramScores, scores_for
from sml_dist.train.sharded import average_batch_statistics
from sml_dist.train.state import fused

LARGEST_GROUPS = 10  # groups whose AUC a result lists
Beat = Callable[[str], None]
Scores = ExactScores | HistogramScores
Keep = Callable[[Scores], None]


class Evaluation:
    """One split, evaluated up to `times` times through one pipeline that stays open in between."""

    def __init__(self, stream: Stream, batch_size: int, times: int, keep: Keep = lambda scores: None):
        streams = stream.plan.streams
        size = max(1, min(batch_size, stream.plan.rows) // streams) * streams
        self.plan: Plan = replace(stream.plan, batch_size=size, seed=0, shuffle=False)
        self.keep = keep
        ahead = ahead_in_evaluation(stream.prefetch)
        self.stream, self.left = replace(stream, plan=self.plan, epochs=times, prefetch=ahead, numbered=False), 0

    def run(self, model: nn.Module, collate: Collator, device: torch.device, beat: Beat = lambda doing: None) -> dict[str, Any]:
        if not self.left:  # at first, and after more evaluations than planned: a run that was rolled back
            self.batches, self.left = self.stream.batches(), self.stream.epochs
        self.left -= 1
        return evaluate(model, itertools.islice(self.batches, self.plan.steps), collate, device, self.plan.rows, beat, self.keep)


def evaluate(
    model: nn.Module,
    batches: Iterable[pa.Table],
    collate: Collator,
    device: torch.device,
    rows: int,
    beat: Beat = lambda doing: None,
    keep: Keep = lambda scores: None,
) -> dict[str, Any]:
    """AUC, logloss, NE, calibration (and GAUC where rows have groups) over every worker's batches; equal on all workers.

    Of several labels the first one's, and under `labels` each one's by name. `keep` is given all rows' scores of the first
    label, on rank 0. Raises Diverged, on all workers, where a score is not finite on any of them; the batches are read to their end.
    """
    started = time.monotonic()
    average_batch_statistics(model)
    scores = {label: scores_for(rows) for label in collate.labels}
    task, bad = model.module, None
    with scoring(model):
        for _, batch, _ in loaded(batches, collate, device):
            x_BFD = task.embed(batch.ids)
            logit = task(x_BFD, batch.dense)
            beat("evaluation")
            bad = bad or (cause(batch, task.fields, collate.dense, x_BFD, logit) if not torch.isfinite(logit).all() else None)
            if bad:
                continue
            group = None if batch.group is None else batch.group.numpy()
            weight = batch.weight.cpu().numpy()
            columns = zip(scores.values(), by_label(logit.cpu()), by_label(batch.label.cpu()), strict=True)
            for collector, logits, labels in columns:
                collector.add(logits.numpy(), labels.numpy(), weight, group)
    if any(over_workers(torch.tensor(bad is not None))):
        raise Diverged(f"evaluation: {why(bad)}")
    results = [_merged(collector) for collector in scores.values()]
    if dist.get_rank() == 0:
        keep(next(iter(scores.values())))
    dist.broadcast_object_list(results, src=0)
    several = {"labels": dict(zip(scores, results, strict=True))} if len(scores) > 1 else {}
    return results[0] | several | {"seconds": round(time.monotonic() - started, 3)}


@contextmanager
def scoring(model: nn.Module) -> Iterator[None]:
    """Evaluation mode, without gradients; after it training goes on as if nothing had been scored.

    FBGEMM's fused optimisers count a step in every forward, whatever its mode, and Adam's bias correction goes by the count.
    """
    counts = [(count, count.clone()) for module in fused(model) for count in (module.iter, module.iter_cpu)]
    model.eval()
    try:
        with torch.no_grad():  # FBGEMM's fused CPU kernels have no way through inference_mode
            yield
    finally:
        model.train()
        for count, before in counts:
            count.copy_(before)


def by_label(values: Tensor) -> tuple[Tensor, ...]:
    """(B,) or (B, T) -> one (B,) a label."""
    return values.unbind(1) if values.dim() == 2 else (values,)


def _merged(scores: Scores) -> dict[str, Any] | None:
    """The metrics of all workers' scores, on rank 0."""
    if dist.get_world_size() == 1:
        return _result(scores)
    states: list[Any] | None = [None] * dist.get_world_size() if dist.get_rank() == 0 else None
    dist.gather_object(scores.state(), states, dst=0)
    if states is None:
        return None
    for state in states[1:]:
        scores.merge(state)
    return _result(scores)


def _result(scores: Scores) -> dict[str, Any]:
    result = scores.result()
    return result | ({"largest_groups": scores.groups().largest(LARGEST_GROUPS)} if "gauc" in result else {})
