"""Numbers that are not finite: noticed on all workers together before an update, and traced to their source."""

from collections.abc import Iterator

import torch
import torch.distributed as dist
from torch import Tensor

from sml_dist.embeddings.batch import Batch

Cause = tuple[int, str]  # its place on the way of a row, and what is wrong there
NONE: Cause = (9, "the gradient of the dense part is not finite")  # the only cause left for a step


class Diverged(Exception):
    """Training cannot go on from the present weights; says why."""


def over_workers(*scalars: Tensor) -> list[float]:
    """Each scalar's sum over all workers, in one exchange: a bool's is how many it holds on. Collective."""
    sums = torch.stack([scalar.float() for scalar in scalars])
    if dist.get_world_size() > 1:
        dist.all_reduce(sums)
    return sums.tolist()


def why(mine: Cause | None) -> str:
    """The earliest of all workers' causes. Collective; for what is already known to be bad."""
    causes: list[Cause] = [NONE] * dist.get_world_size()
    dist.all_gather_object(causes, mine or NONE)
    rank = min(range(len(causes)), key=lambda rank: causes[rank][0])
    return f"{causes[rank][1]} (worker {rank})"


def cause(batch: Batch, fields: list[str], dense: list[str], embedded: Tensor, logit: Tensor, loss: Tensor | None = None) -> Cause | None:
    """The earliest value that is not finite in this worker's batch, and for a step in its loss and the embeddings' gradient."""
    return next(_causes(batch, fields, dense, embedded, logit, loss), None)


def _causes(batch: Batch, fields: list[str], dense: list[str], embedded: Tensor, logit: Tensor, loss: Tensor | None) -> Iterator[Cause]:
    for name, column in zip(dense, batch.dense.T, strict=True):
        if text := _faults(column):
            yield 0, f"numeric feature {name}: {text}"
    for name, column in (("label", batch.label), ("weight", batch.weight)):
        if text := _faults(column):
            yield 0, f"{name}: {text}"
    for name, rows in zip(fields, embedded.detach().unbind(1), strict=True):
        if text := _faults(rows):
            yield 1, f"embeddings of field {name}: {text}"
    if text := _faults(logit.detach()):
        largest = max(zip(fields, embedded.detach().abs().amax((0, 2)).tolist(), strict=True), key=lambda pair: pair[1])
        yield 2, f"logits: {text}, from finite inputs; the largest embedding is of field {largest[0]}, {largest[1]:.3g}"
    if loss is not None and not torch.isfinite(loss):
        yield 3, "the loss is not finite, from finite logits"
    if embedded.grad is not None and (text := _faults(embedded.grad)):
        yield 4, f"gradient of the embeddings: {text}"


def _faults(values: Tensor) -> str:
    """How many of `values` are not finite, and the range of the others; "" if all are finite."""
    finite = torch.isfinite(values)
    if finite.all():
        return ""
    rest = values[finite]
    span = f", the others lie in [{rest.min():.4g}, {rest.max():.4g}]" if len(rest) else ""
    return f"{(~finite).sum():,} of {values.numel():,} are not finite{span}"
