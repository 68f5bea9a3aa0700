"""Logs with behaviour sequences and two labels, prepared without Ray: what a test of those rooms needs of a dataset."""

from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from sml_dist.data.dataset import Manifest
from sml_dist.data.prepare import prepare
from tests.faults.serial import without_ray

LENGTH = 4
SCHEMA = """
name: films
format: parquet
{labels}
numeric: [{{columns: age}}]
categorical:
  - {{columns: user}}
  - {{columns: film, min_count: 2}}
{sequences}
"""
LABELS = "labels: {like: {column: rating, at_least: 4}, love: {column: rating, at_least: 5}}"
SEQUENCES = f"sequences: [{{columns: seen, of: film, max_length: {LENGTH}}}]"


def log(rows: int, films: int = 30, seed: int = 0) -> pa.Table:
    """Films that were seen lately are rated highest, and users below 10 rate higher; a fifth of the rows have no past."""
    draw = np.random.default_rng(seed)
    seen = [draw.integers(0, films, draw.integers(1, 2 * LENGTH)).tolist() if draw.random() > 0.2 else [] for _ in range(rows)]
    film = np.array([past[-1] if past and draw.random() < 0.4 else draw.integers(0, films) for past in seen])
    again = np.array([f in past[-LENGTH:] for f, past in zip(film, seen, strict=True)])
    user = draw.integers(0, 20, rows)
    rating = np.where(again, 5, draw.integers(np.where(user < 10, 2, 1), 6))
    return pa.table(
        {
            "rating": rating,
            "age": draw.integers(18, 60, rows),
            "user": user,
            "film": film,
            "seen": pa.array(seen, pa.list_(pa.int64())),
        }
    )


def prepared(folder: Path, rows: int = 2_000, *, labels: str = LABELS, sequences: str = SEQUENCES, **how) -> Manifest:
    """The dataset `folder`/data of such a log."""
    folder.mkdir(parents=True, exist_ok=True)
    pq.write_table(log(rows, **how), folder / "log.parquet")
    (folder / "schema.yaml").write_text(SCHEMA.format(labels=labels, sequences=sequences))
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        return prepare(str(folder / "schema.yaml"), str(folder / "data"), inputs=str(folder / "log.parquet"), split="order:0.8,0.2")


def choosy(folder: Path) -> dict[str, str]:
    """By model, a dataset for those of the zoo that do not take any."""
    one = "label: {column: rating, at_least: 4}"
    for name, labels in (("din", one), ("mmoe", LABELS)):
        prepared(folder / name, films=80, labels=labels)
    return {name: str(folder / name / "data") for name in ("din", "mmoe")}
