"""`prepare` of Criteo's raw format."""

import contextlib
import shutil
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import numpy as np

from sml_dist.bench.case import Arm
from sml_dist.bench.workplace import DENSE, FIELDS, Workplace
from sml_dist.data.prepare import prepare
from sml_dist.session import ray_session

SIZES = {"250 k rows": 250_000, "1 M rows": 1_000_000}
BLOCK = 50_000


@contextlib.contextmanager
def preparing(place: Workplace) -> Iterator[dict[str, Arm]]:
    logs = {name: criteo_tsv(place, rows) for name, rows in SIZES.items()}
    with ray_session():
        yield {name: partial(prepared, place, logs[name], rows) for name, rows in SIZES.items()}


def prepared(place: Workplace, log: Path, rows: int) -> float:
    output = place.folder / "prepared"
    shutil.rmtree(output, ignore_errors=True)
    started = time.perf_counter()
    manifest = prepare("criteo", str(output), inputs=str(log), split="order:0.9,0.1")
    seconds = time.perf_counter() - started
    assert manifest.rows_kept == rows
    shutil.rmtree(output)
    return rows / seconds


def criteo_tsv(place: Workplace, rows: int) -> Path:
    """Label, 13 counts, 26 tokens of eight hexadecimal digits, about a tenth of the values missing; made once."""
    path = place.folder / f"criteo-{rows}.tsv"
    if not path.is_file():
        draw, partial_path = np.random.default_rng(0), path.with_suffix(".partial")
        with partial_path.open("w") as file:
            for _ in range(rows // BLOCK):
                file.write(block(draw))
        partial_path.rename(path)
    return path


def block(draw: np.random.Generator) -> str:
    counts = np.char.mod("%d", (draw.exponential(20, (BLOCK, DENSE))).astype(np.int64))
    tokens = np.char.mod("%08x", draw.zipf(1.2, (BLOCK, FIELDS)) % 1_000_000 * 2_654_435_761 % 2**32)
    cells = np.concatenate([counts, tokens], axis=1)
    cells[draw.random(cells.shape) < 0.1] = ""
    labels = draw.integers(0, 2, BLOCK)
    return "".join(f"{label}\t{chr(9).join(row)}\n" for label, row in zip(labels, cells.tolist(), strict=True))
