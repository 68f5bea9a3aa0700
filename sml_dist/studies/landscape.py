"""The landscape study: the gradient-dominance theorem of linear skip-logit networks in numbers, and what real towers look like."""

import time
from dataclasses import field
from pathlib import Path
from typing import Any

from pydantic import NonNegativeInt

from sml_dist.config.settings import load_settings
from sml_dist.spec import spec
from sml_dist.stages import ShowStage, silent
from sml_dist.studies.inequality import PointsConfig, measure_points, measure_sharpness, measure_shrinking, measure_zero
from sml_dist.studies.landscape_page import Findings, page, verdicts
from sml_dist.studies.landscape_plots import plot_all
from sml_dist.studies.linear_training import DescentConfig, train_linear
from sml_dist.studies.real_towers import TowersConfig, measure_towers
from sml_dist.tabular import write_csv


@spec
class LandscapeConfig:
    towers: TowersConfig
    points: PointsConfig = field(default_factory=PointsConfig)
    descent: DescentConfig = field(default_factory=DescentConfig)
    seed: NonNegativeInt = 0


def check(config_path: str, overrides: list[str] | None) -> None:
    """Raises InputError for what is wrong in the configuration."""
    load_settings(LandscapeConfig, config_path, overrides)


def run(config_path: str, overrides: list[str] | None, output: str, show: ShowStage = silent) -> dict[str, Any]:
    """Measures, then writes `output`/: CSV of every number, PNG, and README.md. Returns the verdicts and the folder."""
    started, config, folder = time.monotonic(), load_settings(LandscapeConfig, config_path, overrides), Path(output)
    show("parts", 0, 3)
    rows, curves = train_linear(config.descent, config.seed)
    show("parts", 1, 3)
    tower_rows, surfaces = measure_towers(config.towers, config.seed)
    show("parts", 2, 3)
    found = Findings(
        points=measure_points(config.points, config.seed),
        sharpness=measure_sharpness(config.points, config.seed),
        shrinking=measure_shrinking(config.points, config.seed),
        zero=measure_zero(config.seed),
        descent=rows,
        towers=tower_rows,
    )
    folder.mkdir(parents=True, exist_ok=True)
    for name, table in vars(found).items():
        write_csv(folder / f"{name}.csv", table)
    plot_all(folder, found, curves, surfaces, config.towers.radius)
    (folder / "README.md").write_text(page(found, config.descent))
    return {"study": "landscape", "folder": str(folder), "seconds": round(time.monotonic() - started, 1)} | verdicts(found)
