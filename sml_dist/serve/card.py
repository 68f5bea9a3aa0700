"""The model card: what the model is, what it was made of, how good it was; for people as README.md, for programs as card.json."""

from typing import Any

from sml_dist.scoring.trained import Trained
from sml_dist.serve.features import Features
from sml_dist.spec import to_dict

LICENCES = {"model": "", "data": "", "code": "Apache-2.0"}
PRODUCTS = {"auto": "bf16 if that was faster on its machine", "bf16": "bf16", "tf32": "tf32 if it had a GPU"}


def card(model: Trained, features: Features, licences: dict[str, str]) -> dict[str, Any]:
    """Of the checkpoint alone, so that exporting again gives the same card. `licences` are of the model and the data."""
    made, config = model.checkpoint.manifest, model.config
    return {
        "name": config.run.name,
        "model": to_dict(config.model),
        "labels": features.labels,
        "parameters": {
            "dense": sum(p.numel() for p in model.task.model.parameters()),
            "tables": sum(f.rows for f in features.fields if f.of == f.name) * features.dim,
        },
        "checkpoint": {"step": made["step"], "files": made["files"], "versions": made["versions"]},
        "dataset": {
            "name": model.manifest.name,
            "manifest_sha256": made["dataset"],
            "rows": {name: split.rows for name, split in model.manifest.splits.items()},
            "split": model.manifest.split_rule,
        },
        "metrics": {"valid": made["progress"].get("best_metrics") or {}},
        "quantize": features.quantize,
        "licences": LICENCES | licences,
        "training": to_dict(config.train) | {"embedding": to_dict(config.embedding)},
    }


def card_page(about: dict[str, Any]) -> str:
    metrics = {name: value for name, value in about["metrics"]["valid"].items() if isinstance(value, float) and name != "seconds"}
    rows = "\n".join(f"| {name} | {value:.5f} |" for name, value in metrics.items()) or "| none | |"
    splits = ", ".join(f"{count:,} {name}" for name, count in about["dataset"]["rows"].items())
    labels = " and of ".join(about["labels"])
    precision = about["training"]["precision"]
    measured = (
        f"\nThe run computed matrix products in {PRODUCTS[precision]}; this export computes in float32.\n" if precision in PRODUCTS else ""
    )
    licences = "\n".join(f"- {what}: {licence or 'not stated'}" for what, licence in about["licences"].items())
    return f"""# {about["name"]}

Predicts the probability of {labels} for a row of a log: {about["model"]["name"]} of step {about["checkpoint"]["step"]:,},
{about["parameters"]["dense"]:,} dense parameters, {about["parameters"]["tables"]:,} in embedding tables (quantised: {about["quantize"]}).

## Metrics, validation rows

| metric | value |
|---|---|
{rows}
{measured}
## Data

{about["dataset"]["name"]}: {splits} (split `{about["dataset"]["split"]}`). SHA-256 of its manifest:
`{about["dataset"]["manifest_sha256"]}`

## Use

`loader.py` scores raw rows with torch and pyarrow alone; `features.json` says what becomes of a row; `sml-dist serve` serves this folder.
A model of clicks repeats the habits, gaps and biases of the logs that it learned from, and of the system that chose what was shown.

## Licences

{licences}
"""
