"""Folders of runs and sweeps as their writers leave them, with made-up numbers: pages need no training."""

import json
import math
from pathlib import Path
from typing import Any

import numpy as np

from sml_dist.config.run import dump, parse
from sml_dist.train.curves import curves
from sml_dist.train.metrics import ExactScores

STEPS = 400
DEFAULT = {"model.sml.enabled": True, "model.sml.mtn.learner": "elementwise", "train.lr": 1e-3}
DEFAULT |= {"embedding.l2": 0.0, "model.tower.dropout": 0.0}
SPACE = {
    "model.sml.enabled": {"choice": [True, False]},
    "model.sml.mtn.learner": {"choice": ["dense", "elementwise", "scalar"], "when": {"model.sml.enabled": True}},
    "train.lr": {"loguniform": [1e-4, 1e-2]},
    "embedding.l2": {"uniform": [0.0, 0.1]},
    "model.tower.dropout": {"quniform": [0.0, 0.5, 0.1]},
}


def run_config(storage: Path, name: str, **train: Any):
    return parse(
        {
            "run": {"name": name, "storage": str(storage)},
            "data": {"path": "data/none"},
            "model": {"name": "dcn_v2", "tower": {"hidden": [64, 32]}},
            "train": {"global_batch_size": 1024, **train},
        }
    )


def write_run(storage: Path, name: str, *, seed: int = 0, steps: int = STEPS, finished: bool = True, **train: Any) -> Path:
    """A run with training, health and evaluation lines, a restart and a skipped step."""
    random, folder = np.random.default_rng(seed), storage / name
    folder.mkdir(parents=True)
    (folder / "config.yaml").write_text(dump(run_config(storage, name, **train)))
    lines = list(metric_lines(random, steps))
    (folder / "metrics.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    write(folder, "about.json", about())
    write(folder, "code.json", {"commit": "0123456789abcdef", "changed": False})
    for split in ("valid", "test"):
        write(folder, f"curves_{split}.json", made_up_curves(random))
    if finished:
        write(folder, "summary.json", summary(folder, lines, steps))
    return folder


def write(folder: Path, name: str, value: Any) -> None:
    (folder / name).write_text(json.dumps(value))


def metric_lines(random: np.random.Generator, steps: int):
    place = {"total_steps": steps, "epochs": 2, "epoch": 0}
    for step in range(1, steps + 1):
        at = {"time": 1.7e9 + step / 10, **place, "step": step, "rows_seen": 1024 * step}
        if step % 4 == 0:
            rates = {"loss": 0.3 + math.exp(-step / 90) + random.normal(0, 0.01), "samples_per_second": 9e4 + random.normal(0, 4e3)}
            yield at | rates | {"batch": step, "lr": 1e-3 * (1 - step / steps), "data_wait_fraction": 0.02}
        if step % 20 == 0:
            yield at | {"event": "health", **health(random, step)}
        if step == 151:
            yield at | {"event": "skipped", "batch": 150, "why": "numeric feature I3: 1 of 512 are not finite"}
        if step % 100 == 0:
            yield at | {
                "split": "valid",
                "auc": 0.8 - 0.1 * math.exp(-step / 99),
                "logloss": 0.4,
                "ne": 0.8,
                "calibration": 1.01,
                "rows": 9000,
            }
            yield at | {"event": "checkpoint", "seconds": 0.2, "megabytes": 2.5}
    if steps >= 200:
        yield {"time": 1.7e9 + 60, **place, "step": 200, "event": "resumed", "workers": 2}


def health(random: np.random.Generator, step: int) -> dict[str, float | None]:
    found = {"logit_variance": 1.0 + step / 400, "gradient_norm": 0.1, "cpu_cores": 1.4, "memory_mb": 800 + step / 10}
    for i, layer in enumerate(("cross_head.1", "cross_head.2", "head.1", "head.2")):
        found |= {f"term_variance/{layer}": 0.2 * (i + 1) + random.normal(0, 0.01), f"cosine/{layer}": 0.2 + 0.1 * i}
    found |= {f"gradient_norm/tower.layers.{i}": 0.05 / (i + 1) for i in range(2)} | {"gradient_norm/tables": 0.3}
    return found | {f"row_norm/C{i}": 0.1 * i + step / 4000 for i in range(1, 27)}


def about() -> dict[str, Any]:
    fields = [
        {"field": f"C{i}", "rows": 1000 * i, "ids": 60_000, "distinct": 300 * i, "unknown_share": 0.01 * (i % 7)} for i in range(1, 27)
    ]
    plan = [
        {"table": f"C{i}", "rows": 1000 * i, "dim": 16, "kind": "row_wise" if i > 13 else "data_parallel",
         "kernel": "fused", "ranks": [0, 1], "weights": 64_000 * i}
        for i in range(26, 0, -1)
    ]  # fmt: skip
    dataset = {"path": "data/none", "name": "made up", "sha256": "ab" * 32, "numeric": 13, "split_rule": "order:0.8,0.1,0.1", "rejected": 0}
    dataset |= {"rows": {"train": 72_000, "valid": 9_000, "test": 9_000}, "positives": {"train": 18_000, "valid": 2_250, "test": 2_200}}
    machine = {"host": "here", "cores": 2, "memory_gb": 8.0}
    return {"dataset": dataset, "fields": fields, "plan": plan, "versions": {"torch": "2.13.0"}, "machine": machine}


def made_up_curves(random: np.random.Generator) -> dict[str, Any]:
    scores, logits = ExactScores(), random.normal(-1, 1.5, 9_000).astype(np.float32)
    scores.add(logits, (random.random(9_000) < 1 / (1 + np.exp(-logits))).astype(np.float32))
    return curves(scores)


def summary(folder: Path, lines: list[dict[str, Any]], steps: int) -> dict[str, Any]:
    valid = next(line for line in reversed(lines) if "split" in line)
    metrics = {name: valid[name] for name in ("auc", "logloss", "ne", "calibration", "rows")}
    phases = {"dense_forward": 12.0, "dense_backward": 18.0, "start": 6.0, "data_wait": 1.0, "health": 0.1, "other": 0.4}
    return {
        "model": "dcn_v2", "sml": True, "workers": 2, "device": "cpu", "precision": "bf16", "epochs": 2.0, "steps": steps,
        "rows_seen": 144_000, "restarts": 1, "skipped_steps": 1, "rollbacks": 0, "samples_per_second": 90_000.0,
        "data_wait_fraction": 0.02, "first_batch_seconds": 5.0, "seconds": 37.5, "seconds_by_phase": phases,
        "checkpoint": str(folder / "checkpoints/step-400"), "run": str(folder),
        "best": {"valid": {"auc": 0.81, "logloss": 0.39}}, "valid": metrics, "test": metrics,
    }  # fmt: skip


def write_sweep(storage: Path, *, trials: int = 24, pair: bool = False) -> Path:
    """A sweep whose metric hangs on the learning rate and on SML, with trials that were stopped, failed and are the default."""
    folder = storage / "sweep"
    folder.mkdir(parents=True)
    config = {"name": "sweep", "base": "configs/frappe/dcn_v2.yaml", "storage": str(storage), "space": SPACE, "trials": trials}
    config |= {"pair": "model.sml.enabled", "scheduler": {"name": "none"}} if pair else {}
    (folder / "sweep.yaml").write_text(json.dumps(config))
    (folder / "base.yaml").write_text(dump(run_config(storage, "base")))
    random = np.random.default_rng(0)
    records = [record(random, id, pair) for id in range(trials)]
    (folder / "trials.jsonl").write_text("".join(json.dumps(r) + "\n" for r in records))
    write_run(folder / "trials", "00000", steps=100)
    return folder


def record(random: np.random.Generator, id: int, pair: bool) -> dict[str, Any]:
    sml = bool(random.random() < 0.5) if not pair else id % 2 == 0
    params = {"model.sml.enabled": sml, "train.lr": float(10 ** random.uniform(-4, -2)), "embedding.l2": float(random.uniform(0, 0.1))}
    params |= {"model.sml.mtn.learner": str(random.choice(["dense", "elementwise", "scalar"]))} if sml else {}
    params["model.tower.dropout"] = float(random.integers(0, 6)) / 10
    epochs = 2 if id % 5 == 4 and not pair else 6
    height = 0.98 - 0.01 * abs(math.log10(params["train.lr"]) + 3) + 0.002 * sml + random.normal(0, 0.0005)
    history = [
        {
            "rows": 72_000 * e,
            "step": 70 * e,
            "epoch": e,
            "time": 1.7e9 + 40 * (id // 2) + 6 * e,
            "auc": height - 0.1 * math.exp(-e),
            "logloss": 0.2,
        }
        for e in range(1, epochs + 1)
    ]
    if id < 2 and pair:
        params = DEFAULT | {"model.sml.enabled": sml}
    status = "failed" if id == 7 else "stopped" if epochs == 2 else "finished"
    if id == 7:
        history = []
    return {
        "id": id, "params": DEFAULT if id == 0 and not pair else params, "run": f"trials/{id:05d}", "status": status,
        "point": 0 if id < (2 if pair else 1) else None, "pair": id // 2 if pair else None, "history": history,
        "value": max((at["auc"] for at in history), default=None), "summary": None, "exploits": [],
        "error": "worker died <three times> & gave up" if id == 7 else None, "attempts": 3 if id == 7 else 1,
        "started": 1.7e9 + 40 * (id // 2), "ended": 1.7e9 + 40 * (id // 2) + 36, "seconds": 6.0 * epochs,
    }  # fmt: skip
