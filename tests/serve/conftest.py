"""One run over logs with every kind of column, and its exports; the logs' own text is what is scored."""

from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pyarrow as pa
import pyarrow.csv
import pytest

from sml_dist.config.run import RunConfig
from sml_dist.serve.export import export
from tests.models.test_zoo import TOWER
from tests.scoring.runs import config, prepared, train

MODEL = {"name": "dcn_v2", "tower": TOWER, "sml": {"mtn": {"placement": "both"}}}


def text_log(path: Path) -> pa.Table:
    """A CSV as it stands: every column text."""
    with open(path) as file:
        names = file.readline().strip().split(",")
    return pa.csv.read_csv(path, convert_options=pa.csv.ConvertOptions(column_types={name: pa.string() for name in names}))


@dataclass(frozen=True)
class Trained:
    """`raw`: the validation rows as text, whose logits in the training model are `logit`."""

    data: str
    config: RunConfig
    raw: pa.Table
    logit: np.ndarray

    @property
    def run(self) -> str:
        return self.config.run.folder

    @property
    def probability(self) -> np.ndarray:
        return 1 / (1 + np.exp(-self.logit.astype(np.float64)))


@pytest.fixture(scope="session")
def trained(tmp_path_factory) -> Trained:
    folder = tmp_path_factory.mktemp("serve")
    data = prepared(folder)
    run = config(data, folder, model=MODEL)
    logit = train(run)["valid"]
    log = text_log(folder / "logs.csv")
    return Trained(data, run, log.slice(len(log) - len(logit)), logit)


@pytest.fixture(scope="session")
def exported(trained, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("exports") / "whole"
    export(trained.run, str(folder), shard_bytes=300)  # so that a table has several files
    return folder
