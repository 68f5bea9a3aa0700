"""What the machine can do at most: matrix products of the benchmark's own shapes, and copies in memory."""

import contextlib
import time
from collections.abc import Iterator
from itertools import pairwise

import torch

from sml_dist.bench.case import Arm
from sml_dist.bench.workplace import BATCH, DENSE, DIM, FIELDS, HIDDEN, Workplace
from sml_dist.train.place import Place

REPEATS = 20
COPY_BYTES = 1 << 28


def matrix_products(dtype: str) -> Arm:
    """Samples/s of a step that were nothing but its matrix products, three for each layer: the output, and the gradients of
    input and weight, which are already of this type."""
    kind, widths = getattr(torch, dtype), (FIELDS * DIM + DENSE, *HIDDEN, 1)
    shapes = [[torch.randn(size, dtype=kind) for size in ((BATCH, i), (o, i), (BATCH, o))] for i, o in pairwise(widths)]

    def read() -> float:
        started = time.perf_counter()
        for _ in range(REPEATS):
            for x, weight, gradient in shapes:
                x @ weight.T
                gradient @ weight
                gradient.T @ x
        return REPEATS * BATCH / (time.perf_counter() - started)

    return read


def copies() -> Arm:
    """GB/s read and written."""
    source, target = torch.ones(COPY_BYTES // 4), torch.empty(COPY_BYTES // 4)

    def read() -> float:
        started = time.perf_counter()
        target.copy_(source)
        return 2 * COPY_BYTES / 1e9 / (time.perf_counter() - started)

    return read


@contextlib.contextmanager
def memory(place: Workplace) -> Iterator[dict[str, Arm]]:
    Place().set_threads(None)
    yield {"copy": copies()}
