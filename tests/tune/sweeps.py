"""Small sweeps on synthetic rows, and how to read what they leave."""

import json
from pathlib import Path
from typing import Any

from omegaconf import OmegaConf

BASE = {
    "model": {"name": "dnn", "tower": {"hidden": [8]}, "sml": {"enabled": False}},
    "embedding": {"dim": 4, "lr": 0.05},
    "train": {"global_batch_size": 256, "epochs": 6, "precision": "fp32"},
}
SPACE = {
    "model.sml.enabled": {"choice": [False, True]},
    "model.sml.mtn.learner": {"choice": ["elementwise", "lowrank"], "when": {"model.sml.enabled": True}},
    "model.sml.mtn.rank": {"randint": [2, 4], "when": {"model.sml.mtn.learner": "lowrank"}},
    "model.tower.hidden": {"choice": [[8], [16, 8]]},
    "embedding.lr": {"loguniform": [1e-3, 0.2]},
}


def write_sweep(folder: Path, data: str, *, base: dict[str, Any] | None = None, **changes: Any) -> str:
    """A sweep's file over a base of its own; `changes` replace keys of the sweep, `base` those of the configuration."""
    folder.mkdir(parents=True, exist_ok=True)
    merged = OmegaConf.merge(BASE, {"data": {"path": data, "streams": 4}}, base or {})
    OmegaConf.save(merged, folder / "base.yaml")
    sweep = {"name": "s", "base": str(folder / "base.yaml"), "storage": str(folder), "space": SPACE, "trials": 5}
    sweep |= {"search": {"name": "random"}, "scheduler": {"name": "none"}} | changes
    OmegaConf.save(OmegaConf.create(sweep), folder / "sweep.yaml")
    return str(folder / "sweep.yaml")


def trials(folder: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (folder / "trials.jsonl").read_text().splitlines()]
