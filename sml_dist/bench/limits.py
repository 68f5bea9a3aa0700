"""What the machine, or its GPU, can do at most: matrix products of a model's own shapes, and copies in memory."""

import contextlib
import time
from collections.abc import Iterator, Sequence
from itertools import pairwise

import torch
from torch import nn

from sml_dist.bench.case import Arm
from sml_dist.bench.workplace import BATCH, DENSE, DIM, FIELDS, HIDDEN, Workplace
from sml_dist.train.place import Place

REPEATS = 20
COPY_BYTES = 1 << 28
ON_GPU = 8  # copies are as many times as large: past its cache
OWN = tuple(pairwise((FIELDS * DIM + DENSE, *HIDDEN, 1)))  # inputs and outputs of the benchmark's own layers
CPU = torch.device("cpu")


def matrix_products(dtype: str, layers: Sequence[tuple[int, int]] = OWN, rows: int = BATCH, device: torch.device = CPU) -> Arm:
    """Samples/s of a step that were nothing but its matrix products, three for each layer: the output, and the gradients of
    input and weight, which are already of this type. On a GPU widths are rounded up to eights, which its matrix units ask for."""
    kind, step = getattr(torch, dtype), 1 if device.type == "cpu" else 8
    widths = [[-(-width // step) * step for width in layer] for layer in layers]
    shapes = [[torch.randn(size, dtype=kind, device=device) for size in ((rows, i), (o, i), (rows, o))] for i, o in widths]

    def read() -> float:
        started = time.perf_counter()
        for _ in range(REPEATS):
            for x, weight, gradient in shapes:
                x @ weight.T
                gradient @ weight
                gradient.T @ x
        settled(device)
        return REPEATS * rows / (time.perf_counter() - started)

    return read


def layers_of(model: nn.Module) -> list[tuple[int, int]]:
    return [(part.in_features, part.out_features) for part in model.modules() if isinstance(part, nn.Linear)]


def copies(device: torch.device = CPU, unit: float = 1e9) -> Arm:
    """How many times `unit` bytes are read and written a second: by default GB/s."""
    size = COPY_BYTES * (1 if device.type == "cpu" else ON_GPU)
    source, target = torch.ones(size // 4, device=device), torch.empty(size // 4, device=device)

    def read() -> float:
        settled(device)
        started = time.perf_counter()
        target.copy_(source)
        settled(device)
        return 2 * size / unit / (time.perf_counter() - started)

    return read


def settled(device: torch.device) -> None:
    """Returns once the device has done what it was told to."""
    if device.type == "cuda":
        torch.cuda.synchronize(device)


@contextlib.contextmanager
def memory(place: Workplace) -> Iterator[dict[str, Arm]]:
    Place().set_threads(None)
    yield {"copy": copies()}
