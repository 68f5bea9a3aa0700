"""Runs of a few steps in this process, and the training forward's own scores of their rows."""

import itertools
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import torch

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.dataset import fingerprint, read_manifest, read_rows, row_groups
from sml_dist.data.parallel import Actors
from sml_dist.data.prepare import prepare
from sml_dist.scoring import predict
from sml_dist.scoring.output import Predictions
from sml_dist.spec import to_dict
from sml_dist.train.checkpoints import Checkpoints
from sml_dist.train.dataset_copy import keep_dataset
from sml_dist.train.in_process import alone
from sml_dist.train.loop import Progress
from sml_dist.train.state import pieces
from sml_dist.train.storage import Storage
from tests.data.raw_logs import SCHEMA, clicks, write_logs, write_schema
from tests.faults.serial import map_tasks, without_ray
from tests.models.test_zoo import TOWER
from tests.train.ranks import make_trainer


def prepared(folder: Path, rows: int = 1500, form: str = "csv", schema: str = SCHEMA, **columns: Sequence[Any]) -> str:
    """Clicks with every kind of column, and those given, prepared without Ray; the logs lie beside the dataset."""
    table = clicks(rows)
    for name, values in columns.items():
        table = table.append_column(name, [values])
    with pytest.MonkeyPatch.context() as patch:
        without_ray(patch)
        logs = write_logs(folder / f"logs.{form}", table)
        prepare(write_schema(folder, schema, format=form), str(folder / "data"), inputs=logs, split="order:0.8,0.2")
    return str(folder / "data")


def config(data: str, storage: Path, name: str = "run", model: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
    base = {
        "run": {"name": name, "storage": str(storage)},
        "data": {"path": data, "streams": 2},
        "model": model or {"name": "dnn", "tower": TOWER},
        "embedding": {"dim": 4, "lr": 0.1, "init_std": 0.1, "sharding": "table_wise"},
        "train": {"global_batch_size": 64, "precision": "fp32", "threads": 1},
    }
    return parse({section: values | sections.get(section, {}) for section, values in base.items()})


def train(config: RunConfig, splits: Sequence[str] = ("valid",), steps: int = 4) -> dict[str, np.ndarray]:
    """Trains, keeps what a run keeps, and returns the training model's logits of every row of the splits."""
    with alone():
        trainer, batches = make_trainer(config)
        progress = Progress()
        for table in itertools.islice(batches(), steps):
            trainer.step(table, progress)
        folder = Storage(config.run.folder)
        keep_dataset(config.data.path, folder)
        store = Checkpoints(Storage(folder.path("checkpoints")))
        about = {"config": to_dict(config), "dataset": fingerprint(config.data.path), "progress": progress.as_dict()}
        store.save(progress.step, pieces(trainer.model, trainer.optimizers), about)
        store.wait()
        trainer.model.eval()
        with torch.no_grad():
            return {split: trainer.model.module.logit(trainer.collate(rows_of(config.data.path, split))).numpy() for split in splits}


def alone_in_process(patch: Any) -> None:
    """`predict` without Ray, in this process."""
    without_ray(patch)
    patch.setattr(predict, "map_tasks", lambda function, tasks, actors: map_tasks(function, tasks))
    patch.setattr(predict, "actors", lambda device, workers: (Actors(1), False, torch.get_num_threads()))


def predicted(folder: Path, found: Predictions) -> pa.Table:
    """Every row of an output, in order; its files are those that its manifest names."""
    assert {path.name for path in folder.iterdir()} <= {"predictions.json", "predictions", "rejects"}
    tables = [pq.read_table(folder / file.path) for file in found.files]
    assert sum(len(table) for table in tables) == found.rows_scored
    return pa.concat_tables(tables)


def rows_of(data: str, split: str) -> pa.Table:
    groups = row_groups(read_manifest(data).splits[split])
    return pa.concat_tables([read_rows(data, path, group) for path, group, _ in groups])
