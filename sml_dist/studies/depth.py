"""The depth study: what layers do with rows, units and gradients in towers of 3 to 100 layers, with and without SML."""

import dataclasses
import itertools
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from pydantic import PositiveInt

from sml_dist.config.data import DataConfig
from sml_dist.config.embedding import EmbeddingConfig
from sml_dist.config.run import RunConfig, RunSection
from sml_dist.config.settings import load_settings
from sml_dist.config.train import TrainConfig
from sml_dist.data.dataset import read_manifest
from sml_dist.models.dnn import DNNConfig
from sml_dist.spec import spec
from sml_dist.stages import ShowStage, silent
from sml_dist.studies.depth_page import page
from sml_dist.studies.depth_plots import plot_all
from sml_dist.studies.here import refuse_elsewhere
from sml_dist.studies.layers import measure_layers
from sml_dist.studies.statements import Rules, judge
from sml_dist.tabular import Row, write_csv
from sml_dist.train.in_process import Laboratory, one_process


@spec
class DepthConfig:
    """Every variant at every depth: `depths` are trained, `start_depths` measured at the start only.

    variants: by a name for the page; `tower.hidden` gives way to `width` times the depth.
    probe_rows: validation rows that layers are measured on, at the start and after training.
    """

    data: DataConfig
    variants: dict[str, DNNConfig]
    rules: Rules
    embedding: EmbeddingConfig = dataclasses.field(default_factory=EmbeddingConfig)
    train: TrainConfig = dataclasses.field(default_factory=TrainConfig)
    width: PositiveInt = 64
    depths: tuple[PositiveInt, ...] = (3, 5, 10, 15, 30)
    start_depths: tuple[PositiveInt, ...] = (100,)
    probe_rows: PositiveInt = 1024

    def __post_init__(self):
        refuse_elsewhere(self.train)
        if unknown := set(self.rules.variants) - self.variants.keys():
            raise ValueError(f"rules name {', '.join(sorted(unknown))}; variants has {', '.join(self.variants)}")

    def run(self, variant: str, depth: int) -> RunConfig:
        model = self.variants[variant]
        tower = dataclasses.replace(model.tower, hidden=(self.width,) * depth)
        model = dataclasses.replace(model, tower=tower)
        run = RunSection(name="depth")
        return RunConfig(run=run, data=self.data, model=model, embedding=self.embedding, train=self.train)


def check(config_path: str, overrides: list[str] | None) -> None:
    """Raises InputError for what is wrong in the configuration."""
    data = load_settings(DepthConfig, config_path, overrides).data
    read_manifest(data.path, data.label)


def run(config_path: str, overrides: list[str] | None, output: str, show: ShowStage = silent) -> dict[str, Any]:
    """Trains and measures, then writes `output`/: layers.csv, models.csv, statements.csv, PNG, and README.md."""
    started, config, folder = time.monotonic(), load_settings(DepthConfig, config_path, overrides), Path(output)
    layers: list[Row] = []
    models: list[Row] = []
    towers = list(itertools.product(config.variants, (*config.depths, *config.start_depths)))
    with one_process(config.train.threads):
        for done, (variant, depth) in enumerate(towers):
            show("towers", done, len(towers))
            for moment, rows, whole in measured(config.run(variant, depth), depth in config.depths, config.probe_rows):
                place = {"variant": variant, "depth": depth, "moment": moment}
                layers += [place | row for row in rows]
                models.append(place | whole)
    verdicts = judge(config.rules, layers, models)
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in (("layers", layers), ("models", models), ("statements", verdicts)):
        write_csv(folder / f"{name}.csv", table)
    plot_all(folder, layers, models)
    (folder / "README.md").write_text(page(config.rules, config.train, layers, models, verdicts))
    seen = [{key: row[key] for key in ("statement", "variant", "moment", "seen")} for row in verdicts]
    return {"study": "depth", "folder": str(folder), "seconds": round(time.monotonic() - started, 1), "statements": seen}


def measured(config: RunConfig, trained: bool, probe_rows: int) -> Iterator[tuple[str, list[Row], Row]]:
    """(moment, a row a layer, a row of the model), at the start and, where `trained`, after training unless that diverged."""
    began = time.monotonic()
    laboratory = Laboratory.of(config)
    batch, task = laboratory.sample("valid", probe_rows), laboratory.task

    def measure(moment: str, metrics: dict[str, Any]) -> tuple[str, list[Row], Row]:
        layers, whole = measure_layers(task.model, task.embed(batch.ids), batch.dense, batch.label)
        found = {name: metrics.get(name) for name in ("auc", "logloss")}
        return moment, layers, whole | found | {"seconds": round(time.monotonic() - began, 1)}

    yield measure("start", {})
    if trained and (metrics := laboratory.train()) is not None:
        yield measure("trained", metrics)
