"""Health signals: what one training step shows of the layers, the gradients, the tables' rows and the machine.

A line of metrics.jsonl with event="health", means over the workers:

    term_variance/HEAD.i    variance over rows of layer i's own term of the logit (nan where the layer has none)
    cosine/HEAD.i           mean cosine similarity of two rows' outputs of layer i; at 1 the layer no longer tells rows apart
    logit_variance
    gradient_norm, gradient_norm/PART, gradient_norm/tables     of the mean logistic loss, before clipping
    row_norm/FIELD          Euclidean norm of the embedding that a row of the batch looks up
    cpu_cores, memory_mb, gpu_memory_mb                         of one worker: cores busy since the last line, memory now

Layers are looked at as the step itself computed them (in training mode, dropout included), on `ROWS` rows of each worker.
"""

import contextlib
import itertools
import math
import os
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

import torch
import torch.distributed as dist
from torch import Tensor, nn

from sml_dist.nn.skip_logit import LastLogit, SkipLogit

ROWS = 256  # a look takes 9 ms beside a step of 40 ms (the demo's model, two workers on two busy cores): 0.2 % at one in 100 steps
NAN = float("nan")
Heard = dict[str, tuple[nn.Module, list[Tensor]]]  # by a head's name: itself, and the outputs of its layers, (ROWS, K) each


@contextlib.contextmanager
def heads_heard(model: nn.Module) -> Iterator[Heard]:
    """What each head of the model is given in a forward inside the block, which runs uncompiled: compiled code ignores hooks."""
    heard: Heard = {}
    heads = {name: module for name, module in model.named_modules() if isinstance(module, SkipLogit | LastLogit)}

    def listen(name: str):
        return lambda head, args: heard.update({name: (head, [h.detach()[:ROWS] for h in args[0]])})

    hooks = [head.register_forward_pre_hook(listen(name)) for name, head in heads.items()]
    try:
        with torch.compiler.set_stance("force_eager"):
            yield heard
    finally:
        for hook in hooks:
            hook.remove()


@torch.no_grad()
def signals(model: nn.Module, heard: Heard, fields: Sequence[str], x_BFD: Tensor, logit_B: Tensor, norm: Tensor) -> dict[str, float]:
    """After a step's backward: `x_BFD` and the model's parameters hold their gradients, whose norm over the model is `norm`.

    Collective; equal on all workers.
    """
    found = {"logit_variance": logit_B.double().var().item(), "gradient_norm": norm.item()}
    for name, (head, outputs) in heard.items():
        for i, (h_BK, term) in enumerate(zip(outputs, term_variances(head, [h.float() for h in outputs]), strict=True), 1):
            found |= {f"term_variance/{name}.{i}": term, f"cosine/{name}.{i}": mean_cosine(h_BK.flatten(1).float())}
    found |= {f"gradient_norm/{part}": value for part, value in gradient_norms(model).items()}
    # A worker's loss, and so its rows' gradient, is its share of the batch's times the number of workers: the squares are divided by that
    # twice, here and in the mean over workers.
    found["gradient_norm/tables"] = x_BFD.grad.square().sum().item() / dist.get_world_size()
    lengths = torch.linalg.vector_norm(x_BFD, dim=2).mean(dim=0).tolist()
    found |= {f"row_norm/{field}": length for field, length in zip(fields, lengths, strict=True)}
    found = mean_over_workers(found)
    found["gradient_norm/tables"] = math.sqrt(found["gradient_norm/tables"])
    return {name: float(f"{value:.6g}") for name, value in found.items()}


def term_variances(head: nn.Module, outputs: Sequence[Tensor]) -> list[float]:
    """Variance over rows of each layer's term of the logit; under a LastLogit only the last layer has one. Buffers stay as they are."""
    if not isinstance(head, SkipLogit):
        return [NAN] * (len(outputs) - 1) + [head(outputs).double().var().item()]
    kept = [buffer.clone() for buffer in head.buffers()]
    variances = head.terms(outputs).double().var(dim=0).tolist()
    for buffer, value in zip(head.buffers(), kept, strict=True):
        buffer.copy_(value)
    return variances


def mean_cosine(h_BK: Tensor) -> float:
    """Mean of cos(h_i, h_j) over pairs of rows i != j that are not 0; nan where fewer than two are left."""
    length = h_BK.norm(dim=1, keepdim=True)
    unit = (h_BK / length)[length[:, 0] > 0]
    n = len(unit)
    return ((unit.sum(0).square().sum() - n) / (n * (n - 1))).item() if n > 1 else NAN


def gradient_norms(model: nn.Module) -> dict[str, float]:
    """By layer, in the model's order."""
    gradients = [(part_of(name), p.grad) for name, p in model.named_parameters() if p.grad is not None]
    groups = itertools.groupby(gradients, key=lambda pair: pair[0])
    return {part: nn.utils.get_total_norm([grad for _, grad in group]).item() for part, group in groups}


def part_of(name: str) -> str:
    """The layer of a parameter: tower.layers.0.0.weight -> tower.layers.0, head.linear.weight -> head.linear."""
    pieces = name.split(".")
    last = next((i for i, piece in enumerate(pieces) if piece.isdigit()), max(len(pieces) - 2, 0))
    return ".".join(pieces[: last + 1])


def mean_over_workers(values: dict[str, float]) -> dict[str, float]:
    total = torch.tensor(list(values.values()), dtype=torch.float64)
    if dist.get_world_size() > 1:
        dist.all_reduce(total)
    return dict(zip(values, (total / dist.get_world_size()).tolist(), strict=True))


class Usage:
    """What this process takes of its machine."""

    def __init__(self) -> None:
        self.since = (time.monotonic(), time.process_time())

    def read(self) -> dict[str, float]:
        """Cores kept busy since the last reading, memory now."""
        was, self.since = self.since, (time.monotonic(), time.process_time())
        wall, busy = (now - before for now, before in zip(self.since, was, strict=True))
        found = {"cpu_cores": round(busy / max(wall, 1e-9), 3)}
        with contextlib.suppress(OSError):  # where there is no /proc
            pages = int(Path("/proc/self/statm").read_text().split()[1])
            found["memory_mb"] = round(pages * os.sysconf("SC_PAGE_SIZE") / 1e6, 1)
        if torch.cuda.is_available():
            found["gpu_memory_mb"] = round(torch.cuda.memory_allocated() / 1e6, 1)
        return found
