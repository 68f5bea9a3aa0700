"""Where measurements keep their data, and the shapes that they share."""

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from sml_dist.config.run import RunConfig, parse
from sml_dist.data.synthetic import synth

TABLE_ROWS = 4_300_000  # of 26 tables: the usual Criteo benchmark's
FIELDS, DENSE, DIM, BATCH, HIDDEN = 26, 13, 16, 4096, (400, 400, 400)
MODELS: dict[str, dict[str, Any]] = {"dnn": {}, "dcn_v2": {"name": "dcn_v2", "cross_layers": 3}}


@dataclass(frozen=True)
class Workplace:
    """A folder of the bench's own, for datasets, made once, and runs, taken away after their reading."""

    folder: Path

    def dataset(self, rows: int, *, fields: int = FIELDS, table_rows: int = TABLE_ROWS) -> str:
        """A synthetic dataset of so many training rows, and an eighth of them to evaluate on."""
        path = self.folder / "data" / f"{rows}x{fields}-{table_rows}"
        if not (path / "dataset.json").is_file():
            synth(int(rows * 1.125), str(path), fields=fields, table_rows=table_rows, valid=1 / 9, test=0, overwrite=True)
        return str(path)

    def config(self, path: str, *, model: dict[str, Any] | None = None, train: dict[str, Any] | None = None, **sections: Any) -> RunConfig:
        """The benchmark's run, a DNN 400-400-400 without SML, with changes."""
        plain = {"name": "dnn", "tower": {"hidden": list(HIDDEN)}, "sml": {"enabled": False}}
        return parse(
            {
                "run": {"name": "run", "storage": str(self.folder / "runs")},
                "data": {"path": path},
                "model": plain | (model or {}),
                "embedding": {"dim": DIM} | sections.pop("embedding", {}),
                "train": {"global_batch_size": BATCH, "epochs": 1000} | (train or {}),
                **sections,
            }
        )

    def clear_runs(self) -> None:
        shutil.rmtree(self.folder / "runs", ignore_errors=True)
